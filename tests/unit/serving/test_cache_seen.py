"""What a server tells of its cache: what came of requests in the last minutes, and why there is nothing to tell."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from modelkeep.contracts.prediction import CacheSeen, Heartbeat
from modelkeep.contracts.snapshot import Caching, DeploymentSettings
from modelkeep.serving.cache import Cache
from modelkeep.serving.cache_seen import SPAN_S, Lately, fitting

PREDICT = "/api/v1/predict/m"
ROWS = {"inputs": [[1.0, 2.0]]}


def test_what_is_told_is_of_the_last_five_minutes() -> None:
    lately = Lately(0.0)
    for result in ("hit", "hit", "hit", "shared", "shared", "miss", "bypassed"):
        lately.count(result)
    first = CacheSeen("", 3, 2, 1, 1, 77)
    assert lately.told(2.0, 77) == first
    assert lately.told(12.0, 77) == first
    lately.count("miss")
    assert lately.told(SPAN_S, 5) == CacheSeen("", 3, 2, 2, 1, 5)
    assert lately.told(SPAN_S + 11.9, 5) == CacheSeen("", 3, 2, 2, 1, 5)
    assert lately.told(SPAN_S + 12.0, 5) == CacheSeen("", 0, 0, 1, 0, 5)
    assert lately.told(2 * SPAN_S + 12.0, 5) == CacheSeen("", bytes=5)


@given(st.lists(st.tuples(st.floats(0.1, 400.0), st.integers(0, 3)), max_size=60))
def test_nothing_of_the_last_five_minutes_is_left_out_and_nothing_much_older_is_told(steps: list[tuple[float, int]]) -> None:
    now, lately, came, looked = 0.0, Lately(0.0), [], [0.0]
    for later, requests in steps:
        now += later
        for _ in range(requests):
            lately.count("hit")
            came.append(now)
        told = lately.told(now, 0).hits
        looked.append(now)
        before = [at for at in looked if at <= now - SPAN_S]
        surely = sum(at > now - SPAN_S for at in came)
        atmost = sum(at >= (before[-1] - 10.0 if before else 0.0) for at in came)
        assert surely <= told <= atmost


def test_few_moments_are_remembered_however_often_it_tells() -> None:
    lately = Lately(0.0)
    for tick in range(2000):
        lately.told(tick * 0.5, 0)
    assert len(lately._marks) <= SPAN_S / 10 + 2


TOLD = st.builds(CacheSeen, hits=st.integers(0, 9), misses=st.integers(0, 1 << 40))


@given(st.dictionaries(st.text(min_size=1, max_size=40), TOLD), st.integers(-5, 2000))
def test_what_is_told_fits_and_those_that_are_asked_most_come_first(seen: dict[str, CacheSeen], room: int) -> None:
    found = fitting(seen.items(), room)
    beat = Heartbeat("s", 0.0, 1)
    alone = len(msgspec.msgpack.encode(beat))
    assert len(msgspec.msgpack.encode(replace(beat, cache=found))) - alone <= max(0, room)
    left = [one.hits + one.misses for name, one in seen.items() if name not in found]
    assert all(one.hits + one.misses >= max(left, default=0) for one in found.values())


def test_what_is_kept_comes_before_what_is_not() -> None:
    seen = {"a": CacheSeen("off"), "b": CacheSeen()}
    assert list(fitting(seen.items(), 35)) == ["b", "a"]
    assert list(fitting(seen.items(), 34)) == ["b"]


async def test_a_server_tells_what_came_of_requests_and_what_they_take(house) -> None:
    house.settings["m"] = DeploymentSettings(cache=Caching("on"))
    await house.serve("m")
    for headers in ({}, {}, {"cache-control": "no-cache"}):
        assert (await house.client.post(PREDICT, json=ROWS, headers=headers)).status_code == 200
    assert house.router.cached(1000) == {"m": CacheSeen("", 1, 0, 1, 1, house.cache.memory.bytes)}
    assert house.cache.memory.bytes > 0
    assert house.router.cached(10) == {}


async def test_all_versions_of_a_deployment_are_told_as_one(house) -> None:
    house.settings["m"] = DeploymentSettings(cache=Caching("on"))
    await house.serve("m")
    await house.alias("m", "canary", 2)
    for version in ("", "?version=canary", "?version=canary"):
        assert (await house.client.post(PREDICT + version, json=ROWS)).status_code == 200
    seen = house.router.cached(1000)["m"]
    assert (seen.hits, seen.misses, seen.bytes) == (1, 2, house.cache.memory.bytes)


async def test_a_server_says_why_it_keeps_no_answers(house) -> None:
    await house.serve("m")
    assert house.router.cached(1000) == {"m": CacheSeen("unsure")}
    house.settings["m"] = DeploymentSettings(cache=Caching("off"))
    house.publish()
    assert house.router.cached(1000) == {"m": CacheSeen("off")}


@pytest.mark.parametrize(("most_bytes", "why"), [(0, "no_room"), (1 << 20, "")])
def test_without_room_there_is_nothing_to_keep(make_version, most_bytes: int, why: str) -> None:
    told = Cache(most_bytes).told({"m": (Caching("on"), make_version("m-1"))}, 1000)
    assert told == {"m": CacheSeen(why)}


def test_what_a_deployment_that_is_gone_did_is_forgotten() -> None:
    cache = Cache(1 << 20)
    cache.lately("m").count("hit")
    cache.lately("n").count("hit")
    cache.retain({("n", "v1")})
    assert set(cache._lately) == {"n"}
