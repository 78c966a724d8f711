"""Predictions under deadlines and limits, through the door: as ASGI, and over connections of the server's own protocol."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import numpy as np
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.server import ServerState

from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings, Rate, ServedKey
from modelkeep.serving.codec import Tensors
from modelkeep.serving.protocol import HttpProtocol

PREDICT = "/api/v1/predict/m"
ROWS = {"inputs": [[1, 2]]}
PATHS = [PREDICT, "/predict"]


class Watched:
    """A model that says what it was given."""

    def __init__(self) -> None:
        self.runs: list[list[float]] = []

    def __call__(self, inputs: Tensors) -> Tensors:
        (array,) = inputs.values()
        self.runs.append(array[:, 0].tolist())
        return {"sum": array.sum(axis=1), "echo": array}


@pytest.fixture
async def port(house) -> AsyncIterator[int]:
    """Where the door listens, with the protocol that the server has."""
    config = uvicorn.Config(house.door, http=HttpProtocol, ws="none", lifespan="off", log_config=None, proxy_headers=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    yield server.sockets[0].getsockname()[1]
    server.close()
    while state.connections:
        await asyncio.sleep(0)


@pytest.fixture(params=["asgi", "wire"])
async def client(request: pytest.FixtureRequest, house, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the door; over the wire, plain predictions take the way without ASGI."""
    if request.param == "asgi":
        yield house.client
    else:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": "all"}) as client:
            yield client


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def counted(house, sample: str, **labels: str) -> float:
    families = text_string_to_metric_families(house.metrics.text().decode())
    found = [one.value for family in families for one in family.samples if one.name == sample and one.labels == labels]
    return found[0] if found else 0.0


def turned_away(house, reason: str) -> float:
    return counted(house, "modelkeep_queue_rejected_total", deployment="m", reason=reason)


def outcomes(house) -> dict[str, float]:
    return {
        outcome: counted(house, "modelkeep_predictions_total", deployment="m", version="1", outcome=outcome)
        for outcome in ("ok", "rejected", "error")
    }


async def gated(house, **settings: object) -> tuple[Watched, asyncio.Event]:
    """Serve a model that answers a run whenever the event is set."""
    model = Watched()
    house.settings["m"] = DeploymentSettings(**settings)  # type: ignore[arg-type]
    version = await house.serve("m", compute=model)
    gate = house.gates[version] = asyncio.Event()
    model.runs.clear()
    return model, gate


def ask(client: httpx.AsyncClient, value: int = 1, path: str = PREDICT, **headers: str) -> "asyncio.Task[httpx.Response]":
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.create_task(client.post(path, json={"inputs": [[value, 2]]}, headers=headers))


@pytest.mark.parametrize("path", PATHS)
async def test_a_deadline_within_a_run_costs_the_others_of_the_run_nothing(house, client, path: str) -> None:
    model, gate = await gated(house)
    batcher = house.router.find("m").served.batcher
    first = ask(client, 1, path)
    await until(lambda: batcher.busy == 1)
    late, patient = ask(client, 2, path, x_request_timeout="0.4"), ask(client, 3, path)
    await until(lambda: batcher.waiting == 2)
    runs = batcher.runs
    gate.set()
    gate.clear()  # one run is let through
    await until(lambda: batcher.runs == runs + 1)
    answer = await late
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert "0.4 s" in answer.json()["detail"]
    assert not patient.done()
    gate.set()
    assert ((await first).status_code, (await patient).status_code) == (200, 200)
    assert model.runs in ([[1], [2, 3]], [[1], [3, 2]])
    assert outcomes(house) == {"ok": 2, "rejected": 0, "error": 1}
    assert sorted((record.outcome, record.code) for record in house.records) == [
        ("error", "deadline_exceeded"),
        ("ok", ""),
        ("ok", ""),
    ]


async def test_a_deadline_while_waiting_takes_the_request_out_of_the_queue(house, client) -> None:
    model, gate = await gated(house)
    batcher = house.router.find("m").served.batcher
    first = ask(client, 1)
    await until(lambda: batcher.busy == 1)
    assert (await ask(client, 2, x_request_timeout="0.05")).status_code == 504
    assert batcher.waiting == 0
    gate.set()
    assert (await first).status_code == 200
    assert model.runs == [[1]]


async def test_a_deployments_deadline_is_for_requests_that_bring_none_and_bounds_those_that_do(house, client) -> None:
    await gated(house, deadline_s=0.05)
    for headers in ({}, {"x_request_timeout": "30"}):
        answer = await ask(client, **headers)
        assert (answer.status_code, "0.05 s" in answer.json()["detail"]) == (504, True)


async def test_a_body_that_does_not_come_holds_its_place_until_the_deadline(house, port: int) -> None:
    await gated(house, deadline_s=0.05, concurrency=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\nx-api-key: all\r\ncontent-length: 1000000\r\n\r\n"
    writer.write(head.encode() + b"[" * 200_000)
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert house.router.find("m").underway.count == 0
    assert outcomes(house)["error"] == 1


@pytest.mark.parametrize("wish", ["", "0", "-1", "nan", "inf", "soon"])
async def test_a_timeout_that_is_no_time_is_refused(house, client, wish: str) -> None:
    await house.serve("m")
    answer = await ask(client, x_request_timeout=wish)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_timeout")
    assert house.router.find("m").underway.count == 0


@pytest.mark.parametrize("path", [*PATHS, f"{PREDICT}?x=1"])
async def test_a_caller_that_goes_away_frees_its_place(house, port: int, path: str) -> None:
    _model, gate = await gated(house, concurrency=2)
    route = house.router.find("m")
    body = b'{"inputs": [[1, 2]]}'
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\nx-api-key: all\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    writers = []
    for number in (1, 2):
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        writer.write(head + body)
        await until(lambda number=number: route.underway.count == number)
    assert (route.served.batcher.busy, route.served.batcher.waiting) == (1, 1)
    assert (await ask(house.client)).status_code == 503
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    await until(lambda: route.underway.count == 0)
    assert route.served.batcher.waiting == 0
    answer = ask(house.client)
    await until(lambda: route.served.batcher.waiting == 1)
    gate.set()
    assert (await answer).status_code == 200
    assert outcomes(house) == {"ok": 1, "rejected": 0, "error": 0}
    assert [record.outcome for record in house.records] == ["ok"]


async def test_a_deployment_takes_as_many_at_once_as_it_is_set_to(house, client) -> None:
    _model, gate = await gated(house, concurrency=2)
    route = house.router.find("m")
    taken = [ask(client, 1), ask(client, 2)]
    await until(lambda: route.underway.count == 2)
    answer = await ask(client, 3)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "deployment_concurrency", "1")
    assert turned_away(house, "concurrency") == 1
    gate.set()
    assert [(await one).status_code for one in taken] == [200, 200]
    assert (await ask(client, 3)).status_code == 200
    assert route.underway.count == 0


def limited(house, **limits: object) -> None:
    """Put a bound on the key that all tests use."""
    digest = next(key.digest for key in house._served_keys if key.id == "all")
    house.keys.replace((ServedKey("all", digest, "all", through(Scope.ADMIN), **limits),))  # type: ignore[arg-type]


async def test_a_key_over_its_rate_is_told_when_to_come_back(house, client) -> None:
    await house.serve("m")
    limited(house, rate=Rate(6, 2))
    answers = [await ask(client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "10"
    assert answers[2].json()["code"] == "rate_limited"
    assert turned_away(house, "limit") == 1
    assert len(house.records) == 2


async def test_a_key_has_as_many_under_way_as_it_may_whether_they_are_answered_refused_or_late(house, client) -> None:
    _model, gate = await gated(house)
    limited(house, concurrency=1)
    route = house.router.find("m")
    late = ask(client, x_request_timeout="0.2")
    await until(lambda: route.underway.count == 1)
    answer = await ask(client)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_at_once")
    assert turned_away(house, "concurrency") == 1
    assert (await late).status_code == 504
    gate.set()
    assert (await client.post(PREDICT, json={"inputs": "no"})).status_code == 400
    assert (await client.post("/api/v1/predict/none", json=ROWS)).status_code == 404
    assert (await ask(client)).status_code == 200
    assert (await ask(client)).status_code == 200


async def test_who_cannot_be_answered_in_time_is_told_at_once(house, client) -> None:
    _model, gate = await gated(house)
    batcher = house.router.find("m").served.batcher
    batcher._pace_s = 5.0
    first = ask(client)
    await until(lambda: batcher.busy == 1)
    answer = await ask(client, x_request_timeout="2")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "deadline_unreachable", "5")
    assert turned_away(house, "deadline") == 1
    patient = ask(client, x_request_timeout="20")
    await until(lambda: batcher.waiting == 1)
    gate.set()
    assert [(await one).status_code for one in (first, patient)] == [200, 200]


async def test_records_and_counters_agree_with_the_answers(house, refuse, client) -> None:
    def choosy(inputs: Tensors) -> Tensors:
        array = inputs["input"]
        if array[0, 0] < 0:
            raise refuse("model_failed", "stack")
        return {"sum": array.sum(axis=1), "echo": array}

    await house.serve("m", compute=choosy)
    answers = [await ask(client, value) for value in (1, -1, 2)]
    answers.append(await client.post(PREDICT, json={"inputs": "no"}))
    answers.append(await client.post(PREDICT, content=b"{"))
    assert [answer.status_code for answer in answers] == [200, 500, 200, 400, 400]
    assert outcomes(house) == {"ok": 2, "rejected": 2, "error": 1}
    assert [record.status for record in house.records] == [200, 500, 200, 400, 400]
    for answer, record in zip(answers, house.records, strict=True):
        assert record.request_id == answer.headers["x-request-id"]
        if answer.status_code == 200:
            assert (record.id, record.outputs) == (answer.headers["x-prediction-id"], answer.content)
    assert counted(house, "modelkeep_batch_requests_sum", deployment="m") == 2
    assert counted(house, "modelkeep_inflight_requests") == 0
    assert np.isclose(counted(house, "modelkeep_prediction_rows_total", deployment="m", version="1"), 2)


async def test_a_call_refused_as_soon_as_it_is_queued_leaves_nothing_behind(house, client) -> None:
    signature = Signature((TensorSpec("input", Dtype.FP32, (-1, 2)),), (TensorSpec("sum", Dtype.FP32, (-1,)),))
    await house.serve("m", signature, lambda inputs: {"sum": inputs["input"].sum(axis=1)})
    limited(house, concurrency=1)
    for _ in range(3):
        answer = await client.post(PREDICT, json={"inputs": [[1, 1e300]]})
        assert answer.status_code == 400
    assert house.router.find("m").underway.count == 0
    assert not any(house.engine._deadlines._buckets.values())
    assert outcomes(house) == {"ok": 0, "rejected": 3, "error": 0}
    assert len(house.records) == 3
    assert (await ask(client)).status_code == 200
