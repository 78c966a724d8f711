"""Rates that installations share through a real Valkey: while it answers, when it is cut off or stalls, and when it is back."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fixtures.authority import server_side
from fixtures.valkey import Valkey, line, valkey
from modelkeep.contracts.snapshot import Rate
from modelkeep.infra.rates import OwnRates, spacing
from modelkeep.infra.redis_rates import RedisRates, check

HUNDRED = spacing(Rate(1, 100))  # one a minute beside the burst: how long a test takes is all the same
AWAY = "rates hold for this installation alone: Redis does not answer"
SHARED = "rates are shared with other installations"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as found:
        yield found


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not check():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def sharing(*urls: str, shared: bool = True) -> AsyncIterator[list[RedisRates]]:
    """Processes that share rates at these addresses, once they know of each other."""
    made = [RedisRates(url, OwnRates()) for url in urls]
    tasks = [asyncio.create_task(one.run()) for one in made]
    try:
        if shared:
            await until(lambda: all(not one.leases.away and one.leases.sharers >= len(made) for one in made))
        yield made
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


async def tries(rates: list[RedisRates], times: int, name: str = "k") -> int:
    """How many tries are let through, by all processes in turn; each round of the loop has one."""
    passed = 0
    for number in range(times):
        one = rates[number % len(rates)]
        passed += one.leases.take(name, *HUNDRED, one._clock()) <= 0
        await asyncio.sleep(0.001)
    return passed


async def test_four_processes_let_through_as_much_as_one(server: Valkey) -> None:
    async with sharing(*[server.url] * 4) as rates:
        assert 95 <= await tries(rates, 1000) <= 105
    alone = [RedisRates(server.url, OwnRates()) for _ in range(4)]  # the control: nothing is exchanged
    assert await tries(alone, 1000) == 400


async def test_each_name_is_a_rate_of_its_own(server: Valkey) -> None:
    async with sharing(server.url, server.url) as rates:
        for name in ("key_1", "deployment/m", "address/2001:db8::/64"):
            assert 95 <= await tries(rates, 400, name) <= 105


async def test_a_server_that_is_cut_off_is_done_without_and_taken_up_again(server: Valkey) -> None:
    with capture_logs() as said:
        async with line(server.port) as way, sharing(f"redis://127.0.0.1:{way.port}/0", server.url) as rates:
            assert 95 <= await tries(rates, 400) <= 105
            await way.cut()
            await until(lambda: rates[0].leases.away)
            assert await tries(rates[:1], 300) == 100, "its own rate, and no more"
            assert await tries(rates[1:], 100) == 0, "the other still shares"
            await way.open()
            await until(lambda: not rates[0].leases.away)
            assert await tries(rates, 300) <= 2
    events = [one["event"] for one in said if one["event"] in {AWAY, SHARED}]
    assert events == [SHARED, SHARED, AWAY, SHARED]


async def test_a_server_that_stalls_holds_up_nobody(server: Valkey) -> None:
    async with line(server.port) as way, sharing(f"redis://127.0.0.1:{way.port}/0") as rates:
        assert await tries(rates, 10) >= 9
        way.flowing.clear()
        await tries(rates, 1)
        await until(lambda: rates[0].leases.away)
        assert await tries(rates, 300) == 100
        way.flowing.set()
        await until(lambda: not rates[0].leases.away)


async def test_a_server_that_begins_anew_without_data_gives_no_other_burst(server: Valkey) -> None:
    async with sharing(server.url, server.url) as rates:
        assert 95 <= await tries(rates, 400) <= 105
        server.stop()
        await until(lambda: all(one.leases.away for one in rates))
        server.start()
        await until(lambda: all(not one.leases.away for one in rates))
        assert await tries(rates, 400) <= 4
    async with sharing(server.url) as newcomer:
        assert await tries(newcomer, 100) <= 1, "the others have told it"


async def test_whenever_it_is_told_to_end_it_ends(server: Valkey) -> None:
    dice = random.Random(7)
    async with line(server.port) as way:
        for number in range(150):
            (way.flowing.set, way.flowing.clear)[number % 5 == 4]()
            one = RedisRates(f"redis://127.0.0.1:{way.port}/0", OwnRates())
            task = asyncio.create_task(one.run())
            for _ in range(dice.randrange(60)):  # the moment is what is drawn
                one.leases.take("k", 0.1, 10.0, one._clock())
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 30)
            assert task.cancelled()


async def test_nobody_there_at_the_start_is_done_without(server: Valkey) -> None:
    server.stop()
    async with sharing(server.url, shared=False) as rates:
        assert await tries(rates, 200) == 100
        server.start()
        await until(lambda: not rates[0].leases.away)
        assert await tries(rates, 200) >= 95


async def test_over_tls_with_a_password(tmp_path: Path) -> None:
    context, authority = server_side(tmp_path)
    with valkey(tmp_path, "s3cret") as server:
        async with line(server.port, context) as way:
            url = f"rediss://:s3cret@127.0.0.1:{way.port}/0?ssl_ca_certs={authority}"
            async with sharing(url, server.url) as rates:
                assert 95 <= await tries(rates, 400) <= 105
            for bad in (url.replace("s3cret", "wr0ng"), url.partition("?")[0]):
                told: list[bool] = []
                with capture_logs() as said:
                    task = asyncio.create_task(RedisRates(bad, OwnRates(), told=told.append).run())
                    await until(lambda told=told: told)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                assert told == [False]
                assert [one["event"] for one in said] == [AWAY]
                assert "wr0ng" not in str(said)
                assert "s3cret" not in str(said)


async def test_a_user_with_no_more_rights_than_the_manual_says(server: Valkey) -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/limits.md").read_text()
    (rights,) = re.findall(r"`(~modelkeep:\* [^`]+)`", page)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limits", "on", ">s3cret", *rights.split())
    async with sharing(server.url.replace("//", "//limits:s3cret@")) as rates:
        assert 95 <= await tries(rates, 150) <= 105


@pytest.mark.parametrize("url", ["redis://h:port", "redis://h:1/0?what=1", "http://h:1", "redis://a..b:1"])
def test_what_is_no_address_is_said_before_anything_starts(url: str) -> None:
    check("rediss://:p@h:1/0?ssl_cert_reqs=none")
    with pytest.raises((ValueError, TypeError)):
        check(url)
