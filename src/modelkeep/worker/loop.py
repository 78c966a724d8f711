"""The worker: finds jobs as rows, has the engine run them, and takes over what dead workers had begun.

The row is the truth. A job that is not known to the engine is started, whoever wrote the row and whenever; each beginning is
counted in the row before the work begins, so that a job which kills its worker again and again is given up in the end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa
import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.infra.bell import Listener
from modelkeep.infra.clock import Clock, utc_now
from modelkeep.infra.db import Database, DatabaseUnavailable
from modelkeep.infra.job_engine import JobEngine
from modelkeep.infra.jobs import Job, Jobs
from modelkeep.infra.migrations import wait_until_current
from modelkeep.worker.settings import WorkerSettings

_log = structlog.get_logger(__name__)
_AT_ONCE: Final = 100
_START_AGAIN_S: Final = 60.0
_KEPT: Final = timedelta(days=30)
_TIDY_EVERY_S: Final = 3600.0

T = TypeVar("T")


class Handler(Protocol):
    """What does the jobs of one kind. Both methods end the job's row in the transaction that writes their outcome."""

    async def run(self, job: Job) -> None:
        """Do the work; whatever is raised means "try again". Done twice, it has the effect of once."""
        ...

    async def give_up(self, job: Job) -> None:
        """The job was begun too often without an end: write down that it failed."""
        ...


class Worker:
    """Works on jobs until it is told to stop.

    Jobs of `patient` kinds, which hold a place for long and are asked for often, leave one place to the others, if there are
    two. `tidy` is done at the start and every hour.
    """

    def __init__(
        self,
        db: Database,
        jobs: Jobs,
        handlers: Mapping[str, Handler],
        settings: WorkerSettings,
        run_dir: Path,
        *,
        patient: frozenset[str] = frozenset(),
        tidy: Callable[[], Awaitable[None]] | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._handlers = handlers
        self._settings = settings
        self._clock = clock
        self._listener = Listener(run_dir / "worker.sock")
        self._engine = JobEngine(_engine_url(db), settings.name, self._perform, password=db.password)
        self._places = asyncio.Semaphore(settings.jobs)
        self._places_of_patient = asyncio.Semaphore(max(1, settings.jobs - 1))
        self._patient = patient
        self._tidy = tidy
        self._tidied = float("-inf")
        self._started: dict[str, float] = {}
        self._renewed = float("-inf")
        self._troubled = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, waiting wherever the database is away; what is in work then goes on at the next start."""
        with self._listener:
            working, stopping = asyncio.create_task(self._work()), asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    working.result()
            finally:
                stopping.cancel()
                working.cancel()
                await asyncio.gather(working, stopping, return_exceptions=True)
                await self._engine.close()

    async def _work(self) -> None:
        """Begin, and go on for ever."""
        await wait_until_current(self._db)
        if not await self._quietly(self._unfinished()):
            await self._listener.wait(self._settings.quiet_start_s)
        while not await self._quietly(self._launched()):
            await self._listener.wait(self._settings.poll_s)
        while True:
            await self._quietly(self._sweep())
            await self._quietly(self._reconcile())
            await self._listener.wait(self._settings.poll_s)

    async def _quietly(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do what the next round will do again; a database that is away is told once, and once again when it is back."""
        try:
            done = await work
        except ModelkeepError as error:
            if not self._troubled:
                _log.warning("worker_waits", reason=error.message)
            self._troubled = True
            return None
        if self._troubled:
            _log.info("worker_goes_on")
        self._troubled = False
        return done

    async def _launched(self) -> bool:
        await self._engine.launch()
        return True

    async def _reconcile(self) -> None:
        """Live on, take over from the dead, and start what is not started."""
        await self._keep_lease()
        unfinished = {job.id for job in await self._unfinished()}
        now = time.monotonic()
        self._started = {
            job_id: at for job_id, at in self._started.items() if job_id in unfinished and now - at < _START_AGAIN_S
        }
        for job_id in sorted(unfinished - self._started.keys()):
            await self._engine.start(job_id)
            self._started[job_id] = now

    async def _keep_lease(self) -> None:
        now = time.monotonic()
        if now - self._renewed < self._settings.lease_s / 3:
            return
        async with self._db.begin() as tx:
            await self._jobs.renew_lease(tx, self._settings.name, timedelta(seconds=self._settings.lease_s))
            live = await self._jobs.live_workers(tx)
        self._renewed = now
        for job_id in await self._engine.take_over(live):
            _log.info("job_taken_over", job=job_id)

    async def _unfinished(self) -> list[Job]:
        async with self._db.read() as tx:
            return await self._jobs.unfinished(tx, _AT_ONCE)

    async def _perform(self, job_id: str) -> bool:
        """Work on a job once; whether it has ended."""
        try:
            async with self._db.read() as tx:
                kind = await self._jobs.kind(tx, job_id)
            async with self._places_of_patient if kind in self._patient else nullcontext(), self._places:
                return await self._attempt(job_id)
        except DatabaseUnavailable as error:
            _log.warning("job_attempt_failed", job=job_id, reason=error.message)
            return False
        except Exception:  # noqa: BLE001 - whatever it is, the row stays unfinished, is logged, and is tried again
            _log.exception("job_attempt_failed", job=job_id)
            return False

    async def _attempt(self, job_id: str) -> bool:
        async with self._db.begin() as tx:
            job = await self._jobs.begin(tx, job_id, self._settings.name)
        if job is None:
            return True
        handler = self._handlers.get(job.kind)
        if handler is None:
            async with self._db.begin() as tx:
                await self._jobs.finish(tx, job_id, failed=True, detail=f"nothing here does jobs of kind {job.kind!r}")
        elif job.attempts > self._settings.attempts:
            _log.error("job_given_up", job=job_id, kind=job.kind, subject=job.subject)
            await handler.give_up(job)
        else:
            _log.info("job_begun", job=job_id, kind=job.kind, subject=job.subject, attempt=job.attempts)
            await handler.run(job)
        return True

    async def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._tidied < _TIDY_EVERY_S:
            return
        async with self._db.begin() as tx:
            await self._jobs.sweep(tx, self._clock() - _KEPT)
        if self._tidy is not None:
            await self._tidy()
        self._tidied = now


def _engine_url(db: Database) -> sa.URL:
    """Return where the engine keeps its own tables: beside the SQLite file, or in the same PostgreSQL database."""
    if not db.sqlite:
        return db.url
    return db.url.set(database=str(Path(db.url.database or "").with_name("jobs.db")))
