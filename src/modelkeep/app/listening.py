"""The addresses that an installation listens on: taken before anything is started, or refused in words."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

from modelkeep.contracts.errors import Conflict, Invalid, ModelkeepError


class AddressInUse(Conflict):
    """The address is taken by another program."""

    code = "address_in_use"


class CannotListen(Invalid):
    """This address cannot be listened on."""

    code = "cannot_listen"


@contextlib.contextmanager
def listening(host: str, port: int, count: int) -> Iterator[list[socket.socket]]:
    """Listen before anything is started, so that a restarted server finds its callers still waiting in line.

    Each of several servers has a line of its own, and the kernel spreads callers evenly over the lines. Of 64 connections the
    busier of two servers got 36 so (median; 40 at most), and 58 (63) when both took them from one line.
    """
    family, address = _resolved(host, port)
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(socket.socket(family, socket.SOCK_STREAM)) for _ in range(count)]
        try:
            for door in doors:
                bind(door, address if door is doors[0] else doors[0].getsockname(), first=door is doors[0], alone=count == 1)
            for door in doors:
                door.listen(2048)
        except OSError as error:
            raise _refusal(error, host, port, "--port") from error
        yield doors


def bind(door: socket.socket, address: Any, *, first: bool, alone: bool) -> None:  # noqa: ANN401 - its form is the family's
    """Bind one of the doors. The first shares the port only once it has it: nobody else may hold it before."""
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not first:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    door.bind(address)
    if first and not alone:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


@contextlib.contextmanager
def reserved(host: str, port: int, option: str) -> Iterator[tuple[str, list[socket.socket]]]:
    """Hold an address for processes of our own, which listen there by themselves; yields it with the port's number.

    With it come the sockets that hold it, for whoever is to hold it after us.

    Nobody else gets it then, and who asks for it while none of them listens is turned away. `option` chooses another port.
    """
    family, address = _resolved(host, port)
    with socket.socket(family, socket.SOCK_STREAM) as door, socket.socket(family, socket.SOCK_STREAM) as bolt:
        try:
            bind(door, address, first=True, alone=False)
            # Without this, whoever sets SO_REUSEADDR, too, could bind while nobody listens. Linux forgets that the port was
            # once bound so only when a socket without it joins.
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            bolt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bolt.bind(door.getsockname())
        except OSError as error:
            raise _refusal(error, host, port, option) from error
        name, number = door.getsockname()[:2]
        yield f"{f'[{name}]' if ':' in name else name}:{number}", [door, bolt]


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    try:
        family, _kind, _protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise CannotListen(f"{host} is no address of this machine.") from error
    return family, address


def _refusal(error: OSError, host: str, port: int, option: str) -> ModelkeepError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(f"Port {port} on {host} is in use by another program. Choose another with {option}.")
    return CannotListen(f"Cannot listen on {host} port {port}: {error.strerror}.")
