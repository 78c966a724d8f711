"""The main port of one server process: what accepts there, and over TLS with which certificate."""

import asyncio
import socket
import ssl
from typing import cast

import uvicorn

from modelkeep.serving.pace import Watch
from modelkeep.serving.protocol import HttpProtocol
from modelkeep.serving.settings import Callers

_HANDSHAKE_S = 10.0
_GOODBYE_S = 5.0
_BACKLOG = 2048
_SPARE = 256  # connections beyond the most that may ask for health


class Port:
    """Accepts on `door` for `http`, from `open` until `close`. `most` connections are answered, the next are told so."""

    def __init__(self, http: uvicorn.Server, door: socket.socket, callers: Callers) -> None:
        self._http = http
        self._door = door
        self._most = callers.most
        self._watch = Watch(headers_s=callers.headers_s, body_rate=callers.body_rate)
        self._accepting: asyncio.Server | None = None

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Accept from now on, over TLS with this context; connections that are there already go on as they are.

        Who knocks while one way of accepting takes over from the other waits in the same line. A context could be changed in
        place, but what it has once trusted, and the sessions that it lets clients resume, would stay.
        """
        accepting = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=self._door.dup(),
            ssl=context,
            backlog=_BACKLOG,
            ssl_handshake_timeout=None if context is None else _HANDSHAKE_S,
            ssl_shutdown_timeout=None if context is None else _GOODBYE_S,
        )
        self.close()
        self._accepting = accepting

    def close(self) -> None:
        """Accept nobody any more; connections that are there go on."""
        if self._accepting is not None:
            self._accepting.close()

    def tend(self, passed_s: float) -> int:
        """End connections of callers that are too slow; returns how many."""
        return self._watch.look(cast("list[HttpProtocol]", list(self._http.server_state.connections)), passed_s)

    def _connection(self) -> HttpProtocol:
        state = self._http.server_state
        connection = HttpProtocol(config=self._http.config, server_state=state, app_state={})
        there = len(state.connections)
        connection.crowded, connection.surplus = there >= self._most, there >= self._most + _SPARE
        return connection
