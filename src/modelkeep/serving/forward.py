"""Passes what is no prediction on to the api process over its Unix socket, as a stream in both directions.

Uploads, downloads and server-sent events flow through without being kept; either side's leaving ends the other. HTTP
framing on the inner connection is h11's; one connection serves one request.
"""

import asyncio
import os
import socket
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import h11
import structlog

from modelkeep.contracts.errors import Internal, Invalid, Unavailable
from modelkeep.infra import client_certificates
from modelkeep.infra.addresses import FORWARDED_TO_API
from modelkeep.infra.cookies import UNSHOWN
from modelkeep.serving.messages import Receive, Request, Scope, Send

log = structlog.get_logger(__name__)

_CHUNK = 256 * 1024
CLIENT_CLOSED = 499
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    }
)


# What a request needs whatever its `Connection` header says: its framing, its host, its key, and what else it shows: without
# that, something could stand for it there that does not here.
_ALWAYS = frozenset({b"host", b"content-length", b"cookie"}) | UNSHOWN

# What a server says itself, whatever came.
_OURS = frozenset({b"x-request-id", FORWARDED_TO_API, client_certificates.FORWARDED})


class ApiDown(Unavailable):
    """The control plane does not answer right now; predictions go on. Try again in a moment."""

    code = "control_plane_unavailable"


class ApiBroke(Internal):
    """The control plane broke off its answer."""

    code = "control_plane_broke_off"


class Forward:
    """The way to the api process. `silence_s`: how long it may say nothing before it counts as down."""

    def __init__(self, socket_path: Path, silence_s: float = 60.0) -> None:
        # Socket addresses hold 108 bytes, data directories may be deeper: name the socket through its open folder.
        self._folder = os.open(socket_path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._folder}/{socket_path.name}"
        self._silence_s = silence_s
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End the streams of events, which would never end by themselves; all else may finish."""
        self._draining.set()

    def go_on(self) -> None:
        """Take streams of events again."""
        self._draining.clear()

    async def __call__(self, request: Request, scope: Scope, receive: Receive, send: Send) -> int:
        """Pass one request on and its answer back; returns the status. Raises `ApiDown` while nothing was answered yet."""
        try:
            head = _head(request, scope)
        except h11.LocalProtocolError as error:
            raise Invalid("The request's first line or its headers are not valid HTTP.") from error
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(sock, self._path)
            except OSError as error:
                raise ApiDown(retry_after_s=1) from error
            passage = _Passage(sock, self._silence_s)
            pump = asyncio.create_task(passage.pump(head, receive))
            answer = asyncio.create_task(passage.answer(send, request.id))
            drained = asyncio.create_task(self._draining.wait())
            try:
                await asyncio.wait((pump, answer, drained), return_when=asyncio.FIRST_COMPLETED)
                if pump.done() and pump.result() is _Left.CLIENT and not answer.done():
                    return CLIENT_CLOSED
                if drained.done() and passage.events and not answer.done():
                    answer.cancel()
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return passage.status
                return await answer
            finally:
                for task in (pump, answer, drained):
                    task.cancel()
                await asyncio.gather(pump, answer, drained, return_exceptions=True)


class _Left(Enum):
    """Who ended the sending of a request."""

    CLIENT = "client"
    API = "api"


class _Passage:
    """One request on its way in, and its answer on its way out.

    It reads and writes the bare socket: a stream gives up both directions once one fails, and with them the answer that the
    api left behind when it refused an upload in the middle.
    """

    def __init__(self, sock: socket.socket, silence_s: float) -> None:
        self.status = 0
        self.events = False
        self._inner = h11.Connection(h11.CLIENT, max_incomplete_event_size=128 * 1024)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._silence_s = silence_s
        self._patience: asyncio.Timeout | None = None

    async def pump(self, head: h11.Request, receive: Receive) -> _Left:
        """Send the request as it comes; then wait for the caller to leave."""
        try:
            await self._write(head)
            more = True
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return _Left.CLIENT
                if not more:
                    continue
                body = message.get("body", b"")
                more = message.get("more_body", False)
                if body:
                    await self._write(h11.Data(data=body))
                if not more:
                    await self._write(h11.EndOfMessage())
                self._be_patient()
        except ConnectionError:
            # The api closed its reading side: it has answered already (a refusal in mid-upload), and the answer is on its way.
            return _Left.API

    async def answer(self, send: Send, request_id: str) -> int:
        """Pass the answer back piece by piece; returns its status."""
        try:
            async with asyncio.timeout(self._silence_s) as self._patience:
                return await self._pass_on(send, request_id)
        except TimeoutError as error:
            raise ApiDown("The control plane did not answer in time.", retry_after_s=1) from error
        except (h11.RemoteProtocolError, ConnectionError) as error:
            if self.status == 0:
                raise ApiDown(retry_after_s=1) from error
            raise ApiBroke from error

    async def _pass_on(self, send: Send, request_id: str) -> int:
        while True:
            event = self._inner.next_event()
            if event is h11.NEED_DATA:
                self._inner.receive_data(await self._loop.sock_recv(self._sock, _CHUNK))
            elif isinstance(event, h11.Response):
                self._arrived(event)
                headers = [
                    one for one in _end_to_end(event.headers) if one[0] != b"x-content-type-options"
                ]  # every answer has it
                if not any(name == b"x-request-id" for name, _value in headers):
                    headers.append((b"x-request-id", request_id.encode()))
                await send({"type": "http.response.start", "status": self.status, "headers": headers})
            elif isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return self.status
            elif isinstance(event, h11.ConnectionClosed):
                raise ApiDown(retry_after_s=1)

    def _arrived(self, head: h11.Response) -> None:
        self.status = head.status_code
        self.events = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in head.headers)
        if self._patience is not None:
            self._patience.reschedule(None)

    def _be_patient(self) -> None:
        """Something has moved: the api has its time again, as long as it has not begun to answer."""
        if self._patience is not None and self.status == 0 and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + self._silence_s)

    async def _write(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        await self._loop.sock_sendall(self._sock, self._inner.send(event) or b"")


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that are meant for more than this connection: not those that `Connection` names either."""
    given = list(headers)
    skipped = _HOP_BY_HOP.union(
        token.strip().lower() for name, value in given if name == b"connection" for token in value.split(b",")
    )
    return [(name, value) for name, value in given if name not in skipped or name in _ALWAYS]


def _head(request: Request, scope: Scope) -> h11.Request:
    raw: bytes = scope.get("raw_path") or request.path.encode()
    target = raw.partition(b"?")[0] + (b"?" + request.query_string if request.query_string else b"")
    headers = [(name, value) for name, value in _end_to_end(scope["headers"]) if name not in _OURS]
    if b"transfer-encoding" in request.headers:
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        headers.append((b"transfer-encoding", b"chunked"))
    headers += [(b"x-request-id", request.id.encode()), (b"connection", b"close")]
    if request.address is not None:
        headers.append((FORWARDED_TO_API, request.address.encode()))
    if request.certificate is not None:
        headers.append(client_certificates.header(request.certificate))
    if not any(name == b"host" for name, _value in headers):
        headers.append((b"host", b"localhost"))
    return h11.Request(method=request.method.encode(), target=target, headers=headers)
