"""gRPC: questions in a stream."""

import asyncio

import grpc
import msgspec
import numpy as np
import pytest
from grpc import aio

from fixtures.rpcs import (
    KEY,
    ONE,
    REFLECTION,
    SERVICE,
    Rpcs,
    array_in,
    question,
)
from modelkeep.contracts.snapshot import Rate
from modelkeep.serving.protos import open_inference_pb2 as pb

S = grpc.StatusCode


async def test_a_stream_answers_each_question_in_its_turn_and_survives_a_bad_one(rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(SERVICE + "ModelStreamInfer")(metadata=(("x-api-key", "all"),))
    told = []
    for number in range(4):
        asked = question(np.full((1, 2), float(number)), model="no" if number == 2 else "m")
        asked.id = f"n{number}"
        await call.write(asked.SerializeToString())
        told.append(pb.ModelStreamInferResponse.FromString(await call.read()))
    await call.write(b"\xff\xff")
    told.append(pb.ModelStreamInferResponse.FromString(await call.read()))
    await call.done_writing()
    assert await call.read() is aio.EOF
    assert await call.code() is S.OK
    assert [bool(one.error_message) for one in told] == [False, False, True, False, True]
    assert [one.infer_response.id for one in told] == ["n0", "n1", "n2", "n3", ""]
    assert array_in(told[3].infer_response).tolist() == [6.0]
    ids = {one.infer_response.parameters["prediction_id"].string_param for one in (told[0], told[1], told[3])}
    assert len(ids) == 3


async def test_a_key_that_is_revoked_ends_its_stream(house, rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(SERVICE + "ModelStreamInfer")(metadata=(("x-api-key", "all"),))
    await call.write(ONE.SerializeToString())
    assert await call.read()
    house.keys.replace(())
    await call.write(ONE.SerializeToString())
    assert await call.code() is S.UNAUTHENTICATED


async def test_a_rate_that_is_lowered_holds_within_a_stream(house, rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(SERVICE + "ModelStreamInfer")(metadata=KEY)

    async def told() -> str:
        await call.write(ONE.SerializeToString())
        return str(pb.ModelStreamInferResponse.FromString(await call.read()).error_message)

    assert [await told(), await told()] == ["", ""]
    house.keys.replace([msgspec.structs.replace(one, rate=Rate(1, 1)) for one in house.keys._keys.values()])
    assert await told() == ""
    assert "1 times a minute" in await told()
    call.cancel()


@pytest.mark.parametrize("rpc", ["ModelStreamInfer", REFLECTION])
async def test_a_stream_in_which_nothing_is_asked_ends(rpcs: Rpcs, monkeypatch, rpc: str) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.conversation._IDLE_S", 0.1)
    call = rpcs.channel.stream_stream(rpc if rpc is REFLECTION else SERVICE + rpc)(metadata=KEY)
    async with asyncio.timeout(5):
        assert await call.code() is S.DEADLINE_EXCEEDED
    assert "open the stream again" in await call.details()
