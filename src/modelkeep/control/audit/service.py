"""The audit trail: each change leaves one entry, in the same transaction; what cannot be audited does not happen.

Entries are a chain of hashes. An entry takes its place in it right before its transaction commits, under the lock of one row,
so that numbers have no gaps, what is committed is committed in their order, and no lock is taken after that one.
"""

import hmac
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.audit_chain import ERASURE, Report, Verifier, numbers_in, ranges
from modelkeep.contracts.errors import StorageFull
from modelkeep.contracts.ids import new_id
from modelkeep.control.audit import store
from modelkeep.control.audit.checkpoints import public, signed, signed_by
from modelkeep.control.audit.errors import ReasonNeeded, SubjectNotFound
from modelkeep.control.audit.rules import Carried, Checkpoint, Entry, Head, Mark, Outcome, Sealed, Wanted, kind_of, seal
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, DatabaseUnavailable, Transaction
from modelkeep.infra.site_key import SiteKey

Circumstances = Callable[[Transaction], Awaitable[dict[str, str]]]
"""Returns what every entry says besides its own details, as the transaction sees it: what else holds here, and may matter."""

CHECKPOINT_ENTRIES: Final = 1000
CHECKPOINT_EVERY: Final = timedelta(minutes=5)
SINGLE_REFUSALS: Final = 100
"""So many refusals have entries of their own before the rest is summed; each minute gives one back."""
_SINGLE_EVERY: Final = timedelta(minutes=1)
_SUM_EVERY: Final = timedelta(minutes=10)
_LONGEST_REASON: Final = 500
_LONGEST_TEXT: Final = 200
_VERIFIED: Final = "verified"
_PAGE: Final = 1000
_log = structlog.get_logger(__name__)


class Audit:
    """Who did what to what, when, from where, and under which circumstances."""

    def __init__(self, db: Database, clock: Clock, circumstances: Circumstances, site: SiteKey) -> None:
        self._db = db
        self._clock = clock
        self._circumstances = circumstances
        self._subjects_keys = site.derive_all("audit subjects")
        self._checkpoints_keys = site.derive_all("audit checkpoints")
        self._withheld: Counter[str] = Counter()
        self._withheld_since: datetime | None = None
        self._singles = float(SINGLE_REFUSALS)
        self._singles_at: datetime | None = None

    async def note(
        self,
        tx: Transaction,
        actor: Actor,
        action: str,
        target: str,
        *,
        before: str | None = None,
        after: str | None = None,
        about: str = "",
        **details: str,
    ) -> None:
        """Write down a change in the transaction that makes it, and how things were `before` and are `after`.

        `about` are the ids of people whom it names beside actor and target, with spaces between.
        """
        said = details | await self._circumstances(tx)
        entry = self._entry(actor, action, target, before=before, after=after, about=about, details=said)
        tx.before_commit(partial(self._append, tx, entry))

    async def refused(self, actor: Actor, action: str, target: str = "", **details: str) -> None:
        """Write down that somebody was refused; beyond `SINGLE_REFUSALS` it is only counted, for the next sum.

        Whatever comes of it, the refusal stands: where it cannot be written, it is counted, too.
        """
        now = self._clock()
        if not self._may_stand_alone(now):
            self._withhold(action, now)
            return
        try:
            async with self._db.begin_apart() as tx:
                said = {name: value[:_LONGEST_TEXT] for name, value in details.items()} | await self._circumstances(tx)
                entry = self._entry(actor, action, target, details=said, outcome="refused")
                tx.before_commit(partial(self._append, tx, entry))
        except (DatabaseUnavailable, StorageFull) as error:
            self._withhold(action, now)
            _log.warning("refusal_not_audited", action=action, reason=error.code)

    async def sum_up(self, *, now_due: bool = False) -> None:
        """Write down how many refusals were only counted, if ten minutes have passed since the first, or `now_due`."""
        since, counted = self._withheld_since, self._withheld
        if since is None or (not now_due and self._clock() - since < _SUM_EVERY):
            return
        self._withheld, self._withheld_since = Counter(), None
        details = {name: str(number) for name, number in counted.items()} | {"since": since.isoformat()}
        try:
            async with self._db.begin_apart() as tx:
                entry = self._entry(SYSTEM, "access.refusals", "", details=details, outcome="refused")
                tx.before_commit(partial(self._append, tx, entry))
        except BaseException:
            self._withheld.update(counted)
            self._withheld_since = since
            raise

    async def entries(
        self, wanted: Wanted | None = None, *, limit: int, before: int | None = None, target: str | None = None
    ) -> list[Entry]:
        """List entries, newest first, with numbers below `before`; `target` alone is short for `wanted`."""
        wanted = wanted or Wanted(target=target)
        async with self._db.read() as tx:
            return [one.read() for one in await store.page(tx, wanted, limit=limit, before=before)]

    async def sealed(self, wanted: Wanted | None = None, *, after: int = 0) -> AsyncIterator[list[Sealed]]:
        """Yield entries as they are kept, in their order, list by list, until there are no more."""
        while True:
            async with self._db.read() as tx:
                found = await store.after(tx, after, limit=_PAGE, wanted=wanted)
            if not found:
                return
            yield found
            after = found[-1].seq

    async def head(self) -> Head:
        """Return the newest entry's number and hash."""
        async with self._db.read() as tx:
            return await store.head(tx)

    async def checkpoints(self, *, above: int = 0, upto: int | None = None) -> AsyncIterator[list[Checkpoint]]:
        """Yield checkpoints in their order, list by list."""
        while True:
            async with self._db.read() as tx:
                found = await store.checkpoints(tx, above=above, upto=upto)
            if not found:
                return
            yield found
            above = found[-1].seq

    async def erase(self, actor: Actor, subject_ids: Collection[str], reason: str) -> int:
        """Erase what entries say that name one of these ids, and return how many those were; the chain stays whole.

        The erasure is an entry: it tells the numbers, and those of the erasures that it erases. Raises `SubjectNotFound`.
        """
        actor.need(Scope.ADMIN)
        if not 1 <= len(reason.strip()) <= _LONGEST_REASON:
            raise ReasonNeeded
        async with self._db.begin() as tx:
            people = [one for one in subject_ids if one.startswith(("usr_", "key_"))]  # the system, and things, stay
            found = await store.naming(tx, [ref for one in people for ref in self._refs(one)], people)
            if not found:
                raise SubjectNotFound
            erasures = [seq for seq, action in found.items() if action == ERASURE]
            numbers = set(found).union(
                *(numbers_in(json.loads(text)["details"]["numbers"]) for text in await store.payloads(tx, erasures))
            )
            await store.erase(tx, found)
            details = {"entries": str(len(found)), "numbers": ranges(numbers), "reason": reason.strip()}
            await self.note(tx, actor, ERASURE, "", **details)
        return len(found)

    async def scrub(self, after: int) -> int:
        """Have what was erased since entry `after` leave SQLite's log, too; returns the number of the newest erasure."""
        newest = await self.entries(Wanted(action=ERASURE), limit=1)
        if not newest or newest[0].seq <= after:
            return after
        await self._db.scrub()
        return newest[0].seq

    def subject_ref(self, subject_id: str) -> str:
        """Return what a person's id is found by: a keyed hash, which tells it to nobody who lacks the site key."""
        return self._refs(subject_id)[0]

    async def checkpoint(self) -> Checkpoint | None:
        """Sign how the chain is now, where there is news and it is time; returns the checkpoint."""
        now = self._clock()
        async with self._db.begin() as tx:
            head, newest = await store.head(tx), await store.newest_checkpoint(tx)
            done = 0 if newest is None else newest.seq
            due = newest is None or head.seq - done >= CHECKPOINT_ENTRIES or now - newest.at >= CHECKPOINT_EVERY
            if head.seq <= done or not due:
                return None
            made = signed(self._checkpoints_keys[0], head, now)
            await store.add_checkpoint(tx, made)
        return made

    async def verify(self) -> Report:
        """Verify the whole chain as the database has it, and note when that was done, where it is whole."""
        head = await self.head()
        verifier = Verifier(public_keys=[public(seed) for seed in self._checkpoints_keys])
        async for some in self.checkpoints():
            for one in some:
                verifier.expect(one.document())
        verifier.reaches(head.seq)
        async for entries in self.sealed():
            for entry in entries:
                verifier.add(entry.record, entry.hash, entry.payload, entry.key or b"")
        report = verifier.report()
        if report.whole:
            await self.set_mark(_VERIFIED, head.seq)
        return report

    async def reseal(self, actor: Actor, ids: Collection[str]) -> Carried:
        """Have what older site keys made be as if the present one had: the checkpoints, and what people, `ids`, are found by.

        A checkpoint that none of the keys has signed stays as it is, to be found. It may be repeated.
        """
        new, *olds = self._checkpoints_keys
        async with self._db.begin() as tx:
            newest = await store.newest_checkpoint(tx)
            late = newest is not None and any(signed_by(old, newest) for old in olds)
            refs = {ref: self.subject_ref(one) for one in ids for ref in self._refs(one)[1:]}
            subjects = await store.rename(tx, refs)
            checkpoints = 0
            for one in await store.checkpoints_with(tx, [public(old) for old in olds]):
                if any(signed_by(old, one) for old in olds):
                    await store.sign_anew(tx, signed(new, Head(one.seq, one.head), one.at))
                    checkpoints += 1
            if subjects or checkpoints:
                said = {"checkpoints": str(checkpoints), "subjects": str(subjects), "public_key": public(new)}
                await self.note(tx, actor, "audit.reseal", "", **said)
        return Carried(checkpoints, subjects, late)

    async def verified(self) -> Mark | None:
        """Return when the chain was last verified and whole, and how far it went then."""
        return await self.mark(_VERIFIED)

    async def mark(self, name: str) -> Mark | None:
        """Return how far something has come with the trail."""
        async with self._db.read() as tx:
            return await store.mark(tx, name)

    async def set_mark(self, name: str, seq: int) -> None:
        """Note how far something has come."""
        async with self._db.begin() as tx:
            await store.set_mark(tx, name, seq, self._clock())

    async def take_turn(self, name: str, holder: str, lasting: timedelta) -> bool:
        """Be the one process that does something for so long; False while another is."""
        now = self._clock()
        async with self._db.begin() as tx:
            return await store.take_turn(tx, name, holder, now, now + lasting)

    def _refs(self, subject_id: str) -> list[str]:
        """Return what an id is found by under each site key: first under that which seals."""
        return [hmac.digest(key, subject_id.encode(), "sha256").hex() for key in self._subjects_keys]

    async def _append(self, tx: Transaction, entry: Entry) -> None:
        """Give an entry the next place in the chain."""
        sealed = seal(entry, await store.take_head(tx), os.urandom(32))
        refs = sorted(self.subject_ref(one) for one in entry.subjects)
        await store.append(tx, sealed, entry, refs)

    def _entry(
        self,
        actor: Actor,
        action: str,
        target: str,
        *,
        details: dict[str, str],
        before: str | None = None,
        after: str | None = None,
        about: str = "",
        outcome: Outcome = "done",
    ) -> Entry:
        return Entry(
            id=new_id("aud"),
            at=self._clock(),
            action=action,
            target_kind=kind_of(target, action),
            outcome=outcome,
            request_id=actor.request_id,
            actor=actor.id,
            actor_name=actor.name,
            user=actor.user,
            address=actor.address,
            target=target,
            details=details,
            before=before,
            after=after,
            about=about,
        )

    def _may_stand_alone(self, now: datetime) -> bool:
        """Take one of the places of single refusals, if there is one."""
        if self._singles_at is not None:
            self._singles = min(float(SINGLE_REFUSALS), self._singles + (now - self._singles_at) / _SINGLE_EVERY)
        self._singles_at = now
        if self._singles < 1:
            return False
        self._singles -= 1
        return True

    def _withhold(self, action: str, now: datetime) -> None:
        self._withheld[action] += 1
        self._withheld_since = self._withheld_since or now
