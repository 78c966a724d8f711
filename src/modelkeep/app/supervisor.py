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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from modelkeep.app.children import Child, start
from modelkeep.app.folders import Folders
from modelkeep.app.residency import Budget
from modelkeep.app.restarts import Restarts
from modelkeep.app.runner_process import Open
from modelkeep.app.runners import Runners
from modelkeep.contracts.confinement import Confinement, Level
from modelkeep.sandbox import control
from modelkeep.sandbox.control import Channel, ChannelClosed

log = structlog.get_logger(__name__)

_LEAVING_ORDER = (("server",), ("api", "worker"), ("courier",))
_LONGEST_DELAY_S = 5.0
_LAST_GRACE_S = 5.0


@dataclass
class Role:
    """A process that is always there: its name, its settings as JSON, and the listening sockets it is given.

    The name says what it does; of several that do the same, each has its number behind a dash ("server-2").
    `after`: the role that is up before this one is started for the first time, so that a start's first second is for those
    whom callers wait for.
    """

    name: str
    settings: bytes = field(repr=False)  # a secret may be in it
    sockets: tuple[socket.socket, ...] = ()
    after: str = ""
    child: Child | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def kind(self) -> str:
        """What it does: server, api, courier or worker."""
        return self.name.partition("-")[0]


class Supervisor:
    """Runs the roles and the runners until it is told to stop. `warm`: models will be wanted as soon as it runs.

    `renews`: SIGHUP has the servers read the files of TLS; without TLS it ends everything, as when a terminal is closed.
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
        announce: Callable[[], None],
    ) -> None:
        self._roles = {role.name: role for role in roles}
        self._runners = Runners(open_artifact, self._say_confinement, budget, acceptable, folders)
        if warm:
            self._runners.warm_up()
        self._environment = environment
        self._drain_s = drain_s
        self._renews = renews
        self._announce = announce
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
        try:
            await self._wait_for_end(runners, *keepers.values())
            log.info("draining")
            self._runners.close()
            for kinds in _LEAVING_ORDER:
                await asyncio.gather(*(self._drain(role) for role in self._roles.values() if role.kind in kinds))
        finally:
            for task in (announcing, runners, *keepers.values()):
                task.cancel()
            await asyncio.gather(announcing, runners, *keepers.values(), return_exceptions=True)
            for role in self._roles.values():
                if role.child is not None:
                    role.child.signal(signal.SIGKILL)
                    await role.child.ended
        log.info("stopped")

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
            fds = tuple(one.fileno() for one in role.sockets)
            command = (sys.executable, "-m", "modelkeep.app.processes", role.name, *(str(fd) for fd in fds))
            role.child = child = start(role.name, command, self._environment, fds)
            child.channel.send(control.Configure(role.settings))
            if self._runners.confinement is not None:
                self._tell(role, control.Grounded(self._runners.confinement))
            await self._listen(role, child.channel)
            self._runners.forget(role.name, child.channel)
            child.channel.close()
            status = await child.finish(self._drain_s)
            role.child = None
            if self._stop.is_set():
                return
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
                log.warning("unexpected message", role=role.name, message=type(message).__name__)

    async def _drain(self, role: Role) -> None:
        child = role.child
        if child is None:
            return
        with contextlib.suppress(ChannelClosed):  # it has ended by itself
            child.channel.send(control.Drain())
        now = asyncio.create_task(self._now.wait())
        either: list[asyncio.Future[Any]] = [child.ended, now]
        await asyncio.wait(either, timeout=self._drain_s + _LAST_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if not child.ended.done():
            log.warning("ended before it was done", role=role.name)
            child.signal(signal.SIGKILL)
