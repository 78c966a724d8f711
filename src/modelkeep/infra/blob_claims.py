"""Who still needs a blob before any row says so: claims, which stand between uploads and the collector of unused files.

Whoever stores a blob claims it before a row refers to it. The collector condemns a blob in one statement, and only where its
claim is old; from then until its bytes are gone nobody can claim it. So a file that is stored again while the old one is being
removed is either kept, or refused and sent again; it is never acknowledged and then gone. Clocks decide when a claim is old,
and nothing else: a row that names files holds their claims in its own transaction, and cannot where one was condemned since.
What was never claimed here is not condemned either: it may be another installation's.

One of those who work on all files at once (collection, rotation of keys) has the turn; a rotation that wrote back an envelope
which a removal had just taken away would lose the file that has come since.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from modelkeep.contracts.errors import BeingRemoved, Conflict, NotFound
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.storage import Blob, BlobStore, Stored
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction, UtcTime, metadata

claims = sa.Table(
    "blob_claims",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("condemned", sa.Boolean, nullable=False),
)
turns = sa.Table(
    "blob_turns",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until", UtcTime, nullable=False),
)
_FILES: Final = "files"
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)  # nobody has claimed the blob since it was removed, or ever
_TURN: Final = timedelta(minutes=10)


class OthersTurn(Conflict):
    """Unused files are being removed, or keys rotated, by another process: try again when it is done."""

    code = "storage_at_work"


async def hold(tx: Transaction, digests: Collection[str], now: datetime) -> None:
    """Keep the files that a row written in `tx` names; raises `BeingRemoved` where one is being removed, or was."""
    for digest in sorted(digests):  # as in `condemn`: two that wait for each other would be none
        insert = tx.insert(claims).values(digest=digest, at=now, condemned=False)
        there = ~claims.c.condemned & (claims.c.at != _NEVER)
        held = insert.on_conflict_do_update(index_elements=["digest"], set_={"at": now}, where=there)
        if await tx.one(held.returning(claims.c.digest)) is None:
            raise BeingRemoved(retry_after_s=5)


class Claims:
    """The claims, over the control plane's database."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def claim(self, digest: str) -> datetime:
        """Keep a blob that was just stored, for as long as unused files are kept; raises `BeingRemoved`.

        Returns the moment by which the claim is known.
        """
        now = self._clock()
        async with self._db.begin_apart() as tx:  # the collector has to see it, while the rest of the upload is still coming
            insert = tx.insert(claims).values(digest=digest, at=now, condemned=False)
            again = insert.on_conflict_do_update(index_elements=["digest"], set_={"at": now}, where=~claims.c.condemned)
            if await tx.one(again.returning(claims.c.digest)) is None:
                raise BeingRemoved(retry_after_s=5)
        return now

    async def claimed(self, tx: Transaction) -> Mapping[str, datetime]:
        """Return when each blob was last claimed, condemned ones left out."""
        held = sa.select(claims).where(~claims.c.condemned, claims.c.at != _NEVER)
        return {row.digest: row.at for row in await tx.all(held)}

    async def condemned(self, tx: Transaction) -> list[str]:
        """Return the blobs that are being removed, also those over which a collector died."""
        return [row.digest for row in await tx.all(sa.select(claims.c.digest).where(claims.c.condemned))]

    async def condemn(self, tx: Transaction, digests: Collection[str], before: datetime) -> list[str]:
        """Condemn those of the blobs that were claimed before then, or never, and return them.

        Whoever names one in a row from now on is refused; so ask after this which are used, in `tx`, and spare those.
        """
        gone: list[str] = []
        for digest in sorted(digests):
            insert = tx.insert(claims).values(digest=digest, at=_NEVER, condemned=True)
            old = insert.on_conflict_do_update(
                index_elements=["digest"], set_={"condemned": True}, where=(claims.c.at < before) & ~claims.c.condemned
            )
            gone += [row.digest for row in await tx.all(old.returning(claims.c.digest))]
        return gone

    async def spare(self, tx: Transaction, digests: Collection[str]) -> None:
        """Take back the condemnation of blobs that are there, and that nobody is removing."""
        condemned = claims.c.digest.in_(digests) & claims.c.condemned
        await tx.execute(sa.update(claims).where(condemned).values(condemned=False))

    async def forget(self, digest: str) -> None:
        """Note that a condemned blob is gone: it can be stored again, and who had stored it before holds it no more."""
        async with self._db.begin() as tx:
            gone = sa.update(claims).where(claims.c.digest == digest, claims.c.condemned)
            await tx.execute(gone.values(at=_NEVER, condemned=False))

    async def give_up(self, digest: str, at: datetime) -> None:
        """Take back the claim of this moment, of what proved not to be there; who claimed it since keeps it."""
        mine = sa.update(claims).where(claims.c.digest == digest, claims.c.at == at, ~claims.c.condemned)
        async with self._db.begin_apart() as tx:
            await tx.execute(mine.values(at=_NEVER))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator["Turn"]:
        """Be the only one who works on all files; raises `OthersTurn`."""
        turn = Turn(self._db, self._clock)
        await turn.keep()
        try:
            yield turn
        finally:
            await turn.end()


class Turn:
    """The right to work on all files. It ends by itself a while after it was last kept."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._holder = new_id("trn")
        self._kept: datetime | None = None

    async def keep(self) -> None:
        """Go on, to be called before each step; raises `OthersTurn` where it took so long that another has the turn."""
        now = self._clock()
        if self._kept is not None and now - self._kept < _TURN / 2:
            return
        row = {"name": _FILES, "holder": self._holder, "until": now + _TURN}
        async with self._db.begin() as tx:
            insert = tx.insert(turns).values(**row)
            free = (turns.c.until < now) | (turns.c.holder == self._holder)
            taken = insert.on_conflict_do_update(index_elements=["name"], set_=row, where=free)
            if await tx.one(taken.returning(turns.c.name)) is None:
                raise OthersTurn
        self._kept = now

    async def end(self) -> None:
        """Let others have it."""
        async with self._db.begin() as tx:
            await tx.execute(sa.delete(turns).where(turns.c.holder == self._holder))


class ClaimedStore:
    """A `BlobStore` that claims what is put into another."""

    def __init__(self, inner: BlobStore, claims: Claims) -> None:
        self._inner = inner
        self._claims = claims

    async def put(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> Blob:
        """Store a stream and claim the blob; also raises `BeingRemoved`."""
        blob = await self._inner.put(chunks, max_bytes=max_bytes)
        claimed = await self._claims.claim(blob.digest)
        try:
            await self._inner.size(blob.digest)
        except NotFound as error:  # the store had it already, and it was removed before it was claimed
            await self._claims.give_up(blob.digest, claimed)
            raise BeingRemoved(retry_after_s=1) from error
        return blob

    async def read(self, digest: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the blob's bytes from `start` to before `end`."""
        async with aclosing(self._inner.read(digest, start=start, end=end)) as pieces:
            async for piece in pieces:
                yield piece

    async def size(self, digest: str) -> int:
        """Return the blob's length in bytes."""
        return await self._inner.size(digest)

    async def open(self, digest: str) -> int:
        """Return a descriptor of a file with the blob's bytes."""
        return await self._inner.open(digest)

    async def remove(self, digest: str) -> None:
        """Forget a blob."""
        await self._inner.remove(digest)

    def stored(self) -> AsyncIterator[Stored]:
        """Yield the blobs that are there."""
        return self._inner.stored()

    async def sweep(self) -> int:
        """Have the store below clean up."""
        return await self._inner.sweep()
