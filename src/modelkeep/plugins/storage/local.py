"""Blobs on a local disk, under the SHA-256 of their content.

A file is written beside its place, synced, moved into it, and the folders are synced after: once `put` has returned, the blob
survives a power cut. Half a file is never found under a digest. A writer holds a lock on its unfinished file, so that what a
killed process left behind can be told from what is being written, and swept.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, ParamSpec, Self, TypeVar

from modelkeep.contracts.errors import NotFound, StorageFull, TooLarge
from modelkeep.contracts.storage import Blob, StorageSettings, verified

P = ParamSpec("P")
T = TypeVar("T")
_PIECE: Final = 1024 * 1024
_UNSYNCED: Final = 16 * 1024 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NOT_THERE: Final = "There is no stored file with this digest."
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LocalStore:
    """Keeps blobs below one folder. Several processes may use the same one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unfinished = root / "unfinished"
        self._notes = root / "notes"

    @classmethod
    def create(cls, folder: Path, settings: StorageSettings) -> Self:
        """Return the store that keeps its blobs in `folder`."""
        del settings
        return cls(folder)

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Store a stream, hashing it on the way; raises `TooLarge` past `max_bytes`, `StorageFull` when the disk is."""
        with _storage_full():
            unfinished = await _in_thread(_Unfinished, self._unfinished)
        try:
            async for chunk in chunks:
                if unfinished.size + len(chunk) > max_bytes:
                    raise TooLarge(f"The file is larger than the {max_bytes} bytes that may be uploaded here.")
                with _storage_full():
                    await _in_thread(unfinished.write, chunk)
            blob = unfinished.blob()
            with _storage_full():
                await _in_thread(unfinished.keep_as, self._path(blob.digest))
        finally:
            unfinished.close()
        return blob

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the blob's bytes from `start` to before `end`; raises `NotFound`, and `DamagedFile` for a whole one."""
        path = self._existing(digest)
        size = path.stat().st_size
        until = size if end is None else end
        pieces = _pieces(path, start, until)
        async for piece in verified(pieces, digest) if start == 0 and until >= size else pieces:
            yield piece

    async def size(self, digest: str) -> int:
        """Return the blob's length in bytes; raises `NotFound`."""
        return self._existing(digest).stat().st_size

    async def open(self, digest: str) -> int:
        """Return a descriptor of the blob's file; raises `NotFound`."""
        try:
            return os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(_NOT_THERE) from error

    async def remove(self, digest: str) -> None:
        """Forget a blob and its note."""
        await asyncio.to_thread(self._remove, digest)

    async def keep_note(self, digest: str, note: bytes) -> None:
        """Store a note under a digest; replaces an earlier one."""
        place = self._notes / self._path(digest).name
        with _storage_full():
            await _in_thread(self._keep_note, place, note)

    async def note(self, digest: str) -> bytes:
        """Return the note; raises `NotFound`."""
        place = self._notes / self._path(digest).name
        try:
            return await asyncio.to_thread(place.read_bytes)
        except FileNotFoundError as error:
            raise NotFound(_NOT_THERE) from error

    async def notes(self) -> AsyncIterator[str]:
        """Yield the digests that have a note."""
        for path in await asyncio.to_thread(lambda: sorted(self._notes.glob("*"))):
            yield path.name

    async def sweep(self) -> int:
        """Remove what killed writers left behind; returns how many files that were."""
        return await asyncio.to_thread(self._sweep)

    def _sweep(self) -> int:
        swept = 0
        for path in self._unfinished.glob("*"):
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # someone is writing it now
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    def _remove(self, digest: str) -> None:
        path = self._path(digest)
        for one in (self._notes / path.name, path):
            if one.is_file():
                one.unlink(missing_ok=True)
                _sync_folder(one.parent)

    def _keep_note(self, place: Path, note: bytes) -> None:
        unfinished = _Unfinished(self._unfinished)
        try:
            unfinished.write(note)
            unfinished.keep_as(place)
        finally:
            unfinished.close()

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise NotFound(_NOT_THERE)
        return self._root / digest[:2] / digest

    def _existing(self, digest: str) -> Path:
        path = self._path(digest)
        if not path.is_file():
            raise NotFound(_NOT_THERE)
        return path


async def _pieces(path: Path, start: int, end: int) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := await asyncio.to_thread(file.read, min(_PIECE, end - start))):
            start += len(piece)
            yield piece


class _Unfinished:
    """A file that is being written, gone when it is closed unless it was kept."""

    def __init__(self, folder: Path) -> None:
        _make_folder(folder)
        self._hash = hashlib.sha256()
        self.size = self._synced = 0
        while True:
            self._path = folder / secrets.token_hex(16)
            self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            if self._path.exists():
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

    def keep_as(self, place: Path) -> None:
        """Move the file to its place, safe from power cuts."""
        os.fsync(self._fd)
        _make_folder(place.parent)
        self._path.rename(place)  # over what is there: the same bytes, or a copy that the disk has damaged
        _sync_folder(place.parent)

    def close(self) -> None:
        """Remove the file if it was not kept."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _storage_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull from error
        raise


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work in a thread, and even when cancelled wait for its end: its file is about to be closed."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise
