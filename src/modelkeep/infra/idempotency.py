"""Writes that may be repeated: a key that came with a request, noted in the transaction of what the request wrote.

    async with idempotency.once(write) as once:     # every `db.begin()` in here is one transaction, and the note is in it
        answer = ...                                # raises `Repeated` with the first answer where the note is there already
        await once.keep(answer)                     # into the note, and commits all of it

So there is a note with an answer exactly where there is an effect, whatever dies or is cut off, and whichever process is asked
again. A request that is refused leaves no note: it did nothing, and its key may be used again.

An answer may hold a secret, as that of a new API key does. It is therefore sealed under the caller's own secret, which nobody
keeps: the database alone does not open it, whoever repeats the request does.
"""

import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.contracts.errors import AnswerSealed, IdempotencyKeyInUse, IdempotencyKeyReused
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Span, Transaction, UtcTime, metadata

KEPT: Final = timedelta(hours=24)
_AT_ONCE: Final = 100
_NONCE: Final = 12

notes = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("answer", sa.LargeBinary),
    sa.Index(None, "at"),
)


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it went out."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Repeated(Exception):
    """The same request has been answered before; nothing was done now."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Write:
    """One request with a key: whose, under which key, and everything that makes it this request and no other.

    `secrets` is what only the caller has: the first seals, all open. What the request says is told in pieces with `says`,
    before it writes.
    """

    def __init__(self, caller: str, key: str, *secrets: bytes) -> None:
        self.caller = caller
        self.key = key
        self._said = hashlib.sha256()
        bound = f"modelkeep answer 1 {caller} {key}".encode()
        self._ciphers = [AESGCM(hmac.digest(secret, bound, "sha256")) for secret in secrets]

    def says(self, *parts: bytes) -> None:
        """Take in parts of the request."""
        for part in parts:
            self._said.update(len(part).to_bytes(8, "big") + part)

    @property
    def fingerprint(self) -> bytes:
        """Of all that the request says."""
        return self._said.digest()

    @property
    def lock(self) -> int:
        """A number for this caller and key, of the size that PostgreSQL's locks have."""
        return int.from_bytes(hashlib.sha256(f"{self.caller} {self.key}".encode()).digest()[:8], "big", signed=True)

    def seal(self, answer: Answer) -> bytes:
        """Return the answer so that only this caller, with this request, can read it."""
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[0].encrypt(nonce, msgspec.msgpack.encode(answer), self.fingerprint)

    def open(self, sealed: bytes) -> Answer:
        """Return what was sealed; raises `AnswerSealed` where none of the secrets opens it."""
        for cipher in self._ciphers:
            with suppress(InvalidTag):
                plain = cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], self.fingerprint)
                return msgspec.msgpack.decode(plain, type=Answer)
        raise AnswerSealed


class Once:
    """A write under way."""

    def __init__(self, db: Database, span: Span, write: Write) -> None:
        self._db = db
        self._span = span
        self._write = write

    async def keep(self, answer: Answer) -> None:
        """Commit what was written, with its answer; a request that wrote nothing needs neither."""
        if self._span.tx is None:
            return
        mine = (notes.c.caller == self._write.caller) & (notes.c.key == self._write.key)
        async with self._db.begin() as tx:
            await tx.execute(sa.update(notes).where(mine).values(answer=self._write.seal(answer)))
        await self._span.commit()


def _earlier(write: Write) -> sa.Select[Any]:
    return sa.select(notes).where(notes.c.caller == write.caller, notes.c.key == write.key)


class Idempotency:
    """Keeps answers by the keys of the requests for a day, and forgets them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    @asynccontextmanager
    async def once(self, write: Write) -> AsyncIterator[Once]:
        """Let what is written in the block be written once; where it has been before, its beginning raises `Repeated`.

        Raises `IdempotencyKeyReused` where the key came with another request, and `IdempotencyKeyInUse` where the request is
        still under way. What is not given an answer to keep is rolled back.
        """

        async def first(tx: Transaction) -> None:
            await self._note(tx, write)

        async with self._db.span(first) as span:
            yield Once(self._db, span, write)

    async def answers_to(self, prefix: str) -> int:
        """Count the answers that are kept for callers whose ids begin so."""
        mine = notes.c.caller.startswith(prefix, autoescape=True) & (notes.c.at >= self._clock() - KEPT)
        async with self._db.read() as tx:
            row = await tx.one(sa.select(sa.func.count()).select_from(notes).where(mine, notes.c.answer.is_not(None)))
        return 0 if row is None else int(row[0])

    async def check(self, write: Write) -> None:
        """Raise `Repeated` where this request, which has said all that it says, has been answered before.

        For routes that look before they write: what the first request removed is not there for the second.
        """
        async with self._db.read() as tx:
            earlier = await tx.one(_earlier(write).where(notes.c.at >= self._clock() - KEPT))
        if earlier is not None and earlier.fingerprint == write.fingerprint:
            raise Repeated(write.open(earlier.answer))

    async def _note(self, tx: Transaction, write: Write) -> None:
        if not self._db.sqlite:  # where writers wait for each other in any case
            locked = await tx.one(sa.select(sa.func.pg_try_advisory_xact_lock(write.lock).label("mine")))
            if locked is None or not locked.mine:
                raise IdempotencyKeyInUse
        now = self._clock()
        row = {"caller": write.caller, "key": write.key, "fingerprint": write.fingerprint, "at": now, "answer": None}
        fresh = tx.insert(notes).values(**row)
        fresh = fresh.on_conflict_do_update(index_elements=["caller", "key"], set_=row, where=notes.c.at < now - KEPT)
        if await tx.one(fresh.returning(notes.c.key)) is None:
            earlier = await tx.one(_earlier(write))
            if earlier is None:  # forgotten in this very moment
                raise IdempotencyKeyInUse
            if earlier.fingerprint != write.fingerprint:
                raise IdempotencyKeyReused
            raise Repeated(write.open(earlier.answer))
        old = sa.select(notes.c.caller, notes.c.key).where(notes.c.at < now - KEPT).order_by(notes.c.at).limit(_AT_ONCE)
        await self._forget(tx, await tx.all(old.with_for_update(skip_locked=True)))

    async def _forget(self, tx: Transaction, old: Iterable[sa.Row[tuple[str, str]]]) -> None:
        """Forget notes whose time is over: no more at once than a single write can bear, and more than one comes by it."""
        pairs = [(one.caller, one.key) for one in old]
        if pairs:
            await tx.execute(sa.delete(notes).where(sa.tuple_(notes.c.caller, notes.c.key).in_(pairs)))
