"""Blobs on a local disk, under the SHA-256 of their content.

A file is written beside its place, synced, moved into it, and the folders are synced after: once `put` has returned, the blob
survives a power cut. Half a file is never found under a digest.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from modelkeep.contracts.errors import NotFound
from modelkeep.contracts.storage import Blob, StorageSettings, Stored, verified
from modelkeep.plugins.on_disk import (
    FOLDERS,
    NOT_THERE,
    Unfinished,
    in_thread,
    is_digest,
    place_of,
    storage_full,
    sweep,
    sync_folder,
    written,
)

_PIECE: Final = 1024 * 1024


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
        with storage_full():
            unfinished = await in_thread(Unfinished, self._unfinished, let_go=Unfinished.close)
        try:
            blob = await written(unfinished, chunks, max_bytes)
            with storage_full():
                await in_thread(unfinished.move, self._path(blob.digest))
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
            raise NotFound(NOT_THERE) from error

    async def remove(self, digest: str) -> None:
        """Forget a blob and its note."""
        await asyncio.to_thread(self._remove, digest)

    async def keep_note(self, digest: str, note: bytes) -> None:
        """Store a note under a digest; replaces an earlier one."""
        place = self._notes / self._path(digest).name
        with storage_full():
            await in_thread(self._keep_note, place, note)

    async def note(self, digest: str) -> bytes:
        """Return the note; raises `NotFound`."""
        place = self._notes / self._path(digest).name
        try:
            return await asyncio.to_thread(place.read_bytes)
        except FileNotFoundError as error:
            raise NotFound(NOT_THERE) from error

    async def notes(self) -> AsyncIterator[str]:
        """Yield the digests that have a note."""
        for path in await asyncio.to_thread(lambda: sorted(self._notes.glob("*"))):
            yield path.name

    async def stored(self) -> AsyncIterator[Stored]:
        """Yield the blobs that are there."""
        for folder in await asyncio.to_thread(lambda: sorted(self._root.glob(FOLDERS))):
            for one in await asyncio.to_thread(_stored_in, folder):
                yield one

    async def sweep(self) -> int:
        """Remove what killed writers left behind; returns how many files that were."""
        return await asyncio.to_thread(sweep, self._unfinished)

    def _remove(self, digest: str) -> None:
        path = self._path(digest)
        for one in (self._notes / path.name, path):
            if one.is_file():
                one.unlink(missing_ok=True)
                sync_folder(one.parent)

    def _keep_note(self, place: Path, note: bytes) -> None:
        unfinished = Unfinished(self._unfinished)
        try:
            unfinished.write(note)
            unfinished.move(place)
        finally:
            unfinished.close()

    def _path(self, digest: str) -> Path:
        return self._root / place_of(digest)

    def _existing(self, digest: str) -> Path:
        path = self._path(digest)
        if not path.is_file():
            raise NotFound(NOT_THERE)
        return path


def _stored_in(folder: Path) -> list[Stored]:
    found = []
    for path in sorted(folder.iterdir()):
        if is_digest(path.name):
            with suppress(FileNotFoundError):  # removed meanwhile
                status = path.stat()
                found.append(Stored(path.name, status.st_size, status.st_mtime))
    return found


async def _pieces(path: Path, start: int, end: int) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := await asyncio.to_thread(file.read, min(_PIECE, end - start))):
            start += len(piece)
            yield piece
