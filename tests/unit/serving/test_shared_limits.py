"""Limits that two servers share: what the one has under way counts in the other, and every way out gives its place back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import DeploymentSettings, Rate, ServedKey
from modelkeep.infra.quotas import Quotas
from modelkeep.infra.rates import OwnRates
from modelkeep.serving.limits import Limits, TooManyAtOnce
from modelkeep.serving.messages import Request

PREDICT = "/api/v1/predict/m"
ROWS = {"inputs": [[1, 2]]}


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[Quotas]]:
    """One file of quotas, as two servers have it."""
    both = [Quotas(tmp_path / "quotas", slot, 2) for slot in (0, 1)]
    yield both
    for one in both:
        one.close()


@pytest.fixture
def both(files: list[Quotas]) -> list[Limits]:
    """The limits of two servers."""
    return [Limits(one, Clock(), shared=one) for one in files]


def key(rate: Rate | None = None, concurrency: int = 0) -> ServedKey:
    return ServedKey("key_1", b"", "all", through(Scope.ADMIN), rate=rate, concurrency=concurrency)


def of(who: ServedKey) -> Request:
    """A request with this key."""
    request = Request("POST", "/", ())
    request.key = who
    return request


def test_two_servers_let_a_key_through_as_often_as_one_would(both: list[Limits]) -> None:
    alone, who = Limits(OwnRates(), Clock()), key(Rate(60, 7))

    def let_through(limits: Limits) -> bool:
        try:
            limits.admit(of(who))
        except Limited:
            return False
        return True

    as_one = [let_through(alone) for _ in range(20)]
    assert [let_through(both[number % 2]) for number in range(20)] == as_one
    assert sum(as_one) == 7


def test_a_key_has_as_many_under_way_in_both_servers_as_it_may(both: list[Limits]) -> None:
    who = key(concurrency=2)
    for limits in both:
        limits.admit(of(who))
    for limits in both:
        with pytest.raises(TooManyAtOnce):
            limits.admit(of(who))
    both[1].release(who)
    both[0].admit(of(who))


def test_a_request_over_the_rate_takes_no_place_in_either(both: list[Limits], files: list[Quotas]) -> None:
    who = key(Rate(60, 1), concurrency=5)
    both[0].admit(of(who))
    for limits in both:
        with pytest.raises(Limited, match="60 times"):
            limits.admit(of(who))
    assert sum(files[0]._counts) == 1


def test_a_key_and_a_deployment_of_one_name_do_not_meet(both: list[Limits]) -> None:
    both[0].admit(of(key(concurrency=1)))
    assert both[1].enter("key_1", 1)


async def test_what_another_server_has_under_way_of_a_deployment_counts(house, files: list[Quotas]) -> None:
    house.engine._limits = Limits(files[0], shared=files[0])
    house.settings["m"] = DeploymentSettings(concurrency=2)
    version = await house.serve("m")
    gate = house.gates[version] = asyncio.Event()
    other = Limits(files[1], shared=files[1])
    assert other.enter("m", 2)
    first = asyncio.create_task(house.client.post(PREDICT, json=ROWS))
    async with asyncio.timeout(10):
        while not house.router.find("m").underway.count:
            await asyncio.sleep(0.001)
    assert not other.enter("m", 2)
    refused = await house.client.post(PREDICT, json=ROWS)
    assert (refused.status_code, refused.json()["code"]) == (503, "deployment_concurrency")
    gate.set()
    assert (await first).status_code == 200
    assert other.enter("m", 2)
    assert (await house.client.post(PREDICT, json=ROWS)).status_code == 503
    other.leave("m")
    other.leave("m")
    assert sum(files[0]._counts) == 0


@pytest.mark.parametrize(("body", "status"), [(ROWS, 200), ({"inputs": [["x", 2]]}, 400), ({}, 400)])
async def test_every_way_out_gives_the_place_back(house, files: list[Quotas], body: object, status: int) -> None:
    house.engine._limits = Limits(files[0], shared=files[0])
    house.settings["m"] = DeploymentSettings(concurrency=2)
    await house.serve("m")
    answer = await house.client.post(PREDICT, json=body)
    assert answer.status_code == status
    assert sum(files[0]._counts) == 0


async def test_a_key_that_is_refused_gives_the_deployments_place_back(house, files: list[Quotas]) -> None:
    house.engine._limits = Limits(files[0], shared=files[0])
    house.settings["m"] = DeploymentSettings(concurrency=2)
    await house.serve("m")
    known = next(one for one in house._served_keys if one.id == "all")
    house.keys.replace((ServedKey("all", known.digest, "all", known.standing, rate=Rate(1, 1)),))
    assert [(await house.client.post(PREDICT, json=ROWS)).status_code for _ in range(4)] == [200, 429, 429, 429]
    assert sum(files[0]._counts) == 0
