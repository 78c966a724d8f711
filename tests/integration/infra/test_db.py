"""Transactions."""

import asyncio
import itertools
import random
import sqlite3
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from modelkeep.contracts.errors import Conflict, Invalid, StorageFull
from modelkeep.control.users.tables import users
from modelkeep.infra.db import Database, DatabaseUnavailable, Transaction, UtcTime
from modelkeep.infra.settings import DatabaseSettings

if TYPE_CHECKING:
    import aiosqlite

NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


async def add(tx: Transaction, name: str, at: datetime = NOW) -> None:
    await tx.execute(sa.insert(users).values(id=f"usr_{name}", name=name, created_at=at))


async def names(db: Database) -> list[str]:
    async with db.read() as tx:
        return [row.name for row in await tx.all(sa.select(users).order_by(users.c.name))]


async def test_a_transaction_is_kept_whole_or_not_at_all(db: Database):
    async with db.begin() as tx:
        await add(tx, "a")
    with pytest.raises(RuntimeError):
        async with db.begin() as tx:
            await add(tx, "b")
            raise RuntimeError
    assert await names(db) == ["a"]


async def test_consequences_happen_after_the_commit_and_only_then(db: Database):
    told: list[str] = []
    async with db.begin() as tx:
        await add(tx, "a")
        tx.after_commit(lambda: told.append("committed"))
        assert told == []
    assert told == ["committed"]
    with pytest.raises(RuntimeError):
        async with db.begin() as tx:
            tx.after_commit(lambda: told.append("never"))
            raise RuntimeError
    assert told == ["committed"]


async def test_a_refusal_may_leave_something_behind_once_all_else_is_rolled_back(db: Database):
    async def trace() -> None:
        assert await names(db) == []
        async with db.begin_apart() as tx:
            await add(tx, "trace")

    for error in (RuntimeError, None, Conflict):  # our own errors are refusals, and nothing else is
        assert await names(db) == []
        with nullcontext() if error is None else pytest.raises(error):
            async with db.begin() as tx:
                tx.if_refused(trace)
                if error is not None:
                    await add(tx, "a")
                    raise error
    assert await names(db) == ["trace"]


async def test_a_consequence_that_fails_undoes_nothing_and_keeps_none_of_the_others(db: Database):
    told: list[str] = []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    async with db.begin() as tx:
        await add(tx, "a")
        tx.after_commit(fail)
        tx.after_commit(lambda: told.append("rung"))
    assert told == ["rung"]
    assert await names(db) == ["a"]


async def test_a_cancelled_transaction_leaves_nothing_and_the_next_one_works(db: Database):
    inside = asyncio.Event()

    async def hang() -> None:
        async with db.begin() as tx:
            await add(tx, "a")
            inside.set()
            await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    await inside.wait()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    async with db.begin() as tx:
        await add(tx, "b")
    assert await names(db) == ["b"]


async def test_one_that_is_cancelled_at_any_moment_leaves_no_half_and_holds_nobody_up(db: Database):
    moments = random.Random(1)
    numbers = itertools.count()

    async def write() -> None:
        while True:
            async with db.begin() as tx:
                for _half in range(2):
                    await add(tx, f"u{next(numbers)}")
                await tx.all(sa.select(users).limit(50))

    for _ in range(80):
        writing = asyncio.create_task(write())
        await asyncio.sleep(moments.random() * 0.004)
        writing.cancel()
        ended = await asyncio.gather(writing, return_exceptions=True)  # held on to, as whoever tells of it would
        async with db.begin() as tx:
            assert len(await tx.all(sa.select(users))) % 2 == 0
            await tx.execute(sa.delete(users))
        assert isinstance(ended[0], asyncio.CancelledError)


async def test_many_writers_at_once_all_get_their_turn(db: Database):
    async def write(number: int) -> None:
        async with db.begin() as tx:
            await add(tx, f"u{number:02}")

    await asyncio.gather(*[write(number) for number in range(20)])
    assert len(await names(db)) == 20


async def test_a_reader_is_not_held_up_by_a_writer_and_sees_nothing_half_done(db: Database):
    async with db.begin() as tx:
        await add(tx, "a")
        assert await asyncio.wait_for(names(db), 2) == []
    assert await names(db) == ["a"]


async def test_moments_keep_their_microseconds_and_come_back_in_utc(db: Database):
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    async with db.begin() as tx:
        await add(tx, "a", elsewhere)
    async with db.read() as tx:
        row = await tx.one(sa.select(users.c.created_at))
    assert row is not None
    assert row.created_at == NOW
    assert row.created_at.utcoffset() == timedelta(0)


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        UtcTime().process_bind_param(datetime(2026, 1, 1), sa.create_engine("sqlite://").dialect)  # noqa: DTZ001 - the case


async def test_a_name_that_the_database_cannot_hold_is_the_callers_fault(db: Database):
    if db.sqlite:
        return  # SQLite holds everything
    with pytest.raises(Invalid):
        async with db.begin() as tx:
            await add(tx, "a\0b")


async def test_a_mistake_of_ours_is_not_called_a_busy_database(sqlite_db: Database):
    with pytest.raises(OperationalError):
        async with sqlite_db.read() as tx:
            await tx.execute(sa.text("SELECT nothing FROM nowhere"))


async def test_sqlite_is_set_up_to_survive_a_power_cut(sqlite_db: Database):
    async with sqlite_db.begin() as tx:
        found = {name: (await tx.one(sa.text(f"PRAGMA {name}")))[0] for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


async def test_a_writer_of_another_process_is_waited_for_and_then_called_busy(tmp_path: Path):
    path = tmp_path / "m.db"
    db = Database(DatabaseSettings(url=f"sqlite:///{path}", busy_timeout_s=0.2))
    async with db.begin() as tx:
        await tx.execute(sa.text("CREATE TABLE t (x)"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable) as busy:
        async with db.begin():
            pass
    assert busy.value.retry_after_s == 1
    other.execute("COMMIT")
    other.close()
    async with db.begin() as tx:
        await tx.execute(sa.text("INSERT INTO t VALUES (1)"))
    await db.close()


async def test_a_full_disk_is_called_full(tmp_path: Path):
    db = Database(DatabaseSettings(url=f"sqlite:///{tmp_path}/m.db"))
    async with db.begin() as tx:
        await tx.execute(sa.text("CREATE TABLE t (x)"))
        await tx.execute(sa.text("PRAGMA max_page_count = 3"))
    with pytest.raises(StorageFull):
        async with db.begin() as tx:
            await tx.execute(sa.text("INSERT INTO t VALUES (zeroblob(100000))"))
    await db.close()


async def test_a_database_that_is_not_there_is_unavailable(unused_tcp_port: int):
    db = Database(DatabaseSettings(url=f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/none", busy_timeout_s=2))
    with pytest.raises(DatabaseUnavailable):
        async with db.read():
            pass
    await db.close()


async def test_a_database_whose_connections_are_all_taken_is_unavailable(db: Database):
    tight = Database(DatabaseSettings(url=db.url.render_as_string(hide_password=False), pool_size=1, busy_timeout_s=0.1))
    async with tight.read() as tx:
        await tx.execute(sa.select(1))
        with pytest.raises(DatabaseUnavailable):
            async with tight.read() as second:
                await second.execute(sa.select(1))
    await tight.close()


async def test_a_connection_in_use_when_all_are_closed_is_closed_when_it_comes_back(empty_database: DatabaseSettings):
    db = Database(empty_database)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> object:
        async with db.read() as tx:
            connection = (await tx.connection.get_raw_connection()).driver_connection
            begun.set()
            await go_on.wait()
            return connection

    connection = asyncio.create_task(slow())
    await begun.wait()
    await db.close()
    go_on.set()
    with pytest.raises((ValueError, psycopg.OperationalError), match=r"closed|no active connection"):
        await cast("psycopg.AsyncConnection | aiosqlite.Connection", await connection).execute("SELECT 1")
