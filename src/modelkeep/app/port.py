"""The main port of one server process: what accepts there, and over TLS with which certificate."""

import asyncio
import resource
import socket
import ssl
import time
from typing import cast

import structlog
import uvicorn

from modelkeep.serving.pace import Watch
from modelkeep.serving.protocol import HttpProtocol
from modelkeep.serving.settings import Callers

log = structlog.get_logger(__name__)
_HANDSHAKE_S = 10.0
_GOODBYE_S = 5.0
_BACKLOG = 2048
_OTHERS = 1024  # descriptors for all else than callers
_FEWEST = 256


class Port:
    """Accepts on `door` for `http`, from `open` until `close`. `most` connections are answered, the next are told so.

    Over TLS a caller has to shake hands first. While `strangers` have yet to do so, which each may put off for ten seconds,
    nobody else is accepted: they wait in line, and the process keeps descriptors for whoever is there.
    """

    def __init__(self, http: uvicorn.Server, door: socket.socket, callers: Callers, strangers: int | None = None) -> None:
        self._http = http
        self._strangers = _room(callers.most) if strangers is None else strangers
        self._context: ssl.SSLContext | None = None
        self._shaking: dict[HttpProtocol, float] = {}
        self._full = False
        self._door = door
        self._most = callers.most
        self._watch = Watch(headers_s=callers.headers_s, body_rate=callers.body_rate)
        self._accepting: asyncio.Server | None = None
        self._resting = False

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Accept from now on, over TLS with this context; connections that are there already go on as they are.

        Who knocks while one way of accepting takes over from the other waits in the same line. A context could be changed in
        place, but what it has once trusted, and the sessions that it lets clients resume, would stay.
        """
        if self._resting:
            self._context = context
            return
        accepting = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=self._door.dup(),
            ssl=context,
            backlog=_BACKLOG,
            ssl_handshake_timeout=None if context is None else _HANDSHAKE_S,
            ssl_shutdown_timeout=None if context is None else _GOODBYE_S,
        )
        self.close()
        self._accepting, self._context = accepting, context

    def close(self) -> None:
        """Accept nobody any more; connections that are there go on."""
        self._full = False
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None

    def rest(self) -> None:
        """Accept nobody until `go_on`, whatever else happens."""
        self._resting = True
        self.close()

    async def go_on(self) -> None:
        """Accept callers again."""
        self._resting = False
        await self.open(self._context)

    async def tend(self, passed_s: float) -> int:
        """End connections of callers that are too slow, returning how many; accept others again where there is room."""
        self._forget()
        if self._full and len(self._shaking) <= self._strangers // 2:
            try:
                await self.open(self._context)
            except OSError as error:
                log.warning("callers are not accepted yet", reason=str(error))
        return self._watch.look(cast("list[HttpProtocol]", list(self._http.server_state.connections)), passed_s)

    def _connection(self) -> HttpProtocol:
        connection = HttpProtocol(config=self._http.config, server_state=self._http.server_state, app_state={})
        connection.most = self._most
        if self._context is not None:
            self._shaking[connection] = time.monotonic() + _HANDSHAKE_S
            if len(self._shaking) >= self._strangers and not self._full:
                self._forget()
                self._full = len(self._shaking) >= self._strangers
                if self._full:  # not at once: what calls this is in the middle of accepting
                    asyncio.get_running_loop().call_soon(self._hold)
        return connection

    def _forget(self) -> None:
        """Forget who has shaken hands, or had the time to."""
        now = time.monotonic()
        self._shaking = {one: until for one, until in self._shaking.items() if one.transport is None and until > now}

    def _hold(self) -> None:
        """Accept nobody until there is room."""
        if self._accepting is not None:
            self.close()
            self._full = True


def _room(most: int) -> int:
    """Return how many descriptors are left for strangers where `most` callers are there."""
    return max(_FEWEST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - most - _OTHERS)
