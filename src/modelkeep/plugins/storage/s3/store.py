"""Blobs in a bucket, under the SHA-256 of their content.

An upload is written to a local file first, and hashed, since its name is known only at its end; then it is stored, which an
object store does whole or not at all; then it is read back and compared, for not every store checks what it was sent. Only
then is it acknowledged. Every whole read is compared too, and a part is read from a copy that was: wrong bytes are not served.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final, Self
from weakref import WeakValueDictionary

from modelkeep.contracts.errors import DamagedFile, NotFound, StorageUnavailable
from modelkeep.contracts.storage import Blob, StorageSettings, Stored, verified
from modelkeep.plugins.on_disk import Unfinished, in_thread, is_digest, place_of, storage_full, written
from modelkeep.plugins.storage.s3.bucket import PIECE, Bucket
from modelkeep.plugins.storage.s3.cache import Cache

_TRIES: Final = 3
_LARGEST_NOTE: Final = 64 * 1024  # a bucket's word for a size is nobody's promise
_GIB: Final = 1024**3


class S3BlobStore:
    """Keeps blobs in a bucket, and copies below one folder. Several processes may use the same ones."""

    def __init__(self, bucket: Bucket, cache: Cache) -> None:
        self._bucket = bucket
        self._cache = cache
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    def create(cls, folder: Path, settings: StorageSettings) -> Self:
        """Return the store whose copies are in `folder`; raises `Invalid`."""
        return cls(Bucket(settings), Cache(folder, int(settings.cache_gb * _GIB)))

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Store a stream, hashing it on the way; raises `TooLarge`, `StorageFull`, `StorageUnavailable`."""
        with storage_full():
            unfinished = await in_thread(self._cache.begin, let_go=Unfinished.close)
        try:
            blob = await written(unfinished, chunks, max_bytes)
            await self._store(place_of(blob.digest), unfinished.path, blob)
            with storage_full():
                await in_thread(self._cache.keep, unfinished)
        finally:
            unfinished.close()
        return blob

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the blob's bytes from `start` to before `end`; raises `NotFound`, `DamagedFile`, `StorageUnavailable`."""
        key = place_of(digest)
        copy = await in_thread(self._cache.open, digest, let_go=_let_go)
        if copy is None:
            size = await self._bucket.size(key)
            if start == 0 and (end is None or end >= size):
                async with aclosing(verified(self._bucket.read(key, 0, size), digest)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            copy = await self.open(digest)
        try:
            until = os.fstat(copy).st_size if end is None else end
            while start < until and (piece := await asyncio.to_thread(os.pread, copy, min(PIECE, until - start), start)):
                start += len(piece)
                yield piece
        finally:
            os.close(copy)

    async def size(self, digest: str) -> int:
        """Return the blob's length in bytes, as the bucket has it; raises `NotFound`, `StorageUnavailable`."""
        return await self._bucket.size(place_of(digest))

    async def open(self, digest: str) -> int:
        """Return a descriptor of a copy that has the digest, fetched where there is none here yet."""
        key = place_of(digest)
        async with self._fetching.setdefault(digest, asyncio.Lock()):
            copy = await in_thread(self._cache.open, digest, let_go=_let_go)
            for _try in range(_TRIES):
                if copy is not None:
                    return copy
                with storage_full():
                    await self._fetch(key, digest)
                    copy = await in_thread(self._cache.open, digest, let_go=_let_go)
        if copy is None:
            raise DamagedFile
        return copy

    async def remove(self, digest: str) -> None:
        """Forget a blob and its note."""
        key = place_of(digest)
        await self._bucket.remove(_note(digest))
        await self._bucket.remove(key)
        await in_thread(self._cache.remove, digest)

    async def stored(self) -> AsyncIterator[Stored]:
        """Yield the blobs that are in the bucket."""
        async for name, size, at in self._bucket.objects():
            *_folders, folder, digest = ("", *name.split("/"))
            if is_digest(digest) and folder == digest[:2]:
                yield Stored(digest, size, at.timestamp())

    async def sweep(self) -> int:
        """Remove what killed writers left behind here; returns how many files that were."""
        return await in_thread(self._cache.sweep)

    async def keep_note(self, digest: str, note: bytes) -> None:
        """Store a note under a digest; replaces an earlier one.

        Several may write at once, so it is not compared here; and no copy is kept before it has been read from the bucket, or
        whoever compares would be shown that.
        """
        await self._bucket.write(_note(digest), note, len(note))

    async def note(self, digest: str) -> bytes:
        """Return the note, or where the bucket is away the last that was seen of it; raises `NotFound`."""
        key = _note(digest)
        try:
            size = await self._bucket.size(key)
            if size > _LARGEST_NOTE:
                raise DamagedFile
            note = b"".join([piece async for piece in self._bucket.read(key, 0, size)])
        except StorageUnavailable:
            copy = await in_thread(self._cache.note, digest)
            if copy is None:
                raise
            return copy
        await in_thread(self._cache.keep_note, digest, note)
        return note

    async def notes(self) -> AsyncIterator[str]:
        """Yield the digests that have a note."""
        async for name in self._bucket.names("notes"):
            yield name

    async def _store(self, key: str, source: Path, blob: Blob) -> None:
        """Have the bucket hold these bytes, as shown by reading them back."""
        for _try in range(_TRIES):
            if await self._holds(key, blob):
                return
            await self._bucket.write(key, source, blob.size)
        if not await self._holds(key, blob):
            raise StorageUnavailable("The object store gives back other bytes than it was given.")

    async def _holds(self, key: str, blob: Blob) -> bool:
        seen = hashlib.sha256()
        try:
            if await self._bucket.size(key) != blob.size:
                return False
            async for piece in self._bucket.read(key, 0, blob.size):
                seen.update(piece)
        except NotFound:
            return False
        return seen.hexdigest() == blob.digest

    async def _fetch(self, key: str, digest: str) -> None:
        """Write a copy, if what comes has the digest."""
        size = await self._bucket.size(key)
        unfinished = await in_thread(self._cache.begin, let_go=Unfinished.close)
        try:
            async for piece in self._bucket.read(key, 0, size):
                await in_thread(unfinished.write, piece)
            if unfinished.blob().digest == digest:
                await in_thread(self._cache.keep, unfinished)
        finally:
            unfinished.close()


def _note(digest: str) -> str:
    return f"notes/{place_of(digest)[3:]}"


def _let_go(copy: int | None) -> None:
    if copy is not None:
        os.close(copy)
