"""`inference.GRPCInferenceService`: health, predictions and descriptions of Open Inference.

What an RPC asks of a key is what its address over REST asks: the same function says it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec
import structlog
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Internal, ModelkeepError
from modelkeep.serving.choice import version_asked
from modelkeep.serving.dialects.open_inference import describe
from modelkeep.serving.dialects.open_inference import grpc as dialect
from modelkeep.serving.engine import Engine
from modelkeep.serving.forward import Forward
from modelkeep.serving.gate import Gate
from modelkeep.serving.grpc.conversation import Conversation
from modelkeep.serving.grpc.door import Rpc
from modelkeep.serving.grpc.repository import control_plane
from modelkeep.serving.grpc.requests import RpcRequest
from modelkeep.serving.messages import Response
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.protos import open_inference_pb2 as pb

log = structlog.get_logger(__name__)

SERVICE: Final = "inference.GRPCInferenceService"

AnyMessage = TypeVar("AnyMessage", bound=Any)

Needs = Callable[[str, str], Scope | None]
"""The scope that a method and a path over REST ask of a key, None for those that are open."""


class Inference:
    """Answers what is asked of models."""

    def __init__(
        self,
        *,
        engine: Engine,
        gate: Gate,
        metrics: Metrics,
        forward: Forward,
        needs: Needs,
        ready: Callable[[], bool],
        version: str,
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._metrics = metrics
        self._forward = forward
        self._needs = needs
        self._predict = needs("POST", "/v2/models/m/infer")
        self._version = version
        self._ready = ready

    def rpcs(self) -> list[Rpc]:
        """Return the RPCs of the service."""
        needs = self._needs
        load, unload = "/v2/repository/models/m/load", "/v2/repository/models/m/unload"
        return [
            Rpc(f"/{SERVICE}/ServerLive", needs("GET", "/v2/health/live"), answer=self._server_live, empty=True),
            Rpc(f"/{SERVICE}/ServerReady", needs("GET", "/v2/health/ready"), answer=self._server_ready, empty=True),
            Rpc(f"/{SERVICE}/ServerMetadata", needs("GET", "/v2"), answer=self._server_metadata, empty=True),
            Rpc(f"/{SERVICE}/ModelReady", needs("GET", "/v2/models/m/ready"), answer=self._model_ready),
            Rpc(f"/{SERVICE}/ModelMetadata", needs("GET", "/v2/models/m"), answer=self._model_metadata),
            Rpc(f"/{SERVICE}/ModelConfig", needs("GET", "/v2/models/m/config"), answer=self._model_config),
            Rpc(f"/{SERVICE}/ModelStatistics", needs("GET", "/v2/models/stats"), answer=self._model_statistics),
            Rpc(f"/{SERVICE}/ModelInfer", self._predict, answer=self._infer, predicts=True),
            Rpc(f"/{SERVICE}/ModelStreamInfer", self._predict, converse=self._infer_each, predicts=True),
            Rpc(f"/{SERVICE}/RepositoryIndex", needs("POST", "/v2/repository/index"), answer=self._index),
            Rpc(f"/{SERVICE}/RepositoryModelLoad", needs("POST", load), answer=self._load),
            Rpc(f"/{SERVICE}/RepositoryModelUnload", needs("POST", unload), answer=self._unload),
        ]

    async def _server_live(self, _request: RpcRequest, _message: bytes) -> bytes:
        return written(pb.ServerLiveResponse(live=True))

    async def _server_ready(self, _request: RpcRequest, _message: bytes) -> bytes:
        return written(pb.ServerReadyResponse(ready=self._ready()))

    async def _server_metadata(self, _request: RpcRequest, _message: bytes) -> bytes:
        return written(filled(pb.ServerMetadataResponse(), describe.server(self._version)))

    async def _model_ready(self, request: RpcRequest, message: bytes) -> bytes:
        asked = read(pb.ModelReadyRequest(), message)
        version = version_asked(request, asked.version or None)
        return written(pb.ModelReadyResponse(ready=self._engine.view(request).find(asked.name, version).served.answers))

    async def _model_metadata(self, request: RpcRequest, message: bytes) -> bytes:
        asked = read(pb.ModelMetadataRequest(), message)
        found = describe.metadata(self._engine.view(request), asked.name, version_asked(request, asked.version or None))
        return written(filled(pb.ModelMetadataResponse(), found))

    async def _model_config(self, request: RpcRequest, message: bytes) -> bytes:
        asked = read(pb.ModelConfigRequest(), message)
        answer = pb.ModelConfigResponse()
        version = version_asked(request, asked.version or None)
        filled(answer.config, describe.config(self._engine.view(request), asked.name, version))
        return written(answer)

    async def _model_statistics(self, request: RpcRequest, message: bytes) -> bytes:
        asked = read(pb.ModelStatisticsRequest(), message)
        version = version_asked(request, asked.version or None)
        found = describe.statistics(self._engine.view(request), self._metrics.statistics, asked.name or None, version)
        answer = pb.ModelStatisticsResponse()
        async for one in found:
            filled(answer.model_stats.add(), one)
        return written(answer)

    async def _index(self, request: RpcRequest, message: bytes) -> bytes:
        asked = read(pb.RepositoryIndexRequest(), message)
        answer = pb.RepositoryIndexResponse()
        for one in describe.repository(self._engine.view(request), ready=asked.ready):
            filled(answer.models.add(), one)
        return written(answer)

    async def _load(self, request: RpcRequest, message: bytes) -> bytes:
        asked = read(pb.RepositoryModelLoadRequest(), message)
        await self._control_plane(request, f"/v2/repository/models/{quote(asked.model_name, safe='')}/load")
        return written(pb.RepositoryModelLoadResponse())

    async def _unload(self, request: RpcRequest, message: bytes) -> bytes:
        asked = read(pb.RepositoryModelUnloadRequest(), message)
        await self._control_plane(request, f"/v2/repository/models/{quote(asked.model_name, safe='')}/unload")
        return written(pb.RepositoryModelUnloadResponse())

    async def _control_plane(self, request: RpcRequest, path: str) -> None:
        self._gate.locate(request)
        await control_plane(self._forward, request, path)

    async def _infer(self, request: RpcRequest, message: bytes) -> bytes:
        return (await self._answered(request, dialect.asked_in(message), message)).body

    async def _infer_each(self, request: RpcRequest, conversation: Conversation) -> None:
        """Answer question after question; what fails is told in the stream, which goes on."""
        while (message := await conversation.next()) is not None:
            one = request.again()
            if self._predict is not None:
                self._gate.enter(one, self._predict)  # it may have been revoked or bounded meanwhile
            one.bound(conversation.seconds_left)
            await conversation.say(written(await self._said(one, message)))

    async def _said(self, request: RpcRequest, message: bytes) -> pb.ModelStreamInferResponse:
        said, asked = pb.ModelStreamInferResponse(), pb.ModelInferRequest()
        try:
            asked = dialect.asked_in(message)
            answer = await self._answered(request, asked, message)
        except ModelkeepError as error:
            said.error_message = error.message
        except Exception:
            log.exception("a request failed", request_id=request.id, path=request.path)
            said.error_message = Internal().message
        else:
            said.infer_response.MergeFromString(answer.body)
            return said
        said.infer_response.id = asked.id
        return said

    async def _answered(self, request: RpcRequest, asked: pb.ModelInferRequest, message: bytes) -> Response:
        """Return the answer of a model; the caller's leaving frees its place."""
        request.headers[b"content-type"] = dialect.REQUEST_TYPE
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def tell(result: Response | Exception) -> None:
            if answer.done():
                return
            if isinstance(result, Response):
                answer.set_result(result)
            else:
                answer.set_exception(result)

        self._engine.predict_whole(
            asked.model_name,
            request,
            dialect.NAME,
            message,
            read=lambda call: dialect.read(call, asked),
            tell=tell,
            version=asked.model_version or None,
        )
        try:
            response = await answer
        except asyncio.CancelledError:
            request.leave()
            raise
        request.trailing += [
            (name.decode(), value.decode())
            for name, value in (*response.headers, *request.beside)
            if not name.startswith(b"content-")
        ]
        return response


def read(asked: AnyMessage, message: bytes) -> AnyMessage:
    """Return `asked` as the message has it; raises `InvalidMessage`."""
    try:
        asked.ParseFromString(message)
    except DecodeError as error:
        raise dialect.InvalidMessage from error
    return asked


def filled(answer: AnyMessage, described: msgspec.Struct) -> AnyMessage:
    """Return `answer` with what it has fields for of a description, whose names are the protocol's."""
    json_format.ParseDict(msgspec.to_builtins(described), answer, ignore_unknown_fields=True)
    return answer


def written(message: Message) -> bytes:
    """Return a message's bytes."""
    return bytes(message.SerializeToString())
