"""gRPC: who comes in, by which key, from where, and how many at once."""

import asyncio
import contextlib
import time

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2

from fixtures.rpcs import (
    CHECK,
    KEY,
    ONE,
    SERVICE,
    WATCH,
    Reader,
    Rpcs,
    array_in,
    eventually,
    silent,
)
from fixtures.standings import through
from modelkeep.contracts.snapshot import Rate, ServedKey
from modelkeep.serving.grpc.places import MOST_AT_ONCE, Places, TooManyRpcs, host_of
from modelkeep.serving.messages import Request
from modelkeep.serving.protos import open_inference_pb2 as pb

S = grpc.StatusCode
GUARDED = ["ModelInfer", "ModelStreamInfer"]


async def test_health_needs_no_key(rpcs: Rpcs) -> None:
    assert pb.ServerLiveResponse.FromString(await rpcs.ask("ServerLive", metadata=())).live
    assert pb.ServerReadyResponse.FromString(await rpcs.ask("ServerReady", metadata=())).ready
    answer = health_pb2.HealthCheckResponse.FromString(await rpcs.ask(CHECK, metadata=()))
    assert answer.status == answer.SERVING


@pytest.mark.parametrize("rpc", GUARDED)
@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), S.UNAUTHENTICATED),
        ((("x-api-key", "nobody's"),), S.UNAUTHENTICATED),
        ((("authorization", "Bearer nobody's"),), S.UNAUTHENTICATED),
        ((("authorization", "Basic YWxsOmFsbA=="),), S.UNAUTHENTICATED),
        ((("x-api-key", "metrics"),), S.PERMISSION_DENIED),
        ((("authorization", "bearer read"),), S.PERMISSION_DENIED),
    ],
)
async def test_what_is_asked_of_models_needs_a_key_that_may(rpcs: Rpcs, rpc: str, metadata, code) -> None:
    error = await rpcs.refused(rpc, ONE, metadata=metadata)
    assert error.code() is code
    assert "nobody's" not in error.details()
    assert dict(error.trailing_metadata())["x-request-id"]


@pytest.mark.parametrize("metadata", [(("x-api-key", "predict"),), (("authorization", "Bearer predict"),)])
async def test_a_key_comes_in_either_of_two_ways(rpcs: Rpcs, metadata) -> None:
    assert array_in(await rpcs.infer(ONE, metadata=metadata)).tolist() == [3.0]


async def test_a_key_is_refused_before_anything_of_a_message_is_read(rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(SERVICE + "ModelInfer")(metadata=(("x-api-key", "nobody's"),))
    async with asyncio.timeout(5):
        assert await call.code() is S.UNAUTHENTICATED  # and nothing has been sent


async def test_a_server_without_news_believes_no_key(house, rpcs: Rpcs) -> None:
    house.keys._clock = lambda: time.time() + 10_000
    error = await rpcs.refused("ModelInfer", ONE)
    assert error.code() is S.UNAVAILABLE
    assert dict(error.trailing_metadata())["retry-after"] == "5"
    assert health_pb2.HealthCheckResponse.FromString(await rpcs.ask(CHECK)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_what_is_not_served_is_said_to_be(rpcs: Rpcs) -> None:
    for rpc in ("SystemSharedMemoryRegister", "CudaSharedMemoryStatus", "TraceSetting", "Nonsense", "/a/b"):
        assert (await rpcs.refused(rpc)).code() is S.UNIMPLEMENTED


async def test_silent_callers_without_a_key_take_no_places_of_keys_nor_of_other_addresses(house, rpcs: Rpcs) -> None:
    calls = await silent(rpcs, house, WATCH, 16)
    for path in (CHECK, WATCH):
        refused = rpcs.channel.stream_stream(path)()
        assert await refused.code() is S.RESOURCE_EXHAUSTED  # and nothing has been sent
        assert dict(await refused.trailing_metadata())["retry-after"] == "1"
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]
    with rpcs.server._door._places.take(None, lambda: "ipv4:192.0.2.1:1"):
        pass
    for call in calls:
        call.cancel()
    await eventually(lambda: not rpcs.server._door._places._callers)
    assert await rpcs.ask(CHECK, metadata=())


async def test_a_person_has_so_many_places_and_no_more(house, rpcs: Rpcs, monkeypatch) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.places._MOST_OF_USER", 3)
    calls = await silent(rpcs, house, SERVICE + "ModelStreamInfer", 3, KEY)
    assert (await rpcs.refused("ModelInfer", ONE)).code() is S.RESOURCE_EXHAUSTED
    assert await rpcs.ask("ModelInfer", ONE, metadata=(("x-api-key", "predict"),))
    assert await rpcs.ask(CHECK, metadata=())
    calls[0].cancel()
    await eventually(lambda: rpcs.server._door._places._under_way[True] == 2)
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


def test_who_comes_with_several_keys_and_sessions_has_the_places_of_one() -> None:
    places = Places()
    keys = [ServedKey(name, b"", "", through(user="usr_1")) for name in ("key_1", "key_2", "ses_1", "ses_2")]
    with contextlib.ExitStack() as held:
        for number in range(256):
            held.enter_context(places.take(keys[number % 4], lambda: "ipv4:1.1.1.1:1"))
        with pytest.raises(TooManyRpcs):
            places.take(keys[0], lambda: "ipv4:1.1.1.1:1")
        held.enter_context(places.take(ServedKey("key_3", b"", "", through(user="usr_2")), lambda: "ipv4:1.1.1.1:1"))


def test_all_callers_with_keys_leave_places_for_those_without() -> None:
    places, most = Places(), 0
    with contextlib.ExitStack() as held, contextlib.suppress(TooManyRpcs):
        for number in range(MOST_AT_ONCE):
            held.enter_context(places.take(ServedKey("key", b"", "", through(user=str(number))), lambda: "ipv4:1.1.1.1:1"))
            most += 1
    with contextlib.ExitStack() as held, contextlib.suppress(TooManyRpcs):
        for number in range(MOST_AT_ONCE):
            peer = f"ipv4:1.1.{number // 256}.{number % 256}:1"
            held.enter_context(places.take(None, lambda: peer))  # noqa: B023 - called at once
            most += 1
    assert most < MOST_AT_ONCE
    assert not places._callers


async def test_a_key_at_its_limits_is_refused_before_anything_of_a_message_is_read(house, rpcs: Rpcs) -> None:
    (key,) = (one for one in house.keys._keys.values() if one.id == "all")
    for limited in (msgspec.structs.replace(key, rate=Rate(1, 1)), msgspec.structs.replace(key, concurrency=1)):
        house.keys.replace([limited])
        held = house.engine.admit("m", None, asking(limited))
        call = rpcs.channel.stream_stream(SERVICE + "ModelInfer")(metadata=KEY)
        async with asyncio.timeout(5):
            assert await call.code() is S.RESOURCE_EXHAUSTED  # and nothing has been sent
        house.engine._release(held, asking(limited))


def asking(key: ServedKey) -> Request:
    request = Request("POST", "/", ())
    request.key = key
    return request


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", True),
        ("ipv4:192.0.2.1:1", "ipv4:192.0.2.2:1", False),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::2%5D:2", True),
        ("ipv6:[2001:db8::1]:1", "ipv6:[2001:db8:0:1::1]:1", False),
        ("ipv6:[::ffff:192.0.2.1]:1", "ipv4:192.0.2.1:1", True),
        ("ipv6:[::ffff:192.0.2.1]:1", "ipv6:[::ffff:192.0.2.2]:1", False),
        ("unix:", "unix:", True),
    ],
)
def test_a_caller_without_a_key_is_its_host(one: str, other: str, same: bool) -> None:
    assert (host_of(one) == host_of(other)) is same


async def test_a_path_and_metadata_that_are_no_text_do_no_harm(rpcs: Rpcs, caplog: pytest.LogCaptureFixture) -> None:
    for path, key in ((b"/a/\xff\xfe", b"all"), ((SERVICE + "ModelInfer").encode(), b"secret\xff")):
        with Reader(rpcs.server.port) as caller:
            status = await caller.asks(path, ONE.SerializeToString(), key=key).status()
        assert status in {S.UNKNOWN.value[0], S.UNAUTHENTICATED.value[0]}
    assert "secret" not in caplog.text
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]
