"""Reflection: what the services are, for tools like grpcurl. It needs a key, as `/docs` does."""

from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from modelkeep.contracts.access import Scope
from modelkeep.serving.dialects.open_inference.grpc import InvalidMessage
from modelkeep.serving.grpc.conversation import Conversation
from modelkeep.serving.grpc.door import Rpc
from modelkeep.serving.grpc.requests import RpcRequest
from modelkeep.serving.protos import open_inference_pb2 as pb

SERVICE: Final = reflection.SERVICE_NAME
_NEWER: Final = "grpc.reflection.v1.ServerReflection"
"""The same messages under another name, which tools try first."""


class Reflection:
    """Describes the services that are given by name."""

    def __init__(self, services: frozenset[str]) -> None:
        self._servicer = reflection.aio.ReflectionServicer(services, pool=_Pools())

    def rpcs(self) -> list[Rpc]:
        """Return the RPCs of the service."""
        return [Rpc(f"/{name}/ServerReflectionInfo", Scope.PREDICT, converse=self._tell) for name in (SERVICE, _NEWER)]

    async def _tell(self, _request: RpcRequest, conversation: Conversation) -> None:
        async def asked() -> AsyncIterator[Any]:
            while (message := await conversation.next()) is not None:
                try:
                    yield reflection_pb2.ServerReflectionRequest.FromString(message)
                except DecodeError as error:
                    raise InvalidMessage from error

        async for answer in self._servicer.ServerReflectionInfo(asked(), None):
            await conversation.say(answer.SerializeToString())


class _Pools:
    """Our own descriptors, and those of the library's services."""

    def __init__(self) -> None:
        self._pools = (pb.DESCRIPTOR.pool, descriptor_pool.Default())

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a pool finds
        def find(*arguments: object) -> object:
            first, second = self._pools
            try:
                return getattr(first, name)(*arguments)
            except KeyError:
                return getattr(second, name)(*arguments)

        return find
