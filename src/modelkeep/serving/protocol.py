"""uvicorn's HTTP protocol, with two things more than ASGI has.

Whoever asked for a prediction and goes away is noticed at once: ASGI tells of a disconnect only to who waits for it, and a task
that waits beside each prediction costs more than the rest of its request. And a whole answer goes out in one write: ASGI's two
messages are two system calls, and two packets to a caller that waits.
"""

from collections.abc import Callable, Iterable

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from modelkeep.serving.messages import CONNECTION


class HttpProtocol(HttpToolsProtocol):
    """One connection. An ASGI scope finds it under `extensions`."""

    gone: Callable[[], None] | None = None
    _running: RequestResponseCycle

    def on_message_begin(self) -> None:
        """Begin a request (the parser calls this)."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item] # uvicorn knows only of mappings there

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
        pieces = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            pieces += (name, b": ", value, b"\r\n")
        for name, value in headers:
            pieces += (name, b": ", value, b"\r\n")
        pieces += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(b"".join(pieces))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Start answering; of pipelined requests, one after another."""
        self._running = cycle
        super()._start_asgi_task(cycle, app)
