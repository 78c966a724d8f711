"""One database, SQLite or PostgreSQL, and the one way to change it: a visible transaction.

    async with db.begin() as tx:     # reads and writes; commits at the end, rolls back on any error
    async with db.read() as tx:      # reads only, one consistent view

Whoever must commit more than one use case with it, as a door does that keeps its answer, opens a `Span` around them.

SQLite has one writing connection a process, `BEGIN IMMEDIATE`, write-ahead log and `synchronous=FULL`: what was committed
survives a power cut. What must happen once it is certain (ringing a bell) is given to `tx.after_commit`, what a refusal leaves
behind to `tx.if_refused`.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import CursorResult, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.base import Executable

from modelkeep.contracts.errors import Invalid, ModelkeepError, StorageFull, Unavailable
from modelkeep.contracts.secret import Secret
from modelkeep.infra.settings import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

_log = structlog.get_logger(__name__)
T = TypeVar("T")
metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_PG_DISK_FULL = "53100"
_WRITING = "BEGIN IMMEDIATE"


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached or is busy: try again soon."""

    code = "database_unavailable"


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A moment in UTC; a time without a zone is refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn into UTC; SQLite keeps it without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs its time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Document(sa.types.TypeDecorator[T], Generic[T]):
    """A typed value kept as JSON text: what comes out has been checked against `kind` by msgspec."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:  # noqa: ANN401 - any type that msgspec reads, unions and tuples included
        self.kind = kind
        super().__init__()

    def process_bind_param(self, value: T | None, dialect: Dialect) -> str | None:
        """Encode."""
        del dialect
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> T | None:
        """Decode and check."""
        del dialect
        return None if value is None else msgspec.json.decode(value, type=self.kind)


class Transaction:
    """An open transaction: run statements, and name what is to happen once it is committed."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._last_words: list[Callable[[], Awaitable[None]]] = []
        self._once: dict[str, Callable[[], Awaitable[None]]] = {}
        self._consequences: list[Callable[[], object]] = []
        self._traces: list[Callable[[], Awaitable[None]]] = []

    async def execute(self, statement: Executable) -> CursorResult[Any]:
        """Run one statement."""
        return await self.connection.execute(statement)

    async def one(self, statement: Executable) -> sa.Row[Any] | None:
        """Return the first row, or None."""
        return (await self.connection.execute(statement)).first()

    async def all(self, statement: Executable) -> list[sa.Row[Any]]:
        """Return all rows."""
        return list((await self.connection.execute(statement)).all())

    def insert(self, table: sa.Table) -> "sqlite.Insert | postgresql.Insert":
        """Return an insert that knows ON CONFLICT, in this database's own dialect; the other one is not loaded."""
        if self.connection.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert

            return insert(table)
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql

        return insert_postgresql(table)

    def before_commit(self, last_word: Callable[[], Awaitable[None]], *, once: str = "") -> None:
        """Have `last_word` written right before this transaction commits, after all else; where it fails, nothing is committed.

        For what takes a lock that all writers need: it is then held shortly, and always taken last. Those that are said `once`
        by one name are written once, and before all others: every transaction takes such locks in one order.
        """
        if once:
            self._once[once] = last_word
        else:
            self._last_words.append(last_word)

    async def conclude(self) -> None:
        """Write the last words (the database calls this)."""
        for _name, last_word in sorted(self._once.items()):
            await last_word()
        for last_word in self._last_words:
            await last_word()
        self._once.clear()
        self._last_words.clear()

    def after_commit(self, consequence: Callable[[], object]) -> None:
        """Call `consequence` when, and only when, this transaction has been committed."""
        self._consequences.append(consequence)

    def if_refused(self, trace: Callable[[], Awaitable[None]]) -> None:
        """Have `trace` written where this transaction ends with an error of ours, once it is rolled back, in one of its own.

        For a refusal that leaves something behind: what the caller is then told of has to be there.
        """
        self._traces.append(trace)

    async def refused(self) -> None:
        """Write the traces (the database calls this)."""
        while self._traces:
            await self._traces.pop()()

    def committed(self) -> None:
        """Run the consequences (the database calls this). One that fails is logged: what is committed has happened."""
        for consequence in self._consequences:
            try:
                consequence()
            except Exception:  # noqa: BLE001 - whatever it is, whoever it was for also looks by itself
                _log.exception("consequence_failed")


class Database:
    """The control plane's database. Connections open on first use; `close` ends them."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.url = sa.make_url(settings.url.reveal())
        self.password: Callable[[], Secret] | None = None
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite:
            self._writer = _sqlite_engine(self.url, settings, connections=1, begin=_WRITING)
            self._reader = _sqlite_engine(self.url, settings, connections=settings.pool_size, begin="BEGIN")
        else:
            self._writer = self._reader = create_async_engine(
                self.url.set(drivername="postgresql+psycopg"),
                pool_size=settings.pool_size,
                max_overflow=0,
                pool_timeout=settings.busy_timeout_s,
                pool_pre_ping=True,
                connect_args={"connect_timeout": max(2, int(settings.busy_timeout_s))},
            )
            if settings.password_file:
                self.password = _password_in(settings.password_file)
                _renew(self._writer.sync_engine, self.password)
        self._closed = False
        for engine in {self._writer, self._reader}:
            sa.event.listen(engine.sync_engine, "checkin", self._take_back)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Open a transaction that may write; it commits at the end of the block and rolls back on any error.

        Within a span it is the span's transaction, which commits when the span does.
        """
        span = self._span()
        tx: Transaction | None = None
        try:
            async with self.begin_apart() if span is None else span.joined() as tx:
                yield tx
        except ModelkeepError:
            if tx is not None:
                await tx.refused()
            raise

    @asynccontextmanager
    async def begin_apart(self) -> AsyncIterator[Transaction]:
        """Open a transaction that commits at the end of the block, also within a span, which must not have written yet.

        For what has to be certain, and seen by others, whatever becomes of the request.
        """
        span = self._span()
        if span is not None and span.tx is not None:
            raise RuntimeError("the span has begun: on SQLite this would wait for itself")
        async with _answering(), self._writing() as tx:
            yield tx
            await _commit(tx)
        tx.committed()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """Open a transaction that only reads; what it saw first stays true to its end on SQLite.

        Within a span that has written it reads in the span's transaction, and so sees what was written.
        """
        span = self._span()
        if span is not None and span.tx is not None:
            async with _answering():
                yield span.tx
            return
        async with _answering(), self._reader.connect() as connection:
            yield Transaction(connection)

    @asynccontextmanager
    async def span(self, first: Callable[[Transaction], Awaitable[None]]) -> AsyncIterator["Span"]:
        """Let all transactions that this task opens in the block be one. Nothing is kept unless `commit` of the span is called.

        It begins with the first that may write, and with `first`.
        """
        span = Span(self._writing, first)
        token = _spans.set((self, span))
        try:
            yield span
        finally:
            _spans.reset(token)
            await span.close()

    def _span(self) -> "Span | None":
        """Return the open span of this task over this database."""
        database, span = _spans.get()
        return span if database is self and span is not None and not span.over else None

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Transaction]:
        async with self._writer.connect() as connection:
            await connection.begin()
            yield Transaction(connection)

    async def scrub(self) -> bool:
        """Have what was deleted leave SQLite's write-ahead log; False where a reader still needs it."""
        if not self.sqlite:
            return True
        async with self._writer.connect() as connection:
            await connection.exec_driver_sql("COMMIT")  # a checkpoint runs outside transactions
            patience = (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar_one()
            await connection.exec_driver_sql("PRAGMA busy_timeout=0")  # it would wait for readers, and writers for it
            busy = (await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")).scalar_one()
            await connection.exec_driver_sql(f"PRAGMA busy_timeout={patience}")
            await connection.exec_driver_sql(_WRITING)
        return not busy

    async def close(self) -> None:
        """Close all connections; those that are in use once they are given back."""
        self._closed = True
        await self._reader.dispose()
        await self._writer.dispose()

    def _take_back(self, _connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        if self._closed:  # the pool that it would go back to is gone, and nobody would ever close it
            record.invalidate()


class Span:
    """Several use cases that are committed together: their transaction, once the first of them has begun to write.

    Where one of them fails, what all of them wrote is rolled back.
    """

    def __init__(
        self, writing: Callable[[], AbstractAsyncContextManager[Transaction]], first: Callable[[Transaction], Awaitable[None]]
    ) -> None:
        self.tx: Transaction | None = None
        self.over = False  # what this request has started and left running begins transactions of its own
        self._writing = writing
        self._first = first
        self._open = AsyncExitStack()

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Transaction]:
        """Give the transaction to one use case; it begins here unless it has begun."""
        async with _answering():
            try:
                if self.tx is None:
                    tx = await self._open.enter_async_context(self._writing())
                    await self._first(tx)
                    self.tx = tx
                yield self.tx
            except BaseException:
                await self._end()
                raise

    async def commit(self) -> None:
        """Commit what was written; its consequences follow."""
        tx = self.tx
        if tx is None:
            return
        async with _answering():
            await _commit(tx)
        await self.close()
        tx.committed()

    async def close(self) -> None:
        """End it; what is not committed is rolled back."""
        self.over = True
        await self._end()

    async def _end(self) -> None:
        self.tx = None
        await self._open.aclose()


_spans: ContextVar[tuple[Database | None, Span | None]] = ContextVar("span", default=(None, None))


async def _commit(tx: Transaction) -> None:
    """Commit; a caller who goes away meanwhile must not leave the connection in the middle of it."""
    await tx.conclude()
    await asyncio.shield(asyncio.ensure_future(tx.connection.commit()))


def _sqlite_engine(url: sa.URL, settings: DatabaseSettings, *, connections: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=settings.busy_timeout_s,
        connect_args={"timeout": settings.busy_timeout_s},
    )

    pragmas = [f"busy_timeout={int(settings.busy_timeout_s * 1000)}", "synchronous=FULL", "foreign_keys=ON"]
    if begin == _WRITING:
        pragmas.append("journal_mode=WAL")  # kept in the file: those who only read find it there

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "invalidate")
    def _let_go(connection: DBAPIConnection, _record: object, _error: object) -> None:
        # Whoever waited for it was cancelled, and it is closed next. That alone leaves the file locked for as long as a cursor
        # of it with rows to read lies about in some traceback: SQLite ends a transaction when the last of its statements goes.
        rolling_back = asyncio.ensure_future(connection.driver_connection.rollback())
        rolling_back.add_done_callback(_heard)

    @sa.event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _heard(done: "asyncio.Future[None]") -> None:
    """Tell of a connection that could not be rolled back before it was closed."""
    if not done.cancelled() and (error := done.exception()) is not None:
        _log.warning("connection_not_rolled_back", reason=str(error))


def _password_in(file: str) -> Callable[[], Secret]:
    """Return what reads the password in a file, as it is at that moment."""

    def password() -> Secret:
        try:
            return Secret(Path(file).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise DatabaseUnavailable("The file of database.password_file cannot be read.", retry_after_s=1) from error

    return password


def _renew(engine: sa.Engine, password: Callable[[], Secret]) -> None:
    """Have each new connection take the password as it is then: one that was changed locks nobody out."""

    @sa.event.listens_for(engine, "do_connect")
    def _connect(_dialect: Dialect, _entry: object, _arguments: list[Any], options: dict[str, Any]) -> None:
        options["password"] = password().reveal()


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Say what a failing database means to whoever waits for it."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise _meaning(error) from error
    except DataError as error:
        raise Invalid("The request holds characters or numbers that cannot be stored.") from error
    except PoolTimeoutError as error:
        raise DatabaseUnavailable(retry_after_s=1) from error


def _meaning(error: DBAPIError) -> StorageFull | DatabaseUnavailable | DBAPIError:
    cause = error.orig
    if getattr(cause, "sqlstate", None) == _PG_DISK_FULL or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StorageFull()
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF not in _SQLITE_PASSING:
        return error  # a mistake of ours, such as an unknown column: a bug, not a busy database
    return DatabaseUnavailable(retry_after_s=1)


_SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}
