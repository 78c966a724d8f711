"""A server process whose place another one takes: it accepts nobody any more, and its callers leave with their next answer."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import uvicorn

from modelkeep.app.port import Port
from modelkeep.sandbox import control, succeeding
from modelkeep.serving.http import Door
from modelkeep.serving.protocol import HttpProtocol

if TYPE_CHECKING:
    from modelkeep.serving.grpc.server import GrpcServer

_LOOK_S = 0.1


class Leaving:
    """Has the callers of one server process leave, without ending a connection on which a request could be on its way.

    Over HTTP a connection says with its next answer that it is the last; one on which nothing is asked ends as it always would,
    after `server.idle_s`. Over gRPC each connection comes to its age, and says so.
    """

    def __init__(
        self,
        door: Door,
        port: Port,
        http: uvicorn.Server,
        rpcs: "GrpcServer | None",
        send: Callable[[control.Message], None],
    ) -> None:
        self._door = door
        self._port = port
        self._http = http
        self._rpcs = rpcs
        self._send = send
        self._work: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether somebody else accepts callers by now."""
        return self._work is not None

    def begin(self, behind: int) -> None:
        """Be not ready, accept nobody any more, say so, and say when all have left."""
        if self._work is None:
            self._work = asyncio.create_task(self._leave(behind))

    async def go_on(self) -> None:
        """Take callers again: nobody else came. Those that were told to leave may do so."""
        await self.end()
        self._door.go_on()
        if self._rpcs is not None:
            self._rpcs.go_on()
        for connection in self._connections():
            connection.leaving = False
        await self._port.go_on()

    async def end(self) -> None:
        """Wait for nobody any more."""
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _connections(self) -> list[HttpProtocol]:
        return cast("list[HttpProtocol]", list(self._http.server_state.connections))

    async def _leave(self, behind: int) -> None:
        self._door.drain()
        if self._rpcs is not None:
            await self._rpcs.leave(behind)
        self._port.rest()
        self._send(succeeding.Yielded())
        while self._connections() or (self._rpcs is not None and self._rpcs.connections):
            for connection in self._connections():  # over TLS some shake hands only now
                connection.leave()
            await asyncio.sleep(_LOOK_S)
        self._send(succeeding.Left())
