"""Any blob store, with every file sealed: what it keeps nobody can read who has no master key.

A file's digest is that of its plain bytes, as everywhere; what lies in the store below is the sealed file, under the digest of
its own, and an envelope beside it, as a note under the plain digest. Rotation writes envelopes anew and touches no file. A
runner gets its file in sealed memory: no plain byte reaches a disk. Files from before a master key was set stay as they are.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final

import msgspec

from modelkeep.contracts.errors import DamagedFile, MasterKeyMissing, ModelkeepError, NotFound, StorageUnavailable, TooLarge
from modelkeep.contracts.storage import Blob, NotingStore, Stored, verified
from modelkeep.infra import envelopes
from modelkeep.infra.envelopes import PIECE, TAG, Envelope, MasterKeys, Opener

_log = logging.getLogger(__name__)  # on stderr in commands, too, whose output programs read
_TRIES: Final = 3
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Rotation(msgspec.Struct, frozen=True):
    """What a rotation did: envelopes written anew, those that the newest key had sealed already, and all that there are."""

    rewritten: int
    already: int


class SealedStore:
    """A `BlobStore` that keeps its files sealed in another."""

    def __init__(self, inner: NotingStore, keys: MasterKeys) -> None:
        self._inner = inner
        self._keys = keys

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Seal a stream and store it; raises `TooLarge` past `max_bytes`, and what the store below raises."""
        plain = _Counted(chunks, max_bytes)
        data_key = envelopes.new_data_key()
        sealed = await self._inner.put(envelopes.sealing(plain.pieces(), data_key), max_bytes=sys.maxsize)
        blob = plain.blob()
        try:
            known = await self._has(blob.digest)
            envelope = self._keys.seal(data_key, blob.digest, sealed.digest, blob.size)
        except BaseException:
            with suppress(ModelkeepError, OSError):
                await self._inner.remove(sealed.digest)
            raise
        # Once its envelope may have been kept, others may rely on the file: after a fault it stays there, to be collected.
        if known or await self._keep(blob.digest, envelope) != sealed.digest:
            await self._inner.remove(sealed.digest)
        return blob

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the blob's plain bytes from `start` to before `end`."""
        envelope = await self._envelope(digest)
        if envelope is None:
            pieces = self._inner.read(digest, start=start, end=end)
        else:
            until = envelope.size if end is None else min(end, envelope.size)
            opener = Opener(self._keys.open(envelope, digest), envelope.size)
            pieces = self._opened(envelope, opener, start, until)
            if start == 0 and until == envelope.size:
                pieces = verified(pieces, digest)
        async with aclosing(pieces) as opened:
            async for piece in opened:
                yield piece

    async def size(self, digest: str) -> int:
        """Return the length of the plain bytes."""
        envelope = await self._envelope(digest)
        if envelope is None:
            return await self._inner.size(digest)
        await self._inner.size(envelope.sealed)  # the note may be a copy from before the file was removed
        self._keys.open(envelope, digest)  # whoever asks is about to read, and the length is bound to the key
        return envelope.size

    async def open(self, digest: str) -> int:
        """Return a descriptor of sealed memory with the plain bytes."""
        envelope = await self._envelope(digest)
        if envelope is None:
            return await self._inner.open(digest)
        opener = Opener(self._keys.open(envelope, digest), envelope.size)
        source = await self._inner.open(envelope.sealed)
        try:
            return await asyncio.to_thread(_in_memory, source, opener, envelope.size, digest)
        finally:
            os.close(source)

    async def remove(self, digest: str) -> None:
        """Forget a blob: its sealed file first. Whoever dies in between, or is not answered, can do it again by the envelope.

        Without that nobody would know any more which file it was for, and its bytes would lie there for good.
        """
        envelope = await self._envelope(digest)
        if envelope is not None:
            await self._inner.remove(envelope.sealed)
        await self._inner.remove(digest)

    async def stored(self) -> AsyncIterator[Stored]:
        """Yield the blobs that are there under their plain digests, with the bytes that they take sealed.

        A sealed file without an envelope, which an upload may be writing or have left, goes by the digest of its own. Beside a
        damaged envelope such files are passed over: one of them may be the file that it is for, which somebody may yet mend.
        """
        plain: dict[str, str] = {}
        damaged = False
        async for digest in self._inner.notes():
            try:
                envelope = await self._envelope(digest)
            except (MasterKeyMissing, DamagedFile) as error:
                damaged = True
                _log.warning("envelope_damaged digest=%s: %s", digest, error.message)
                continue
            if envelope is not None:
                plain[envelope.sealed] = digest
        async for one in self._inner.stored():
            if one.digest in plain or not damaged:
                yield Stored(plain.get(one.digest, one.digest), one.size, one.at)

    async def sweep(self) -> int:
        """Have the store below clean up."""
        return await self._inner.sweep()

    async def rotate(self, before_each: Callable[[], Awaitable[None]]) -> Rotation:
        """Seal every data key with the newest master key. It may be ended and begun again at any time, while files are in use.

        Nothing may be removed meanwhile: `before_each` raises where that is no longer sure. Raises `MasterKeyMissing` at the
        first envelope that none of the keys opens; those before it are done, it is as it was.
        """
        rewritten = already = 0
        async for digest in self._inner.notes():
            await before_each()
            envelope = await self._envelope(digest)
            if envelope is None or envelope.master_key == self._keys.newest:
                already += envelope is not None
                continue
            data_key = self._keys.open(envelope, digest)
            again = self._keys.seal(data_key, digest, envelope.sealed, envelope.size)
            await self._keep(digest, again)
            rewritten += 1
        return Rotation(rewritten, already)

    async def _keep(self, digest: str, envelope: Envelope) -> str:
        """Have the store hold an envelope, as shown by reading it back; returns the digest of the sealed file that it names.

        Of several uploads of the same bytes at once the last to write has its envelope kept: for all of them it is as good as
        their own, if its file is there. Of the file that the envelope itself names nothing is asked: a rotation goes on past
        one that is lost. Raises `StorageUnavailable` where the store gives back no envelope that will do.
        """
        for _try in range(_TRIES):
            await self._inner.keep_note(digest, msgspec.json.encode(envelope))
            with suppress(NotFound, DamagedFile, MasterKeyMissing):
                kept = await self._envelope(digest)
                if kept is not None and await self._will_do(kept, envelope, digest):
                    return kept.sealed
        raise StorageUnavailable("The store does not give back the envelope that it was given.")

    async def _will_do(self, kept: Envelope, wanted: Envelope, digest: str) -> bool:
        """Whether an envelope that is kept is as good as the one that was to be; raises what speaks against it."""
        self._keys.open(kept, digest)
        if kept.sealed == wanted.sealed:
            return kept.master_key == wanted.master_key
        await self._inner.size(kept.sealed)
        return True

    async def _envelope(self, digest: str) -> Envelope | None:
        try:
            return msgspec.json.decode(await self._inner.note(digest), type=Envelope)
        except NotFound:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MasterKeyMissing("This file's envelope is damaged.") from error

    async def _has(self, digest: str) -> bool:
        """Whether the blob is there, sealed and sound."""
        try:
            if await self._envelope(digest) is None:
                return False
            async for _piece in self.read(digest):
                pass
        except (NotFound, DamagedFile, MasterKeyMissing):
            return False
        return True

    async def _opened(self, envelope: Envelope, opener: Opener, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the plain bytes from `start` to before `end`, of the pieces that they lie in."""
        whole = start == 0 and end == envelope.size
        if not whole and start >= end:
            return
        first, last = start // PIECE, max(0, end - 1) // PIECE
        size = envelopes.sealed_size(envelope.size)
        begin, until = first * (PIECE + TAG), min((last + 1) * (PIECE + TAG), size)
        source = self._inner.read(envelope.sealed, start=begin, end=None if whole else until)
        number = first
        async with aclosing(_cut(source, PIECE + TAG)) as cut:
            async for piece in cut:
                opened = opener.open(number, piece)
                at = number * PIECE
                yield opened[max(0, start - at) : max(0, end - at)]
                number += 1
        if number <= last:
            raise DamagedFile


class _Counted:
    """A stream on its way: hashed, counted and bounded."""

    def __init__(self, chunks: AsyncIterator[bytes], max_bytes: int) -> None:
        self._chunks = chunks
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._size = 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        async for chunk in self._chunks:
            self._size += len(chunk)
            if self._size > self._max_bytes:
                raise TooLarge(f"The file is larger than the {self._max_bytes} bytes that may be uploaded here.")
            self._hash.update(chunk)
            yield chunk

    def blob(self) -> Blob:
        return Blob(self._hash.hexdigest(), self._size)


async def _cut(chunks: AsyncGenerator[bytes, None], length: int) -> AsyncGenerator[bytes, None]:
    """Yield the bytes again in pieces of `length`; the last may be shorter."""
    waiting = bytearray()
    async with aclosing(chunks) as source:
        async for chunk in source:
            waiting += chunk
            while len(waiting) >= length:
                yield bytes(waiting[:length])
                del waiting[:length]
    if waiting:
        yield bytes(waiting)


def _in_memory(source: int, opener: Opener, size: int, digest: str) -> int:
    """Return a read-only descriptor of memory that holds the opened file; raises `DamagedFile`."""
    if os.fstat(source).st_size != envelopes.sealed_size(size):
        raise DamagedFile
    memory = os.memfd_create("artifact", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        seen = hashlib.sha256()
        for number in range(envelopes.pieces(size)):
            opened = memoryview(opener.open(number, os.pread(source, PIECE + TAG, number * (PIECE + TAG))))
            seen.update(opened)
            while opened:
                opened = opened[os.write(memory, opened) :]
        if seen.hexdigest() != digest:
            raise DamagedFile
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)
