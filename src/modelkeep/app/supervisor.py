"""The root of the process tree: it starts, limits, watches and ends all others, and holds neither a secret's use nor a model.

supervisor ─┬─ server ... · courier · api · worker      roles, each told its own settings over its channel
            └─ template ── runner ...               models
"""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from modelkeep.app.children import Child, start
from modelkeep.app.folders import Folders
from modelkeep.app.residency import Budget
from modelkeep.app.restarts import Restarts
from modelkeep.app.runner_process import Open
from modelkeep.app.runners import Runners
from modelkeep.contracts.confinement import Confinement, Level
from modelkeep.sandbox import control, succeeding
from modelkeep.sandbox.control import Channel, ChannelClosed

log = structlog.get_logger(__name__)

_LEAVING_ORDER = (("server",), ("api", "worker"), ("courier",))
_LONGEST_DELAY_S = 5.0
_LAST_GRACE_S = 5.0

M = TypeVar("M", bound=control.Message)


class RoleEnded(Exception):
    """A process ended before it answered."""


@dataclass
class Role:
    """A process that is always there: its name, its settings as JSON, and the listening sockets it is given.

    The name says what it does; of several that do the same, each has its number behind a dash ("server-2").
    `after`: the role that is up before this one is started for the first time, so that a start's first second is for those
    whom callers wait for. It is kept alive while it is `wanted`; a server that is `held` accepts no callers.
    """

    name: str
    settings: bytes = field(repr=False)  # a secret may be in it
    sockets: tuple[socket.socket, ...] = ()
    after: str = ""
    child: Child | None = None
    held: bool = False
    up: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    asked: "dict[type[object], asyncio.Future[Any]]" = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it does: server, api, courier or worker."""
        return self.name.partition("-")[0]


class Supervisor:
    """Runs the roles and the runners until it is told to stop. `warm`: models will be wanted as soon as it runs.

    `renews`: SIGHUP has the servers read the files of TLS; without TLS it ends everything, as when a terminal is closed.
    `succession` runs beside it, and ends when another supervisor has taken over. `held`: until that says so, servers accept
    nobody and no other role is started.
    """

    def __init__(
        self,
        roles: list[Role],
        *,
        open_artifact: Open,
        environment: Mapping[str, str],
        drain_s: float,
        warm: bool,
        folders: Folders,
        budget: Budget,
        acceptable: Level | None = None,
        renews: bool = False,
        held: bool = False,
        succession: "Callable[[Supervisor], Awaitable[None]] | None" = None,
        announce: Callable[[], None],
    ) -> None:
        self._roles = {role.name: role for role in roles}
        self._runners = Runners(open_artifact, self._say_confinement, budget, acceptable, folders)
        if warm:
            self._runners.warm_up()
        self._environment = environment
        self._renews = renews
        self._announce = announce
        self._succession = succession
        self.drain_s = drain_s
        for role in roles:
            role.held = held and role.kind == "server"
            if not held or role.kind == "server":
                role.wanted.set()
        self._stop = asyncio.Event()
        self._now = asyncio.Event()

    def stop(self) -> None:
        """Drain and end; asked a second time, end at once."""
        if self._stop.is_set():
            self._now.set()
        self._stop.set()

    async def run(self) -> None:
        """Start everything, keep it alive, and end it in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if self._renews:
            loop.add_signal_handler(signal.SIGHUP, self._tell_servers, control.Renew())
        runners = asyncio.create_task(self._runners.run())
        keepers = {role.name: asyncio.create_task(self._keep(role)) for role in self._roles.values()}
        announcing = asyncio.create_task(self._announce_when_up())
        succeeding = asyncio.create_task(self._be_succeeded())
        try:
            await self._wait_for_end(runners, succeeding, *keepers.values())
            log.info("draining")
            succeeding.cancel()
            await asyncio.gather(succeeding, return_exceptions=True)
            self._runners.close()
            for kinds in _LEAVING_ORDER:
                await asyncio.gather(*(self._drain(role) for role in self._roles.values() if role.kind in kinds))
        finally:
            beside = (announcing, succeeding, runners, *keepers.values())
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            for role in self._roles.values():
                if role.child is not None:
                    role.child.signal(signal.SIGKILL)
                    await role.child.ended
        log.info("stopped")

    async def _be_succeeded(self) -> None:
        if self._succession is None:
            await asyncio.Event().wait()
        else:
            await self._succession(self)
            self._stop.set()

    # ---- what a succession asks for

    @property
    def held_bytes(self) -> int:
        """What its runners hold."""
        return self._runners.census.held_bytes()

    async def coverages(self) -> tuple[succeeding.Coverage, ...]:
        """Return how each server stands."""
        return tuple(await self._ask(succeeding.Tell(), succeeding.Coverage))

    async def begin(self) -> None:
        """Have the servers that are held accept callers."""
        for role in self._servers():
            role.held = False
        self._tell_servers(succeeding.Begin())
        for role in self._servers():
            await role.up.wait()

    async def end_roles(self, *kinds: str) -> None:
        """End these roles, which finish what they have, and do not start them again."""
        ending = [role for role in self._roles.values() if role.kind in kinds]
        for role in ending:
            role.wanted.clear()
            role.up.clear()
        await asyncio.gather(*map(self._drain, ending))

    async def start_roles(self, *kinds: str) -> None:
        """Keep these roles alive, and wait until they are up."""
        for kind in kinds:
            self._roles[kind].wanted.set()
        for kind in kinds:
            await self._roles[kind].up.wait()

    async def yield_callers(self, behind: int) -> "list[asyncio.Future[succeeding.Left]]":
        """Have the servers accept nobody any more; when their callers have left, that is what the futures bring."""
        for role in self._servers():
            role.held = True
        leaving = [self._expect(role, succeeding.Left) for role in self._servers()]
        await self._ask(succeeding.Yield(behind), succeeding.Yielded)
        return leaving

    def go_on(self) -> None:
        """Nobody has taken over: have everything be as before, unless it ends anyway."""
        if self._stop.is_set():
            return
        for role in self._roles.values():
            role.held = False
            role.wanted.set()
        self._tell_servers(succeeding.Resume())

    def alone(self) -> None:
        """Tell the servers that those whose place they took have gone."""
        self._tell_servers(succeeding.Alone())

    def _servers(self) -> list[Role]:
        return [role for role in self._roles.values() if role.kind == "server"]

    async def _ask(self, question: control.Message, answer: type[M]) -> list[M]:
        """Return every server's answer. Raises `RoleEnded`."""
        answers = [self._expect(role, answer) for role in self._servers()]
        for role in self._servers():
            self._tell(role, question)
        return list(await asyncio.gather(*answers))

    def _expect(self, role: Role, answer: type[M]) -> "asyncio.Future[M]":
        future: asyncio.Future[M] = asyncio.get_running_loop().create_future()
        role.asked[answer] = future
        if role.child is None:
            _fail(role)
        return future

    # ---- keeping

    async def _wait_for_end(self, *tasks: "asyncio.Task[None]") -> None:
        """Return when told to stop; raise what ended a keeper, for none of them ends by itself."""
        stopping = asyncio.create_task(self._stop.wait())
        done, _pending = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            await task

    async def _announce_when_up(self) -> None:
        for role in self._roles.values():
            if role.kind in {"server", "api"}:
                await role.up.wait()
        self._runners.warm_up()
        self._announce()

    async def _keep(self, role: Role) -> None:
        """Start a role, serve its channel, and start it again whenever it ends."""
        restarts = Restarts(longest_delay_s=_LONGEST_DELAY_S, hold_s=_LONGEST_DELAY_S)
        if role.after:
            await self._roles[role.after].up.wait()
        while True:
            await role.wanted.wait()
            fds = tuple(one.fileno() for one in role.sockets)
            command = (sys.executable, "-m", "modelkeep.app.processes", role.name, *(str(fd) for fd in fds))
            role.child = child = start(role.name, command, self._environment, fds)
            child.channel.send(control.Configure(role.settings))
            if role.kind == "server" and not role.held:
                child.channel.send(succeeding.Begin())
            if self._runners.confinement is not None:
                self._tell(role, control.Grounded(self._runners.confinement))
            await self._listen(role, child.channel)
            self._runners.forget(role.name, child.channel)
            child.channel.close()
            status = await child.finish(self.drain_s)
            role.child = None
            _fail(role)
            if self._stop.is_set():
                return
            if not role.wanted.is_set():
                continue
            delay = restarts.died(time.monotonic()).delay_s
            log.error("a process has ended", role=role.name, status=status, again_in_s=delay)
            await asyncio.sleep(delay)

    def _say_confinement(self, confinement: Confinement) -> None:
        """Let every server say on its health pages how well runners are locked in."""
        self._tell_servers(control.Grounded(confinement))

    def _tell_servers(self, message: control.Message) -> None:
        for role in self._roles.values():
            self._tell(role, message)

    def _tell(self, role: Role, message: control.Message) -> None:
        if role.kind == "server" and role.child is not None:
            with contextlib.suppress(ChannelClosed):  # it is ending: the next one is told, or reads it, at its start
                role.child.channel.send(message)

    async def _listen(self, role: Role, channel: Channel) -> None:
        while True:
            try:
                message, _fds = await channel.receive()
            except ChannelClosed:
                return
            self._take(role, channel, message)

    def _take(self, role: Role, channel: Channel, message: control.Message) -> None:
        match message:
            case control.Started():
                role.up.set()
                log.debug("up", role=role.name)
            case control.Want():
                self._runners.want(role.name, channel, message.specs)
            case control.Accept():
                self._runners.accept(message)
            case control.Ready():
                self._runners.ready(message)
            case control.Used():
                self._runners.used(message)
            case control.Wake():
                self._runners.wake(message)
            case control.Inspect():
                self._runners.inspect(channel, message)
            case control.Kill():
                self._runners.kill(channel, message)
            case _:
                _answer(role, message)

    async def _drain(self, role: Role) -> None:
        child = role.child
        if child is None:
            return
        with contextlib.suppress(ChannelClosed):  # it has ended by itself
            child.channel.send(control.Drain())
        now = asyncio.create_task(self._now.wait())
        either: list[asyncio.Future[Any]] = [child.ended, now]
        await asyncio.wait(either, timeout=self.drain_s + _LAST_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if not child.ended.done():
            log.warning("ended before it was done", role=role.name)
            child.signal(signal.SIGKILL)


def _answer(role: Role, message: control.Message) -> None:
    """Give a role's answer to whoever asked."""
    asked = role.asked.pop(type(message), None)
    if asked is None:
        log.warning("unexpected message", role=role.name, message=type(message).__name__)
    elif not asked.done():
        asked.set_result(message)


def _fail(role: Role) -> None:
    """Let those who wait for an answer of this role know that none will come."""
    for waiting in role.asked.values():
        if not waiting.done():
            waiting.set_exception(RoleEnded(role.name))
            waiting.exception()  # whether anybody still waits or not
    role.asked.clear()
