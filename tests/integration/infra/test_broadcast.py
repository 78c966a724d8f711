"""News by topic."""

import asyncio

from fixtures.control import TestClock
from modelkeep.infra.broadcast import Broadcast, News, latest
from modelkeep.infra.db import Database


async def publish(db: Database, broadcast: Broadcast, topic: str, payload: bytes, clock: TestClock) -> int:
    async with db.begin() as tx:
        number = await broadcast.take_number(tx, topic)
        await broadcast.publish(tx, topic, number, payload, clock())
    return number


async def test_the_newest_news_is_heard_and_rung_for(db: Database, clock: TestClock):
    rings: list[int] = []
    broadcast = Broadcast(lambda: rings.append(1))
    assert await publish(db, broadcast, "t", b"one", clock) == 1
    assert await publish(db, broadcast, "t", b"two", clock) == 2
    assert await publish(db, broadcast, "other", b"else", clock) == 1
    async with db.read() as tx:
        assert await latest(tx, "t", 0) == News(2, b"two")
        assert await latest(tx, "t", 1) == News(2, b"two")
        assert await latest(tx, "t", 2) is None
        assert await latest(tx, "never", -1) is None
    assert len(rings) == 3


async def test_numbers_never_go_back_however_many_publish_at_once(db: Database, clock: TestClock):
    broadcast = Broadcast(lambda: None)
    order: list[int] = []

    async def one() -> None:
        async with db.begin() as tx:
            number = await broadcast.take_number(tx, "t")
            order.append(number)
            await asyncio.sleep(0)
            await broadcast.publish(tx, "t", number, str(number).encode(), clock())

    await asyncio.gather(*[one() for _ in range(20)])
    assert order == list(range(1, 21))
    async with db.read() as tx:
        assert await latest(tx, "t", 0) == News(20, b"20")
