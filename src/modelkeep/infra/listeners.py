"""Sockets that listen on one port side by side (SO_REUSEPORT), seen from outside of the library that made them.

Each of them has a line of callers of its own, and closing one cuts off who stands in its line. So before it is closed the
kernel is told to put nobody there any more, by a filter that any member of the group may set, and the line is left to run dry.
The members of a group are numbered in the order in which they began to listen. A number that no member has means all of them.
"""

import ctypes
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING: Final = "0A"
_SHAKING: Final = "03"
_RETURN: Final = 0x06
_SO_DETACH_REUSEPORT_BPF: Final = 68
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_WAITING_AT: Final = 24  # struct tcp_info: tcpi_unacked, which of a listening socket is the length of its line
_TCP_INFO: Final = 104


def listening(port: int) -> int:
    """Return how many sockets listen on this port."""
    return _count(port, _LISTENING)


class Listeners:
    """Those sockets of this process that have to do with one port."""

    def __init__(self, port: int) -> None:
        self._port = port

    def steer(self, behind: int) -> None:
        """Have new callers come to the first that began to listen after `behind` others. Raises `OSError`."""
        program = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, behind))
        filter_ = struct.pack("HxxxxxxQ", 1, ctypes.addressof(program))
        for one in self._listening():
            one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, filter_)

    def unsteer(self) -> None:
        """Have new callers come to all again."""
        for one in self._listening():
            with suppress(FileNotFoundError):  # nobody has steered
                one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)

    @property
    def waiting(self) -> int:
        """How many callers stand in our lines, or are about to: those are counted for all who listen on the port."""
        return _count(self._port, _SHAKING) + sum(
            int.from_bytes(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO)[_WAITING_AT:][:4], sys.byteorder)
            for one in self._listening()
        )

    @property
    def connections(self) -> int:
        """How many callers are connected here."""
        return sum(_is_connected(one) for one in self._ours())

    def _listening(self) -> Iterator[socket.socket]:
        return (one for one in self._ours() if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def _ours(self) -> Iterator[socket.socket]:
        """Yield each, for a moment."""
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names alone
            with _borrowed(int(name)) as one:
                if one is not None and one.family in {socket.AF_INET, socket.AF_INET6} and one.getsockname()[1] == self._port:
                    yield one


@contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket | None]:
    """Lend a socket that belongs to somebody else in this process; None for what is none, or is no more."""
    one = None
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            one = socket.socket(fileno=os.dup(fd))
    try:
        yield one
    finally:
        if one is not None:
            one.close()


def _is_connected(one: socket.socket) -> bool:
    try:
        one.getpeername()
    except OSError:
        return False
    return True


def _count(port: int, state: str) -> int:
    """Return how many lines of the kernel's tables have this local port and state."""
    ending, found = f":{port:04X}", 0
    for table in _TABLES:
        with suppress(FileNotFoundError):  # no IPv6 here
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                found += fields[1].endswith(ending) and fields[3] == state
    return found
