"""Requests and responses of the predict door, over plain ASGI."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from modelkeep.contracts.errors import Invalid, ModelkeepError, TooLarge
from modelkeep.contracts.ids import new_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_DIGITS = 18
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class ClientGone(Exception):
    """The caller left before the request was whole."""


class LengthRequired(Invalid):
    """The content length is not a number."""

    code = "invalid_content_length"


class Request:
    """One HTTP request, its body not yet read."""

    __slots__ = ("_receive", "headers", "id", "method", "path", "query_string")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.query_string: bytes = scope["query_string"]
        self.id = request_id(self.headers)
        self._receive = receive

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of this name (small letters), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def query(self, name: str) -> str | None:
        """Return the first query parameter of this name, or None."""
        if not self.query_string:
            return None
        values = parse_qs(self.query_string.decode("latin-1"), keep_blank_values=True).get(name)
        return values[0] if values else None

    async def body(self, max_bytes: int) -> bytes:
        """Return the whole body; raises `TooLarge` as soon as it is known to be, `ClientGone` when it never will be whole."""
        announced = self.header(b"content-length")
        if announced is not None:
            if not announced.isdigit() or len(announced) > _MAX_DIGITS:
                raise LengthRequired
            if int(announced) > max_bytes:
                raise _too_large(max_bytes)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            return body
        pieces = [body]
        size = len(body)
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > max_bytes:
                raise _too_large(max_bytes)
        return b"".join(pieces)


class Response:
    """Status, headers and a whole body."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int, body: bytes, content_type: bytes = b"application/json", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.status = status
        self.body = body
        self.headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the caller's request id when it is a decent one, else the trace id of `traceparent`, else a new one."""
    trace = None
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
        if name == b"traceparent":
            trace = _TRACE_PARENT.fullmatch(value)
    return trace[1].decode() if trace else new_id("req")


def segments(path: str) -> list[str]:
    """Return the parts of a path after its first slash. ASGI has already decoded it, once."""
    return path[1:].split("/")


def _too_large(max_bytes: int) -> ModelkeepError:
    return TooLarge(f"The request body is larger than the limit of {max_bytes // (1024 * 1024)} MiB.")
