"""One bucket, step by step: each step has a deadline, is repeated within it, and fails in our own words.

Objects are read in pieces of a fixed size, so that a stalled or broken answer costs one piece, and the memory is bounded.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import obstore
from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from modelkeep.contracts.errors import Invalid, NotFound, StorageFull, StorageRefused, StorageUnavailable
from modelkeep.contracts.storage import StorageSettings
from modelkeep.plugins.storage.s3 import credentials

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

T = TypeVar("T")

PIECE: Final = 8 * 1024 * 1024
_MOST_PARTS: Final = 9000
_AT_ONCE: Final = 4
_SLOWEST: Final = 1024 * 1024  # bytes a second: an upload that is slower than this, on top of its deadline, is given up
_TRIES: Final = 3
_RETRIES: Final = 6
_PAUSES_S: Final = (0.1, 0.4)
_FULL: Final = ("QuotaExceeded", "XMinioStorageFull", "StorageFull", "EntityTooLarge", "507 Insufficient Storage")


class Bucket:
    """Reads, writes and lists objects; raises `NotFound`, `StorageUnavailable` and `StorageFull`."""

    def __init__(self, settings: StorageSettings) -> None:
        if not settings.bucket:
            raise Invalid("Set storage.bucket: the bucket that keeps the files.")
        self._timeout_s = settings.timeout_s
        self._name = settings.bucket
        config, provider = credentials.of(settings)
        deadline = timedelta(seconds=settings.timeout_s)
        options: ClientConfig = {
            "timeout": deadline / 3,
            "connect_timeout": min(deadline / 3, timedelta(seconds=5)),
            "allow_http": True,
        }
        if settings.ca_file:
            try:
                options["root_certificate"] = Path(settings.ca_file).read_bytes()
            except OSError as error:
                raise Invalid(f"The file of storage.ca_file cannot be read: {error.strerror}.") from error
        configuration = {
            "region": settings.region,
            "aws_endpoint_url_s3": settings.endpoint or f"https://s3.{settings.region}.amazonaws.com",
            "virtual_hosted_style_request": settings.bucket_in == "host",
            "skip_signature": False,
            "checksum_algorithm": "SHA256",
            "disable_bulk_delete": True,
            **config,
        }
        try:
            self._store = S3Store(
                settings.bucket,
                prefix=settings.prefix.strip("/") or None,
                config=cast("S3Config", configuration),  # its type lacks a name that the library takes
                client_options=options,
                retry_config={
                    "max_retries": _RETRIES,
                    "retry_timeout": deadline,
                    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
                },
                credential_provider=provider,
            )
        except (BaseError, ValueError) as error:
            raise Invalid(f"The object store cannot be used with these settings: {_first_line(error)}.") from error

    async def size(self, key: str) -> int:
        """Return an object's length in bytes."""
        meta = await self._step(lambda: obstore.head_async(self._store, key))
        return meta["size"]

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end`, in pieces."""
        while start < end:
            piece = await self._piece(key, start, min(start + PIECE, end))
            start += len(piece)
            yield piece

    async def write(self, key: str, source: Path | bytes, size: int) -> None:
        """Store a file or some bytes as an object, whole or not at all."""
        chunk = max(PIECE, -(-size // _MOST_PARTS))
        try:
            await self._step(
                lambda: obstore.put_async(self._store, key, source, chunk_size=chunk, max_concurrency=_AT_ONCE),
                self._timeout_s + size / _SLOWEST,
            )
        except NotFound as error:
            raise StorageUnavailable(f"The object store has no bucket {self._name!r}.") from error

    async def remove(self, key: str) -> None:
        """Remove an object; one that is not there is removed already."""
        try:
            await self._step(lambda: obstore.delete_async(self._store, key))
        except NotFound:
            return

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """Yield the last parts of the names of all objects below `prefix`."""
        async for name, _size, _at in self.objects(prefix):
            yield name.rpartition("/")[2]

    async def objects(self, prefix: str | None = None) -> AsyncIterator[tuple[str, int, datetime]]:
        """Yield name, length and time of all objects, or of those below `prefix`."""
        listing = obstore.list(self._store, prefix)
        while batch := await self._step(lambda: anext(listing, [])):
            for meta in batch:
                yield meta["path"], meta["size"], meta["last_modified"]

    async def _piece(self, key: str, start: int, end: int) -> bytes:
        """Return all bytes of a range: a short answer is no answer."""
        for _try in range(_TRIES):
            piece = await self._step(lambda: obstore.get_range_async(self._store, key, start=start, end=end))
            if len(piece) == end - start:
                return bytes(piece)
        raise StorageUnavailable("The object store gives back less than it was asked for.")

    async def _step(self, step: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                for pause_s in _PAUSES_S:
                    with suppress(GenericError):  # the library repeats what was refused, not what broke off half-way
                        return await step()
                    await asyncio.sleep(pause_s)
                return await step()
        except FileNotFoundError as error:
            raise NotFound("There is no stored file with this digest.") from error
        except TimeoutError as error:
            raise StorageUnavailable("The object store does not answer in time.") from error
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise StorageRefused("The object store refuses our credentials: see the settings storage.*.") from error
        except (BaseError, OSError, ValueError) as error:
            if any(word in str(error) for word in _FULL):
                raise StorageFull("The object store takes no more: nothing was stored.") from error
            raise StorageUnavailable from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
