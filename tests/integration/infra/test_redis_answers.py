"""Answers by name in a real Redis server: they are there for another server, and nobody waits when it is slow or away."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.valkey import Line, Valkey, line, valkey
from modelkeep.infra.redis_answers import PREFIX, RedisAnswers

LONG_S = 30.0  # a busy machine is no fault of the store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey"), "s3cret") as found:
        yield found


async def got(store: RedisAnswers, name: str) -> bytes | None:
    answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    assert store.get(name, answer.set_result)
    return await asyncio.wait_for(answer, LONG_S)


async def put(store: RedisAnswers, name: str, value: bytes, ttl_s: float = 60.0) -> None:
    store.put(name, value, ttl_s)
    await asyncio.gather(*store._tasks)


def at(where: Line, server: Valkey) -> str:
    return server.url.replace(str(server.port), str(where.port))


async def test_a_value_is_there_for_another_server_until_its_time_is_over(server: Valkey) -> None:
    outcomes: list[str] = []
    one, other = RedisAnswers(server.url, wait_s=LONG_S), RedisAnswers(server.url, wait_s=LONG_S, told=outcomes.append)
    await put(one, "a", b"\x00value")
    assert await got(other, "a") == b"\x00value"
    assert await got(other, "b") is None
    assert outcomes == ["hit", "miss"]
    with server.client() as client:
        assert 0 < client.pttl(PREFIX + "a") <= 60_000
    await one.close()
    await other.close()


async def test_a_server_that_says_nothing_is_asked_no_more_until_it_answers_again(server: Valkey) -> None:
    outcomes: list[str] = []
    now = [0.0]
    async with line(server.port) as where:
        store = RedisAnswers(at(where, server), told=outcomes.append, clock=lambda: now[0])
        where.flowing.clear()
        for _ in range(5):
            assert await got(store, "a") is None
        assert set(outcomes) <= {"late", "failed"}
        assert store.away
        assert not store.get("a", lambda _value: None)
        store.put("a", b"not now", 60.0)
        assert not store._putting
        now[0] += 1.0
        assert await got(store, "a") is None, "one tries again"
        assert not store.get("a", lambda _value: None)
        now[0] += 1.0
        assert not store.get("a", lambda _value: None), "and each time it fails, nobody does for twice as long"
        where.flowing.set()
        store._wait_s = LONG_S
        now[0] += 1.0
        assert await got(store, "nothing") is None
        assert (store.away, outcomes[-1]) == (False, "miss")
        await store.close()


async def test_a_server_that_is_away_is_missed_by_nobody(tmp_path: Path) -> None:
    outcomes: list[str] = []
    with valkey(tmp_path) as server:
        url = server.url
    store = RedisAnswers(url, told=outcomes.append)
    for _ in range(5):
        assert await got(store, "a") is None
    assert store.away
    assert set(outcomes) <= {"late", "failed"}
    await store.close()


async def test_a_late_value_is_nobody_elses_answer(server: Valkey) -> None:
    async with line(server.port) as where:
        store = RedisAnswers(at(where, server), wait_s=LONG_S)
        await put(store, "first", b"of the first")
        await put(store, "second", b"of the second")
        store._wait_s = 0.001
        where.flowing.clear()
        assert await got(store, "first") is None
        where.flowing.set()
        store._wait_s = LONG_S
        for _ in range(20):
            assert await got(store, "second") == b"of the second"
        await store.close()


async def test_no_more_is_under_way_than_may_be(server: Valkey) -> None:
    async with line(server.port) as where:
        where.flowing.clear()
        store = RedisAnswers(at(where, server), wait_s=LONG_S)
        told: list[bytes | None] = []
        assert [store.get("a", told.append) for _ in range(70)] == [True] * 64 + [False] * 6
        for _ in range(100):
            store.put("a", b"v", 60.0)
        assert store._putting == 64
        await store.close()
