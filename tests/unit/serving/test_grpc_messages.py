"""gRPC: how messages come in and go out, what is read of them and when, packed ones, and answers that are not read."""

import asyncio
import contextlib
import gzip
import zlib

import grpc
import numpy as np
import pytest
from grpc import aio

from fixtures.rpcs import (
    CHECK,
    KEY,
    ONE,
    REFLECTION,
    SERVICE,
    WATCH,
    Reader,
    Rpcs,
    array_in,
    eventually,
    question,
    rpcs_of,
    silent,
)
from modelkeep.serving import codings
from modelkeep.serving.grpc.packing import coding_of
from modelkeep.serving.protos import open_inference_pb2 as pb

S = grpc.StatusCode
LARGE = 8 * 1024 * 1024
WINDOW = 65_535  # of HTTP/2, which a server can only widen


async def test_a_message_beyond_the_limit_is_refused(open_house) -> None:
    house = open_house(max_body_mb=1)
    await house.serve("m")
    async with rpcs_of(house, house.engine._settings) as rpcs:
        error = await rpcs.refused("ModelInfer", question(np.zeros((70_000, 2))))
        assert error.code() is S.RESOURCE_EXHAUSTED
        assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


async def test_metadata_beyond_the_limit_are_refused(rpcs: Rpcs) -> None:
    error = await rpcs.refused("ModelInfer", ONE, metadata=(("x-api-key", "all"), ("x-much", "a" * 100_000)))
    assert error.code() is S.RESOURCE_EXHAUSTED
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


async def test_a_message_that_never_comes_holds_no_place_for_long(rpcs: Rpcs, monkeypatch) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.conversation._READ_S", 0.1)
    call = rpcs.channel.stream_stream(SERVICE + "ModelInfer")(metadata=KEY)
    async with asyncio.timeout(5):
        assert await call.code() is S.DEADLINE_EXCEEDED


async def test_an_rpc_without_a_message_is_refused(rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(SERVICE + "ModelInfer")(metadata=(("x-api-key", "all"),))
    await call.done_writing()
    assert await call.code() is S.INVALID_ARGUMENT


async def test_few_messages_of_one_caller_are_read_at_once(house, rpcs: Rpcs, monkeypatch) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.places._READING", 4)
    calls = await silent(rpcs, house, SERVICE + "ModelInfer", 4, KEY)
    fifth = rpcs.begin("ModelInfer", ONE)
    await eventually(lambda: rpcs.server._door._places._under_way[True] == 5)
    assert await rpcs.ask("ModelInfer", ONE, metadata=(("x-api-key", "predict"),))
    assert not fifth.done()
    calls[0].cancel()
    assert await fifth


@pytest.mark.parametrize("path", [WATCH, REFLECTION])
async def test_only_questions_to_models_may_be_large(rpcs: Rpcs, path: str) -> None:
    call = rpcs.channel.stream_stream(path)(metadata=KEY)
    await call.write(bytes(2_000_000))
    assert await call.code() is S.RESOURCE_EXHAUSTED


async def test_answers_that_are_not_read_are_bounded_for_each_key(house, rpcs: Rpcs) -> None:
    door = rpcs.server._door
    door._most_unread = 200_000
    body = question(np.zeros((3_900, 2))).SerializeToString()  # its answer has 90 kB
    with contextlib.ExitStack() as callers:
        for held in (1, 2):
            callers.enter_context(Reader(rpcs.server.port)).asks(SERVICE + "ModelInfer", body, window=0)
            await eventually(lambda: sum(door._unread.values()) > held * 90_000)  # noqa: B023 - called at once
        assert door._unread.keys() == {"usr_all"}
        third = callers.enter_context(Reader(rpcs.server.port)).asks(SERVICE + "ModelInfer", body, window=0)
        assert await third.status() == S.RESOURCE_EXHAUSTED.value[0]
        other = await rpcs.ask("ModelInfer", ONE, metadata=(("x-api-key", "predict"),))
        assert array_in(pb.ModelInferResponse.FromString(other)).tolist() == [3.0]
    await eventually(lambda: not door._unread)
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


# ---- bytes: what is taken of a message of 8 MiB, counted by who sends it


async def test_nothing_is_read_of_a_message_without_a_key(rpcs: Rpcs) -> None:
    for path, key in ((CHECK, b""), (SERVICE + "ModelInfer", b"nobody's"), (SERVICE + "ModelInfer", b"metrics")):
        with Reader(rpcs.server.port) as caller:
            sent, status = await caller.pours(path, bytes(LARGE), key=key)
        assert sent <= WINDOW, path
        assert status in {S.OK.value[0], S.UNAUTHENTICATED.value[0], S.PERMISSION_DENIED.value[0]}


async def test_nothing_is_read_of_a_message_before_its_turn(house, rpcs: Rpcs, monkeypatch) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.places._READING", 1)
    calls = await silent(rpcs, house, SERVICE + "ModelInfer", 1, KEY)
    with Reader(rpcs.server.port) as caller:
        pouring = asyncio.create_task(caller.pours(SERVICE + "ModelInfer", bytes(LARGE)))
        await eventually(lambda: caller.stuck)
        assert caller.sent <= WINDOW
        calls[0].cancel()
        sent, status = await pouring
    assert (sent, status) == (LARGE + 5, S.INVALID_ARGUMENT.value[0])  # then all of it


# ---- packed messages


def zeros(rows: int) -> pb.ModelInferRequest:
    return question(np.zeros((rows, 2)))


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_packed_question_is_answered_and_its_answer_packed(house, rpcs: Rpcs, coding: grpc.Compression) -> None:
    asked = zeros(500)  # the answer has 12 kB
    as_it_comes = (("grpc.per_message_decompression", 0), ("grpc.use_local_subchannel_pool", 1))
    async with aio.insecure_channel(f"127.0.0.1:{rpcs.server.port}", options=as_it_comes) as channel:
        ask = channel.unary_unary(SERVICE + "ModelInfer")
        plain = await ask(asked.SerializeToString(), metadata=KEY)
        packed = await ask(asked.SerializeToString(), metadata=KEY, compression=coding)
    assert len(plain) > 12_000
    assert len(packed) < 1_000
    answer = pb.ModelInferResponse.FromString(zlib.decompress(packed, 32 + 15))
    assert array_in(answer).tolist() == [0.0] * 500
    first, second = house.records
    assert first.inputs == second.inputs == asked.SerializeToString()


async def test_a_long_answer_goes_out_as_it_is(rpcs: Rpcs) -> None:
    as_it_comes = (("grpc.per_message_decompression", 0), ("grpc.use_local_subchannel_pool", 1))
    async with aio.insecure_channel(f"127.0.0.1:{rpcs.server.port}", options=as_it_comes) as channel:
        ask = channel.unary_unary(SERVICE + "ModelInfer")
        answer = await ask(zeros(3_000).SerializeToString(), metadata=KEY, compression=grpc.Compression.Gzip)
    assert array_in(pb.ModelInferResponse.FromString(answer)).shape == (3_000,)


async def test_questions_of_a_stream_may_be_packed(rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(SERVICE + "ModelStreamInfer")(metadata=KEY, compression=grpc.Compression.Gzip)
    for rows in (1, 500, 3_000, 2):
        await call.write(zeros(rows).SerializeToString())
        told = pb.ModelStreamInferResponse.FromString(await call.read())
        assert array_in(told.infer_response).shape == (rows,)
    call.cancel()


@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelReady", "ModelStreamInfer"])
async def test_a_bomb_is_not_unpacked(rpcs: Rpcs, rpc: str, monkeypatch) -> None:
    bomb, packing = bytes(40_000_000), grpc.Compression.Gzip  # below the limit for messages, from 40 kB
    unpacked: list[int] = []
    monkeypatch.setattr("modelkeep.serving.grpc.packing.unpacked", noting(unpacked))
    call = rpcs.channel.stream_stream(SERVICE + rpc)(metadata=KEY, compression=packing)
    await call.write(bomb)
    async with asyncio.timeout(20):
        assert await call.code() is S.RESOURCE_EXHAUSTED
    assert unpacked == []
    monkeypatch.setattr("modelkeep.serving.codings._MOST_TIMES", 10_000)  # without the bound it is
    call = rpcs.channel.stream_stream(SERVICE + "ModelInfer")(metadata=KEY, compression=packing)
    await call.write(bomb)
    assert await call.code() is S.INVALID_ARGUMENT
    assert unpacked == [40_000_000]


def noting(sizes: list[int]):
    """What unpacks, and notes what became of it."""

    async def unpacked(*arguments: object) -> bytes:
        found = await codings.unpacked(*arguments)
        sizes.append(len(found))
        return found

    return unpacked


async def test_a_packed_message_beyond_the_limit_is_refused(open_house) -> None:
    house = open_house(max_body_mb=1)
    await house.serve("m")
    async with rpcs_of(house, house.engine._settings) as rpcs:
        body = np.random.default_rng(0).integers(0, 4, 1_100_000, np.uint8).tobytes()  # packs to a third
        call = rpcs.channel.unary_unary(SERVICE + "ModelInfer")(body, metadata=KEY, compression=grpc.Compression.Gzip)
        assert await call.code() is S.RESOURCE_EXHAUSTED
        assert "1 MiB" in await call.details()


@pytest.mark.parametrize("message", [b"\x1f\x8b\x08 no gzip", gzip.compress(b"\n\x01m", mtime=0)[:-3]])
async def test_what_only_begins_as_if_it_were_packed_is_no_message(rpcs: Rpcs, message: bytes) -> None:
    assert (await rpcs.refused("ModelInfer", message)).code() is S.INVALID_ARGUMENT


async def test_a_field_that_looks_like_the_head_of_zlib_is_left_alone(rpcs: Rpcs) -> None:
    unknown = b"\x78\x01"  # field 15: 1
    assert coding_of(unknown) == "deflate"
    answer = pb.ModelInferResponse.FromString(await rpcs.ask("ModelInfer", unknown + ONE.SerializeToString()))
    assert array_in(answer).tolist() == [3.0]
