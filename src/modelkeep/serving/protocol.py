"""uvicorn's HTTP protocol, with three things more than ASGI has.

Whoever asked for a prediction and goes away is noticed at once: ASGI tells of a disconnect only to who waits for it, and a task
that waits beside each prediction costs more than the rest of its request. A whole answer goes out in one write: ASGI's two
messages are two system calls, and two packets to a caller that waits. And the common prediction, a small body of known length,
needs no task, no event and no coroutine at all: it is handed over when its last byte has come. That halves its cost; everything
else, and whatever is unusual about a prediction, goes the way of ASGI.
"""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Protocol

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from modelkeep.serving.messages import CONNECTION, PREDICT, Request, Response

_PREDICT = PREDICT.encode()
_LARGEST = 64 * 1024
_MOST_DIGITS = 5


class Predictor(Protocol):
    """What the application offers beyond ASGI."""

    def predict_whole(self, deployment: str, request: Request, body: bytes, reply: Callable[[Response], None]) -> None:
        """Answer a prediction that came in one piece: `reply` is called once, now or later."""
        ...


class HttpProtocol(HttpToolsProtocol):
    """One connection. An ASGI scope finds it under `extensions`."""

    gone: Callable[[], None] | None = None
    _running: RequestResponseCycle

    def on_message_begin(self) -> None:
        """Begin a request (the parser calls this)."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item] # uvicorn knows only of mappings there

    def on_headers_complete(self) -> None:
        """Choose the way of a request (the parser calls this)."""
        if self.url.startswith(_PREDICT) and self._is_plain():
            self.cycle = _Exchange(self)  # type: ignore[assignment] # as far as the base class looks at it, it is one
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole (the parser calls this)."""
        super().on_message_complete()
        exchange: Any = self.cycle
        if type(exchange) is _Exchange:
            exchange.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended (asyncio calls this)."""
        super().connection_lost(exc)
        leave, self.gone = self.gone, None
        if leave is not None:
            leave()

    def reply(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole answer at once; False where it has to go through ASGI: a slow reader, a HEAD request.

        Headers must be fit for HTTP, and name the body's length.
        """
        cycle = self._running
        if cycle.disconnected:
            return True
        if cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(_whole(status, [*cycle.default_headers, *headers], body, keep_alive=cycle.keep_alive))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def _is_plain(self) -> bool:
        """Whether this is a prediction that can go without ASGI: nothing unusual about it, and nothing before it."""
        if self.expect_100_continue or self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return False
        length = b""
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                return False
        return (
            0 < len(length) <= _MOST_DIGITS
            and int(length) <= _LARGEST
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not any(mark in self.url[len(_PREDICT) :] for mark in b"/?%#")
        )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Start answering; of pipelined requests, one after another."""
        self._running = cycle
        super()._start_asgi_task(cycle, app)


class _Never:
    """An event that nobody waits for."""

    def set(self) -> None:
        """Wake nobody."""


class _Exchange:
    """A prediction and its answer on one connection. To uvicorn's protocol it looks like a request of ASGI that is running."""

    message_event = _Never()

    def __init__(self, protocol: HttpProtocol) -> None:
        self.body = bytearray()
        self.more_body = True
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = protocol.parser.should_keep_alive()
        self._protocol = protocol
        self._request: Request

    def begin(self) -> None:
        """Its last byte has come: hand it over."""
        protocol = self._protocol
        scope: Any = protocol.scope
        path = protocol.url.decode("ascii", "replace")
        scope["method"], scope["path"], scope["query_string"] = "POST", path, b""
        self._request = request = Request(scope, _no_more)
        app: Any = protocol.app
        app.predict_whole(path[len(PREDICT) :], request, bytes(self.body), self._reply)

    def _reply(self, response: Response) -> None:
        protocol = self._protocol
        self.response_complete = True
        if self.disconnected or protocol.transport.is_closing():
            return
        headers = [*protocol.server_state.default_headers, *response.headers, (b"x-request-id", self._request.id.encode())]
        protocol.transport.write(_whole(response.status, headers, response.body, keep_alive=self.keep_alive))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


async def _no_more() -> MutableMapping[str, Any]:
    """Receive nothing: the body is there."""
    return {"type": "http.disconnect"}


def _whole(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, keep_alive: bool) -> bytes:
    pieces = [STATUS_LINE[status]]
    for name, value in headers:
        pieces += (name, b": ", value, b"\r\n")
    pieces += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
    return b"".join(pieces)
