"""A span: several use cases over the database that are committed together, or not at all."""

import asyncio

import pytest
import sqlalchemy as sa

from modelkeep.contracts.errors import Conflict
from modelkeep.infra.db import Database, Transaction

things = sa.Table("span_things", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True))


@pytest.fixture(autouse=True)
async def _things(db: Database) -> None:
    async with db.begin() as tx:
        await tx.connection.run_sync(things.create)


async def add(db: Database, name: str) -> None:
    async with db.begin() as tx:
        await tx.execute(sa.insert(things).values(name=name))


async def names(db: Database) -> list[str]:
    async with db.read() as tx:
        return sorted(row.name for row in await tx.all(sa.select(things)))


async def first(tx: Transaction) -> None:
    await tx.execute(sa.insert(things).values(name="first"))


async def test_what_is_written_in_a_span_is_committed_together(db: Database):
    told: list[str] = []
    async with db.span(first) as span:
        assert await names(db) == []
        await add(db, "a")
        async with db.begin() as tx:
            tx.after_commit(lambda: told.append("rang"))
        await add(db, "b")
        assert await names(db) == ["a", "b", "first"]
        assert told == []
        await span.commit()
        assert told == ["rang"]
    assert await names(db) == ["a", "b", "first"]


async def test_what_is_not_committed_never_was(db: Database):
    async with db.span(first):
        await add(db, "a")
    assert await names(db) == []
    with pytest.raises(RuntimeError):
        async with db.span(first):
            await add(db, "a")
            raise RuntimeError
    assert await names(db) == []
    await add(db, "a")
    assert await names(db) == ["a"]


async def test_one_that_fails_takes_the_others_with_it(db: Database):
    async with db.span(first) as span:
        await add(db, "a")
        with pytest.raises(RuntimeError):
            async with db.begin() as tx:
                await tx.execute(sa.insert(things).values(name="b"))
                raise RuntimeError
        assert await names(db) == []
        await add(db, "c")
        await span.commit()
    assert await names(db) == ["c", "first"]


async def test_a_beginning_that_fails_leaves_nothing(db: Database):
    async def refuse(tx: Transaction) -> None:
        await first(tx)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        async with db.span(refuse):
            await add(db, "a")
    assert await names(db) == []


async def test_a_span_that_writes_nothing_begins_nothing(db: Database):
    async def never(tx: Transaction) -> None:
        raise AssertionError(tx)

    async with db.span(never) as span:
        assert await names(db) == []
        await span.commit()


async def test_what_a_refusal_leaves_behind_outlives_its_span(db: Database):
    async def trace() -> None:
        async with db.begin_apart() as tx:
            await tx.execute(sa.insert(things).values(name="trace"))

    async with db.span(first) as span:
        await add(db, "a")
        with pytest.raises(Conflict):
            async with db.begin() as tx:
                tx.if_refused(trace)
                raise Conflict
        assert await names(db) == ["trace"]
        await span.commit()
    assert await names(db) == ["trace"]


async def test_what_outlives_a_span_begins_transactions_of_its_own(db: Database):
    over = asyncio.Event()

    async def later() -> None:
        await over.wait()
        await add(db, "later")

    async with db.span(first) as span:
        task = asyncio.create_task(later())  # takes the context along
        await add(db, "a")
        await span.commit()
    over.set()
    await task
    assert await names(db) == ["a", "first", "later"]


async def test_a_span_holds_for_its_own_database_and_its_own_task(db: Database):
    inside, seen = asyncio.Event(), asyncio.Event()

    async def other() -> None:
        await inside.wait()
        assert await names(db) == []
        seen.set()

    task = asyncio.create_task(other())
    async with db.span(first) as span:
        await add(db, "a")
        inside.set()
        await seen.wait()
        await span.commit()
    await task
    assert await names(db) == ["a", "first"]
