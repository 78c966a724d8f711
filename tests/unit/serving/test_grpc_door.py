"""gRPC through a real server: who comes in, how refusals look, deadlines, callers that leave, health, and the end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import grpc
import msgspec
import numpy as np
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from fixtures.rpcs import KEY, ONE, SERVICE, Reader, Rpcs, array_in, eventually, question, rpcs_of
from modelkeep.contracts.errors import Kind
from modelkeep.contracts.snapshot import DeploymentSettings, Rate, ServedKey
from modelkeep.serving.grpc.places import MOST_AT_ONCE, Places, TooManyRpcs, host_of
from modelkeep.serving.grpc.statuses import STATUSES
from modelkeep.serving.protos import open_inference_pb2 as pb

S = grpc.StatusCode
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
GUARDED = ["ModelInfer", "ModelStreamInfer"]
OPEN = ["ServerLive", "ServerReady"]


@pytest.fixture
async def rpcs(house) -> AsyncIterator[Rpcs]:
    await house.serve("m")
    async with rpcs_of(house) as found:
        yield found


def counted(house, name: str) -> dict[str, float]:
    lines = house.metrics.text().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)}


# ---- who comes in


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


# ---- refusals


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


async def test_a_message_beyond_the_limit_is_refused(open_house) -> None:
    house = open_house(max_body_mb=1)
    await house.serve("m")
    async with rpcs_of(house, house.engine._settings) as rpcs:
        error = await rpcs.refused("ModelInfer", question(np.zeros((70_000, 2))))
        assert error.code() is S.RESOURCE_EXHAUSTED
        assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


@pytest.mark.parametrize("rpc", ["ModelInfer", CHECK])
async def test_a_message_that_is_packed_is_not_unpacked(open_house, rpc: str) -> None:
    house = open_house(max_body_mb=1)
    await house.serve("m")
    async with rpcs_of(house, house.engine._settings) as rpcs:
        path = rpc if rpc is CHECK else SERVICE + rpc
        call = rpcs.channel.unary_unary(path)(b"\0" * 2_000_000, metadata=KEY, compression=grpc.Compression.Gzip)
        assert await call.code() is S.UNIMPLEMENTED
        assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


async def test_metadata_beyond_the_limit_are_refused(rpcs: Rpcs) -> None:
    error = await rpcs.refused("ModelInfer", ONE, metadata=(("x-api-key", "all"), ("x-much", "a" * 100_000)))
    assert error.code() is S.RESOURCE_EXHAUSTED
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


# ---- answers


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


# ---- deadlines, and callers that leave


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


async def test_a_message_that_never_comes_holds_no_place_for_long(rpcs: Rpcs, monkeypatch) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.door._READ_UNKNOWN_S", 0.1)
    monkeypatch.setattr("modelkeep.serving.grpc.door._READ_S", 0.1)
    for path, metadata in ((CHECK, ()), (SERVICE + "ModelInfer", (("x-api-key", "all"),))):
        call = rpcs.channel.stream_stream(path)(metadata=metadata)
        async with asyncio.timeout(5):
            assert await call.code() is S.DEADLINE_EXCEEDED


async def test_an_rpc_without_a_message_is_refused(rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(SERVICE + "ModelInfer")(metadata=(("x-api-key", "all"),))
    await call.done_writing()
    assert await call.code() is S.INVALID_ARGUMENT


# ---- places


async def silent(rpcs: Rpcs, house, path: str, count: int, metadata=()) -> list:
    before = counted(house, "modelkeep_inflight")["modelkeep_inflight_requests"]
    calls = [rpcs.channel.stream_stream(path)(metadata=metadata) for _ in range(count)]
    await eventually(lambda: counted(house, "modelkeep_inflight")["modelkeep_inflight_requests"] == before + count)
    return calls


async def test_silent_callers_without_a_key_take_no_places_of_keys_nor_of_other_addresses(house, rpcs: Rpcs) -> None:
    calls = await silent(rpcs, house, CHECK, 16)
    for path in (CHECK, WATCH):
        refused = rpcs.channel.stream_stream(path)()
        assert await refused.code() is S.RESOURCE_EXHAUSTED  # and nothing has been sent
        assert dict(await refused.trailing_metadata())["retry-after"] == "1"
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]
    with rpcs.server._door._places.taken(None, "ipv4:192.0.2.1:1"):
        pass
    for call in calls:
        call.cancel()
    await eventually(lambda: not rpcs.server._door._places._callers)
    assert await rpcs.ask(CHECK, metadata=())


async def test_a_key_has_so_many_places_and_no_more(house, rpcs: Rpcs, monkeypatch) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.places._MOST_OF_KEY", 3)
    calls = await silent(rpcs, house, SERVICE + "ModelStreamInfer", 3, KEY)
    assert (await rpcs.refused("ModelInfer", ONE)).code() is S.RESOURCE_EXHAUSTED
    assert await rpcs.ask("ModelInfer", ONE, metadata=(("x-api-key", "predict"),))
    assert await rpcs.ask(CHECK)
    calls[0].cancel()
    await eventually(lambda: rpcs.server._door._places._under_way[True] == 2)
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


def test_all_callers_with_keys_leave_places_for_those_without() -> None:
    places, most = Places(), 0
    with contextlib.ExitStack() as held, contextlib.suppress(TooManyRpcs):
        for number in range(MOST_AT_ONCE):
            key = ServedKey(str(number), b"", "", frozenset())
            held.enter_context(places.taken(key, "ipv4:1.1.1.1:1"))
            most += 1
    with contextlib.ExitStack() as held, contextlib.suppress(TooManyRpcs):
        for number in range(MOST_AT_ONCE):
            held.enter_context(places.taken(None, f"ipv4:1.1.{number // 256}.{number % 256}:1"))
            most += 1
    assert most < MOST_AT_ONCE
    assert not places._callers


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


@pytest.mark.parametrize("rpc", ["ModelStreamInfer", REFLECTION])
async def test_a_stream_in_which_nothing_is_asked_ends(rpcs: Rpcs, monkeypatch, rpc: str) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.door._IDLE_S", 0.1)
    call = rpcs.channel.stream_stream(rpc if rpc is REFLECTION else SERVICE + rpc)(metadata=KEY)
    async with asyncio.timeout(5):
        assert await call.code() is S.DEADLINE_EXCEEDED
    assert "open the stream again" in await call.details()


async def test_who_watches_without_a_word_is_told_so_and_not_logged(rpcs: Rpcs, monkeypatch, capsys) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.health._READ_S", 0.1)
    async with asyncio.timeout(5):
        assert await rpcs.channel.stream_stream(WATCH)().code() is S.DEADLINE_EXCEEDED
    assert "a request failed" not in capsys.readouterr().out


async def test_few_messages_of_one_caller_are_read_at_once(house, rpcs: Rpcs) -> None:
    calls = await silent(rpcs, house, CHECK, 4)
    fifth = rpcs.begin(CHECK, metadata=())
    await eventually(lambda: rpcs.server._door._places._under_way[False] == 5)
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]
    assert not fifth.done()
    calls[0].cancel()
    assert await fifth


@pytest.mark.parametrize("path", [WATCH, REFLECTION])
async def test_only_questions_to_models_may_be_large(rpcs: Rpcs, path: str) -> None:
    call = rpcs.channel.stream_stream(path)(metadata=KEY)
    await call.write(bytes(2_000_000))
    assert await call.code() is S.RESOURCE_EXHAUSTED


# ---- streams


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


# ---- health, reflection


async def test_who_watches_the_health_hears_of_each_change(house, rpcs: Rpcs) -> None:
    first, second = (rpcs.channel.unary_stream(WATCH)(health_pb2.HealthCheckRequest().SerializeToString()) for _ in range(2))

    async def heard(call) -> int:
        return int(health_pb2.HealthCheckResponse.FromString(await call.read()).status)

    assert [await heard(first), await heard(second)] == [1, 1]
    first.cancel()
    house.door.drain()
    rpcs.server.tend()
    assert await heard(second) == 2


async def test_of_a_service_that_is_not_here_nothing_is_known(rpcs: Rpcs) -> None:
    asked = health_pb2.HealthCheckRequest(service="other")
    assert (await rpcs.refused(CHECK, asked)).code() is S.NOT_FOUND
    call = rpcs.channel.unary_stream(WATCH)(asked.SerializeToString())
    assert health_pb2.HealthCheckResponse.FromString(await call.read()).status == 3
    asked.service = "inference.GRPCInferenceService"
    assert await rpcs.ask(CHECK, asked)


async def test_those_who_watch_cannot_take_all_places(rpcs: Rpcs, monkeypatch) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.health._MOST_WATCHERS", 2)
    calls = [rpcs.channel.unary_stream(WATCH)(b"") for _ in range(2)]
    for call in calls:
        assert await call.read()
    third = rpcs.channel.unary_stream(WATCH)(b"")
    assert await third.code() is S.RESOURCE_EXHAUSTED
    calls[0].cancel()
    await eventually(lambda: rpcs.server._health._watchers == 1)
    again = rpcs.channel.unary_stream(WATCH)(b"")
    assert await again.read()


@pytest.mark.parametrize("path", [REFLECTION, REFLECTION.replace("v1alpha", "v1")])
async def test_reflection_names_the_services_to_who_has_a_key(rpcs: Rpcs, path: str) -> None:
    call = rpcs.channel.stream_stream(path)(metadata=(("x-api-key", "predict"),))
    await call.write(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    listed = reflection_pb2.ServerReflectionResponse.FromString(await call.read()).list_services_response
    assert {one.name for one in listed.service} == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for symbol in (one.name for one in listed.service):
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol).SerializeToString())
        found = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
        assert found.file_descriptor_response.file_descriptor_proto
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such").SerializeToString())
    assert reflection_pb2.ServerReflectionResponse.FromString(await call.read()).error_response.error_code == 5
    await call.done_writing()
    assert await call.code() is S.OK


async def test_reflection_tells_nothing_without_a_key(rpcs: Rpcs) -> None:
    call = rpcs.channel.stream_stream(REFLECTION)()
    assert await call.code() is S.UNAUTHENTICATED


# ---- the end


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


async def test_answers_that_are_not_read_are_bounded_for_each_key(house, rpcs: Rpcs) -> None:
    door = rpcs.server._door
    door._most_unread = 200_000
    body = question(np.zeros((3_900, 2))).SerializeToString()  # its answer has 90 kB
    with contextlib.ExitStack() as callers:
        for held in (1, 2):
            callers.enter_context(Reader(rpcs.server.port)).asks(SERVICE + "ModelInfer", body, window=0)
            await eventually(lambda: sum(door._unread.values()) > held * 90_000)  # noqa: B023 - called at once
        assert door._unread.keys() == {"all"}
        third = callers.enter_context(Reader(rpcs.server.port)).asks(SERVICE + "ModelInfer", body, window=0)
        assert await third.status() == S.RESOURCE_EXHAUSTED.value[0]
        other = await rpcs.ask("ModelInfer", ONE, metadata=(("x-api-key", "predict"),))
        assert array_in(pb.ModelInferResponse.FromString(other)).tolist() == [3.0]
    await eventually(lambda: not door._unread)
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]


async def test_a_path_and_metadata_that_are_no_text_do_no_harm(rpcs: Rpcs, caplog: pytest.LogCaptureFixture) -> None:
    for path, key in ((b"/a/\xff\xfe", b"all"), ((SERVICE + "ModelInfer").encode(), b"secret\xff")):
        with Reader(rpcs.server.port) as caller:
            status = await caller.asks(path, ONE.SerializeToString(), key=key).status()
        assert status in {S.UNKNOWN.value[0], S.UNAUTHENTICATED.value[0]}
    assert "secret" not in caplog.text
    assert array_in(await rpcs.infer(ONE)).tolist() == [3.0]
