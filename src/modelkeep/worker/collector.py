"""Removes the files that nothing uses any more, and says what is kept.

A file is used while a version names it, wherever in its row; aliases, deployments and replays name versions, and of those
that are purged (`purge.py`) a tombstone is left, which names none. A version that was rejected lets go of its files after
`storage.keep_unused_days`, and so does whoever stored one that no version came to name, such as a validation of a faster form
that it did not choose. What this installation has never stored itself is left alone: in a bucket it may be another's, beside
a wrong database it would be everything.

Condemning and removing are two steps (`infra/blob_claims.py`), so that a file which is uploaded again at that moment is not
lost; a collector that dies between them is completed by the next one. What cannot be removed is spared, said, and tried again
by the next one.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal, Protocol

import msgspec
import structlog

from modelkeep.contracts.errors import (
    DamagedFile,
    MasterKeyMissing,
    ModelkeepError,
    NotFound,
    StorageRefused,
    StorageUnavailable,
)
from modelkeep.contracts.storage import BlobStore
from modelkeep.control.models.service import Models
from modelkeep.infra.blob_claims import Claims, Turn
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database
from modelkeep.worker.again import again

_log = structlog.get_logger(__name__)
_AT_ONCE: Final = 200
_KINDS: Final = ("artifact", "compiled", "sample", "golden", "other", "unused", "unknown")
_FIRST_S: Final = 30.0
_EVERY_S: Final = 3600.0

Why = Literal["rejected", "unused", "unknown"]


class Unused(msgspec.Struct, frozen=True):
    """A file that nothing uses: of a rejected version, stored and never named (unused), or never stored by us (unknown)."""

    digest: str
    size: int
    why: Why


class Found(msgspec.Struct, frozen=True):
    """What lies in the store: the bytes of all files by what they are, those that may go now, and those that would not."""

    kept: Mapping[str, int]
    unused: tuple[Unused, ...]
    failed: Mapping[str, str] = {}  # digests, and why each is still there

    @property
    def size(self) -> int:
        """The bytes of what may go."""
        return sum(one.size for one in self.unused)


class Told(Protocol):
    """Hears what is kept and what was removed, for the metrics."""

    def keeps(self, kept: Mapping[str, int]) -> None:
        """These bytes are kept, by what they are."""
        ...

    def removed(self, size: int) -> None:
        """A file of so many bytes was removed."""
        ...


class Collector:
    """Looks for what nothing uses, and removes it. `unknown`: also what this installation has never stored."""

    def __init__(
        self, db: Database, models: Models, claims: Claims, blobs: BlobStore, clock: Clock, *, keep_days: float, told: Told
    ) -> None:
        self._db = db
        self._models = models
        self._claims = claims
        self._blobs = blobs
        self._clock = clock
        self._kept_for = timedelta(days=keep_days)
        self._told = told

    async def look(self, *, unknown: bool = False) -> Found:
        """Return what is kept and what may go, and change nothing."""
        before = self._clock() - self._kept_for
        lying = [one async for one in self._blobs.stored()]  # listed first: what is stored after that is not among it
        async with self._db.read() as tx:
            files = await self._models.files(tx, before)
            claimed = await self._claims.claimed(tx)
        kept: Counter[str] = Counter(dict.fromkeys(_KINDS, 0))
        unused: list[Unused] = []
        for one in lying:
            use = files.used.get(one.digest)
            if use is not None:
                kept[use] += one.size
                continue
            why: Why = "rejected" if one.digest in files.released else "unused" if one.digest in claimed else "unknown"
            kept["unknown" if why == "unknown" else "unused"] += one.size
            old = one.at < before.timestamp() and (one.digest not in claimed or claimed[one.digest] < before)
            if old and (unknown or why != "unknown"):
                unused.append(Unused(one.digest, one.size, why))
        self._told.keeps(kept)
        return Found(kept, tuple(unused))

    async def collect(self, *, unknown: bool = False) -> Found:
        """Remove what may go; returns what was kept before, and what has gone. Raises `OthersTurn`."""
        async with self._claims.turn() as turn:
            async with self._db.read() as tx:
                left = [Unused(digest, 0, "unused") for digest in await self._claims.condemned(tx)]
            failed: dict[str, str] = {}
            await self._remove_all(turn, left, failed)
            found = await self.look(unknown=unknown)
            unused = [one for one in found.unused if one.digest not in failed]
            removed: list[Unused] = []
            for first in range(0, len(unused), _AT_ONCE):
                condemned = await self._condemned(unused[first : first + _AT_ONCE])
                removed += await self._remove_all(turn, condemned, failed)
        return Found(found.kept, tuple(removed), failed)

    async def run(self) -> None:
        """Collect a while after the start and every hour; cancel to end. The next one removes what this one was about to.

        The database is up to date when it begins.
        """
        await asyncio.sleep(_FIRST_S)
        await again(self._collect, _EVERY_S, part="collecting")

    async def _collect(self) -> None:
        done = await self.collect()
        for one in done.unused:
            _log.info("file_removed", digest=one.digest, bytes=one.size, why=one.why)
        for digest, why in done.failed.items():
            _log.warning("file_not_removed", digest=digest, reason=why)

    async def _condemned(self, some: list[Unused]) -> list[Unused]:
        """Condemn what still is unused: what came into use since it was found is left alone."""
        before = self._clock() - self._kept_for
        wanted = {one.digest: one for one in some}
        async with self._db.begin() as tx:
            condemned = await self._claims.condemn(tx, wanted, before)
            used = (await self._models.files(tx, before)).used
            await self._claims.spare(tx, [digest for digest in condemned if digest in used])
        return [wanted[digest] for digest in condemned if digest not in used]

    async def _remove_all(self, turn: Turn, condemned: list[Unused], failed: dict[str, str]) -> list[Unused]:
        """Remove what is condemned; returns what has gone, and notes why the others have not."""
        removed: list[Unused] = []
        for one in condemned:
            await turn.keep()
            why = await self._remove(turn, one)
            if why:
                failed[one.digest] = why
            else:
                await self._claims.forget(one.digest)
                self._told.removed(one.size)
                removed.append(one)
        return removed

    async def _remove(self, turn: Turn, one: Unused) -> str:
        """Remove a file; returns why it is still there, "" where it is not. What is there may be stored again from now on.

        A removal that was not answered may yet come: then the file stays condemned, and the next collector removes it.
        """
        try:
            await self._blobs.remove(one.digest)
        except (ModelkeepError, OSError) as error:
            why = str(error) or type(error).__name__
            may_come = isinstance(error, StorageUnavailable) and not isinstance(error, StorageRefused)
        else:
            return ""
        try:
            await self._blobs.size(one.digest)
        except NotFound:
            return ""
        except MasterKeyMissing:  # it is there, for nobody
            pass
        except (DamagedFile, StorageRefused, OSError):  # nobody knows; the others go on
            return why
        if not may_come:
            await turn.keep()
            async with self._db.begin() as tx:
                await self._claims.spare(tx, [one.digest])
        return why
