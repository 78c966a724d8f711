"""The door of gRPC: who comes in, how a question is read and an answer goes out, how a refusal looks, and what is counted.

Every question is served as a stream, which on the wire is the same. So key, places and limits are looked at before anything of
a message is read, and reading ends in time. Of a message that is read the library takes whatever comes, and looks at its length
when it is whole: so nothing is read of who has no key. What an RPC holds, it holds until its answer has gone out: whoever does
not read has few answers waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

import grpc
import structlog

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Internal, Limited, ModelkeepError
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.serving.gate import Gate
from modelkeep.serving.grpc.conversation import Conversation, read_message
from modelkeep.serving.grpc.packing import ALGORITHMS, pays
from modelkeep.serving.grpc.places import Place, Places
from modelkeep.serving.grpc.requests import RpcRequest
from modelkeep.serving.grpc.statuses import status_of
from modelkeep.serving.messages import ClientGone, Request
from modelkeep.serving.metrics import Metrics

log = structlog.get_logger(__name__)

_MOST_UNREAD: Final = 256 * 1024 * 1024
_SMALL: Final = 1024 * 1024


class NotRead(Limited):
    """The answers before have not been read yet: read them, then ask on."""

    code = "answers_not_read"


class Rpc(NamedTuple):
    """One RPC: its path, and the scope that it asks of a key; None where it is open to everyone.

    It has either `answer(request, message)`, which returns the answer's message, or `converse(request, conversation)`. Where
    `empty`, its message says nothing and is not read. One that `predicts` may have a message of more than a MiB, and is refused
    before that is read while its key is at its limits.
    """

    path: str
    scope: Scope | None
    answer: Callable[[RpcRequest, bytes], Awaitable[bytes]] | None = None
    converse: Callable[[RpcRequest, Conversation], Awaitable[None]] | None = None
    empty: bool = False
    predicts: bool = False

    @property
    def name(self) -> str:
        """What it is counted as."""
        return self.path.rpartition("/")[2]


class GrpcDoor(grpc.GenericRpcHandler):  # type: ignore[misc] # the library has no types
    """Answers RPCs: `service` is what the library asks for each of them.

    `check_limits` raises what a prediction of a key would be refused with now; a message may have `largest` bytes.
    `asks_certificates`: callers have one each, or have not been let through.
    """

    def __init__(
        self,
        rpcs: Iterable[Rpc],
        gate: Gate,
        metrics: Metrics,
        *,
        check_limits: Callable[[Request], None],
        largest: int,
        most_unread: int = _MOST_UNREAD,
        asks_certificates: bool = False,
    ) -> None:
        self._rpcs = {rpc.path: rpc for rpc in rpcs}
        self._gate = gate
        self._metrics = metrics
        self._check_limits = check_limits
        self._largest = largest
        self._places = Places()
        self._most_unread = most_unread
        self._asks_certificates = asks_certificates
        self._unread: dict[str, int] = {}
        self._drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return what answers this RPC, None where it is not known here (the library calls this)."""
        rpc = self._rpcs.get(handler_call_details.method)
        if rpc is None:
            return None
        # of a function, not of a bound method: the library looks twice an RPC whether it is a coroutine's
        serve = partial(GrpcDoor._serve, self, rpc, handler_call_details.invocation_metadata)
        if rpc.converse is not None:
            return grpc.stream_stream_rpc_method_handler(serve)
        return grpc.stream_unary_rpc_method_handler(serve)  # answer and status go out as one

    def end_conversations(self) -> None:
        """End what would never end by itself; all else may finish."""
        if not self._drained.done():
            self._drained.set_result(None)

    def go_on(self) -> None:
        """Let there be conversations again."""
        if self._drained.done():
            self._drained = asyncio.get_running_loop().create_future()

    async def _serve(self, rpc: Rpc, metadata: Iterable[tuple[str, str | bytes]], _messages: object, context: Any) -> bytes:  # noqa: ANN401 - the library has no types
        asked = context if self._asks_certificates else None
        request = RpcRequest.of_rpc(rpc.path, metadata, context.peer(), asked)
        held = _Held()
        self._metrics.inflight_changed(1)
        context.add_done_callback(partial(self._done, rpc, held))
        try:
            answer = await self._answer(rpc, request, context, held)
        except ClientGone:
            return b""
        except ModelkeepError as error:
            refusal = error
        except Exception:
            log.exception("a request failed", request_id=request.id, path=rpc.path)
            refusal = Internal()
        else:
            held.code = grpc.StatusCode.OK
            context.set_trailing_metadata(tuple(request.trailing))
            return answer
        held.code, sentence, trailing = status_of(refusal)
        await context.abort(held.code, sentence, (*request.trailing, *trailing))  # which raises
        return b""

    def _done(self, rpc: Rpc, held: "_Held", context: Any) -> None:  # noqa: ANN401 - as above
        """An RPC's answer has gone out, or its caller has left (the library calls this)."""
        if held.place is not None:
            held.place.leave()
        if held.unread:
            self._read(held.owner, held.unread)
        self._metrics.inflight_changed(-1)
        self._metrics.rpc(rpc.name, (held.code if context.done() else grpc.StatusCode.CANCELLED).name)

    async def _answer(self, rpc: Rpc, request: RpcRequest, context: Any, held: "_Held") -> bytes:  # noqa: ANN401 - as above
        """Return the answer; nothing where all has been said. What it holds until it is done is put into `held`."""
        key = request.key = self._key(rpc, request)
        held.place = self._places.take(key, context.peer)
        held.owner = key.standing.user if key is not None else ""
        request.bound(context.time_remaining())
        most = self._largest if rpc.predicts else min(self._largest, _SMALL)
        if rpc.converse is not None:
            await rpc.converse(request, Conversation(context, self._drained, most, partial(self._say, context, held)))
            return b""
        message, coding = b"", None
        if key is not None and not rpc.empty:
            if rpc.predicts:
                self._check_limits(request)
            message, coding = await read_message(context, held.place.reading, most)
            request.key = self._key(rpc, request)  # which may have been revoked while the message came
        assert rpc.answer is not None  # noqa: S101 - it has one of both
        answer = await rpc.answer(request, message)
        unread = self._unread.get(held.owner, 0)
        if unread and unread + len(answer) > self._most_unread:
            raise NotRead(retry_after_s=1)
        self._unread[held.owner] = unread + len(answer)
        held.unread = len(answer)
        if coding is not None and pays(coding, answer):
            context.set_compression(ALGORITHMS[coding])
            await context.send_initial_metadata(())  # where all goes out as one, the library forgets the coding
        return answer

    def _key(self, rpc: Rpc, request: RpcRequest) -> ServedKey | None:
        """Return the key; None for a stranger, where the RPC is open to everyone. Raises as `Gate.enter` does."""
        if rpc.scope is None:
            return self._gate.known(request, Scope.PREDICT)
        return self._gate.enter(request, rpc.scope)

    async def _say(self, context: Any, held: "_Held", answer: bytes) -> None:  # noqa: ANN401 - as above
        """Send a message of a stream, and count it until it has gone out."""
        self._unread[held.owner] = self._unread.get(held.owner, 0) + len(answer)
        try:
            await context.write(answer)
        finally:
            self._read(held.owner, len(answer))

    def _read(self, owner: str, size: int) -> None:
        """An answer has gone out."""
        self._unread[owner] -= size
        if not self._unread[owner]:
            del self._unread[owner]


class _Held:
    """What an RPC holds until it is done, and the status with which it ends."""

    __slots__ = ("code", "owner", "place", "unread")

    def __init__(self) -> None:
        self.code = grpc.StatusCode.CANCELLED
        self.owner = ""
        self.place: Place | None = None
        self.unread = 0
