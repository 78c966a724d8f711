"""Kept answers: who gets them, for how long, and that nobody ever gets another's."""

import asyncio
import json
import struct
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from msgspec.structs import replace

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import Caching, DeploymentSettings, Recording
from modelkeep.serving.cache import why_not, wish_in
from modelkeep.serving.cache_key import begun, key_of
from modelkeep.serving.codec import Tensors

ON = DeploymentSettings(cache=Caching("on"))
PREDICT = "/api/v1/predict/m"


class Watched:
    """A model that adds its columns, and says what it was given."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.bias = 0.0

    def __call__(self, inputs: Tensors) -> Tensors:
        (array,) = inputs.values()
        if array.any():  # or it is the row that each fresh runner runs first
            self.runs.append(array.tolist())
        return {"sum": array.sum(axis=1) + self.bias, "echo": array}


@pytest.fixture
async def model(house) -> Watched:
    house.settings["m"] = ON
    found = Watched()
    await house.serve("m", compute=found)
    return found


async def ask(house, *rows: list[float], key: str = "all", **headers: str) -> httpx.Response:
    body = {"inputs": list(rows) or [[1.0, 2.0]]}
    answer = await house.client.post(PREDICT, json=body, headers={"x-api-key": key, **headers})
    assert answer.status_code == 200, answer.text
    return answer


def results(house) -> dict[str, float]:
    lines = [one for one in house.metrics.text().decode().splitlines() if one.startswith("modelkeep_cache_requests_total{")]
    return {line.partition('result="')[2].partition('"')[0]: float(line.split()[-1]) for line in lines}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def test_an_equal_question_gets_the_answer_again_under_an_id_of_its_own(house, model) -> None:
    first, second = await ask(house), await ask(house)
    assert model.runs == [[[1.0, 2.0]]]
    assert [one.headers["x-cache"] for one in (first, second)] == ["miss", "hit"]
    assert ("age" in first.headers, second.headers["age"].isdigit()) == (False, True)
    ids = [one.json()["id"] for one in (first, second)]
    assert len(set(ids)) == 2
    assert {**first.json(), "id": ""} == {**second.json(), "id": ""}
    assert [one.id for one in house.records] == ids
    assert [one.outcome for one in house.records] == ["ok", "ok"]
    assert (house.records[0].run_ms > 0, house.records[1].run_ms) == (True, 0.0)
    assert results(house) == {"miss": 1, "hit": 1}
    text = house.metrics.text().decode()
    assert 'modelkeep_predictions_total{deployment="m",outcome="ok",version="1"} 2' in text or (
        'modelkeep_predictions_total{deployment="m",version="1",outcome="ok"} 2' in text
    )
    assert 'modelkeep_version_runs_total{deployment="m",version="1"} 1' in text
    assert "modelkeep_cache_entries 1" in text


async def test_statistics_tell_hits_from_runs(house, model) -> None:
    rows = [[1.0, 2.0], [3.0, 4.0]]
    for control in ("", "", "", "no-cache", "no-store"):
        await ask(house, *rows, **{"cache-control": control})
    (found,) = (await house.client.get("/v2/models/m/stats")).json()["model_stats"]
    assert (found["inference_count"], found["execution_count"]) == (6, 3), "rows and runs of the model"
    stats = found["inference_stats"]
    assert {name: one["count"] for name, one in stats.items()} == {
        **dict.fromkeys(["success", "queue"], 5),
        **dict.fromkeys(["compute_input", "compute_infer", "compute_output"], 3),
        "fail": 0,
        "cache_hit": 2,
        "cache_miss": 1,
    }
    assert 0 < stats["cache_hit"]["ns"] < stats["success"]["ns"]
    assert stats["cache_miss"]["ns"] > 0


async def test_those_who_share_an_answer_are_hits_in_statistics_and_only_the_look_up_is_their_time(house, model) -> None:
    gate = house.gates["m-1"] = asyncio.Event()
    asked = [asyncio.create_task(ask(house)) for _ in range(3)]
    await until(lambda: house.router.find("m").underway.count == 3)
    gate.set()
    await asyncio.gather(*asked)
    (found,) = (await house.client.get("/v2/models/m/stats")).json()["model_stats"]
    stats = found["inference_stats"]
    assert (found["inference_count"], stats["success"]["count"]) == (1, 3)
    assert (stats["cache_hit"]["count"], stats["cache_miss"]["count"]) == (2, 1)
    assert 0 < stats["cache_hit"]["ns"] < stats["queue"]["ns"]


async def test_numbers_are_one_question_in_every_spelling_and_dialect(house, model) -> None:
    await ask(house)
    spelled = await house.client.post(PREDICT, content=b'{"inputs": [{"b": 2, "a": 1e0}], "top_k": null}')
    flat = await house.client.post("/v1/models/m:predict", json={"instances": [[1, 2]]})
    v2 = {"name": "input", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}
    named = await house.client.post("/v2/models/m/infer", json={"inputs": [v2]})
    assert [one.headers["x-cache"] for one in (spelled, flat, named)] == ["hit"] * 3
    assert len(model.runs) == 1
    assert named.json()["outputs"][0]["data"] == [3.0]


async def test_questions_that_a_model_may_tell_apart_are_two(house, model) -> None:
    for row in ([0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]):
        assert (await ask(house, row)).headers["x-cache"] == "miss"
    assert (await ask(house, [0.0, 1.0], [0.0, 1.0])).headers["x-cache"] == "miss"


async def test_an_answer_is_written_anew_by_each_request(house, model) -> None:
    await ask(house)
    less = await house.client.post(PREDICT, json={"inputs": [[1, 2]], "outputs": ["echo"], "include": ["timings"]})
    assert less.headers["x-cache"] == "hit"
    assert less.json()["outputs"] == {"echo": [[1.0, 2.0]]}
    assert less.json()["metadata"]["timings"]["run_ms"] == 0


async def test_nobody_gets_what_was_answered_to_another_caller(house, model) -> None:
    await ask(house, key="all")
    assert (await ask(house, key="predict")).headers["x-cache"] == "miss"
    assert (await ask(house, key="predict")).headers["x-cache"] == "hit"
    assert len(model.runs) == 2


async def test_callers_of_a_deployment_share_answers_where_it_says_so(house) -> None:
    house.settings["m"] = DeploymentSettings(cache=Caching("on", share="deployment"))
    await house.serve("m")
    await ask(house, key="all")
    assert (await ask(house, key="predict")).headers["x-cache"] == "hit"


async def test_no_cache_asks_the_model_and_keeps_what_it_says(house, model) -> None:
    await ask(house)
    model.bias = 10.0
    assert (await ask(house)).json()["outputs"]["sum"] == [3.0]
    fresh = await ask(house, **{"cache-control": "No-Cache, foo"})
    assert (fresh.headers["x-cache"], fresh.json()["outputs"]["sum"]) == ("miss", [13.0])
    again = await ask(house)
    assert (again.headers["x-cache"], again.json()["outputs"]["sum"]) == ("hit", [13.0])


async def test_no_store_leaves_nothing_and_takes_nothing(house, model) -> None:
    await ask(house, **{"cache-control": "no-store"})
    assert len(house.cache.memory) == 0
    await ask(house)
    assert (await ask(house, **{"cache-control": "no-store"})).headers["x-cache"] == "miss"
    assert len(model.runs) == 3
    assert results(house) == {"bypassed": 2, "miss": 1}


@pytest.mark.parametrize(
    ("control", "look", "keep", "oldest"),
    [
        (b"no-cache", False, True, float("inf")),
        (b"NO-STORE", False, False, float("inf")),
        (b"max-age=0", False, True, 0.0),
        (b"max-age=60, stale", True, True, 60.0),
        (b"max-age=60, max-age=5", True, True, 5.0),
        (b"max-age=-1, x=no-cache", True, True, float("inf")),
        (b"max-age=" + b"9" * 5000, True, True, 999999999.0),
        (b"", True, True, float("inf")),
        (b"\xff=,,=", True, True, float("inf")),
    ],
)
def test_what_a_request_says_of_kept_answers(control: bytes, look: bool, keep: bool, oldest: float) -> None:
    wish = wish_in(control)
    assert (wish.look, wish.keep, wish.max_age_s) == (look, keep, oldest)


async def test_an_answer_goes_when_its_time_is_over(house, model) -> None:
    now = [1000.0]
    house.cache.clock = house.cache.memory._clock = lambda: now[0]
    await ask(house)
    now[0] += 3599.0
    assert (await ask(house)).headers["age"] == "3599"
    assert (await ask(house, **{"cache-control": "max-age=3599"})).headers["x-cache"] == "hit"
    assert (await ask(house, **{"cache-control": "max-age=3598"})).headers["x-cache"] == "miss"
    now[0] += 3600.0
    assert (await ask(house)).headers["x-cache"] == "miss"
    assert 'modelkeep_cache_evictions_total{reason="age"} 1' in house.metrics.text().decode()


async def test_a_promotion_retires_what_the_version_before_has_said(house, model) -> None:
    await ask(house)
    other = Watched()
    other.bias = 100.0
    await house.serve("m", compute=other, number=2)
    assert len(house.cache.memory) == 0
    answer = await ask(house)
    assert (answer.headers["x-cache"], answer.json()["outputs"]["sum"]) == ("miss", [103.0])
    assert 'modelkeep_cache_evictions_total{reason="retired"} 1' in house.metrics.text().decode()


async def test_what_an_alias_points_to_keeps_its_own_answers(house, model) -> None:
    other = Watched()
    other.bias = 100.0
    await house.alias("m", "canary", 2, other)
    for version, total in (("", 3.0), ("?version=canary", 103.0), ("?version=2", 103.0), ("?version=1", 3.0)):
        answer = await house.client.post(PREDICT + version, json={"inputs": [[1, 2]]})
        assert answer.json()["outputs"]["sum"] == [total]
    assert (len(model.runs), len(other.runs)) == (1, 1)


async def test_a_refused_question_is_asked_again(house, refuse) -> None:
    tries = [0]

    def moody(inputs: Tensors) -> Tensors:
        tries[0] += 1
        if tries[0] == 2:  # the first is a fresh runner's
            raise refuse("failed", "not today", None)
        (array,) = inputs.values()
        return {"sum": array.sum(axis=1), "echo": array}

    house.settings["m"] = ON
    await house.serve("m", compute=moody)
    first = await house.client.post(PREDICT, json={"inputs": [[1, 2]]})
    assert first.status_code >= 400
    assert (await ask(house)).headers["x-cache"] == "miss"
    assert (await ask(house)).headers["x-cache"] == "hit"


async def test_what_is_turned_off_has_no_cache_at_all(house) -> None:
    await house.serve("m")
    assert house.router.find("m").cache is None
    answer = await ask(house)
    assert "x-cache" not in answer.headers
    assert results(house) == {}


async def test_to_turn_it_off_lets_go_of_all_that_was_kept(house, model) -> None:
    await ask(house)
    house.settings["m"] = DeploymentSettings(cache=Caching("off"))
    house.publish()
    assert len(house.cache.memory) == 0
    assert "x-cache" not in (await ask(house)).headers


def test_by_itself_it_is_on_where_the_model_is_slow_and_repeats_itself(make_version) -> None:
    version = replace(make_version("m-1"), cost_ms={"1": 3.6, "64": 4.0}, repeatable=True)
    assert not why_not(Caching(), version)
    assert not why_not(Caching(), replace(version, cost_ms={"1": 1.0}))
    assert why_not(Caching("off"), version) == "off"
    for other, why in (({"repeatable": False}, "unsure"), ({"cost_ms": {}}, "unsure"), ({"cost_ms": {"1": 0.99}}, "fast")):
        assert why_not(Caching(), replace(version, **other)) == why
        assert not why_not(Caching("on"), replace(version, **other))


async def test_a_thousand_equal_questions_at_once_are_one_run(house, model) -> None:
    gate = house.gates["m-1"] = asyncio.Event()
    asked = [asyncio.create_task(ask(house)) for _ in range(1000)]
    await until(lambda: house.router.find("m").underway.count == 1000)
    gate.set()
    answers = await asyncio.gather(*asked)
    assert len(model.runs) == 1
    assert len({one.json()["id"] for one in answers}) == 1000
    assert all(one.json()["outputs"]["sum"] == [3.0] for one in answers)
    assert results(house) == {"miss": 1, "shared": 999}
    assert house.router.find("m").served.batcher.reading == 0
    assert len(house.records) == 1000


async def test_one_who_waits_leaves_at_a_deadline_of_its_own(house, model) -> None:
    gate = house.gates["m-1"] = asyncio.Event()
    first = asyncio.create_task(ask(house))
    await until(lambda: bool(house.cache.flights))
    late = await house.client.post(PREDICT, json={"inputs": [[1, 2]]}, headers={"x-request-timeout": "0.05"})
    assert late.status_code == 504
    gate.set()
    assert (await first).json()["outputs"]["sum"] == [3.0]
    assert house.router.find("m").served.batcher.reading == 0


async def test_when_the_first_one_leaves_the_next_goes_to_the_model(house, model) -> None:
    gate = house.gates["m-1"] = asyncio.Event()
    hasty = asyncio.create_task(house.client.post(PREDICT, json={"inputs": [[1, 2]]}, headers={"x-request-timeout": "0.05"}))
    await until(lambda: bool(house.cache.flights))
    others = [asyncio.create_task(ask(house)) for _ in range(3)]
    assert (await hasty).status_code == 504
    gate.set()
    assert [one.json()["outputs"]["sum"] for one in await asyncio.gather(*others)] == [[3.0]] * 3
    assert len(model.runs) == 2  # the one that nobody waited for, and another
    assert not house.cache.flights


async def test_no_cache_waits_for_nobody(house, model) -> None:
    gate = house.gates["m-1"] = asyncio.Event()
    first = asyncio.create_task(ask(house))
    await until(lambda: bool(house.cache.flights))
    second = asyncio.create_task(ask(house, **{"cache-control": "no-cache"}))
    await until(lambda: house.router.find("m").served.batcher.waiting == 1)
    gate.set()
    assert [(await one).headers["x-cache"] for one in (first, second)] == ["miss", "miss"]
    assert len(model.runs) == 2


async def test_a_large_body_is_found_again_too(house, model) -> None:
    rows = [[float(number), 0.5] for number in range(30_000)]
    first, second = await ask(house, *rows), await ask(house, *rows)
    assert [one.headers["x-cache"] for one in (first, second)] == ["miss", "hit"]
    assert first.json()["outputs"] == second.json()["outputs"]
    assert len(model.runs) == 1


async def test_an_answer_beyond_a_part_of_the_room_is_not_kept(open_house) -> None:
    house = open_house(cache_mb=1)
    house.settings["m"] = ON
    await house.serve("m")
    rows = [[float(number), 0.5] for number in range(5000)]
    assert [(await ask(house, *rows)).headers["x-cache"] for _ in range(2)] == ["miss", "miss"]
    assert house.cache.memory.bytes == 0


async def test_what_a_runner_said_before_it_was_found_wrong_is_not_given_again(house, model) -> None:
    await ask(house)
    house.router.find("m").served.count_mismatch()
    assert (await ask(house)).headers["x-cache"] == "miss"
    assert (await ask(house)).headers["x-cache"] == "hit"
    house.router.find("m").served.golden.differs = "It answers otherwise."
    assert "x-cache" not in (await ask(house)).headers
    assert len(model.runs) == 3


async def test_texts_and_pictures_are_told_apart_by_their_bytes(house) -> None:
    signature = Signature((TensorSpec("text", Dtype.BYTES, (-1, 1)),), (TensorSpec("n", Dtype.INT64, (-1,)),))
    runs: list[Any] = []

    def lengths(inputs: Tensors) -> Tensors:
        if inputs["text"][0, 0]:
            runs.append(inputs["text"].tolist())
        return {"n": np.array([len(row[0]) for row in inputs["text"].tolist()])}

    house.settings["m"] = ON
    await house.serve("m", signature, lengths)
    for texts in (["ab", "c"], ["a", "bc"], ["ab", "c"]):
        body = {"inputs": {"text": [[one] for one in texts]}}
        answer = await house.client.post(PREDICT, json=body)
        assert answer.json()["outputs"]["n"] == [len(one) for one in texts]
    assert len(runs) == 2


async def test_what_is_hidden_in_the_history_stays_hidden_in_hits(house) -> None:
    house.settings["m"] = DeploymentSettings(cache=Caching("on"), recording=Recording(inputs="hash", fields={"sum": "drop"}))
    await house.serve("m")
    await ask(house)
    await ask(house)
    assert house.records[0].outputs == house.records[1].outputs
    assert b"sum" not in (house.records[1].outputs or b"")


async def test_whoever_may_not_ask_gets_no_kept_answer(house, model) -> None:
    await ask(house)
    refused = await house.client.post(PREDICT, json={"inputs": [[1, 2]]}, headers={"x-api-key": "read"})
    assert refused.status_code == 403


def test_bits_are_looked_at_and_not_values() -> None:
    nans = [np.frombuffer(struct.pack("<Q", bits)) for bits in (0x7FF8000000000000, 0x7FF8000000000001)]
    assert len({key_of(begun(b"v"), b"", {"x": one}) for one in nans}) == 2
    assert json.dumps(float(nans[0][0])) == json.dumps(float(nans[1][0]))


async def test_what_a_runner_said_that_was_found_wrong_meanwhile_is_shared_with_nobody(house, model) -> None:
    gate = house.gates["m-1"] = asyncio.Event()
    asked = [asyncio.create_task(ask(house)) for _ in range(2)]
    await until(lambda: house.router.find("m").underway.count == 2)
    house.router.find("m").served.count_mismatch()
    gate.set()
    assert [(await one).headers["x-cache"] for one in asked] == ["miss", "miss"]
    assert len(model.runs) == 2
