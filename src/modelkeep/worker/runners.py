"""Runners for validations and replays: each is asked of the supervisor by a ticket, used once, and ended."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.runner import Column
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import control, frames
from modelkeep.sandbox.connection import RunnerConnection
from modelkeep.sandbox.control import Cause, Channel, ChannelClosed, Gone


class RunnerUnavailable(Unavailable):
    """No runner process could be started."""

    code = "runner_unavailable"


class _First:
    """The first runner of a job, as long as it lives: another one of the same job stands beside it."""

    def __init__(self, ticket: str) -> None:
        self.ticket = ticket
        self.ended = False


_FIRST: Final[ContextVar[_First | None]] = ContextVar("_FIRST", default=None)


class _Ticket:
    """What is known of one runner that was asked for."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[tuple[str, int]] = loop.create_future()
        self.gone: asyncio.Future[Gone] = loop.create_future()


class Session:
    """A started runner: its connection, and the news of its end."""

    def __init__(self, name: str, connection: RunnerConnection, ticket: _Ticket, channel: Channel) -> None:
        self.connection = connection
        self._name = name
        self._ticket = ticket
        self._channel = channel

    async def gone(self) -> Gone:
        """Wait until the process has ended, and return why."""
        return await asyncio.shield(self._ticket.gone)

    def kill(self, cause: Cause) -> None:
        """Have the process ended, for this cause."""
        if not self._ticket.gone.done():
            self._channel.send(control.Kill(self._name, cause))


class Runners:
    """The worker's way to runner processes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._tickets: dict[str, _Ticket] = {}

    @asynccontextmanager
    async def start(self, spec: RunnerSpec, sample: tuple[Column, ...]) -> AsyncIterator[Session]:
        """Yield a runner that is loading `spec`'s artifact; it ends with the block, and only then does the block."""
        name = new_id("tkt")
        ticket = self._tickets[name] = _Ticket()
        first = _FIRST.get()
        if first is None or first.ended:
            first = _First(name)
            _FIRST.set(first)
        self._channel.send(control.Inspect(name, spec, sample, "" if first.ticket == name else first.ticket))
        session: Session | None = None
        try:
            either: list[asyncio.Future[Any]] = [ticket.connected, ticket.gone]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ticket.connected.done():
                raise RunnerUnavailable(ticket.gone.result().detail or None)
            runner, fd = ticket.connected.result()
            session = Session(runner, await RunnerConnection.open(fd), ticket, self._channel)
            session.connection.loaded.add_done_callback(partial(self._ready, runner))
            try:
                yield session
            finally:
                session.kill(Cause.STOPPED)
                session.connection.close()
                await ticket.gone
        finally:
            if session is None:
                self._leave(name, ticket)
            first.ended = first.ended or first.ticket == name
            del self._tickets[name]

    def _leave(self, name: str, ticket: _Ticket) -> None:
        """Give up what was asked for and never used: one that waits for memory, or a runner that came in this very moment."""
        if ticket.gone.done():
            return
        if ticket.connected.done():
            name, fd = ticket.connected.result()
            os.close(fd)
        with suppress(ChannelClosed):  # then nobody waits for memory any more, either
            self._channel.send(control.Kill(name, Cause.STOPPED))

    def _ready(self, runner: str, loaded: "asyncio.Future[frames.Loaded | frames.LoadFailed]") -> None:
        """From now on it counts for what it holds."""
        if not loaded.cancelled() and loaded.exception() is None and isinstance(found := loaded.result(), frames.Loaded):
            with suppress(ChannelClosed):  # then nobody counts any more
                self._channel.send(control.Ready(runner, found.placed))

    def take(self, message: control.Message, fds: list[int]) -> None:
        """Act on a message of the supervisor."""
        ticket = self._tickets.get(message.ticket) if isinstance(message, control.Connected | Gone) else None
        if ticket is None:
            for fd in fds:
                os.close(fd)
        elif isinstance(message, control.Connected):
            ticket.connected.set_result((message.runner, fds[0]))
        elif isinstance(message, Gone):
            ticket.gone.set_result(message)
