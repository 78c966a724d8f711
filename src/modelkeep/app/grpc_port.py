"""The port of gRPC, before anything is started: what it needs is installed, it is free, its certificate is one."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelkeep.app import listening
from modelkeep.contracts.errors import Invalid
from modelkeep.serving.grpc.settings import GrpcAddress

if TYPE_CHECKING:
    from modelkeep.app.settings import ServerSettings

_NEEDED: Final = ("grpc", "grpc_health", "grpc_reflection", "google.protobuf")


class GrpcMissing(Invalid):
    """gRPC is not installed: pip install 'modelkeep[grpc]'. Without it, leave server.grpc_port at 0."""

    code = "grpc_not_installed"


class InvalidCertificate(Invalid):
    """The files of server.grpc_tls_* are no certificate with its key."""

    code = "invalid_certificate"


@contextlib.contextmanager
def reserved(server: "ServerSettings") -> Iterator[GrpcAddress | None]:
    """Hold the port for the server processes, if there is to be one; raises what is wrong with its settings, in words."""
    if not server.grpc_port:
        yield None
        return
    check(server)
    with listening.reserved(server.host, server.grpc_port, "--grpc-port") as address:
        yield GrpcAddress(address, *(_absolute(file) for file in _files(server)))


def check(server: "ServerSettings") -> None:
    """Raise `GrpcMissing` or `InvalidCertificate` where gRPC could not be served with these settings."""
    if not all(_installed(name) for name in _NEEDED):
        raise GrpcMissing
    certificate, key, client_ca = _files(server)
    if bool(certificate) != bool(key) or (client_ca and not certificate):
        raise InvalidCertificate(
            "TLS needs both server.grpc_tls_certificate and server.grpc_tls_key; server.grpc_tls_client_ca comes on top."
        )
    if not certificate:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _try("server.grpc_tls_certificate and server.grpc_tls_key", lambda: context.load_cert_chain(certificate, key, lambda: ""))
    if client_ca:
        _try("server.grpc_tls_client_ca", lambda: context.load_verify_locations(client_ca))


def _try(names: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise InvalidCertificate(f"The files of {names} cannot be used: {reason}.") from error
    except OSError as error:
        raise InvalidCertificate(f"The files of {names} cannot be read: {error.strerror}.") from error


def _files(server: "ServerSettings") -> tuple[str, str, str]:
    return server.grpc_tls_certificate, server.grpc_tls_key, server.grpc_tls_client_ca


def _absolute(file: str) -> str:
    return str(Path(file).absolute()) if file else ""


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # nor is what it is part of
