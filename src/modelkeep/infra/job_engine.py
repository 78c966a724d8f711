"""The engine that works on jobs: DBOS Transact, durable on SQLite and PostgreSQL, seen from nowhere else.

A job is one workflow under the job's own id. Its step is repeated, with growing pauses, until it says that the job has
ended. What a killed worker had begun goes on when the same worker starts again; what a worker that never comes back had
begun is resumed by whoever calls `take_over`.

While PostgreSQL is away the engine waits: whatever it needs from the database is held at the opening of a connection and
goes on half a second after one can be had. Left to itself it would wait ever longer, up to a minute and a half.

DBOS lives in a thread with an event loop of its own, for it replaces the default executor of the loop it finds and shuts
that down when it ends. The work itself runs on the loop that called `launch`. The import costs half a second, so it happens
here and nowhere else. Administration server, telemetry and Conductor stay off.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelkeep.infra.db import DatabaseUnavailable

if TYPE_CHECKING:
    from dbos import DBOSConfig
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from modelkeep.contracts.secret import Secret

_log = structlog.get_logger(__name__)
_APPLICATION_VERSION: Final = "1"  # the shape of the workflow below, not of Modelkeep: unfinished jobs outlive an upgrade
_LONGEST_PAUSE_S: Final = 60
_LOOK_AGAIN_S: Final = 0.5
_CONNECT_TIMEOUT_S: Final = 5
_CONNECTIONS: Final = 10
_LONG_S: Final = 86400
_UNFINISHED: Final = {"PENDING", "ENQUEUED", "DELAYED"}

A = TypeVar("A")
T = TypeVar("T")
Perform = Callable[[str], Awaitable[bool]]


class EngineClosed(Exception):
    """The engine is being closed, and the database that it waits for has not come back."""


class JobEngine:
    """Runs `perform(job id)` until it returns True, over restarts of this process and of its machine."""

    def __init__(self, url: sa.URL, worker: str, perform: Perform, *, password: "Callable[[], Secret] | None" = None) -> None:
        self._url = url
        self._password = password
        self._worker = worker
        self._perform = perform
        self._running: set[asyncio.Future[Any]] = set()
        self._fallen: set[str] = set()
        self._closing = threading.Event()
        self._connections: sa.Engine | None = None
        self._ours: asyncio.AbstractEventLoop
        self._theirs: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._launched: asyncio.Future[None] | None = None
        self._stop: asyncio.Event
        self._job: Callable[[str], Coroutine[Any, Any, None]]

    async def launch(self) -> None:
        """Load the engine and take up what this worker had begun; waits for a database that is away.

        Raises `DatabaseUnavailable` where the database fails in the middle of it: launch again.
        """
        self._ours = asyncio.get_running_loop()
        self._launched = launched = self._ours.create_future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(launched)), name="job-engine", daemon=True)
        self._thread.start()
        try:
            await asyncio.shield(launched)  # `close` waits for it too
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    async def start(self, job_id: str) -> None:
        """Start a job's workflow, or let it be where it has been started; begin anew when it ended without its job.

        Raises `DatabaseUnavailable` where the engine's own tables cannot be read or written.
        """
        await self._on_their_loop(self._start(job_id))

    async def take_over(self, live: set[str]) -> list[str]:
        """Resume what workers outside `live` had begun; return those jobs."""
        return await self._on_their_loop(self._take_over(live))

    async def close(self) -> None:
        """Stop, launched or not, with or without the database; what is in work now goes on at the next launch."""
        self._closing.set()
        if self._launched is None:
            return
        await asyncio.wait({self._launched})
        running = list(self._running)
        for task in running:
            task.cancel()  # a cancelled step is not recorded, so that its workflow stays unfinished
        await asyncio.gather(*running, return_exceptions=True)
        if self._launched.exception() is None:
            self._theirs.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)

    async def _live(self, launched: "asyncio.Future[None]") -> None:
        """Be the engine's thread, from launch to close."""
        self._theirs = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            self._launch()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the launch
            self._destroy()
            self._ours.call_soon_threadsafe(_settle, launched, error)
            return
        self._ours.call_soon_threadsafe(_settle, launched, None)
        await self._stop.wait()
        workflows = asyncio.all_tasks() - {asyncio.current_task()}
        for task in workflows:
            task.cancel()
        await asyncio.gather(*workflows, return_exceptions=True)
        self._destroy()

    def _launch(self) -> None:
        from dbos import DBOS

        DBOS(config=self._config())
        logger = logging.getLogger("dbos")  # its lines go where all others go
        logger.handlers.clear()
        logger.propagate = True

        @DBOS.workflow(name="job")
        async def job(job_id: str) -> None:
            pause_s = 1
            try:
                while not await DBOS.run_step_async({"name": "perform"}, self._on_our_loop, self._perform, job_id):
                    await self._on_our_loop(asyncio.sleep, pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception:
                self._fallen.add(job_id)  # its end may not be written down either: `start` must not take it for alive
                raise

        self._job = job
        DBOS.launch()

    def _config(self) -> "DBOSConfig":
        from dbos import DBOSPortableJSONSerializer

        url = self._url.set(drivername="sqlite" if self._url.get_backend_name() == "sqlite" else "postgresql+psycopg")
        if url.drivername != "sqlite":
            self._connections = waiting_engine(url, self._closing, self._password)
        return {
            "name": "modelkeep",
            "system_database_url": url.render_as_string(hide_password=False),
            "system_database_engine": self._connections,
            "executor_id": self._worker,
            "application_version": _APPLICATION_VERSION,
            "serializer": DBOSPortableJSONSerializer(),  # the default is pickle, and a row is no place for that
            "log_level": "ERROR",  # warnings are what `close` causes
            "enable_otlp": False,
        }

    def _destroy(self) -> None:
        from dbos import DBOS

        DBOS.destroy(destroy_registry=True)
        if self._connections is not None:
            end(self._connections)

    async def _start(self, job_id: str) -> None:
        from dbos import DBOS, SetWorkflowID

        known = await DBOS.get_workflow_status_async(job_id)
        if known is not None and (known.status not in _UNFINISHED or job_id in self._fallen):
            _log.warning("job_workflow_ended_without_its_job", job=job_id, status=known.status)
            await DBOS.delete_workflow_async(job_id)
        self._fallen.discard(job_id)
        with SetWorkflowID(job_id):
            await DBOS.start_workflow_async(self._job, job_id)

    async def _take_over(self, live: set[str]) -> list[str]:
        from dbos import DBOS

        pending = await DBOS.list_workflows_async(status="PENDING", load_input=False)
        dead = [one.workflow_id for one in pending if one.executor_id not in live]
        for job_id in dead:
            await DBOS.resume_workflow_async(job_id)
        return dead

    async def _on_their_loop(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._theirs))
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    async def _on_our_loop(self, work: Callable[[A], Awaitable[T]], argument: A) -> T:
        """Do work on the loop that launched us, where `close` can end it."""

        async def tracked() -> T:
            task = asyncio.ensure_future(work(argument))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            return await task

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(tracked(), self._ours))


def _settle(launched: "asyncio.Future[None]", error: Exception | None) -> None:
    if launched.done():
        return
    if error is None:
        launched.set_result(None)
    else:
        launched.set_exception(error)


def _unavailable(error: SQLAlchemyError) -> DatabaseUnavailable:
    _log.warning("job_engine_failed", reason=type(error).__name__)
    return DatabaseUnavailable(retry_after_s=1)


def waiting_engine(url: sa.URL, closing: threading.Event, password: "Callable[[], Secret] | None" = None) -> sa.Engine:
    """Return connections that are waited for while the database is away; `EngineClosed` is raised once `closing` is set.

    `password` gives each of them, and each try, the password as it is then.
    """
    engine = sa.create_engine(
        url,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_LONG_S,  # whoever holds a place is waiting for the same database
        pool_pre_ping=True,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
    )

    @sa.event.listens_for(engine, "do_connect")
    def _connect(
        dialect: "Dialect", _entry: "ConnectionPoolEntry", arguments: list[Any], options: dict[str, Any]
    ) -> "DBAPIConnection":
        while True:
            try:
                fresh = {} if password is None else {"password": password().reveal()}
                return dialect.connect(*arguments, **options | fresh)
            except (dialect.loaded_dbapi.OperationalError, DatabaseUnavailable) as error:
                _log.debug("job_engine_waits", reason=str(error))
                if closing.wait(_LOOK_AGAIN_S):
                    raise EngineClosed from error

    return engine


def end(engine: sa.Engine) -> None:
    """Close its connections: those at rest now, and those that a thread still holds as they come back.

    DBOS leaves the threads of its workflows to themselves, and does this for an engine of its own making only.
    """

    @sa.event.listens_for(engine, "checkin")
    def _close(_connection: "DBAPIConnection | None", entry: "ConnectionPoolEntry") -> None:
        entry.invalidate()

    engine.dispose()
