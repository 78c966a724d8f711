"""Replays: asked for here, done by the worker, and kept no longer than the predictions that they show."""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Final

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.ids import new_id
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.models.errors import ModelNotFound
from modelkeep.control.models.service import Models
from modelkeep.control.replays import store
from modelkeep.control.replays.errors import ReplayNotFound, TooManyReplays
from modelkeep.control.replays.rules import (
    MOST_OPEN,
    MOST_OPEN_OF_ONE,
    Asked,
    Details,
    Failure,
    Replay,
    State,
    Summary,
    check_rows_may_wait,
    first_expiry,
)
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database
from modelkeep.infra.jobs import Jobs

REPLAY_PREDICTIONS: Final = "replay_predictions"
_SHOWING: Final = 50

Missing = Callable[[Collection[str]], Awaitable[Collection[str]]]


class Replays:
    """What was answered again, and what came of it."""

    def __init__(
        self, *, db: Database, audit: Audit, models: Models, deployments: Deployments, jobs: Jobs, clock: Clock
    ) -> None:
        self._db = db
        self._audit = audit
        self._models = models
        self._deployments = deployments
        self._jobs = jobs
        self._clock = clock

    async def ask(self, actor: Actor, name: str, number: int, asked: Asked, rows: str | None = None) -> Replay:
        """Have predictions of a version answered again. `rows` are the caller's own, as JSON; they need `predict` too.

        Raises `RowsNotKept`, `TooManyReplays`, or what speaks against the version: archived, or never ready.
        """
        needed = Scope.PREDICT if asked.rows else Scope.PREDICTIONS_READ
        if asked.rows:
            await self._models.place(actor, name)
            deployment, _serving = await self._deployments.deployment(actor, name, needed)
            check_rows_may_wait(deployment.settings.recording)
        now = self._clock()
        async with self._db.begin() as tx:
            await store.forget(tx, now)
            version = await self._models.promotable(tx, actor, name, number, needed)
            if asked.candidate:
                await self._models.promotable(tx, actor, name, asked.candidate, needed)
            mine, all_open = await store.count_open(tx, actor.name)
            if mine >= MOST_OPEN_OF_ONE or all_open >= MOST_OPEN:
                raise TooManyReplays(retry_after_s=10)
            replay = Replay(
                id=new_id("rpl"),
                model=name,
                version_id=version.id,
                version=number,
                state=State.WAITING,
                asked=asked,
                created_at=now,
                created_by=actor.name,
                expires_at=first_expiry(now),
            )
            await store.add(tx, replay, rows)
            await self._jobs.enqueue(tx, REPLAY_PREDICTIONS, replay.id)
            await self._audit.note(tx, actor, "replay.ask", replay.id, version=version.id, number=str(number))
        return replay

    async def forget(self) -> None:
        """Forget replays whose time is over, with what they show."""
        async with self._db.begin() as tx:
            await store.forget(tx, self._clock())

    async def forget_shown(self, missing: Missing, replay_id: str | None = None) -> int:
        """Remove what replays show of predictions that have left the history, and return how many rows that were.

        `missing` returns those of some predictions that the history does not hold. `replay_id`: of this replay alone.
        """
        after, forgotten = "", 0
        while True:
            async with self._db.read() as tx:
                found = await store.showing(tx, self._clock(), after=after, limit=_SHOWING, replay_id=replay_id)
            for after, shown in found.items():
                left, rows = shown.without(await missing(shown.of()))
                if rows:
                    async with self._db.begin() as tx:
                        await store.show(tx, after, left)
                    forgotten += rows
            if len(found) < _SHOWING:
                return forgotten

    async def replay(self, actor: Actor, replay_id: str) -> Replay:
        """Return one replay, whole, to who may read predictions of its model; raises `ReplayNotFound`."""
        async with self._db.read() as tx:
            found = await store.replay(tx, replay_id, self._clock())
        if found is None:
            raise ReplayNotFound
        try:
            place = await self._models.place(actor, found.model)
        except ModelNotFound as error:
            raise ReplayNotFound from error
        actor.need(Scope.PREDICTIONS_READ, place)
        return found

    async def replays(self, actor: Actor, name: str, number: int, *, limit: int, before: str | None = None) -> list[Replay]:
        """List replays of a version, newest first, without their details."""
        version = await self._models.version(actor, name, number, Scope.PREDICTIONS_READ)
        async with self._db.read() as tx:
            return await store.page(tx, version.id, self._clock(), limit=limit, before=before)

    async def begin(self, replay_id: str) -> tuple[Replay, str | None] | None:
        """Note that a replay begins (again, and from its start); return it with the caller's own rows, None when it is over."""
        async with self._db.begin() as tx:
            await store.forget(tx, self._clock())
            return await store.begin(tx, replay_id, self._clock())

    async def note_progress(self, replay_id: str, progress: int) -> None:
        """Note how many predictions have been answered again."""
        async with self._db.begin() as tx:
            await store.note_progress(tx, replay_id, progress)

    async def finish(self, replay_id: str, summary: Summary, details: Details, expires_at: datetime, job_id: str) -> None:
        """Write down what came of it; its job is done in the same moment."""
        async with self._db.begin() as tx:
            await store.end(
                tx,
                replay_id,
                state=State.DONE,
                finished_at=self._clock(),
                progress=summary.replayed,
                summary=summary,
                details=details,
                expires_at=expires_at,
            )
            await self._jobs.finish(tx, job_id)

    async def fail(
        self,
        replay_id: str,
        failure: Failure,
        job_id: str,
        *,
        details: Details | None = None,
        expires_at: datetime | None = None,
        failed: bool = False,
    ) -> None:
        """Write down that it came to nothing; `failed` says that the job itself was given up."""
        goes = {} if expires_at is None else {"expires_at": expires_at}
        async with self._db.begin() as tx:
            values = {"finished_at": self._clock(), "failure": failure, "details": details, **goes}
            await store.end(tx, replay_id, state=State.FAILED, **values)
            await self._jobs.finish(tx, job_id, failed=failed, detail=failure.message if failed else "")

    async def finish_job(self, job_id: str) -> None:
        """Note that there is nothing left to do for a job."""
        async with self._db.begin() as tx:
            await self._jobs.finish(tx, job_id)
