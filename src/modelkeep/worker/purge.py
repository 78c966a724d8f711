"""The job `purge_version`: the files that only this version names leave the store, and a tombstone is left of its row.

What is about to go is measured and written down before anything goes, and measured again when it has gone. Every step may be
done again: whatever dies between two of them, the next attempt finds what is left, removes it, and ends at the same record.

As with what nothing uses (`collector.py`), condemning and removing are two steps, so that a file which is uploaded again at
that moment is not lost: its upload is refused, and sent again.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog

from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.storage import BlobStore
from modelkeep.control.models.life import ErasedFile, Erasure
from modelkeep.control.models.lifecycle import PURGE_VERSION, Lifecycle
from modelkeep.infra.blob_claims import Claims, OthersTurn, Turn
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database
from modelkeep.infra.jobs import Job

_log = structlog.get_logger(__name__)
_LOOK_AGAIN_S: Final = 1.0
_AHEAD: Final = timedelta(days=1)  # so far the clocks of those who claimed may be ahead: however late a claim, it is old


class StillThere(Unavailable):
    """Files that were removed are still in the store: it is tried again."""

    code = "files_still_there"


class Purger:
    """Purges versions. `kind` is that of its jobs."""

    kind: Final = PURGE_VERSION

    def __init__(self, db: Database, lifecycle: Lifecycle, claims: Claims, blobs: BlobStore, clock: Clock) -> None:
        self._db = db
        self._lifecycle = lifecycle
        self._claims = claims
        self._blobs = blobs
        self._clock = clock

    async def run(self, job: Job) -> None:
        """Do the purge that the job is about."""
        await self.purge(job.subject)
        await self._lifecycle.finish_job(job.id)

    async def give_up(self, job: Job) -> None:
        """Leave it for the next hour: what was asked to be purged is purged in the end."""
        _log.error("purge_given_up", erasure=job.subject)
        await self._lifecycle.finish_job(job.id, failed=True)

    async def purge(self, erasure_id: str) -> None:
        """Remove the files, and prove that they are gone; raises `StillThere` where they are not."""
        async with self._turn() as turn:
            erasure, named = await self._lifecycle.erasure(erasure_id)
            if erasure is None or erasure.finished_at is not None:
                return
            if erasure.bytes_before is None:
                erasure = await self._measured(erasure, named)
            own = {one.digest for one in erasure.files}
            for digest in await self._condemned(own):
                await turn.keep()
                await self._blobs.remove(digest)
                await self._claims.forget(digest)
            sizes, shared = await self._sizes(own), await self._shared(own)
            left = {digest: size for digest, size in sizes.items() if digest not in shared}
            if left:
                raise StillThere(f"{len(left)} files are still in the store.")
            await self._lifecycle.erased(erasure, left=sum(left.values()))
            _log.info("version_purged", erasure=erasure.id, files=len(own), bytes_before=erasure.bytes_before)

    async def _measured(self, erasure: Erasure, named: Collection[str]) -> Erasure:
        """Write down what is about to go, and what stays because other versions name it."""
        shared = await self._shared(named)
        sizes = await self._sizes(set(named) - shared)
        files = [ErasedFile(digest, size) for digest, size in sizes.items()]
        return await self._lifecycle.measured(erasure.id, files, shared)

    async def _shared(self, digests: Collection[str]) -> set[str]:
        """Return those that versions name which are not being purged."""
        async with self._db.read() as tx:
            return set(digests) & await self._lifecycle.used(tx)

    async def _sizes(self, digests: Collection[str]) -> dict[str, int]:
        """Return the bytes that the store holds for those of these files that are there."""
        return {one.digest: one.size async for one in self._blobs.stored() if one.digest in digests}

    async def _condemned(self, digests: Collection[str]) -> list[str]:
        """Condemn what no other version names, however lately it was claimed, and return that with what was before."""
        async with self._db.begin() as tx:
            await self._claims.condemn(tx, digests, self._clock() + _AHEAD)
            condemned = set(digests) & set(await self._claims.condemned(tx))
            used = await self._lifecycle.used(tx)
            await self._claims.spare(tx, [digest for digest in condemned if digest in used])
        return sorted(condemned - used)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Turn]:
        """Be the only one who works on all files; wait where another does, which it tells nobody when it ends."""
        while True:
            try:
                async with self._claims.turn() as turn:
                    yield turn
                    return
            except OthersTurn:
                await asyncio.sleep(_LOOK_AGAIN_S)
