"""Bells: a datagram on a local Unix socket says "look now". Nothing depends on it, for whoever listens also looks by itself.

A datagram may also carry a message (a server's heartbeat). Socket paths are limited to 108 bytes, and data directories are
not: both ends open the folder first and name the socket through /proc/self/fd.
"""

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

RING: Final = b"\x00"
MAX_DATAGRAM: Final = 64 * 1024
_log = structlog.get_logger(__name__)


class Bell:
    """The rope: `ring` never waits. Nobody there, or nobody quick enough, is no error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ring(self, message: bytes = RING) -> bool:
        """Send one datagram; whether someone has it now."""
        try:
            with _short(self._path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message, address)
        except OSError as error:  # nobody there, nobody quick enough, no descriptor left: none of it may stop who rings
            _log.debug("bell_unheard", bell=self._path.name, reason=type(error).__name__)
            return False
        return True


class Bells:
    """Several ropes in one hand."""

    def __init__(self, bells: Iterable[Bell]) -> None:
        self._bells = tuple(bells)

    def ring(self, message: bytes = RING) -> bool:
        """Ring them all; whether everyone has heard."""
        heard = [bell.ring(message) for bell in self._bells]
        return all(heard)


class Listener:
    """The ear: `wait` returns what has arrived, or nothing when the time is up.

    Use it as a context manager inside a running event loop; the socket exists from there on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self._heard = asyncio.Event()

    def __enter__(self) -> Self:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._path.unlink(missing_ok=True)
        with _short(self._path) as address:
            self._sock.bind(address)
        self._path.chmod(0o600)
        asyncio.get_running_loop().add_reader(self._sock, self._heard.set)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
            self._path.unlink(missing_ok=True)

    def knock(self) -> None:
        """Wake whoever waits, from inside this process."""
        self._heard.set()

    async def wait(self, timeout_s: float) -> list[bytes]:
        """Return the datagrams that have arrived, waiting for the first at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError:
            return []
        self._heard.clear()
        return list(self._datagrams())

    def _datagrams(self) -> Iterator[bytes]:
        while self._sock is not None:
            try:
                yield self._sock.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return


@contextmanager
def woken_by(stop: asyncio.Event, listener: Listener) -> Iterator[None]:
    """Inside the block, `stop` ends a wait as a ring of the bell does."""

    async def knock() -> None:
        await stop.wait()
        listener.knock()

    knocking = asyncio.ensure_future(knock())
    try:
        yield
    finally:
        knocking.cancel()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
