"""The main port of one server process: what accepts there, and over TLS with which certificate."""

import asyncio
import socket
import ssl

import uvicorn

from modelkeep.serving.protocol import HttpProtocol

_HANDSHAKE_S = 10.0
_GOODBYE_S = 5.0
_BACKLOG = 2048


class Port:
    """Accepts on `door` for `http`, from `open` until `http` ends."""

    def __init__(self, http: uvicorn.Server, door: socket.socket) -> None:
        self._http = http
        self._door = door
        http.servers = []

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Accept from now on, over TLS with this context; connections that are there already go on as they are.

        Who knocks while one way of accepting takes over from the other waits in the same line. A context could be changed in
        place, but what it has once trusted, and the sessions that it lets clients resume, would stay.
        """
        patience = {} if context is None else {"ssl_handshake_timeout": _HANDSHAKE_S, "ssl_shutdown_timeout": _GOODBYE_S}
        accepting = await asyncio.get_running_loop().create_server(
            self._connection, sock=self._door.dup(), ssl=context, backlog=_BACKLOG, **patience
        )
        for before in self._http.servers:
            before.close()
        self._http.servers = [accepting]

    def _connection(self) -> HttpProtocol:
        return HttpProtocol(config=self._http.config, server_state=self._http.server_state, app_state={})
