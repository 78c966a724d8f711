"""The door of gRPC: who comes in, how a question is read and an answer goes out, how a refusal looks, and what is counted.

Every RPC is served as a stream, which on the wire is the same. So the key is checked before anything of a message is read,
reading ends in time, and it is known how much of the answers each key has not taken yet: whoever does not read holds little.
Each caller has so many places and no more, and reads few messages at once, each of which may be as large as the server takes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, NamedTuple

import grpc
import structlog
from grpc import aio

from modelkeep.contracts.errors import Internal, Limited, ModelkeepError, Timeout, TooLarge, Unavailable
from modelkeep.contracts.snapshot import Scope
from modelkeep.serving.dialects.open_inference.grpc import InvalidMessage
from modelkeep.serving.grpc.places import Places
from modelkeep.serving.grpc.requests import RpcRequest
from modelkeep.serving.grpc.statuses import status_of
from modelkeep.serving.keys import Keys
from modelkeep.serving.messages import ClientGone
from modelkeep.serving.metrics import Metrics

log = structlog.get_logger(__name__)

_READ_S: Final = 60.0
_READ_UNKNOWN_S: Final = 5.0
_IDLE_S: Final = 300.0
_MOST_UNREAD: Final = 256 * 1024 * 1024
_SMALL: Final = 1024 * 1024


class NotRead(Limited):
    """The answers before have not been read yet: read them, then ask on."""

    code = "answers_not_read"


class Draining(Unavailable):
    """This server is about to end: ask again, another one answers."""

    code = "draining"


class Rpc(NamedTuple):
    """One RPC: its path, and the scope that it asks of a key; None where it is open to everyone.

    It has either `answer(request, message)`, which returns the answer's message, or `converse(request, conversation)`. Where
    `empty`, its message says nothing and is not read; only one that is `large` may have more than a MiB.
    """

    path: str
    scope: Scope | None
    answer: Callable[[RpcRequest, bytes], Awaitable[bytes]] | None = None
    converse: "Callable[[RpcRequest, Conversation], Awaitable[None]] | None" = None
    empty: bool = False
    large: bool = False

    @property
    def name(self) -> str:
        """What it is counted as."""
        return self.path.rpartition("/")[2]


class GrpcDoor(grpc.GenericRpcHandler):  # type: ignore[misc] # the library has no types
    """Answers RPCs: `service` is what the library asks for each of them."""

    def __init__(self, rpcs: Iterable[Rpc], keys: Keys, metrics: Metrics, *, most_unread: int = _MOST_UNREAD) -> None:
        self._rpcs = {rpc.path: rpc for rpc in rpcs}
        self._keys = keys
        self._metrics = metrics
        self._places = Places()
        self._most_unread = most_unread
        self._unread: dict[str, int] = {}
        self._drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return what answers this RPC, None where it is not known here (the library calls this)."""
        rpc = self._rpcs.get(handler_call_details.method)
        if rpc is None:
            return None
        return grpc.stream_stream_rpc_method_handler(partial(self._serve, rpc, handler_call_details.invocation_metadata))

    def end_conversations(self) -> None:
        """End what would never end by itself; all else may finish."""
        if not self._drained.done():
            self._drained.set_result(None)

    async def _serve(self, rpc: Rpc, metadata: Iterable[tuple[str, str | bytes]], _messages: object, context: Any) -> None:  # noqa: ANN401 - the library has no types
        request = RpcRequest.of_rpc(rpc.path, metadata)
        code = grpc.StatusCode.CANCELLED
        place = ExitStack()
        self._metrics.inflight_changed(1)
        try:
            try:
                answer = await self._answer(rpc, request, context, place)
            except ClientGone:
                return
            except ModelkeepError as error:
                refusal = error
            except Exception:
                log.exception("a request failed", request_id=request.id, path=rpc.path)
                refusal = Internal()
            else:
                context.set_trailing_metadata(tuple(request.trailing))
                if answer is not None:
                    await self._say(request, context, answer)
                code = grpc.StatusCode.OK
                return
            code, sentence, trailing = status_of(refusal)
            await context.abort(code, sentence, (*request.trailing, *trailing))
        finally:
            place.close()
            self._metrics.inflight_changed(-1)
            self._metrics.rpc(rpc.name, code.name)

    async def _answer(self, rpc: Rpc, request: RpcRequest, context: Any, place: ExitStack) -> bytes | None:  # noqa: ANN401 - as above
        """Return the answer; None where all has been said. What it holds until all is sent is put into `place`."""
        if rpc.scope is not None:
            request.key = self._keys.check(request.presented_key, rpc.scope)
        reading = place.enter_context(self._places.taken(request.key, context.peer()))
        request.bound(context.time_remaining())
        if rpc.converse is not None:
            say = partial(self._say, request, context)
            await rpc.converse(request, Conversation(context, self._drained, say, large=rpc.large))
            return None
        message = b""
        if not rpc.empty:
            message = await _read(context, _READ_S if request.key is not None else _READ_UNKNOWN_S, reading)
        _check_size(message, large=rpc.large)
        assert rpc.answer is not None  # noqa: S101 - it has one of both
        answer = await rpc.answer(request, message)
        unread = self._unread.get(_owner(request), 0)
        if unread and unread + len(answer) > self._most_unread:
            raise NotRead(retry_after_s=1)
        return answer

    async def _say(self, request: RpcRequest, context: Any, answer: bytes) -> None:  # noqa: ANN401 - as above
        """Send a message, and count it until it has gone out."""
        owner, unread = _owner(request), self._unread
        unread[owner] = unread.get(owner, 0) + len(answer)
        try:
            await context.write(answer)
        finally:
            unread[owner] -= len(answer)
            if not unread[owner]:
                del unread[owner]


class Conversation:
    """A stream in both directions. `drained` is done when the server is about to end."""

    def __init__(
        self,
        context: Any,  # noqa: ANN401 - as above
        drained: "asyncio.Future[None]",
        say: Callable[[bytes], Awaitable[None]],
        *,
        large: bool,
    ) -> None:
        self._context = context
        self._large = large
        self._say = say
        self.drained = drained

    @property
    def seconds_left(self) -> float | None:
        """The time until the stream's deadline; None where it has none."""
        left: float | None = self._context.time_remaining()
        return left

    async def next(self, seconds: float | None = None) -> bytes | None:
        """Return the next message, None after the last.

        Raises `Draining` where the server ends before it comes, `Timeout` where it does not come within `seconds` (5 minutes
        where nothing is given), and `TooLarge`.
        """
        seconds = _IDLE_S if seconds is None else seconds
        reading = asyncio.ensure_future(self._context.read())
        try:
            await asyncio.wait({reading, self.drained}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise Draining if self.drained.done() else Timeout(f"No message came for {seconds:g} s: open the stream again.")
            message: bytes = reading.result()
        except aio.InternalError as error:
            raise ClientGone from error
        finally:
            reading.cancel()
        if message is aio.EOF:
            return None
        _check_size(message, large=self._large)
        return message

    async def say(self, message: bytes) -> None:
        """Send a message."""
        try:
            await self._say(message)
        except aio.InternalError as error:
            raise ClientGone from error


async def _read(context: Any, seconds: float, reading: asyncio.Semaphore) -> bytes:  # noqa: ANN401 - as above
    """Return the message of an RPC that has one, read while `reading` is held."""
    try:
        async with asyncio.timeout(seconds):
            async with reading:
                message = await context.read()
    except TimeoutError as error:
        raise Timeout(f"The message did not come within {seconds:g} s.") from error
    except aio.InternalError as error:
        raise ClientGone from error
    if message is aio.EOF:
        raise InvalidMessage("There is no message.")
    whole: bytes = message
    return whole


def _check_size(message: bytes, *, large: bool) -> None:
    if len(message) > _SMALL and not large:
        raise TooLarge("The message is larger than the limit of 1 MiB.")


def _owner(request: RpcRequest) -> str:
    return request.key.id if request.key is not None else ""
