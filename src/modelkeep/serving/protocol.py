"""uvicorn's HTTP protocol, with what ASGI has no words for.

Whoever asked for a prediction and goes away is noticed at once: ASGI tells of a disconnect only to who waits for it, and a task
that waits beside each prediction costs more than the rest of its request. A whole answer goes out in one write: ASGI's two
messages are two system calls, and two packets to a caller that waits. And the common prediction, a small body of known length,
needs no scope, task, event or coroutine at all: it is handed over when its last byte has come. That halves its cost; everything
else, and whatever is unusual about a prediction, goes the way of ASGI. See docs/decisions/0011-predictions-without-asgi.md.
"""

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.infra import client_certificates
from modelkeep.serving.messages import CONNECTION, PREDICT, Request, Response
from modelkeep.serving.pace import ANSWER, BODY, HEADERS, Pace

if TYPE_CHECKING:
    import asyncio

_is_prediction = re.compile(
    rb"(?:%s[^/?%%#\x80-\xff]+|/v2/models/[^/?%%#\x80-\xff]+/infer|/v1/models/[^/:?%%#\x80-\xff]+:predict)" % PREDICT.encode()
).fullmatch
_OFFERS = frozenset({b"upgrade", b"http2-settings"})
_LARGEST = 64 * 1024
_MOST_DIGITS = 5
_VERSIONS = frozenset({"1.0", "1.1"})
_MOST_URL = 8 * 1024
_MOST_NAMES = 100
_MOST_HEADERS = 64 * 1024
_SPARE = 256  # connections beyond the most that may ask for health
_HEALTH = frozenset({b"/healthz", b"/readyz", b"/health", b"/ping"})


class Predictor(Protocol):
    """What the application offers beyond ASGI."""

    def predict_whole(self, request: Request, body: bytes, reply: Callable[[Response], None]) -> None:
        """Answer a prediction that came in one piece: `reply` is called once, now or later."""
        ...


class HttpProtocol(HttpToolsProtocol):
    """One connection. An ASGI scope finds it under `extensions`. `pace` tells the watch how slow its caller is."""

    gone: Callable[[], None] | None = None
    most = 1 << 30  # so many connections are answered in full; those beyond are crowded: they may ask for health alone
    crowded = False
    leaving = False  # its next answer is its last: whoever asks on connects anew
    certificate: ShownCertificate | None = None
    _running: RequestResponseCycle
    _socket = -1
    _idle_since: float | None = None
    _refusal = (400, "Invalid HTTP request received.")

    def connection_made(self, transport: "asyncio.Transport") -> None:  # type: ignore[override] # as in the base class
        """A caller has connected, and over TLS has shaken hands (asyncio calls this)."""
        there = len(self.server_state.connections)
        self.crowded = there >= self.most
        super().connection_made(transport)
        self.pace = Pace()
        if there >= self.most + _SPARE:
            transport.abort()
        if self.scheme == "http":
            self._socket = transport.get_extra_info("socket").fileno()
        else:
            self.certificate = client_certificates.of_tls(transport.get_extra_info("ssl_object"))

    def data_received(self, data: bytes) -> None:
        """Read on (asyncio calls this)."""
        self._idle_since = None
        pace = self.pace
        pace.received += len(data)
        if pace.phase == HEADERS and pace.received > _MOST_HEADERS + len(data):
            self._refusal = (431, "The headers of the request are too large.")
            self.send_400_response("")
            return
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_offer(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def _without_offer(self, rest: bytes) -> bytes:
        """Return a request again, without its offer of another protocol, and what came behind it; nothing for a refused one.

        Java's own client offers HTTP/2 with each first request, and its body follows all the same.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refusal = (400, "This is no proxy.")
            self.send_400_response("")
            return b""
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            kept = value
            if name == b"connection":
                kept = b", ".join(one for one in value.split(b",") if one.strip().lower() not in _OFFERS)
            if name not in _OFFERS and kept:
                lines.append(name + b": " + kept)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the base class has it
        return b"\r\n".join([*lines, b"", rest])

    def on_message_begin(self) -> None:
        """Begin a request (the parser calls this). Its ASGI scope is made when it turns out to be needed."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        pace = self.pace
        pace.phase, pace.received = HEADERS, 1  # something has come: it is not nobody

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header (the parser calls this). What follows a body in pieces (trailers) is not one of the request's."""
        if self.pace.phase == HEADERS:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Choose the way of a request (the parser calls this)."""
        if self.parser.should_upgrade():
            return  # it comes again without its offer
        self.pace.phase = BODY
        if _is_prediction(self.url) and self._is_plain():
            self.cycle = _Exchange(self)  # type: ignore[assignment] # as far as the base class looks at it, it is one
            return
        self._check()
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect_100_continue
        self.headers += headers
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item] # uvicorn knows only of mappings there
        super().on_headers_complete()
        if self.leaving:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is whole (the parser calls this)."""
        if self.parser.should_upgrade():
            return
        self.pace.phase = ANSWER
        super().on_message_complete()
        exchange: Any = self.cycle
        if type(exchange) is _Exchange:
            exchange.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended (asyncio calls this)."""
        self._socket = -1
        self._unset_keepalive_if_required()
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
        self.send(_whole(status, [*cycle.default_headers, *headers], body, keep_alive=cycle.keep_alive))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def send(self, data: bytes) -> None:
        """Send at once what the socket takes; a transport would wait for the next turn of the event loop."""
        transport = self.transport
        if self._socket >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
            try:
                sent = os.write(self._socket, data)
            except OSError:
                sent = 0  # the transport waits, or finds out what is the matter
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def on_response_complete(self) -> None:
        """An answer has been given: go on with what was asked meanwhile, or wait (the base class calls this)."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long: one timer, not one for each request (asyncio calls this)."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        """Stop the timer when the connection has ended; while it lasts, the timer looks for itself."""
        if self._socket < 0:
            super()._unset_keepalive_if_required()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be read, or may not be, and end its connection; `msg` is the base class's."""
        status, said = self._refusal
        if not self.transport.is_closing():
            text = msg or said
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
            self.transport.write(
                _whole(status, [*self.server_state.default_headers, *headers], text.encode(), keep_alive=False)
            )
            self.transport.close()

    @property
    def reading(self) -> bool:
        """Whether what the caller sends is taken, and it knows that it may send."""
        cycle: Any = self.cycle
        told_to_wait = type(cycle) is RequestResponseCycle and not cycle.response_complete and cycle.waiting_for_100_continue
        return not (self.flow.read_paused or told_to_wait)

    @property
    def unread(self) -> int:
        """Bytes of answers that the caller has yet to read."""
        return self.transport.get_write_buffer_size()

    def leave(self) -> None:
        """Have the next answer say that it is the last of this connection, and end it then.

        It is never ended while it waits: a request could be on its way. Of several that are asked at once, all are answered.
        """
        if not self.leaving:
            self.leaving = True
            cycle: Any = self.cycle
            if cycle is not None and not cycle.response_complete:
                cycle.keep_alive = False

    def refuse_slow(self) -> None:
        """End a connection whose caller is too slow (the watch calls this)."""
        cycle: Any = self.cycle
        if self.pace.phase == ANSWER:
            self.transport.abort()  # it does not read
            return
        if not self.pace.received or (type(cycle) is RequestResponseCycle and cycle.response_started):
            self.transport.close()  # it has asked for nothing, or was answered before it had sent all
            return
        self._refusal = (408, "The request did not come in time.")
        self.send_400_response("")

    def _check(self) -> None:
        """Raise where a head could be read in more than one way, is too long, or comes when all places are taken."""
        hosts = sum(name == b"host" for name, _value in self.headers)
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            self._refusal = (505, "This version of HTTP is not spoken here.")
        elif hosts > 1 or (not hosts and version == "1.1"):
            self._refusal = (400, "A request names one host.")
        elif self.url[:1] != b"/" and not (self.url == b"*" and self.parser.get_method() == b"OPTIONS"):
            self._refusal = (400, "A request names a path: this is no proxy.")
        elif len(self.url) > _MOST_URL:
            self._refusal = (414, "The address is too long.")
        elif len(self.headers) > _MOST_NAMES:
            self._refusal = (431, "The request has too many headers.")
        elif self.crowded and self.url.partition(b"?")[0] not in _HEALTH:
            self._refusal = (503, "All connections are taken. Try again in a moment.")
        else:
            return
        raise httptools.HttpParserError(self._refusal[1])

    def _is_plain(self) -> bool:
        """Whether this is a prediction that can go without ASGI: nothing unusual about it, and nothing before it."""
        if (
            self.crowded
            or self.expect_100_continue
            or self.flow.write_paused
            or not (self.cycle is None or self.cycle.response_complete)
        ):
            return False
        parser, length, hosts = self.parser, b"", 0
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == b"host":
                hosts += 1
            elif name == b"content-encoding":
                return False
        if len(self.url) > _MOST_URL:
            return False
        return hosts == 1 and len(self.headers) <= _MOST_NAMES and 0 < len(length) <= _MOST_DIGITS and int(length) <= _LARGEST

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
        self.keep_alive = protocol.parser.should_keep_alive() and not protocol.leaving
        self._protocol = protocol
        self._request: Request

    def begin(self) -> None:
        """Its last byte has come: hand it over."""
        protocol = self._protocol
        path = protocol.url.decode("ascii", "replace")
        self._request = request = Request("POST", path, protocol.headers, connection=protocol)
        app: Predictor = protocol.app
        app.predict_whole(request, bytes(self.body), self._reply)

    def _reply(self, response: Response) -> None:
        protocol = self._protocol
        self.response_complete = True
        if self.disconnected or protocol.transport.is_closing():
            return
        request, default = self._request, protocol.server_state.default_headers
        headers = [*default, *response.headers, *request.beside, (b"x-request-id", request.id.encode())]
        protocol.send(_whole(response.status, headers, response.body, keep_alive=self.keep_alive))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


def _whole(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, keep_alive: bool) -> bytes:
    pieces = [STATUS_LINE[status]]
    for name, value in headers:
        pieces += (name, b": ", value, b"\r\n")
    pieces += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
    return b"".join(pieces)
