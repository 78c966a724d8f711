"""Keeps the runners that are wanted: starts them from the warm template, watches their memory, ends them, starts them again.

It holds no secret and no model: it opens the artifact's file, makes a socketpair, and hands one end to the runner and the
other to whoever asked for it.
"""

import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from modelkeep.app.children import Child, start
from modelkeep.app.restarts import Restarts
from modelkeep.contracts.runner import Column
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import control
from modelkeep.sandbox.control import Cause, Channel, ChannelClosed
from modelkeep.sandbox.limits import ENVIRONMENT

log = structlog.get_logger(__name__)

_WATCH_S = 0.25
_STDERR_TAIL = 4096
_PAGE = os.sysconf("SC_PAGE_SIZE")

Open = Callable[[str], Awaitable[int]]
"""Opens the artifact with a digest, read-only, and returns its descriptor."""


@dataclass
class _Runner:
    name: str
    spec: RunnerSpec
    owner: Channel
    ticket: str
    near: socket.socket
    stderr: int
    pid: int = 0
    pidfd: int = -1
    cause: Cause | None = None
    detail: str = ""
    tail: bytearray = field(default_factory=bytearray)


@dataclass
class _Kept:
    """A version that a server wants."""

    spec: RunnerSpec
    owner: Channel
    restarts: Restarts = field(default_factory=Restarts)
    runner: str = ""
    timer: asyncio.TimerHandle | None = None


class Runners:
    """All runner processes of this installation."""

    def __init__(self, open_artifact: Open) -> None:
        self._open = open_artifact
        self._template: Child | None = None
        self._runners: dict[str, _Runner] = {}
        self._kept: dict[str, _Kept] = {}
        self._numbers = itertools.count(1)
        self._starting: set[asyncio.Task[None]] = set()
        self._closing = False
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Keep a template alive, and do what it reports; cancel to end. The runners end with their template."""
        restarts = Restarts(longest_delay_s=5.0, hold_s=5.0)
        watch = asyncio.create_task(self._watch_memory())
        try:
            await self._wanted.wait()
            while not self._closing:
                template = start("template", (sys.executable, "-I", "-m", "modelkeep.sandbox.template"), ENVIRONMENT)
                self._template = template
                for kept in list(self._kept.values()):
                    self._begin(kept)
                await self._listen(template)
                status = await template.finish(1.0)
                self._template = None
                self._lost_all()
                if not self._closing:
                    delay = restarts.died(time.monotonic()).delay_s
                    log.error("the runners' template has ended", status=status, again_in_s=delay)
                    await asyncio.sleep(delay)
        finally:
            watch.cancel()
            if self._template is not None:
                self._template.signal(signal.SIGKILL)
                await self._template.ended

    def warm_up(self) -> None:
        """Start the template. It takes a second of a core, so this is left until it is wanted or nothing else starts."""
        self._wanted.set()

    def close(self) -> None:
        """Start nothing any more."""
        self._closing = True

    def want(self, owner: Channel, specs: tuple[RunnerSpec, ...]) -> None:
        """Keep a runner for each of these versions, for this server."""
        wanted = {spec.version_id: spec for spec in specs}
        if wanted:
            self.warm_up()
        for version_id in [one for one in self._kept if one not in wanted]:
            kept = self._kept.pop(version_id)
            if kept.timer is not None:
                kept.timer.cancel()
            self._end(kept.runner, Cause.STOPPED)
        for version_id, spec in wanted.items():
            if version_id not in self._kept:
                self._kept[version_id] = kept = _Kept(spec, owner)
                self._begin(kept)

    def inspect(self, owner: Channel, message: control.Inspect) -> None:
        """Start one runner for a validation; it is never started again."""
        self.warm_up()
        self._spawn(self._start(message.spec, message.sample, owner, message.ticket))

    def kill(self, owner: Channel, message: control.Kill) -> None:
        """End a runner of this owner."""
        runner = self._runners.get(message.runner)
        if runner is not None and runner.owner is owner:
            self._end(message.runner, message.cause)

    def forget(self, owner: Channel) -> None:
        """An owner is gone: so are its wishes. Its runners end by themselves, when their socket closes."""
        for version_id, kept in list(self._kept.items()):
            if kept.owner is owner:
                del self._kept[version_id]
                if kept.timer is not None:
                    kept.timer.cancel()
        for runner in list(self._runners.values()):
            if runner.owner is owner:
                self._end(runner.name, Cause.STOPPED)

    # ---- starting

    def _begin(self, kept: _Kept) -> None:
        kept.timer = None
        if self._template is not None and not kept.runner and not self._closing:
            self._spawn(self._start(kept.spec, (), kept.owner, "", kept))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(
        self, spec: RunnerSpec, sample: tuple[Column, ...], owner: Channel, ticket: str, kept: _Kept | None = None
    ) -> None:
        name = f"runner-{next(self._numbers)}"
        if kept is not None:
            kept.runner = name
        try:
            artifact = await self._open(spec.digest)
            if kept is not None and self._kept.get(spec.version_id) is not kept:
                os.close(artifact)  # no longer wanted, or wanted anew: that is another start's business
                return
            self._launch(name, artifact, spec=spec, sample=sample, owner=owner, ticket=ticket)
        except OSError as error:
            detail = f"it could not be started: {error.strerror}"
            self._report(owner, control.Gone(name, spec.version_id, Cause.NOT_STARTED, detail, ticket=ticket))
            self._died(spec.version_id, name, detail)

    def _launch(
        self, name: str, artifact: int, *, spec: RunnerSpec, sample: tuple[Column, ...], owner: Channel, ticket: str
    ) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (near, far):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(write_end, True)
        runner = _Runner(name, spec, owner, ticket, near, read_end)
        self._runners[name] = runner
        asyncio.get_running_loop().add_reader(read_end, self._hear, runner)
        try:
            sent = self._fork(control.Fork(name, spec, sample), (artifact, far.fileno(), write_end))
        finally:
            far.close()
            os.close(artifact)
            os.close(write_end)
        if not sent:
            self._lost(runner)

    def _fork(self, message: control.Fork, fds: tuple[int, ...]) -> bool:
        """Ask the template for a runner; whether there was one to ask."""
        if self._template is None:
            return False
        try:
            self._template.channel.send(message, fds)
        except ChannelClosed:
            return False
        return True

    async def _listen(self, template: Child) -> None:
        while True:
            try:
                message, fds = await template.channel.receive()
            except ChannelClosed:
                return
            match message:
                case control.Forked():
                    self._forked(message, fds[0])
                case control.Exited():
                    self._exited(message)
                case _:
                    log.warning("unexpected message from the template", message=type(message).__name__)

    def _forked(self, message: control.Forked, pidfd: int) -> None:
        runner = self._runners.get(message.runner)
        if runner is None:
            os.close(pidfd)
            return
        runner.pid = message.pid
        runner.pidfd = pidfd
        if runner.cause is not None:
            self._end(runner.name, runner.cause)
            return
        connected = control.Connected(runner.name, runner.spec.version_id, runner.ticket)
        try:
            runner.owner.send(connected, (runner.near.fileno(),))
        except ChannelClosed:
            self._end(runner.name, Cause.STOPPED)
        runner.near.close()

    # ---- ending

    def _end(self, name: str, cause: Cause) -> None:
        runner = self._runners.get(name)
        if runner is None:
            return
        runner.cause = runner.cause or cause
        if runner.pidfd >= 0:
            self._signal(runner)

    def _signal(self, runner: _Runner) -> None:
        try:
            signal.pidfd_send_signal(runner.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("the runner had ended already", runner=runner.name)

    def _exited(self, message: control.Exited) -> None:
        runner = self._runners.pop(message.runner, None)
        if runner is None:
            return
        self._hear(runner)
        cause = runner.cause
        if cause in {None, Cause.EXIT}:  # the latter: a server saw its socket close before the template saw its end
            cause = Cause.SIGNAL if message.status < 0 else Cause.EXIT
        detail = runner.detail or _said(cause, message.status)
        stderr = runner.tail.decode("utf-8", "replace")
        self._release(runner)
        gone = control.Gone(runner.name, runner.spec.version_id, cause, detail, stderr, runner.ticket)
        self._report(runner.owner, gone)
        if not runner.ticket:
            self._died(runner.spec.version_id, runner.name, detail, counts=cause is not Cause.STOPPED)

    def _died(self, version_id: str, name: str, detail: str, *, counts: bool = True) -> None:
        """A kept version has no runner now: start one again, after a while when it dies often."""
        kept = self._kept.get(version_id)
        if kept is None or kept.runner != name or self._closing:
            return
        kept.runner = ""
        if not counts:
            self._begin(kept)
            return
        decision = kept.restarts.died(time.monotonic())
        if decision.held:
            self._report(kept.owner, control.Held(version_id, decision.delay_s, detail))
        kept.timer = asyncio.get_running_loop().call_later(decision.delay_s, self._begin, kept)

    def _lost_all(self) -> None:
        """The template has ended, and all runners with it. That is no fault of theirs: it does not count."""
        for runner in list(self._runners.values()):
            self._lost(runner)

    def _lost(self, runner: _Runner) -> None:
        self._runners.pop(runner.name, None)
        if runner.pidfd >= 0:
            self._signal(runner)  # the kernel ends it with its template, unless it has found a way out of that
        self._release(runner)
        detail = "the process it was started from has ended"
        gone = control.Gone(runner.name, runner.spec.version_id, Cause.NOT_STARTED, detail, ticket=runner.ticket)
        self._report(runner.owner, gone)
        kept = self._kept.get(runner.spec.version_id)
        if kept is not None and kept.runner == runner.name:
            kept.runner = ""

    def _release(self, runner: _Runner) -> None:
        asyncio.get_running_loop().remove_reader(runner.stderr)
        os.close(runner.stderr)
        runner.near.close()
        if runner.pidfd >= 0:
            os.close(runner.pidfd)

    def _report(self, owner: Channel, message: control.Message) -> None:
        try:
            owner.send(message)
        except ChannelClosed:
            log.debug("nobody left to tell", message=type(message).__name__)

    # ---- watching

    def _hear(self, runner: _Runner) -> None:
        """Keep the last of what a runner writes; it is data, never part of our own log."""
        try:
            data = os.read(runner.stderr, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(runner.stderr)
            return
        runner.tail += data
        del runner.tail[:-_STDERR_TAIL]

    async def _watch_memory(self) -> None:
        """End runners whose resident memory passes their limit: RLIMIT_AS does not see every way to hold memory."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for runner in list(self._runners.values()):
                limit = runner.spec.limits.memory_mb << 20
                if runner.pid and runner.cause is None and _resident_bytes(runner.pid) > limit:
                    runner.detail = f"it held more than {runner.spec.limits.memory_mb} MiB of memory"
                    self._end(runner.name, Cause.MEMORY)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _signal_name(number: int) -> str:
    """Real-time signals have numbers only, and a model may die of any of them."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _said(cause: Cause, status: int) -> str:
    match cause:
        case Cause.SIGNAL:
            return f"it was ended by {_signal_name(-status)}"
        case Cause.DEADLINE:
            return "it was ended because it took too long"
        case Cause.EXIT:
            return f"it ended with status {status}"
        case _:
            return ""
