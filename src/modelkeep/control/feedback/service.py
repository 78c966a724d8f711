"""Feedback: told by whoever may predict, joined to its prediction now or when that has come, and counted for rollouts.

Predictions may lie in another database than what is told of them, so whoever asks brings what finds them (`Find`). To those
who may not predict with a deployment its predictions do not exist: what they tell of them waits like that of unknown ones, and
whether they may is looked at again when it is joined.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.prediction import RecordFound
from modelkeep.control.access.service import Access
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.feedback import store
from modelkeep.control.feedback.errors import DeploymentNeeded
from modelkeep.control.feedback.rules import (
    MOST_PARKED,
    MOST_PARKED_OF_ONE,
    MOST_REVISIONS,
    PARKED_FOR,
    FeedbackStatus,
    Labelled,
    Labels,
    Outcome,
    Parked,
    Refused,
    Said,
    Told,
    Verdict,
    is_id,
    labelled,
    read,
    telling,
    winners,
)
from modelkeep.control.predictions.errors import PredictionNotFound
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction

_AT_ONCE: Final = 500
_TOO_OFTEN: Final = f"You have told of this prediction {MOST_REVISIONS} times already: no more is kept."
_TOO_MANY: Final = "Too much waits already for predictions that are not in the history: send it again later."

Among = Collection[str] | None
Find = Callable[[Collection[str]], Awaitable[Mapping[str, RecordFound]]]
"""Returns the records of those of these predictions that are there; where one is told of, it may leave some for later."""
Missing = Callable[[Collection[str]], Awaitable[Collection[str]]]
"""Returns those of these predictions that the history does not hold."""


class Feedback:
    """What was told of predictions."""

    def __init__(self, *, db: Database, audit: Audit, access: Access, deployments: Deployments, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._access = access
        self._deployments = deployments
        self._clock = clock

    # ---- telling

    async def tell(self, actor: Actor, items: Sequence[Any], find: Find) -> list[Outcome]:
        """Take in what is said of predictions, and return what became of each item, in their order."""
        now = self._clock()
        readings = [read(raw, now) for raw in items]
        among = await self._deployments.names(actor, Scope.PREDICT)
        found = await find({one.prediction_id for one in readings if isinstance(one, Said)})
        known = {key: record for key, record in found.items() if _within(record, among)}
        at_hand = [one for one in readings if isinstance(one, Said) and one.prediction_id in known]
        waiting = [one for one in readings if isinstance(one, Said) and one.prediction_id not in known]
        async with self._db.begin() as tx:
            told = [(one, telling(one, now, by=actor.name, user=actor.user)) for one in at_hand]
            kept, parked = iter(await self._keep(tx, told, known)), iter(await self._park(tx, actor, waiting))
            outcomes = []
            for raw, one in zip(items, readings, strict=True):
                if isinstance(one, Refused):
                    outcomes.append(Outcome(_named(raw), FeedbackStatus.REFUSED, one.reason))
                else:
                    outcomes.append(next(kept if one.prediction_id in known else parked))
            became = counts(outcomes)
            if became["accepted"] or became["parked"]:
                await self._audit.note(tx, actor, "feedback.send", "", **{name: str(many) for name, many in became.items()})
            return outcomes

    async def join(self, find: Find) -> tuple[int, int]:
        """Join what waits to the predictions that have come by now; return how much was, and how much waited too long.

        Each is joined once: whoever holds it takes it away from what waits and keeps it, in one transaction.
        """
        now = self._clock()
        async with self._db.read() as tx:
            due = await store.due(tx, now, _AT_ONCE)
        if not due:
            return 0, 0
        found = await find({one.said.prediction_id for one in due})
        async with self._db.begin() as tx:
            due = await store.hold(tx, due, now)
            allowed = await self._allowed(tx, [one for one in due if one.said.prediction_id in found])
            ready = [one for one in due if one.id in allowed and _within(found[one.said.prediction_id], allowed[one.id])]
            joined = {one.id for one in ready}
            rest = [one for one in due if one.id not in joined]
            late = [one.id for one in rest if one.since <= now - PARKED_FOR]
            ready.sort(key=lambda one: (one.told_at, one.id))
            told = [(one.said, telling(one.said, one.told_at, by=one.by, user=one.user)) for one in ready]
            await self._keep(tx, told, found)
            await store.take(tx, [*joined, *late])
            await store.postpone(tx, [one for one in rest if one.id not in late], now)
            return len(ready), len(late)

    async def _keep(
        self, tx: Transaction, said: Sequence[tuple[Said, Told]], records: Mapping[str, RecordFound]
    ) -> list[Outcome]:
        """Keep what is told of predictions that are known, and return what became of each."""
        ids = {told.prediction_id for _, told in said}
        holding = {key: one.now for key, one in (await store.holding(tx, ids)).items()}
        kept, often = await store.kept(tx, [told for _, told in said]), Counter(await store.often(tx, ids))
        fresh: dict[tuple[str, str], Told] = {}
        statuses = []
        for one, told in said:
            key, holds = (told.prediction_id, told.digest), holding.get(told.prediction_id)
            if key in kept or (one.at is None and holds is not None and holds.says(one)):
                statuses.append(FeedbackStatus.UNCHANGED)
            elif often[told.teller] >= MOST_REVISIONS:
                statuses.append(FeedbackStatus.REFUSED)
            else:
                statuses.append(FeedbackStatus.ACCEPTED)
                kept.add(key)
                often[told.teller] += 1
                fresh[key] = told
                holding |= winners([told] if holds is None else [told, holds])
        new = await store.tell(tx, fresh.values())  # of two who tell the same at once, it is new by one
        await store.settle(tx, [labelled(records[key], told) for key, told in winners(fresh[key] for key in new).items()])
        return [
            Outcome(told.prediction_id, status, _TOO_OFTEN if status is FeedbackStatus.REFUSED else "")
            for (_, told), status in zip(said, statuses, strict=True)
        ]

    async def _park(self, tx: Transaction, actor: Actor, said: Sequence[Said]) -> list[Outcome]:
        """Have what is said of predictions that are not there wait, as far as there is room."""
        if not said:
            return []
        room = min(MOST_PARKED - await store.parked(tx), MOST_PARKED_OF_ONE - await store.parked_of(tx, actor))
        now = self._clock()
        parked = [Parked(new_id("fbk"), one, actor.id, actor.name, actor.user, since=now, told_at=now) for one in said]
        wait = await store.waiting(tx, actor.id, {one.prediction_id for one in said})  # these have their room already
        for one in parked:
            if one.key not in wait and room > 0:
                room -= 1
                wait.add(one.key)
        await store.park(tx, [one for one in parked if one.key in wait])
        return [
            Outcome(one.said.prediction_id, FeedbackStatus.PARKED)
            if one.key in wait
            else Outcome(one.said.prediction_id, FeedbackStatus.REFUSED, _TOO_MANY)
            for one in parked
        ]

    async def _allowed(self, tx: Transaction, parked: Iterable[Parked]) -> dict[str, Among]:
        """Return with which deployments whoever told each of these may predict now; nothing for those who come in no more."""
        allowed: dict[str, Among] = {}
        of: dict[tuple[str, str], Among] = {}
        for one in parked:
            who = (one.asked_by, one.user)
            if who not in of:
                try:
                    actor = await self._access.renewed_in(tx, Actor(one.asked_by, one.by, one.user))
                    of[who] = await self._deployments.names_in(tx, actor, Scope.PREDICT)
                except Unauthenticated:
                    of[who] = frozenset()
            allowed[one.id] = of[who]
        return allowed

    # ---- reading

    async def page(
        self,
        actor: Actor,
        *,
        limit: int,
        before: str | None = None,
        deployment: str | None = None,
        version: str | None = None,
        verdict: Verdict | None = None,
    ) -> list[Labelled]:
        """List what holds of predictions that the actor may read, the newest prediction first.

        `version` is a version's id, or its number in `deployment`; raises `DeploymentNeeded`.
        """
        if version is not None and version.isdecimal() and deployment is None:
            raise DeploymentNeeded
        async with self._db.read() as tx:
            among = await self._deployments.names_in(tx, actor, Scope.PREDICTIONS_READ)
            wanted = {"deployment": deployment, "version": version, "verdict": verdict}
            return await store.page(tx, among=among, limit=limit, before=before, **wanted)  # type: ignore[arg-type] # mypy joins them

    async def revisions(self, actor: Actor, prediction_id: str, find: Find) -> list[Told]:
        """Return all that was told of a prediction, what holds first; raises `PredictionNotFound`."""
        async with self._db.read() as tx:
            among = await self._deployments.names_in(tx, actor, Scope.PREDICTIONS_READ)
            holds = (await store.holding(tx, [prediction_id])).get(prediction_id)
            if holds is not None and _within(holds, among):
                return await store.revisions(tx, prediction_id)
        record = (await find([prediction_id])).get(prediction_id)
        if record is None or not _within(record, among):
            raise PredictionNotFound
        return []

    async def labels_in(self, tx: Transaction, trials: Sequence[str]) -> Mapping[str, Mapping[str, Labels]]:
        """Return how many predictions that these trials count were told of, by trial and version."""
        return await store.labels(tx, trials)

    # ---- forgetting

    async def forget(self, missing: Missing) -> int:
        """Forget what was told of predictions that have left the history; return of how many something was."""
        after, forgotten = "", 0
        while True:
            async with self._db.read() as tx:
                known = await store.ids(tx, after=after, limit=_AT_ONCE)
            gone = await missing(known) if known else []
            if gone:
                async with self._db.begin() as tx:
                    forgotten += await store.forget(tx, gone)
            if len(known) < _AT_ONCE:
                return forgotten
            after = known[-1]


def counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Return how many items became what."""
    found = Counter(one.status for one in outcomes)
    return {status.value: found[status] for status in FeedbackStatus}


def _within(one: RecordFound | Labelled, among: Among) -> bool:
    return among is None or one.deployment in among


def _named(raw: object) -> str:
    """Return which prediction a refused item names, "" where it names none."""
    named = raw.get("prediction") if isinstance(raw, dict) else None
    return named if isinstance(named, str) and is_id(named) else ""
