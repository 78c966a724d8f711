"""Rates by key, person, deployment and address, as the doors keep and tell them; and keys that are bound to networks."""

import hashlib
import re
import sys
import time
from collections import Counter

import grpc
import httpx
import pytest

from fixtures.rpcs import ONE, rpcs_of
from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.snapshot import DeploymentSettings, Rate, ServedKey
from modelkeep.infra.addresses import Proxies
from modelkeep.infra.failures import Failures
from modelkeep.infra.rates import OwnRates
from modelkeep.serving.gate import Gate
from modelkeep.serving.keys import Keys
from modelkeep.serving.limits import Limits
from modelkeep.serving.messages import Request

PREDICT = "/api/v1/predict/m"
ROWS = {"inputs": [[1, 2]]}
DIALECTS = {
    PREDICT: ROWS,
    "/v2/models/m/infer": {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]},
    "/v1/models/m:predict": {"instances": [[1, 2]]},
    "/serving-endpoints/m/invocations": {"inputs": [[1, 2]]},
    "/endpoints/m/invocations": {"inputs": [[1, 2]]},
}


class Clock:
    """A clock that stands still until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(name: str, rate: Rate | None = None, **more) -> ServedKey:
    return ServedKey(name, hashlib.sha256(name.encode()).digest(), name, through(Scope.PREDICT), rate=rate, **more)


def kept(
    house, *keys: ServedKey, address: Rate | None = None, failures: Rate | None = None, proxies: tuple[str, ...] = ()
) -> Clock:
    """Have the house know these keys, and keep its limits by a clock that is returned."""
    clock = Clock()
    house.keys.replace(keys)
    house.engine._limits = Limits(OwnRates(), clock, address=address, limited=house.metrics.limited)
    house.door.gate = Gate(
        house.keys,
        proxies=Proxies(proxies),
        failures=Failures(failures, clock, house.metrics.limited),
        locates=address is not None,
    )
    return clock


async def statuses(house, name: str, times: int, **headers: str) -> list[int]:
    return [
        (await house.client.post(PREDICT, json=ROWS, headers={"x-api-key": name, **headers})).status_code for _ in range(times)
    ]


def refused(house, by: str) -> float:
    """How often the metrics say that a rate of this kind refused."""
    found = re.search(rf'^modelkeep_limited_total\{{by="{by}"\}} ([0-9.]+)$', house.metrics.text().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_keys_of_one_person_share_a_rate_and_others_have_their_own(house) -> None:
    shared = Rate(60, 3)
    clock = kept(
        house,
        key("a", shared, bucket="user/ada"),
        key("b", shared, bucket="user/ada"),
        key("c", shared, bucket="user/eve"),
        key("d", shared),
        key("free"),
    )
    await house.serve("m")
    assert await statuses(house, "a", 2) + await statuses(house, "b", 2) == [200, 200, 200, 429]
    assert await statuses(house, "c", 4) == await statuses(house, "d", 4) == [200, 200, 200, 429]
    assert set(await statuses(house, "free", 20)) == {200}
    clock.now += 1
    assert await statuses(house, "b", 1) + await statuses(house, "a", 1) == [200, 429]
    assert (refused(house, "user"), refused(house, "key")) == (3, 1)


async def test_a_deployments_rate_holds_for_all_and_takes_nothing_from_who_it_refuses(house) -> None:
    clock = kept(house, key("a", Rate(60, 3)), key("free"))
    house.settings["m"] = DeploymentSettings(rate=Rate(6, 2))
    await house.serve("m")
    assert await statuses(house, "free", 1) + await statuses(house, "a", 4) == [200, 200, 429, 429, 429]
    clock.now += 10
    answer = await house.client.post(PREDICT, json=ROWS, headers={"x-api-key": "a"})
    assert answer.headers["ratelimit"] == '"key";r=2;t=1, "deployment";r=0;t=10'
    assert answer.headers["ratelimit-policy"] == '"key";q=60;w=60, "deployment";q=6;w=60'
    assert refused(house, "deployment") == 3


async def test_an_address_has_a_rate_of_its_own_over_all_keys(house) -> None:
    kept(house, key("a"), key("b"), address=Rate(60, 2), proxies=("127.0.0.1",))
    await house.serve("m")
    one, other = {"x-forwarded-for": "192.0.2.1"}, {"x-forwarded-for": "192.0.2.2"}
    assert await statuses(house, "a", 1, **one) + await statuses(house, "b", 2, **one) == [200, 200, 429]
    assert await statuses(house, "b", 1, **other) == [200]
    forged = [await statuses(house, "a", 1, **{"x-forwarded-for": f"198.51.100.{n}, 192.0.2.1"}) for n in range(3)]
    assert forged == [[429]] * 3
    assert refused(house, "address") == 4


async def test_nobody_makes_an_address_up_where_no_proxy_is_trusted(house) -> None:
    kept(house, key("a"), address=Rate(60, 2))
    await house.serve("m")
    forged = [await statuses(house, "a", 1, **{"x-forwarded-for": f"198.51.100.{n}"}) for n in range(4)]
    assert forged == [[200], [200], [429], [429]]


async def test_a_key_is_good_from_its_networks_alone(house) -> None:
    kept(house, key("bound", networks=("192.0.2.0/24",)), key("here", networks=("127.0.0.0/8",)), proxies=("127.0.0.1",))
    await house.serve("m")
    refusal = await house.client.post(PREDICT, json=ROWS, headers={"x-api-key": "bound"})
    assert (refusal.status_code, refusal.json()["code"]) == (403, "wrong_network")
    assert await statuses(house, "bound", 1, **{"x-forwarded-for": "192.0.2.7"}) == [200]
    assert await statuses(house, "bound", 1, **{"x-forwarded-for": "192.0.2.7, 198.51.100.1"}) == [403]
    assert await statuses(house, "here", 1) == [200]
    assert await statuses(house, "here", 1, **{"x-forwarded-for": "nonsense"}) == [403]


async def test_wrong_keys_are_slowed_down_and_good_ones_go_on(house) -> None:
    clock = kept(house, key("good"), key("new"), failures=Rate(60, 3))
    await house.serve("m")
    assert await statuses(house, "wrong", 1) + await statuses(house, "good", 1) == [401, 200]
    assert await statuses(house, "wrong", 4) == [401, 401, 429, 429]
    assert await statuses(house, "good", 5) == [200] * 5
    assert await statuses(house, "new", 1) == [200], "whatever another caller behind this address does"
    clock.now += 1
    assert await statuses(house, "wrong", 2) == [401, 429]
    assert refused(house, "failures") == 3


async def test_health_and_metrics_have_no_rate(house) -> None:
    everything = ServedKey("m", hashlib.sha256(b"m").digest(), "m", through(Scope.ADMIN), rate=Rate(1, 1))
    kept(house, everything, address=Rate(1, 1), failures=Rate(60, 3))
    for path in ("/healthz", "/readyz", "/health", "/metrics"):
        answers = [await house.client.get(path, headers={"x-api-key": "m"}) for _ in range(5)]
        assert not any(answer.status_code == 429 or "ratelimit" in answer.headers for answer in answers), path


@pytest.mark.parametrize("path", DIALECTS)
async def test_every_dialect_says_what_is_left_and_when_to_come_again(house, path: str) -> None:
    clock = kept(house, key("a", Rate(6, 2)))
    await house.serve("m")
    clock.now += 0.5

    async def ask() -> httpx.Response:
        return await house.client.post(path, json=DIALECTS[path], headers={"x-api-key": "a"})

    first, second, third = await ask(), await ask(), await ask()
    assert [one.status_code for one in (first, second, third)] == [200, 200, 429]
    assert [one.headers["ratelimit"] for one in (first, second)] == ['"key";r=1;t=10', '"key";r=0;t=10']
    assert {one.headers["ratelimit-policy"] for one in (first, second, third)} == {'"key";q=6;w=60'}
    assert third.headers["ratelimit"] == '"key";r=0;t=10'
    assert third.headers["retry-after"] == "10"
    clock.now += 9
    assert (await ask()).headers["retry-after"] == "1"
    clock.now += 1
    assert (await ask()).status_code == 200


async def test_a_wrong_question_counts_and_says_what_is_left(house) -> None:
    kept(house, key("a", Rate(6, 2)))
    await house.serve("m")
    wrong = await house.client.post(PREDICT, json={"inputs": [["x", 2]]}, headers={"x-api-key": "a"})
    assert (wrong.status_code, wrong.headers["ratelimit"]) == (400, '"key";r=1;t=10')


@pytest.mark.parametrize(("name", "most"), [("free", 6), ("limited", 10)])
def test_who_comes_in_costs_few_calls(name: str, most: int) -> None:
    keys, counts = Keys(max_staleness_s=60), Counter[str]()
    keys.heard(time.time())
    keys.replace([key("free"), key("limited", Rate(600, 100))])
    gate, limits = Gate(keys, failures=Failures(Rate(60, 20))), Limits(OwnRates())
    request = Request("POST", PREDICT, [(b"x-api-key", name.encode())])

    def seen(_frame: object, event: str, _argument: object) -> None:
        counts[event] += 1

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        gate.enter(request, Scope.PREDICT)
        limits.admit(request, "m")
    finally:
        sys.setprofile(before)
    assert counts["call"] <= most


async def test_a_caller_without_a_rate_is_told_of_none(house) -> None:
    kept(house, key("free"))
    await house.serve("m")
    answer = await house.client.post(PREDICT, json=ROWS, headers={"x-api-key": "free"})
    assert answer.status_code == 200
    assert not {"ratelimit", "ratelimit-policy"} & set(answer.headers)


async def test_grpc_says_the_same_in_its_metadata(house) -> None:
    kept(house, key("a", Rate(6, 1)), key("bound", networks=("192.0.2.0/24",)), proxies=("127.0.0.1",))
    await house.serve("m")
    async with rpcs_of(house) as rpcs:
        call = rpcs.begin("ModelInfer", ONE, metadata=(("x-api-key", "a"),))
        await call
        told = dict(await call.trailing_metadata())
        assert (told["ratelimit"], told["ratelimit-policy"]) == ('"key";r=0;t=10', '"key";q=6;w=60')
        error = await rpcs.refused("ModelInfer", ONE, metadata=(("x-api-key", "a"),))
        told = dict(error.trailing_metadata())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (told["ratelimit"], told["retry-after"]) == ('"key";r=0;t=10', "10")
        error = await rpcs.refused("ModelInfer", ONE, metadata=(("x-api-key", "bound"),))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        await rpcs.ask("ModelInfer", ONE, metadata=(("x-api-key", "bound"), ("x-forwarded-for", "192.0.2.7")))
