"""What every store does with files of its own on this disk: write them beside their place, sync them, move them into it.

A writer holds a lock on its unfinished file, so that what a killed process left behind can be told from what is being written,
and swept.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

from modelkeep.contracts.errors import NotFound, StorageFull, TooLarge
from modelkeep.contracts.storage import Blob

Args = TypeVarTuple("Args")
T = TypeVar("T")
_UNSYNCED: Final = 16 * 1024 * 1024
NOT_THERE: Final = "There is no stored file with this digest."
FOLDERS: Final = "[0-9a-f][0-9a-f]"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Unfinished:
    """A file that is being written, gone when it is closed unless it was moved to its place."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._hash = hashlib.sha256()
        self.size = self._synced = 0
        while True:
            self.path = folder / secrets.token_hex(16)
            self._fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self.path.exists():
                return
            os.close(self._fd)  # a sweeper was quicker than our lock

    def write(self, chunk: bytes) -> None:
        """Append."""
        self._hash.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size += len(chunk)
        if self.size - self._synced >= _UNSYNCED:
            os.fdatasync(self._fd)  # gigabytes synced at once, at the end, would hold up every other writer to the disk
            self._synced = self.size

    def blob(self) -> Blob:
        """Return what has been written so far."""
        return Blob(self._hash.hexdigest(), self.size)

    def move(self, place: Path) -> None:
        """Move the file to its place, safe from power cuts."""
        os.fsync(self._fd)
        make_folder(place.parent)
        self.path.rename(place)  # over what is there: the same bytes, or a copy that the disk has damaged
        sync_folder(place.parent)
        sync_folder(place.parent.parent)  # whoever made the folder may not have come to that yet

    def close(self) -> None:
        """Remove the file if it was not moved."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)


async def written(unfinished: Unfinished, chunks: AsyncIterator[bytes], max_bytes: int) -> Blob:
    """Write a stream; raises `TooLarge` past `max_bytes`, `StorageFull` when the disk is."""
    async for chunk in chunks:
        if unfinished.size + len(chunk) > max_bytes:
            raise TooLarge(f"The file is larger than the {max_bytes} bytes that may be uploaded here.")
        with storage_full():
            await in_thread(unfinished.write, chunk)
    return unfinished.blob()


def sweep(folder: Path) -> int:
    """Remove unfinished files that nobody writes any more; returns how many that were."""
    return sum(unlinked_unless_in_use(path) for path in folder.glob("*"))


def unlinked_unless_in_use(path: Path) -> bool:
    """Remove a file, unless somebody holds a lock on it; whether it was removed."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False  # another process was quicker
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink(missing_ok=True)
    return True


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, that only this user can look into, safe from power cuts."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        sync_folder(one.parent)


def is_digest(name: str) -> bool:
    """Whether a name is a SHA-256 in hex."""
    return _DIGEST.fullmatch(name) is not None


def place_of(digest: str) -> str:
    """Return the name that a blob is kept under, in a folder by its first two letters; raises `NotFound` for no SHA-256."""
    if not is_digest(digest):
        raise NotFound(NOT_THERE)
    return f"{digest[:2]}/{digest}"


@contextmanager
def storage_full() -> Iterator[None]:
    """Raise `StorageFull` where the disk is."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull from error
        raise


async def in_thread(work: Callable[[*Args], T], *args: *Args, let_go: Callable[[T], object] | None = None) -> T:
    """Do blocking work in a thread, and even when cancelled, however often, wait for its end: its file is about to be closed.

    What it then returned, and nobody gets, is `let_go`.
    """
    doing = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({doing})
        if let_go is not None and doing.exception() is None:
            let_go(doing.result())
        raise


def sync_folder(folder: Path) -> None:
    """Have what is in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
