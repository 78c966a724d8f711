"""gRPC through a real server: how refusals and answers look, deadlines, callers that leave, and the end."""

import asyncio
import time

import grpc
import numpy as np
import pytest
from grpc import aio

from fixtures.rpcs import (
    ONE,
    SERVICE,
    WATCH,
    Rpcs,
    array_in,
    counted,
    eventually,
    question,
    rpcs_of,
)
from modelkeep.contracts.errors import Kind
from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.serving.grpc.statuses import STATUSES
from modelkeep.serving.protos import open_inference_pb2 as pb

S = grpc.StatusCode


def test_every_kind_of_error_has_its_status() -> None:
    assert STATUSES.keys() == set(Kind)
    assert S.UNKNOWN not in STATUSES.values()
    assert S.OK not in STATUSES.values()


async def test_a_model_that_is_not_there_is_not_found(rpcs: Rpcs) -> None:
    assert (await rpcs.refused("ModelInfer", question(np.ones((1, 2)), model="no"))).code() is S.NOT_FOUND
    other = pb.ModelInferRequest()
    other.CopyFrom(ONE)
    other.model_version = "7"
    assert (await rpcs.refused("ModelInfer", other)).code() is S.NOT_FOUND
    other.model_version = "1"
    assert (await rpcs.infer(other)).model_version == "1"


async def test_a_deployment_at_its_limit_says_when_to_come_back(house, rpcs: Rpcs) -> None:
    house.gates["m-1"] = asyncio.Event()
    house.settings["m"] = DeploymentSettings(concurrency=1)
    house.publish()
    first = rpcs.begin("ModelInfer", ONE)
    await eventually(lambda: house.router.find("m").underway.count == 1)
    error = await rpcs.refused("ModelInfer", ONE)
    assert error.code() is S.UNAVAILABLE
    assert dict(error.trailing_metadata())["retry-after"] == "1"
    house.gates["m-1"].set()
    assert await first


async def test_a_model_that_fails_is_internal_and_says_nothing_of_why(house, refuse) -> None:
    def broken(inputs):
        raise refuse("model_failed", "secret value 42", None)

    await house.serve("m", compute=broken)
    async with rpcs_of(house) as rpcs:
        error = await rpcs.refused("ModelInfer", ONE)
    assert error.code() is S.INTERNAL


async def test_an_answer_names_prediction_version_and_request(house, rpcs: Rpcs) -> None:
    call = rpcs.begin("ModelInfer", ONE, metadata=(("x-api-key", "all"), ("x-request-id", "mine-1")))
    answer = pb.ModelInferResponse.FromString(await call)
    told = dict(await call.trailing_metadata())
    assert told["x-request-id"] == "mine-1"
    assert told["x-model-version"] == "1"
    assert told["x-prediction-id"] == answer.parameters["prediction_id"].string_param
    (record,) = house.records
    assert (record.id, record.request_id, record.dialect) == (told["x-prediction-id"], "mine-1", "v2-grpc")


async def test_a_trace_names_the_request(rpcs: Rpcs) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    call = rpcs.begin("ModelInfer", ONE, metadata=(("x-api-key", "all"), ("traceparent", f"00-{trace}-b7ad6b7169203331-01")))
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == trace


async def test_requests_are_counted_by_method_and_code(house, rpcs: Rpcs) -> None:
    await rpcs.infer(ONE)
    await rpcs.infer(ONE)
    await rpcs.refused("ModelInfer", ONE, metadata=())
    await rpcs.ask("ServerLive", metadata=())
    await eventually(lambda: counted(house, "modelkeep_inflight_requests") == {"modelkeep_inflight_requests": 0.0})
    assert counted(house, "modelkeep_grpc_requests_total") == {
        'modelkeep_grpc_requests_total{method="ModelInfer",code="OK"}': 2.0,
        'modelkeep_grpc_requests_total{method="ModelInfer",code="UNAUTHENTICATED"}': 1.0,
        'modelkeep_grpc_requests_total{method="ServerLive",code="OK"}': 1.0,
    }


@pytest.mark.parametrize(
    ("seconds", "metadata"),
    [(0.2, ()), (30.0, (("x-request-timeout", "0.1"),)), (0.2, (("x-request-timeout", "20"),))],
)
async def test_the_sooner_of_both_deadlines_holds(house, rpcs: Rpcs, seconds: float, metadata) -> None:
    house.gates["m-1"] = asyncio.Event()
    began = time.monotonic()
    error = await rpcs.refused("ModelInfer", ONE, timeout=seconds, metadata=(("x-api-key", "all"), *metadata))
    assert error.code() is S.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 15
    await eventually(lambda: house.router.find("m").underway.count == 0)
    house.gates["m-1"].set()


async def test_a_wish_that_is_no_time_is_refused(rpcs: Rpcs) -> None:
    for wish in ("soon", "0", "-1", "nan", "inf"):
        metadata = (("x-api-key", "all"), ("x-request-timeout", wish))
        assert (await rpcs.refused("ModelInfer", ONE, metadata=metadata)).code() is S.INVALID_ARGUMENT


async def test_a_caller_that_leaves_frees_its_place(house, rpcs: Rpcs) -> None:
    house.gates["m-1"] = asyncio.Event()
    house.settings["m"] = DeploymentSettings(concurrency=1)
    house.publish()
    route = house.router.find("m")
    for _ in range(50):
        call = rpcs.begin("ModelInfer", ONE)
        await eventually(lambda: route.underway.count == 1)
        call.cancel()
        await eventually(lambda: route.underway.count == 0)
    house.gates["m-1"].set()
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]
    await eventually(lambda: counted(house, "modelkeep_inflight") == {"modelkeep_inflight_requests": 0.0})
    assert counted(house, "modelkeep_grpc")['modelkeep_grpc_requests_total{method="ModelInfer",code="CANCELLED"}'] == 50


async def test_what_is_under_way_is_finished_and_endless_streams_are_ended(house, rpcs: Rpcs) -> None:
    house.gates["m-1"] = asyncio.Event()
    asked = rpcs.begin("ModelInfer", ONE)
    await eventually(lambda: house.router.find("m").underway.count == 1)
    watching = rpcs.channel.unary_stream(WATCH)(b"")
    assert await watching.read()
    idle = rpcs.channel.stream_stream(SERVICE + "ModelStreamInfer")(metadata=(("x-api-key", "all"),))
    await eventually(lambda: counted(house, "modelkeep_inflight")["modelkeep_inflight_requests"] == 3)
    began = time.monotonic()
    stopping = asyncio.create_task(rpcs.server.stop(30))
    async with asyncio.timeout(5):
        assert await watching.code() is S.UNAVAILABLE
        assert await idle.code() is S.UNAVAILABLE
    assert not stopping.done()
    house.gates["m-1"].set()
    assert array_in(pb.ModelInferResponse.FromString(await asked)).tolist() == [3.0]
    await stopping
    assert time.monotonic() - began < 10


async def test_what_takes_longer_than_the_grace_is_given_up(house, rpcs: Rpcs) -> None:
    house.gates["m-1"] = asyncio.Event()
    asked = rpcs.begin("ModelInfer", ONE)
    await eventually(lambda: house.router.find("m").underway.count == 1)
    await rpcs.server.stop(0.1)
    with pytest.raises(aio.AioRpcError):
        await asked
    await eventually(lambda: house.router.find("m").underway.count == 0)
    house.gates["m-1"].set()
