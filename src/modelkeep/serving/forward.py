"""Passes what is no prediction on to the api process over its Unix socket, as a stream in both directions.

Uploads, downloads and server-sent events flow through without being kept; either side's leaving ends the other. HTTP
framing on the inner connection is h11's; one connection serves one request.
"""

import asyncio
import contextlib
import os
from pathlib import Path

import h11
import structlog

from modelkeep.contracts.errors import Internal, Unavailable
from modelkeep.serving.messages import Receive, Request, Scope, Send

log = structlog.get_logger(__name__)

_CHUNK = 256 * 1024
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    }
)


class ApiDown(Unavailable):
    """The control plane does not answer right now; predictions go on. Try again in a moment."""

    code = "control_plane_unavailable"


class ApiBroke(Internal):
    """The control plane broke off its answer."""

    code = "control_plane_broke_off"


class _ClientGone(Exception):
    """The caller left."""


class Forward:
    """The way to the api process."""

    def __init__(self, socket_path: Path) -> None:
        # Socket addresses hold 108 bytes, data directories may be deeper: name the socket through its open folder.
        self._folder = os.open(socket_path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._folder}/{socket_path.name}"

    async def __call__(self, request: Request, scope: Scope, receive: Receive, send: Send) -> int:
        """Pass one request on and its answer back; returns the status. Raises `ApiDown` while nothing was answered yet."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise ApiDown(retry_after_s=1) from error
        inner = h11.Connection(h11.CLIENT, max_incomplete_event_size=128 * 1024)
        pump = asyncio.create_task(_pump_body(inner, writer, request, scope, receive))
        answer = asyncio.create_task(_answer(inner, reader, send))
        try:
            await asyncio.wait((pump, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and isinstance(pump.exception(), _ClientGone):
                return 499
            return await answer
        finally:
            for task in (pump, answer):
                task.cancel()
            await asyncio.gather(pump, answer, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):  # the other side may have closed first: that is what closing wants
                await writer.wait_closed()


async def _pump_body(
    inner: h11.Connection, writer: asyncio.StreamWriter, request: Request, scope: Scope, receive: Receive
) -> None:
    """Send the request as it comes; then wait for the caller to leave, and raise `_ClientGone` when he does."""
    try:
        writer.write(inner.send(_head(request, scope)) or b"")
        more = True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            if not more:
                continue
            body = message.get("body", b"")
            more = message.get("more_body", False)
            if body:
                writer.write(inner.send(h11.Data(data=body)) or b"")
            if not more:
                writer.write(inner.send(h11.EndOfMessage()) or b"")
            await writer.drain()
    except ConnectionError:
        # The api closed its reading side: it has answered already (a refusal in mid-upload), and the answer is on its way.
        return


def _head(request: Request, scope: Scope) -> h11.Request:
    raw: bytes = scope.get("raw_path") or request.path.encode()
    target = raw.partition(b"?")[0] + (b"?" + request.query_string if request.query_string else b"")
    skipped = _HOP_BY_HOP | {b"x-request-id"}
    headers = [(name, value) for name, value in request.headers if name not in skipped]
    chunked = any(name == b"transfer-encoding" for name, _value in request.headers)
    if chunked:
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        headers.append((b"transfer-encoding", b"chunked"))
    headers += [(b"x-request-id", request.id.encode()), (b"connection", b"close")]
    if not any(name == b"host" for name, _value in headers):
        headers.append((b"host", b"localhost"))
    return h11.Request(method=request.method.encode(), target=target, headers=headers)


async def _answer(inner: h11.Connection, reader: asyncio.StreamReader, send: Send) -> int:
    """Pass the answer back piece by piece; returns its status."""
    status = 0
    try:
        while True:
            event = inner.next_event()
            if event is h11.NEED_DATA:
                inner.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = [(name, value) for name, value in event.headers if name not in _HOP_BY_HOP]
                await send({"type": "http.response.start", "status": status, "headers": headers})
            elif isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return status
            elif isinstance(event, h11.ConnectionClosed):
                raise ApiDown(retry_after_s=1)
    except (h11.RemoteProtocolError, ConnectionError) as error:
        if status == 0:
            raise ApiDown(retry_after_s=1) from error
        raise ApiBroke from error
