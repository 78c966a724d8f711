"""What Open Inference says of models: configuration, statistics of all servers, and the repository."""

from pathlib import Path

import pytest

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.sandbox import control
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.statistics import Sum

INFER = "/v2/models/m/infer"


def infer(rows: int, width: int = 2) -> dict[str, object]:
    return {"inputs": [{"name": "input", "shape": [rows, width], "datatype": "FP64", "data": [1] * (rows * width)}]}


async def index(house, **request: object) -> list[dict[str, str]]:
    answer = await house.client.post("/v2/repository/index", **request)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_index_says_what_is_ready_loading_and_cannot_be(house) -> None:
    await house.serve("ready")
    await house.serve("loading", wait=False)
    failing = await house.serve("failing", wait=False)
    house.router.pool.take(control.Held(failing, 60, "it ended with status 3"), [])
    rows = [
        {"name": "ready", "version": "1", "state": "READY", "reason": ""},
        {"name": "loading", "version": "1", "state": "LOADING", "reason": ""},
        {"name": "failing", "version": "1", "state": "UNAVAILABLE", "reason": "it ended with status 3"},
    ]
    for sent in (b"", b" ", b"{}", b'{"ready": false}'):
        assert await index(house, content=sent) == rows
    assert await index(house, content=b'{"ready": true}') == rows[:1]


async def test_the_index_shows_the_version_that_answers_and_the_one_to_come(house) -> None:
    await house.serve("m", number=1)
    await house.serve("m", number=2, wait=False)
    assert [(one["version"], one["state"]) for one in await index(house)] == [("1", "READY"), ("2", "LOADING")]


@pytest.mark.parametrize("sent", [b"{", b"[]", b'{"ready": "yes"}', b"NaN", b"\xff", b"[" * 60_000])
async def test_a_wish_that_is_none_is_refused(house, sent: bytes) -> None:
    answer = await house.client.post("/v2/repository/index", content=sent)
    assert (answer.status_code, answer.json().keys()) == (400, {"error"})


async def test_a_wish_of_a_megabyte_is_too_large(house) -> None:
    answer = await house.client.post("/v2/repository/index", content=b"[" * 1_000_000)
    assert (answer.status_code, answer.json().keys()) == (413, {"error"})


@pytest.mark.parametrize("what", ["load", "unload"])
async def test_loading_is_for_the_control_plane_to_decide_whoever_asks(house, what: str) -> None:
    await house.serve("m")
    for key in ("all", "predict", "nobody"):
        away = await house.client.post(f"/v2/repository/models/m/{what}", headers={"x-api-key": key})
        assert (away.status_code, away.json().keys()) == (503, {"error"})


async def test_a_configuration_has_no_batch_axis(house) -> None:
    signature = Signature(
        (TensorSpec("t", Dtype.BYTES, (-1,)), TensorSpec("x", Dtype.FP16, (-1, 3, -1))),
        (TensorSpec("y", Dtype.BOOL, (-1, 2)),),
    )
    await house.serve("m", signature, wait=False)
    for path in ("/v2/models/m/config", "/v2/models/m/versions/1/config"):
        config = (await house.client.get(path)).json()
        assert config["input"] == [
            {"name": "t", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
            {"name": "x", "data_type": "TYPE_FP16", "dims": [3, -1]},
        ]
        assert config["output"] == [{"name": "y", "data_type": "TYPE_BOOL", "dims": [2]}]
        assert (config["name"], config["platform"], config["max_batch_size"]) == ("m", "fake_onnx", 256)


async def test_statistics_count_rows_runs_requests_and_time(house) -> None:
    await house.serve("m")
    await house.serve("n")
    for rows in (1, 4):
        assert (await house.client.post(INFER, json=infer(rows))).status_code == 200
    assert (await house.client.post(INFER, json=infer(1, width=3))).status_code == 400
    for path in ("/v2/models/m/stats", "/v2/models/m/versions/1/stats"):
        (found,) = (await house.client.get(path)).json()["model_stats"]
        assert (found["name"], found["version"]) == ("m", "1")
        assert (found["inference_count"], found["execution_count"]) == (5, 2)
        assert found["last_inference"] > 1_600_000_000_000
        stats = found["inference_stats"]
        assert {name: one["count"] for name, one in stats.items()} == {
            **dict.fromkeys(["success", "queue", "compute_input", "compute_infer", "compute_output"], 2),
            "fail": 1,
            "cache_hit": 0,
            "cache_miss": 0,
        }
        assert stats["compute_infer"]["ns"] == 20_000_000
        assert 0 <= stats["queue"]["ns"] <= stats["success"]["ns"]
        assert stats["fail"]["ns"] > 0
    both = (await house.client.get("/v2/models/stats")).json()["model_stats"]
    assert [(one["name"], one["inference_count"], one["last_inference"] > 0) for one in both] == [
        ("m", 5, True),
        ("n", 0, False),
    ]


def test_statistics_are_those_of_all_servers(tmp_path: Path) -> None:
    servers = [Metrics("9.9", tmp_path, slot) for slot in range(3)]
    for number, one in enumerate(servers, start=1):
        meter = one.meter("m", 1)
        meter.sums.ran(
            Sum(answered=1, rows=number, total_s=1.0, queue_s=0.25, preprocess_s=0.125, run_s=0.5, last=1000.0 * number)
        )
        meter.sums.failed(2.0)
    for one in servers:
        found, none = one.statistics.of([("m", "1"), ("m", "2")])
        assert (found.answered, found.failed, found.rows, found.runs) == (3, 3, 6, 3)
        assert (found.total_s, found.queue_s, found.preprocess_s, found.run_s, found.failed_s) == (3, 0.75, 0.375, 1.5, 6)
        assert found.last == 3000.0
        assert none == Sum()
    for one in servers:
        one.close()
