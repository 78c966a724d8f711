"""Bounds that several processes keep together: how soon a name may come again, and how many of it are under way.

One mapped file holds a fixed number of entries: a digest of the name, the time at which it is next due, and for each process
slot how many it has under way. An entry is found within a few places of where its digest points. Every step holds the file's
lock; the kernel lets go of it when the process dies, and no step leaves anything half done that the next would trip over.
An entry whose time has passed and of which nothing is under way is free.
"""

import fcntl
import os
import struct
import time
from array import array
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from mmap import mmap
from pathlib import Path
from typing import Final

import structlog

from modelkeep.infra.rates import TINY_S

log = structlog.get_logger(__name__)

_MAGIC: Final = b"MKQUOTA1"
_HEADER: Final = struct.Struct("<8sII")
_DIGEST: Final = 16
_ENTRIES: Final = 16_384
_WINDOW: Final = 64
_NO_ROOM_S: Final = 1.0  # when to come back where no entry is free


class Quotas:
    """The bounds as the process in `slot`, from 0, of `slots` sees them. Not for several threads at once.

    What the slot's last process had under way is forgotten: it has ended. Where no entry is free for a name, it is refused:
    nobody gets more than is due, and a log line says so once. Times are seconds of the monotonic clock, which all processes
    of a machine share, so that a file must not outlive the machine's start: `start_fresh`. Raises `OSError` where the file
    cannot be made.
    """

    def __init__(
        self, path: Path, slot: int, slots: int, clock: Callable[[], float] = time.monotonic, entries: int = _ENTRIES
    ) -> None:
        self._slot = slot
        self._slots = slots
        self._clock = clock
        self._homes = entries
        self._full = False
        room = entries + _WINDOW - 1  # a window that begins at the last home ends with the file
        dues_at = _DIGEST * (1 + room)
        counts_at = dues_at + 8 * room
        size = counts_at + 4 * slots * room
        self._fd = _opened(path, _HEADER.pack(_MAGIC, slots, entries), size)
        self._map = mmap(self._fd, size)
        whole = memoryview(self._map)
        self._dues = whole[dues_at:counts_at].cast("d")
        self._counts = whole[counts_at:].cast("I")
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._counts[slot::slots] = memoryview(array("I", bytes(4 * room)))
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def take(self, name: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request, as `Rates` in `infra/rates.py` has it.

        Requests are `interval_s` apart in the long run, and a burst may be ahead of that by `burst_s`.
        """
        digest, home = _place(name, self._homes)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            at = self._find(digest, home)
            if at < 0:
                at = self._claim(digest, home, now)
                if at < 0:
                    return _NO_ROOM_S
            due = max(self._dues[at], now)
            early = due - now - burst_s
            if early > TINY_S:
                return early
            self._dues[at] = due + interval_s
            return now - due - interval_s
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def enter(self, name: str, most: int) -> bool:
        """Count one more under way, unless `most` are in all processes together; `leave` must follow."""
        digest, home = _place(name, self._homes)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            at = self._find(digest, home)
            if at < 0:
                at = self._claim(digest, home, self._clock())
                if at < 0:
                    return False
            first = at * self._slots
            if sum(self._counts[first : first + self._slots]) >= most:
                return False
            self._counts[first + self._slot] += 1
            return True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def leave(self, name: str) -> None:
        """One that `enter` let in has ended."""
        digest, home = _place(name, self._homes)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self._counts[self._find(digest, home) * self._slots + self._slot] -= 1
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file; what is under way stays counted until the slot is taken again."""
        self._dues.release()
        self._counts.release()
        os.close(self._fd)

    def _find(self, digest: bytes, home: int) -> int:
        """Return the index of this digest's entry, or -1."""
        start = _DIGEST * (1 + home)
        # what is found begins where an entry does: that two neighbours' digests make a third is as likely as two alike
        found = self._map.find(digest, start, start + _DIGEST * _WINDOW)
        return found // _DIGEST - 1 if found >= 0 else -1

    def _claim(self, digest: bytes, home: int, now: float) -> int:
        """Make a free entry this digest's. Its time has passed and its counts are 0, so it stays free until it is used."""
        for at in range(home, home + _WINDOW):
            if self._dues[at] <= now and not any(self._counts[at * self._slots : (at + 1) * self._slots]):
                self._map[_DIGEST * (1 + at) : _DIGEST * (2 + at)] = digest
                return at
        if not self._full:
            self._full = True
            log.error("no room to count: some requests are refused that are within their limits", entries=self._homes)
        return -1


def start_fresh(path: Path) -> None:
    """Begin with nothing counted: for the start of the whole installation, while none of its processes runs."""
    path.unlink(missing_ok=True)


@lru_cache(maxsize=65_536)
def _place(name: str, homes: int) -> tuple[bytes, int]:
    """Return a name's digest and the first index at which its entry may be."""
    digest = blake2b(name.encode(), digest_size=_DIGEST).digest()
    return digest, int.from_bytes(digest[:8], "little") % homes


def _opened(path: Path, header: bytes, size: int) -> int:
    """Return a descriptor of the file; it is made where there is none, or one of another layout.

    A file is only ever made under its own lock, so that of processes that start at once one makes it and the others find it.
    It is allocated whole: a full disk refuses it here, and does not end a process that writes to it later.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _still_at(path, fd):
                found = os.fstat(fd).st_size
                if not found:
                    _allocate(path, fd, size)
                    os.pwrite(fd, header, 0)
                if not found or (found == size and os.pread(fd, len(header), 0) == header):
                    fcntl.flock(fd, fcntl.LOCK_UN)
                    return fd
                path.unlink()
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def _allocate(path: Path, fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        path.unlink()
        raise


def _still_at(path: Path, fd: int) -> bool:
    """Whether `path` is this very file, and not one that took its place."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
