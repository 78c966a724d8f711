"""What is told over gRPC of server and models is what REST tells, and loading and unloading go on to the control plane."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from fixtures.rpcs import KEY, ONE, SERVICE, Rpcs, rpcs_of
from modelkeep.contracts.access import Scope
from modelkeep.serving.protos import open_inference_pb2 as pb

S = grpc.StatusCode
PATHS = {
    "ServerMetadata": ("GET", "/v2", pb.ServerMetadataResponse),
    "ModelMetadata": ("GET", "/v2/models/m", pb.ModelMetadataResponse),
    "ModelConfig": ("GET", "/v2/models/m/config", pb.ModelConfigResponse),
    "ModelStatistics": ("GET", "/v2/models/m/stats", pb.ModelStatisticsResponse),
    "RepositoryIndex": ("POST", "/v2/repository/index", pb.RepositoryIndexResponse),
    "ModelReady": ("GET", "/v2/models/m/ready", pb.ModelReadyResponse),
}
OF_MODELS = {
    "ModelMetadata": pb.ModelMetadataRequest,
    "ModelConfig": pb.ModelConfigRequest,
    "ModelStatistics": pb.ModelStatisticsRequest,
    "ModelReady": pb.ModelReadyRequest,
}


@pytest.fixture
async def rpcs(house) -> AsyncIterator[Rpcs]:
    await house.serve("m", number=4)
    async with rpcs_of(house) as found:
        yield found


def asking(rpc: str, version: str = "", name: str = "m") -> bytes:
    return OF_MODELS[rpc](name=name, version=version).SerializeToString() if rpc in OF_MODELS else b""


def without_times(told: object) -> object:
    if isinstance(told, dict):
        return {name: without_times(value) for name, value in told.items() if name not in {"ns", "last_inference"}}
    return [without_times(one) for one in told] if isinstance(told, list) else told


def known(message: object, told: dict) -> dict:
    """What REST told, as far as the message has fields for it, and as JSON has messages."""
    filled = json_format.ParseDict(told, message, ignore_unknown_fields=True)
    return json_format.MessageToDict(filled, preserving_proto_field_name=True)


@pytest.mark.parametrize("rpc", PATHS)
async def test_it_is_what_rest_tells(house, rpcs: Rpcs, rpc: str) -> None:
    await rpcs.infer(ONE)
    method, path, kind = PATHS[rpc]
    rest = (await house.client.request(method, path)).json()
    told = {"config": rest} if rpc == "ModelConfig" else {"models": rest} if rpc == "RepositoryIndex" else rest
    message = kind.FromString(await rpcs.ask(rpc, asking(rpc)))
    found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert without_times(found) == without_times(known(kind(), told))
    assert found


@pytest.mark.parametrize("rpc", OF_MODELS)
async def test_another_model_or_version_is_not_found(rpcs: Rpcs, rpc: str) -> None:
    assert await rpcs.ask(rpc, asking(rpc, version="4"))
    assert (await rpcs.refused(rpc, asking(rpc, version="5"))).code() is S.NOT_FOUND
    assert (await rpcs.refused(rpc, asking(rpc, name="none"))).code() is S.NOT_FOUND


async def test_a_model_that_does_not_answer_is_not_ready(house, rpcs: Rpcs) -> None:
    await house.serve("cold", wait=False)
    asked = pb.ModelReadyRequest(name="cold")
    assert not pb.ModelReadyResponse.FromString(await rpcs.ask("ModelReady", asked)).ready
    assert not pb.ServerReadyResponse.FromString(await rpcs.ask("ServerReady")).ready


@pytest.mark.parametrize("rpc", [*PATHS, "RepositoryModelLoad", "RepositoryModelUnload"])
async def test_nothing_is_told_without_a_key_and_nothing_breaks_it(rpcs: Rpcs, rpc: str) -> None:
    assert (await rpcs.refused(rpc, asking(rpc), metadata=())).code() is S.UNAUTHENTICATED
    if rpc != "ServerMetadata":  # whose message says nothing, and is not read
        assert (await rpcs.refused(rpc, b"\xff\xff")).code() is S.INVALID_ARGUMENT
        assert (await rpcs.refused(rpc, b"\x7a" + b"a" * 2_000_000)).code() is S.RESOURCE_EXHAUSTED


def test_every_rpc_asks_of_a_key_what_its_address_over_rest_asks(rpcs_table) -> None:
    needed = {name: scope for name, scope in rpcs_table.items() if not name.startswith("/grpc.")}
    open_ones = {name for name, scope in needed.items() if scope is None}
    assert open_ones == {f"{SERVICE}ServerLive", f"{SERVICE}ServerReady"}
    writing = {name for name, scope in needed.items() if scope is Scope.MODELS_WRITE}
    assert writing == {f"{SERVICE}RepositoryModelLoad", f"{SERVICE}RepositoryModelUnload"}
    assert {name for name, scope in needed.items() if scope is Scope.PREDICT} == needed.keys() - open_ones - writing
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    assert {f"{SERVICE}{rpc.name}" for rpc in service.methods} == needed.keys()


@pytest.fixture
async def rpcs_table(rpcs: Rpcs) -> dict[str, Scope | None]:
    return {path: rpc.scope for path, rpc in rpcs.server._door._rpcs.items()}


@pytest.mark.parametrize("rpc", OF_MODELS)
async def test_the_header_names_the_version_where_the_message_does_not(rpcs: Rpcs, rpc: str) -> None:
    for asked, version, code in (("4", "", S.OK), ("9", "", S.NOT_FOUND), ("9", "4", S.OK)):
        call = rpcs.begin(rpc, asking(rpc, version), metadata=(*KEY, ("x-modelkeep-version", asked)))
        assert await call.code() is code


# ---- the repository


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[list]:
    """The api process's socket: it answers each request with the first of `answers` that is left, and keeps what came."""
    told: list = []
    answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answers.pop(0))
        writer.close()
        await writer.wait_closed()

    told.append(answers)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "api.sock"))
    async with await asyncio.start_unix_server(answer, sock=sock):
        yield told


@pytest.mark.parametrize(("rpc", "verb"), [("RepositoryModelLoad", "load"), ("RepositoryModelUnload", "unload")])
async def test_loading_and_unloading_are_asked_of_the_control_plane(rpcs: Rpcs, api: list, rpc: str, verb: str) -> None:
    asked = pb.RepositoryModelLoadRequest(model_name="a b/../c")
    assert await rpcs.ask(rpc, asked, metadata=(("x-api-key", "all"), ("x-request-id", "mine"), ("x-other", "no"))) == b""
    (head,) = api[1:]
    assert head.startswith(f"POST /v2/repository/models/a%20b%2F..%2Fc/{verb} HTTP/1.1\r\n")
    assert "x-api-key: all\r\n" in head
    assert "x-request-id: mine\r\n" in head
    assert "x-other" not in head


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (404, b'{"error": "There is no model of this name."}', S.NOT_FOUND, "There is no model of this name."),
        (403, b'{"error": "No."}', S.PERMISSION_DENIED, "No."),
        (409, b'{"detail": "It is archived."}', S.FAILED_PRECONDITION, "It is archived."),
        (503, b"<html>", S.UNAVAILABLE, ""),
        (418, b"[]", S.INVALID_ARGUMENT, ""),
        (599, b"", S.INTERNAL, ""),
    ],
)
async def test_what_the_control_plane_refuses_is_told(rpcs: Rpcs, api: list, status: int, body: bytes, code, said: str) -> None:
    api[0][0] = b"HTTP/1.1 %d No\r\nretry-after: 3\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    error = await rpcs.refused("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))
    assert error.code() is code
    assert error.details()
    assert said in error.details()
    assert dict(error.trailing_metadata())["retry-after"] == "3"


async def test_without_a_control_plane_they_are_unavailable(rpcs: Rpcs) -> None:
    error = await rpcs.refused("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))
    assert error.code() is S.UNAVAILABLE


async def test_a_key_that_may_not_write_models_loads_none(rpcs: Rpcs, api: list) -> None:
    error = await rpcs.refused("RepositoryModelUnload", metadata=(("x-api-key", "predict"),))
    assert error.code() is S.PERMISSION_DENIED
    assert api[1:] == []
