"""The protocol of blob stores: content-addressed files. Found by entry point (`modelkeep.storage`)."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec


class Blob(msgspec.Struct, frozen=True):
    """A stored file: its SHA-256 in hex and its length in bytes."""

    digest: str
    size: int


class BlobStore(Protocol):
    """Keeps files under the SHA-256 of their content. Once `put` returned, the blob survives a crash and a power cut."""

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Store a stream, hashing it on the way; raises `TooLarge` past `max_bytes`, `StorageFull` when the disk is.

        Nothing is left behind when the stream or the store fails.
        """
        ...

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the blob's bytes from `start` to before `end`; raises `NotFound`."""
        ...

    async def size(self, digest: str) -> int:
        """Return the blob's length in bytes; raises `NotFound`."""
        ...

    async def local_path(self, digest: str) -> str:
        """Return the path of a local file with the blob's bytes, fetching it first where the store is remote."""
        ...

    async def sweep(self) -> int:
        """Remove what killed uploads have left behind; returns how many files that were."""
        ...
