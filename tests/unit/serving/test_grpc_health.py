"""gRPC: health for who asks and who watches, and reflection."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from fixtures.rpcs import (
    CHECK,
    KEY,
    REFLECTION,
    WATCH,
    Rpcs,
    eventually,
)

S = grpc.StatusCode


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
    call = rpcs.channel.unary_stream(WATCH)(asked.SerializeToString(), metadata=KEY)
    assert health_pb2.HealthCheckResponse.FromString(await call.read()).status == 3
    asked.service = "inference.GRPCInferenceService"
    assert await rpcs.ask(CHECK, asked)


async def test_who_has_no_key_is_told_of_the_server_whatever_is_asked(rpcs: Rpcs) -> None:
    asked = health_pb2.HealthCheckRequest(service="other")
    for metadata in ((), (("x-api-key", "nobody's"),), (("x-api-key", "metrics"),)):
        answer = health_pb2.HealthCheckResponse.FromString(await rpcs.ask(CHECK, asked, metadata=metadata))
        assert answer.status == answer.SERVING
        call = rpcs.channel.unary_stream(WATCH)(asked.SerializeToString(), metadata=metadata)
        assert health_pb2.HealthCheckResponse.FromString(await call.read()).status == answer.SERVING
        call.cancel()


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


async def test_who_watches_without_a_word_is_told_so_and_not_logged(rpcs: Rpcs, monkeypatch, capsys) -> None:
    monkeypatch.setattr("modelkeep.serving.grpc.conversation._IDLE_S", 0.1)
    async with asyncio.timeout(5):
        assert await rpcs.channel.stream_stream(WATCH)(metadata=KEY).code() is S.DEADLINE_EXCEEDED
    assert "a request failed" not in capsys.readouterr().out


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
