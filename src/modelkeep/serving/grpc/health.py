"""`grpc.health.v1`, for load balancers and orchestrators: as open as `/readyz`, and of the same opinion.

Our own rather than the library's servicer: of several that watch one service, its first to leave takes the news from all others
(grpcio-health-checking 1.81), and it can tell only what it was told, while a probe wants to know what holds now.

A caller without a key is told of the server as a whole, which all services here share, whichever it names: nothing is read of
its message (see `door`).
"""

import asyncio
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from modelkeep.contracts.errors import Limited, NotFound
from modelkeep.serving.dialects.open_inference.grpc import InvalidMessage
from modelkeep.serving.grpc.conversation import Conversation, Draining
from modelkeep.serving.grpc.door import Rpc
from modelkeep.serving.grpc.requests import RpcRequest

SERVICE: Final = "grpc.health.v1.Health"

_MOST_WATCHERS: Final = 64
_Status = health_pb2.HealthCheckResponse


class TooManyWatchers(Limited):
    """As many callers watch the health as may: ask for it from time to time instead."""

    code = "too_many_watchers"


class Health:
    """Says whether this server is ready, as a whole and for each of the services."""

    def __init__(self, services: frozenset[str], ready: Callable[[], bool]) -> None:
        self._services = services | {""}
        self._ready = ready
        self._watchers = 0
        self._told: int | None = None
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def rpcs(self) -> list[Rpc]:
        """Return the RPCs of the service."""
        return [
            Rpc(f"/{SERVICE}/Check", None, answer=self._check),
            Rpc(f"/{SERVICE}/Watch", None, converse=self._watch),
        ]

    def tend(self) -> None:
        """Tell those who watch when something has changed; to be called about once a second, and when it has."""
        status = self._status()
        if status != self._told:
            self._told = status
            self._news.set_result(None)
            self._news = asyncio.get_running_loop().create_future()

    def _status(self) -> int:
        return int(_Status.SERVING if self._ready() else _Status.NOT_SERVING)

    async def _check(self, _request: RpcRequest, message: bytes) -> bytes:
        if _service_in(message) not in self._services:
            raise NotFound("There is no such service here.")
        return bytes(_Status(status=self._status()).SerializeToString())

    async def _watch(self, request: RpcRequest, conversation: Conversation) -> None:
        if self._watchers >= _MOST_WATCHERS:
            raise TooManyWatchers(retry_after_s=10)
        self._watchers += 1
        try:
            message = None if request.key is None else await conversation.next()
            known = _service_in(message or b"") in self._services
            said = None
            while True:
                news = self._news
                status = self._status() if known else int(_Status.SERVICE_UNKNOWN)
                if status != said:
                    await conversation.say(_Status(status=status).SerializeToString())
                    said = status
                if conversation.drained.done():
                    raise Draining
                await asyncio.wait({news, conversation.drained}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._watchers -= 1


def _service_in(message: bytes) -> str:
    try:
        service: str = health_pb2.HealthCheckRequest.FromString(message).service
    except DecodeError as error:
        raise InvalidMessage from error
    return service
