"""Jobs as rows: whoever wants work done writes the row in its own transaction, and the worker finds it there.

The row is the truth. It is `waiting` until a worker begins, `running` while one works (or has died over it), and ends `done`
or `failed` in the same transaction as the work's own outcome.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
import sqlalchemy as sa

from modelkeep.contracts.ids import new_id
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Transaction, UtcTime, metadata


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job(msgspec.Struct, frozen=True):
    """One piece of work: its kind, the id of what it is about, and how often it has been begun."""

    id: str
    kind: str
    subject: str
    state: JobState
    attempts: int


jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("finished_at", UtcTime),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("ix_jobs_state_id", "state", "id"),
)
leases = sa.Table(
    "worker_leases",
    metadata,
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("expires_at", UtcTime, nullable=False),
)
_UNFINISHED = (JobState.WAITING.value, JobState.RUNNING.value)


class Jobs:
    """Where jobs are asked for. `ring` is called after the commit of whatever asked."""

    def __init__(self, ring: Callable[[], object], clock: Clock) -> None:
        self._ring = ring
        self._clock = clock

    async def enqueue(self, tx: Transaction, kind: str, subject: str) -> str:
        """Write a job's row in the caller's transaction and return its id; the worker hears of it after the commit."""
        job_id = new_id("job")
        row = {"id": job_id, "kind": kind, "subject": subject, "state": JobState.WAITING, "attempts": 0, "detail": ""}
        await tx.execute(sa.insert(jobs).values(**row, created_at=self._clock()))
        tx.after_commit(self._ring)
        return job_id

    async def unfinished(self, tx: Transaction, limit: int) -> list[Job]:
        """Return the oldest jobs that are waiting or running."""
        oldest = sa.select(jobs).where(jobs.c.state.in_(_UNFINISHED)).order_by(jobs.c.id).limit(limit)
        return [_job(row) for row in await tx.all(oldest)]

    async def waits(self, tx: Transaction, kind: str, subject: str) -> bool:
        """Whether a job of this kind is waiting or running for this subject."""
        found = sa.select(jobs.c.id).where(jobs.c.kind == kind, jobs.c.subject == subject, jobs.c.state.in_(_UNFINISHED))
        return await tx.one(found.limit(1)) is not None

    async def kind(self, tx: Transaction, job_id: str) -> str:
        """Return what kind of job this is; "" where it is not known."""
        row = await tx.one(sa.select(jobs.c.kind).where(jobs.c.id == job_id))
        return "" if row is None else str(row.kind)

    async def begin(self, tx: Transaction, job_id: str, worker: str) -> Job | None:
        """Note that `worker` begins (again); None when the job has ended, or is not known."""
        running = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(_UNFINISHED))
        values = {"state": JobState.RUNNING, "attempts": jobs.c.attempts + 1, "worker": worker, "started_at": self._clock()}
        row = await tx.one(running.values(**values).returning(*jobs.c))
        return None if row is None else _job(row)

    async def finish(self, tx: Transaction, job_id: str, *, failed: bool = False, detail: str = "") -> bool:
        """Note a job's end, in the transaction that writes its outcome; False when it had ended before."""
        ended = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(_UNFINISHED))
        values = {"state": JobState.FAILED if failed else JobState.DONE, "finished_at": self._clock(), "detail": detail[:2000]}
        return await tx.one(ended.values(**values).returning(jobs.c.id)) is not None

    async def renew_lease(self, tx: Transaction, worker: str, lasting: timedelta) -> None:
        """Say that this worker lives, for so long."""
        row = {"worker": worker, "expires_at": self._clock() + lasting}
        await tx.execute(tx.insert(leases).values(**row).on_conflict_do_update(index_elements=["worker"], set_=row))

    async def live_workers(self, tx: Transaction) -> set[str]:
        """Return the names of the workers whose lease has not run out."""
        return {row.worker for row in await tx.all(sa.select(leases.c.worker).where(leases.c.expires_at > self._clock()))}

    async def sweep(self, tx: Transaction, before: datetime) -> None:
        """Forget jobs that ended before then."""
        await tx.execute(sa.delete(jobs).where(jobs.c.state.notin_(_UNFINISHED), jobs.c.finished_at < before))


def _job(row: sa.Row[tuple[object, ...]]) -> Job:
    return Job(row.id, row.kind, row.subject, JobState(row.state), row.attempts)
