"""`Idempotency-Key`: a write that comes again with its key is not done again, and is answered as it was the first time.

Around all routes, so that none can forget it: what a route writes, and its answer, are one transaction. The key is its caller's
own (of an API key), and stands for one request: method, path, query, `If-Match`, body. A body that is streamed is told of by
its route once it has been received, as `said`.
"""

import re
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelkeep.api.errors import respond
from modelkeep.api.middleware import UPLOAD
from modelkeep.contracts.errors import Invalid, ModelkeepError
from modelkeep.infra.headers import by_name
from modelkeep.infra.idempotency import Answer, Idempotency, Repeated, Write

API: Final = "/api/v1/"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}")
_REPLAYED: Final = (b"idempotency-replayed", b"true")
_REFUSED: Final = 400


class InvalidIdempotencyKey(Invalid):
    """An Idempotency-Key has 1 to 255 printable ASCII characters, and comes once."""

    code = "invalid_idempotency_key"


class Writes:
    """Has each write that comes with a key done once."""

    def __init__(self, app: ASGIApp, idempotency: Idempotency) -> None:
        self._app = app
        self._idempotency = idempotency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        keys = [] if scope["type"] != "http" else [value for name, value in scope["headers"] if name == b"idempotency-key"]
        if not keys or scope["method"] in _READS or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._once(scope, receive, keys)
        except Repeated as earlier:
            answer = earlier.answer
            answer = Answer(answer.status, (*answer.headers, _REPLAYED), answer.body)
        except ModelkeepError as error:
            await respond(error, scope["state"]["request_id"], scope["path"])(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
        await send({"type": "http.response.body", "body": answer.body})

    async def _once(self, scope: Scope, receive: Receive, keys: Iterable[bytes]) -> Answer:
        """Return the answer to a request, which is also kept unless it refuses."""
        streamed = UPLOAD.fullmatch(scope["path"]) is not None
        body = b"" if streamed else await _whole(receive)
        write = scope["state"]["write"] = _write(scope, list(keys), body)
        answering = _Answering()
        if not streamed:
            await self._idempotency.check(write)
        async with self._idempotency.once(write) as once:
            await self._app(scope, receive if streamed else _given(body, receive), answering)
            answer = answering.answer()
            if answer.status < _REFUSED:
                await once.keep(answer)
        return answer


def said(state: State, *parts: bytes) -> None:
    """Say what was received in a stream, before anything is written: it is a part of what the request says."""
    write: Write | None = getattr(state, "write", None)
    if write is not None:
        write.says(*parts)


def _write(scope: Scope, keys: list[bytes], body: bytes) -> Write:
    """Return what a request is known by. Where there is no caller, body or cookies have the secret."""
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise InvalidIdempotencyKey
    given, actor = by_name(scope["headers"]), scope["state"].get("actor")
    sealed_with = scope["state"].get("sealed_with", (given.get(b"cookie", b"") + body,))
    write = Write("" if actor is None else actor.id, keys[0].decode("ascii"), *sealed_with)
    path = scope.get("raw_path") or scope["path"].encode()
    write.says(scope["method"].encode(), path, scope["query_string"], given.get(b"if-match", b""), body)
    return write


async def _whole(receive: Receive) -> bytes:
    """Read a body; the guard limits how much it may be."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("The request ended before its body did.")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _given(body: bytes, receive: Receive) -> Receive:
    """Return what receives a body that has been read already, and then what else comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


class _Answering:
    """Takes an answer in; it goes out when what it tells of is certain."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        """Take one message."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], tuple(message.get("headers", ()))
        else:
            self._body += message.get("body", b"")

    def answer(self) -> Answer:
        """Return all of it."""
        return Answer(self._status, self._headers, bytes(self._body))
