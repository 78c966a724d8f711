"""The port of gRPC, before anything is started: what it needs is installed, and it is free."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from modelkeep.app import listening
from modelkeep.contracts.errors import Invalid
from modelkeep.serving.grpc.settings import GrpcAddress

if TYPE_CHECKING:
    from socket import socket

    from modelkeep.app.settings import ServerSettings

_NEEDED: Final = ("grpc", "grpc_health", "grpc_reflection", "google.protobuf")


class GrpcMissing(Invalid):
    """gRPC is not installed: pip install 'modelkeep[grpc]'. Without it, leave server.grpc_port at 0."""

    code = "grpc_not_installed"


@contextlib.contextmanager
def reserved(server: "ServerSettings", holding: "list[socket] | None" = None) -> Iterator[GrpcAddress | None]:
    """Hold the port for the server processes, if there is to be one; raises what is wrong with its settings, in words.

    The sockets that hold it are added to `holding`.
    """
    if not server.grpc_port:
        yield None
        return
    check()
    with listening.reserved(server.host, server.grpc_port, "--grpc-port") as (address, sockets):
        if holding is not None:
            holding += sockets
        yield GrpcAddress(address, server.grpc_connection_s)


def check() -> None:
    """Raise `GrpcMissing` where gRPC could not be served."""
    if not all(_installed(name) for name in _NEEDED):
        raise GrpcMissing


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # nor is what it is part of
