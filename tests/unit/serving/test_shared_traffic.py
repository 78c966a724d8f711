"""Predictions of a deployment whose traffic is shared, through the whole door: who answered is said, and was one version."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable

import httpx
import numpy as np
import pytest

from fixtures.rpcs import Rpcs, question
from modelkeep.contracts.snapshot import Caching, DeploymentSettings
from modelkeep.contracts.traffic import Counted, Rule, Split, Traffic, Trial
from modelkeep.serving.messages import Request
from modelkeep.serving.protos import open_inference_pb2 as pb
from modelkeep.serving.trials import WARM_UP

PREDICT = "/api/v1/predict/m"
ONE = {"inputs": [[1, 2]]}
V2_ONE = {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}
ROWS = {"instances": [[1, 2]]}
TENANT = "x-tenant"
EVEN = Traffic((Split("m-2", 50.0),), sticky=f"header:{TENANT}")
"""Tenants are shared out one by one, and stay."""


def times(factor: float) -> Callable[[dict], dict]:
    """A model whose answers say which it is."""
    return lambda inputs: {"sum": inputs["input"].sum(axis=1) * factor, "echo": inputs["input"]}


@pytest.fixture
async def m(house):
    """Version 1 is promoted and 2 has half of the tenants; each answers by its number times the sum."""
    await house.serve("m", compute=times(1))
    await house.alias("m", "next", 2, times(2))
    del house.aliases["m"]
    house.traffic["m"] = EVEN
    house.publish()
    return house


def sums_in(body: dict) -> list[float]:
    """The answer of the model, however it is told."""
    if "outputs" in body:
        outputs = body["outputs"]
        return next(one["data"] for one in outputs if one["name"] == "sum") if isinstance(outputs, list) else outputs["sum"]
    (row,) = body["predictions"]
    return [row["sum"]]


def answered(answer: httpx.Response) -> int:
    """The version that answered: as the header says, and the answer itself."""
    assert answer.status_code == 200, answer.text
    number = int(answer.headers["x-model-version"])
    assert sums_in(answer.json()) == [3.0 * number]
    return number


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, ONE),
        ("/predict?model=m", ONE),
        ("/v2/models/m/infer", V2_ONE),
        ("/v1/models/m:predict", ROWS),
        ("/invocations", ROWS),
        ("/endpoints/m/invocations", ROWS),
    ],
    ids=["native", "short", "open inference", "tensorflow", "mlflow", "sagemaker"],
)
async def test_every_dialect_says_which_version_answered_and_a_tenant_has_one(m, path: str, body: dict) -> None:
    found = {}
    for tenant in range(24):
        numbers = {answered(await m.client.post(path, json=body, headers={TENANT: f"t{tenant}"})) for _ in range(2)}
        (found[tenant],) = numbers
    native = {at: answered(await m.client.post(PREDICT, json=ONE, headers={TENANT: f"t{at}"})) for at in found}
    assert found == native, "whatever way one asks by"
    assert set(found.values()) == {1, 2}


async def test_grpc_shares_out_the_same_tenants_and_says_which_version_answered(m, rpcs: Rpcs) -> None:
    ask = question(np.array([[1.0, 2.0]]), model="m")
    for at in range(16):
        call = rpcs.begin("ModelInfer", ask, metadata=(("x-api-key", "all"), (TENANT, f"t{at}")))
        answer = pb.ModelInferResponse.FromString(await call)
        told = dict(await call.trailing_metadata())["x-model-version"]
        over_http = answered(await m.client.post(PREDICT, json=ONE, headers={TENANT: f"t{at}"}))
        assert told == answer.model_version == str(over_http)


async def test_predictions_without_asgi_are_shared_out_too(m) -> None:
    found = Counter()
    for at in range(24):
        told: asyncio.Future = asyncio.get_running_loop().create_future()
        headers = [(b"x-api-key", b"all"), (b"content-type", b"application/json"), (TENANT.encode(), b"t%d" % at)]
        m.door.predict_whole(Request("POST", PREDICT, headers), json.dumps(ONE).encode(), told.set_result)
        whole = dict((await told).headers)[b"x-model-version"].decode()
        assert int(whole) == answered(await m.client.post(PREDICT, json=ONE, headers={TENANT: f"t{at}"}))
        found[whole] += 1
    assert set(found) == {"1", "2"}
    assert m.router.find("m").underway.count == 0


async def test_who_names_a_version_gets_it_whatever_the_shares_are(m) -> None:
    m.traffic["m"] = Traffic((Split("m-2", 100.0),), (Rule("m-2"),))
    m.publish()
    assert answered(await m.client.post(PREDICT, json=ONE)) == 2
    for call in (
        m.client.post(PREDICT, json=ONE, params={"version": "1"}),
        m.client.post(PREDICT, json={**ONE, "version": 1}),
        m.client.post(PREDICT, json=ONE, headers={"X-Modelkeep-Version": "1"}),
        m.client.post("/v2/models/m/versions/1/infer", json=V2_ONE),
    ):
        assert answered(await call) == 1


async def test_who_keys_and_their_owners_are_may_decide(m) -> None:
    m.traffic["m"] = Traffic(rules=(Rule("m-2", callers=("usr_predict",)),))
    m.publish()
    assert answered(await m.client.post(PREDICT, json=ONE)) == 1
    assert answered(await m.client.post(PREDICT, json=ONE, headers={"x-api-key": "predict"})) == 2


async def test_records_and_counters_are_those_of_the_version_that_answered(m) -> None:
    m.records.clear()
    said = [answered(await m.client.post(PREDICT, json=ONE)) for _ in range(30)]
    assert [one.version for one in m.records] == said
    page = m.metrics.text().decode()
    for number in (1, 2):
        line = f'modelkeep_predictions_total{{deployment="m",version="{number}",outcome="ok"}} {said.count(number)}.0'
        assert line in page


async def test_one_prediction_has_one_version_though_news_come_while_its_body_does(m) -> None:
    """Promoted or not, shared or not: what is chosen is chosen when the body is there, and read and answered by that."""
    turns: list[tuple[Traffic, set[int]]] = [
        (Traffic((Split("m-2", 100.0),)), {2}),
        (Traffic(), {1}),
        (EVEN, {1, 2}),
        (Traffic(rules=(Rule("m-2", header=TENANT),)), {2}),
    ]
    for traffic, expected in turns:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(begun: asyncio.Event = begun, go_on: asyncio.Event = go_on) -> AsyncIterator[bytes]:
            begun.set()
            await go_on.wait()
            yield json.dumps(ONE).encode()

        asking = asyncio.create_task(m.client.post(PREDICT, content=slowly(), headers={TENANT: "t1"}))
        await begun.wait()
        m.traffic["m"] = traffic
        m.publish()
        go_on.set()
        assert answered(await asking) in expected
        assert m.router.find("m").underway.count == 0


async def test_no_request_is_lost_while_shares_change_and_versions_are_promoted_and_called_back(m) -> None:
    m.settings["m"] = DeploymentSettings(concurrency=64)
    shares = [Traffic((Split("m-2", share),), sticky=sticky) for share in (0.0, 10.0, 100.0) for sticky in ("", "key")]
    asking, answers = True, []

    async def ask() -> None:
        while asking:
            answers.append(await m.client.post(PREDICT, json=ONE))

    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    for turn in range(60):
        seen = len(answers)
        m.traffic["m"] = shares[turn % len(shares)]
        m.deployments["m"] = f"m-{1 + turn // 7 % 2}"
        m.publish()
        while len(answers) < seen + 3:
            await asyncio.sleep(0)
    asking = False
    await asyncio.gather(*tasks)
    assert {answered(one) for one in answers} == {1, 2}
    assert m.router.find("m").underway.count == 0


async def test_a_bound_on_what_is_under_way_is_one_for_all_that_share(m) -> None:
    m.settings["m"] = DeploymentSettings(concurrency=1)
    m.traffic["m"] = Traffic((Split("m-2", 100.0),))
    m.publish()
    gate = m.gates["m-2"] = asyncio.Event()
    first = asyncio.create_task(m.client.post(PREDICT, json=ONE))
    while m.router.find("m").underway.count == 0:
        await asyncio.sleep(0)
    refused = await m.client.post(PREDICT, json=ONE, params={"version": "1"})
    assert (refused.status_code, refused.json()["code"]) == (503, "deployment_concurrency")
    gate.set()
    assert answered(await first) == 2
    assert answered(await m.client.post(PREDICT, json=ONE)) == 2


async def test_readiness_waits_for_no_candidate(house) -> None:
    await house.serve("m", compute=times(1))
    await house.alias("m", "next", 2, wait=False)
    house.traffic["m"] = Traffic((Split("m-2", 100.0),))
    house.publish()
    assert (await house.client.get("/readyz")).status_code == 200
    assert answered(await house.client.post(PREDICT, json=ONE)) == 1


# ---- trials


def counts(house, signal: str) -> Counted:
    return house.router.trials.seen()["rol_1:1"].counts[signal]


async def on_trial(house, refuse: type[Exception], *, worse: bool = False, **more: object) -> list[str]:
    """Serve a version beside one on trial. Returns what is told.

    A row that begins with 13 fails, one with 17 is answered NaN, one with 19 is refused. A `worse` candidate fails with 23.
    """

    def moody(inputs: dict) -> dict:
        mood = inputs["input"][0, 0]
        if mood == 13:
            raise refuse("model_failed", "", None)
        if mood == 19:
            raise refuse("refused", "", None)
        sums = inputs["input"].sum(axis=1)
        return {"sum": sums * (np.nan if mood == 17 else 1.0), "echo": inputs["input"]}

    await house.serve("m", compute=moody)

    def moodier(inputs: dict) -> dict:
        if inputs["input"][0, 0] == 23:
            raise refuse("model_failed", "", None)
        return moody(inputs)

    await house.alias("m", "next", 2, moodier if worse else moody)
    house.traffic["m"] = Traffic((Split("m-2", 50.0),), (Rule("m-2", header="x-ruled"),))
    settings: dict = {"slow_ms": 60_000.0, "alphas": {"errors": 0.01}, **more}
    house.trials["m"] = Trial("rol_1", 1, "m-2", 0.5, **settings)
    told: list[str] = []
    house.router.trials.told = lambda: told.append(house.router.heartbeat("s", 0.0).trials["rol_1:1"].halted)
    house.publish()
    return told


async def ask_of(house, mood: float, **more: object) -> tuple[int, int]:
    """Ask once, and return the status and the version."""
    before = len(house.records)
    answer = await house.client.post(PREDICT, json={"inputs": [[mood, 2]]}, **more)
    return answer.status_code, house.records[before].version


async def warm_up(house) -> None:
    """Have both versions be warm, without a request that counts."""
    count = house.router.trials.of("m")
    for arm in (0, 1) * WARM_UP:
        count.rollout.warms(arm, alone=False)


async def test_a_trial_counts_exactly_what_happened(house, refuse) -> None:
    await on_trial(house, refuse, alphas={})
    await warm_up(house)
    seen: Counter = Counter()
    for at in range(120):
        mood = (1.0, 13.0, 17.0, 19.0)[at % 4]
        status, number = await ask_of(house, mood)
        assert status == {1.0: 200, 13.0: 500, 17.0: 200, 19.0: 400}[mood]
        seen[number, mood] += 1
    answers = [seen[number, 1.0] + seen[number, 17.0] for number in (2, 1)]
    bad = [seen[number, 13.0] for number in (2, 1)]
    poor = [seen[number, 17.0] for number in (2, 1)]
    assert counts(house, "errors") == Counted(answers[0] + bad[0], bad[0], answers[1] + bad[1], bad[1])
    assert counts(house, "poor") == Counted(answers[0], poor[0], answers[1], poor[1])
    assert counts(house, "slow") == Counted(answers[0], 0, answers[1], 0)


async def test_who_named_a_version_or_came_by_a_rule_is_not_counted_nor_who_was_turned_away_or_left(house, refuse) -> None:
    await on_trial(house, refuse)
    await warm_up(house)
    before = counts(house, "errors")
    for more in ({"params": {"version": "2"}}, {"headers": {"x-ruled": "1"}}, {"params": {"version": "1"}}):
        await ask_of(house, 13.0, **more)
        await ask_of(house, 1.0, **more)
    house.settings["m"] = DeploymentSettings(concurrency=1)
    house.publish()
    for number in (1, 2):
        house.gates[f"m-{number}"] = asyncio.Event()
    first = asyncio.create_task(house.client.post(PREDICT, json=ONE))
    while house.router.find("m").underway.count == 0:
        await asyncio.sleep(0)
    assert (await house.client.post(PREDICT, json=ONE)).status_code == 503
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    for gate in house.gates.values():
        gate.set()
    assert counts(house, "errors") == before


async def test_a_request_that_is_late_counts_as_failed(house, refuse) -> None:
    await on_trial(house, refuse)
    await warm_up(house)
    before = counts(house, "errors")
    for number in (1, 2):
        house.gates[f"m-{number}"] = asyncio.Event()
    status, number = await ask_of(house, 1.0, headers={"x-request-timeout": "0.05"})
    assert status == 504
    now = counts(house, "errors")
    assert (now.bad - before.bad, now.others_bad - before.others_bad) == ((1, 0) if number == 2 else (0, 1))
    for gate in house.gates.values():
        gate.set()


async def test_a_runner_that_is_lost_counts_for_whom_it_was_and_then_nobody_goes_there(house, refuse) -> None:
    await on_trial(house, refuse)
    await warm_up(house)
    before = counts(house, "errors")
    candidate = house.router.pool.get("m-2")
    house.gates["m-2"] = asyncio.Event()
    asking = []
    while candidate.batcher.idle:
        asking.append(asyncio.create_task(house.client.post(PREDICT, json=ONE)))
        await asyncio.sleep(0.01)
    (replica,) = [one for owner, one in house.router.pool._replicas.values() if owner is candidate]
    replica.kill()
    while candidate.ready:
        await house.change()
    house.gates["m-2"].set()
    assert {(await house.client.post(PREDICT, json=ONE)).headers["x-model-version"] for _ in range(20)} == {"1"}
    await house.connect("m-2", times(1))
    await asyncio.gather(*asking)
    now = counts(house, "errors")
    assert now.requests + now.others - before.requests - before.others == len(asking), "those without a candidate are nobody's"


async def test_a_candidate_that_fails_is_called_back_and_its_callers_are_answered_by_the_promoted_one(house, refuse) -> None:
    told = await on_trial(house, refuse, worse=True)
    await warm_up(house)
    failures = 0
    while not told:
        status, number = await ask_of(house, 23.0)
        assert status == (500 if number == 2 else 200)
        failures += number == 2
    assert told == ["errors"]
    found = counts(house, "errors")
    assert (found.bad, found.others_bad) == (failures, 0)
    assert {await ask_of(house, 23.0) for _ in range(40)} == {(200, 1)}
    assert counts(house, "errors") == found
    house.publish()
    assert {await ask_of(house, 23.0) for _ in range(40)} == {(200, 1)}, "the same news again change nothing"


async def test_a_version_that_has_taken_over_is_counted_alone_until_its_trial_is_over(house, refuse) -> None:
    await on_trial(house, refuse, alphas={})
    house.traffic["m"] = Traffic()
    house.trials["m"] = Trial("rol_1", 2, "m-1", 0.5)
    house.publish()
    for _ in range(WARM_UP + 7):
        assert answered(await house.client.post(PREDICT, json=ONE)) == 1
    seen = house.router.trials.seen()["rol_1:2"].counts
    assert (seen["errors"], seen["slow"]) == (Counted(WARM_UP + 7, 0, 0, 0), Counted())
    del house.trials["m"]
    house.publish()
    assert answered(await house.client.post(PREDICT, json=ONE)) == 1
    assert house.router.trials.seen()["rol_1:2"].counts["errors"] == Counted(WARM_UP + 7, 0, 0, 0)


async def test_what_a_trial_counts_is_run_each_time_and_what_it_does_not_may_be_kept(house, refuse) -> None:
    house.settings["m"] = DeploymentSettings(cache=Caching("on"))
    await on_trial(house, refuse)
    runs = [house.router.pool.get(f"m-{number}") for number in (1, 2)]

    async def ran(times: int, **more: object) -> int:
        before = sum(one.batcher.runs for one in runs)
        for _ in range(times):
            assert (await house.client.post(PREDICT, json=ONE, **more)).status_code == 200
        return sum(one.batcher.runs for one in runs) - before

    assert await ran(20) == 20
    assert await ran(5, headers={"x-ruled": "1"}) == 1
