"""The audit trail: each change leaves one entry, in the same transaction; what cannot be audited does not happen.

Entries are a chain of hashes. An entry takes its place in it right before its transaction commits, under the lock of one row,
so that numbers have no gaps, what is committed is committed in their order, and no lock is taken after that one.
"""

import asyncio
import hmac
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
import structlog

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.audit_chain import ERASURE, Report, Verifier, spans_in
from modelkeep.contracts.errors import StorageFull
from modelkeep.contracts.ids import new_id
from modelkeep.control.audit import store
from modelkeep.control.audit.checkpoints import public, signed, signed_by
from modelkeep.control.audit.errors import OwnTracks, ReasonNeeded, SubjectNotFound
from modelkeep.control.audit.rules import (
    NOBODY,
    Carried,
    Checkpoint,
    Entry,
    Head,
    Mark,
    Outcome,
    Sealed,
    Wanted,
    kind_of,
    ranges,
    seal,
)
from modelkeep.infra.addresses import shared
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, DatabaseUnavailable, Transaction
from modelkeep.infra.rates import OwnRates
from modelkeep.infra.site_key import SiteKey

Circumstances = Callable[[Transaction], Awaitable[dict[str, str]]]
"""Returns what every entry says besides its own details, as the transaction sees it: what else holds here, and may matter."""

CHECKPOINT_ENTRIES: Final = 1000
CHECKPOINT_EVERY: Final = timedelta(minutes=5)
REFUSALS_OF_ONE: Final = 20
"""So many refusals of one person, or of strangers from one address, have entries of their own before the rest is summed."""
REFUSALS_OF_STRANGERS: Final = 100
"""So many of strangers altogether, which takes nothing from those of people. Each minute gives one back, of each."""
_STRANGERS: Final = "strangers"
_ANOTHER_S: Final = 60.0
_SUM_EVERY: Final = timedelta(minutes=10)
_LONGEST_REASON: Final = 500
_LONGEST_TEXT: Final = 200
_VERIFIED: Final = "verified"
_PAGE: Final = 2000
_log = structlog.get_logger(__name__)


class Audit:
    """Who did what to what, when, from where, and under which circumstances."""

    def __init__(self, db: Database, clock: Clock, circumstances: Circumstances, site: SiteKey) -> None:
        self._db = db
        self._clock = clock
        self._circumstances = circumstances
        self._subjects_keys = site.derive_all("audit subjects")
        self._checkpoints_keys = site.derive_all("audit checkpoints")
        self._withheld: dict[str, tuple[Actor, Counter[str]]] = {}
        self._withheld_since: datetime | None = None
        self._singles = OwnRates()

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

    async def shown(self, actor: Actor, action: str, target: str = "", **details: str) -> None:
        """Write down what somebody is about to be shown."""
        async with self._db.begin() as tx:
            await self.note(tx, actor, action, target, **details)

    async def refused(self, actor: Actor, action: str, target: str = "", **details: str) -> None:
        """Write down that somebody was refused; beyond `REFUSALS_OF_ONE` it is only counted, for the next sum.

        Whatever comes of it, the refusal stands: where it cannot be written, it is counted, too.
        """
        now = self._clock()
        if not self._may_stand_alone(actor, now):
            self._withhold(actor, action, now)
            return
        try:
            async with self._db.begin_apart() as tx:
                said = {name: value[:_LONGEST_TEXT] for name, value in details.items()} | await self._circumstances(tx)
                entry = self._entry(actor, action, target, details=said, outcome="refused")
                tx.before_commit(partial(self._append, tx, entry))
        except (DatabaseUnavailable, StorageFull) as error:
            self._withhold(actor, action, now)
            _log.warning("refusal_not_audited", action=action, reason=error.code)

    async def sum_up(self, *, now_due: bool = False) -> None:
        """Write down how many refusals were only counted, if ten minutes have passed since the first, or `now_due`.

        Each person has an entry, and all strangers together.
        """
        since, counted = self._withheld_since, self._withheld
        if since is None or (not now_due and self._clock() - since < _SUM_EVERY):
            return
        self._withheld, self._withheld_since = {}, None
        try:
            async with self._db.begin_apart() as tx:
                sums = []
                for actor, actions in counted.values():
                    details = {name: str(number) for name, number in actions.items()} | {"since": since.isoformat()}
                    sums.append(self._entry(actor, "access.refusals", "", details=details, outcome="refused"))
                tx.before_commit(partial(self._append, tx, *sums))
        except BaseException:
            for name, (actor, actions) in counted.items():
                self._withheld.setdefault(name, (actor, Counter()))[1].update(actions)
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

    async def holds(self, seen: Head) -> bool:
        """Whether an entry still has the hash that it had."""
        if not seen.seq:
            return True
        async with self._db.read() as tx:
            found = await store.after(tx, seen.seq - 1, limit=1)
        return bool(found) and Head(found[0].seq, found[0].hash) == seen

    async def checkpoints(self, *, above: int = 0, upto: int | None = None) -> AsyncIterator[list[Checkpoint]]:
        """Yield checkpoints in their order, list by list."""
        while True:
            async with self._db.read() as tx:
                found = await store.checkpoints(tx, above=above, upto=upto)
            if not found:
                return
            yield found
            above = found[-1].seq

    async def erase(self, actor: Actor, subject_ids: Collection[str], reason: str, own: Collection[str] = ()) -> int:
        """Erase what entries say that name one of these ids, and return how many those were; the chain stays whole.

        The erasure is an entry: it tells the numbers, and those of the erasures that it erases. Nobody erases what they did
        themselves: `own` are the ids that the actor is known by. Raises `OwnTracks`, `SubjectNotFound`.
        """
        actor.need(Scope.ADMIN)
        if not {actor.id, actor.user, *own}.isdisjoint(subject_ids):
            raise OwnTracks
        if not 1 <= len(reason.strip()) <= _LONGEST_REASON:
            raise ReasonNeeded
        async with self._db.begin() as tx:
            people = [one for one in subject_ids if one.startswith(("usr_", "key_")) or ":" in one]  # things stay
            found = await store.naming(tx, [ref for one in people for ref in self._refs(one)], people)
            if not found:
                raise SubjectNotFound
            erasures = [seq for seq, action in found.items() if action == ERASURE]
            numbers = [(seq, seq) for seq in found]
            for text in await store.payloads(tx, erasures):
                numbers += spans_in(json.loads(text)["details"]["numbers"])
            await store.erase(tx, found)
            details = {"entries": str(len(found)), "numbers": ranges(numbers), "reason": reason.strip()}
            await self.note(tx, actor, ERASURE, "", **details)
        return len(found)

    async def scrub(self, after: int) -> int:
        """Have what was erased since entry `after` leave SQLite's log, too.

        Returns the number of the newest erasure, or `after` where a reader was in the way.
        """
        newest = await self.entries(Wanted(action=ERASURE), limit=1)
        if not newest or newest[0].seq <= after:
            return after
        return newest[0].seq if await self._db.scrub() else after

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

    async def verify(self, seen: Head | None = None) -> Report:
        """Verify the whole chain as the database has it, and note when that was done, where it is whole.

        `seen` is what somebody remembers of it, who does not believe the database. The hashing is done in a thread.
        """
        head = await self.head()
        verifier = Verifier(public_keys=[public(seed) for seed in self._checkpoints_keys])
        async for some in self.checkpoints():
            for one in some:
                verifier.expect(one.document())
        verifier.reaches(head.seq)
        if seen is not None and seen.seq:
            verifier.known(seen.seq, seen.hash)
        async for entries in self.sealed():
            await asyncio.to_thread(_add, verifier, entries)
        report = await asyncio.to_thread(verifier.report)
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

    async def _append(self, tx: Transaction, *entries: Entry) -> None:
        """Give entries the next places in the chain."""
        head = await store.take_head(tx)
        some: list[tuple[Sealed, Entry, list[str]]] = []
        for entry in entries:
            sealed = seal(entry, head, os.urandom(32))
            head = Head(sealed.seq, sealed.hash)
            some.append((sealed, entry, sorted(self.subject_ref(one) for one in entry.subjects)))
        await store.append(tx, some)

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

    def _may_stand_alone(self, actor: Actor, now: datetime) -> bool:
        """Take one of the places of single refusals, if there is one: what strangers do must not hide what people do."""
        known = actor.id not in NOBODY
        one = (actor.user or actor.id) if known else shared(actor.address or None)
        return self._takes(one, REFUSALS_OF_ONE, now) and (known or self._takes(_STRANGERS, REFUSALS_OF_STRANGERS, now))

    def _takes(self, name: str, most: int, now: datetime) -> bool:
        return self._singles.take(name, _ANOTHER_S, _ANOTHER_S * (most - 1), now.timestamp()) <= 0

    def _withhold(self, actor: Actor, action: str, now: datetime) -> None:
        who = SYSTEM if actor.id in NOBODY else msgspec.structs.replace(actor, request_id="", address="")
        self._withheld.setdefault(who.id, (who, Counter()))[1][action] += 1
        self._withheld_since = self._withheld_since or now


def _add(verifier: Verifier, entries: list[Sealed]) -> None:
    for entry in entries:
        verifier.add(entry.found())
