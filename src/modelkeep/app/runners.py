"""Keeps the runners that are wanted: starts them from the warm template, watches their memory, ends them, starts them again.

It opens no model: it hands on the artifact's descriptor, makes a socketpair for each runner and server, and hands one
end to either. Runners belong to no server: a server may end and come back, and finds them warm.
"""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine

import structlog
from msgspec.structs import replace

from modelkeep.app.census import Census
from modelkeep.app.children import Child, start
from modelkeep.app.folders import Folder, Folders
from modelkeep.app.inspections import Inspection, Inspections
from modelkeep.app.kept import Kept, at_rest
from modelkeep.app.residency import Budget, Residency
from modelkeep.app.restarts import Restarts
from modelkeep.app.runner_process import Open, RunnerProcess, close, not_started, open_files, open_golden, report
from modelkeep.app.wishes import Wishes
from modelkeep.contracts.confinement import Confinement, Level, in_force
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import control, loader
from modelkeep.sandbox.control import Cause, Channel, ChannelClosed
from modelkeep.sandbox.lockdown import ENVIRONMENT

log = structlog.get_logger(__name__)

_WATCH_S = 0.25
_GRACE_S = 10.0  # for a server that ended to be there again and want what it wanted: its longest delay and its start
_LAST_RUN_S = 1.0  # beyond the run limit, for the runs of a leaving runner to reach it and their answers to get back
_RUNNERS_A_CORE = 4


class Runners:
    """All runner processes of this installation.

    `grounded` hears how well runners are locked in here each time that is tried, which is then `confinement`. `acceptable` is
    the lowest level that administrators may accept here; what they say beyond does not count. `folders` are lent to runners
    that unpack an archive and cannot do so in memory; None where there are none to lend. `budget` is the memory of all.
    """

    def __init__(
        self,
        open_artifact: Open,
        grounded: Callable[[Confinement], None],
        budget: Budget,
        acceptable: Level | None = None,
        folders: Folders | None = None,
    ) -> None:
        self._open = open_artifact
        self._acceptable = acceptable
        self._folders = folders
        self._template: Child | None = None
        self._runners = self.census = Census()
        self._kept: dict[str, Kept] = {}
        self._residency = Residency[Kept | Inspection](budget, self._runners, self._begin, self._rest, time.monotonic)
        self._wishes = Wishes(_RUNNERS_A_CORE * len(os.sched_getaffinity(0)))
        self._servers: dict[str, Channel] = {}
        self._graces: dict[str, asyncio.TimerHandle] = {}
        self._numbers = itertools.count(1)
        self._inspections = Inspections(self._runners, self._residency, opener=open_artifact, fork=self._fork, name=self._name)
        self._starting: set[asyncio.Task[None]] = set()
        self._grounded = grounded
        self.confinement: Confinement | None = None
        self._accepted: Level | None = None
        self._heard = 0
        self._closing = False
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Keep a template alive, and do what it reports; cancel to end. The runners end with their template."""
        restarts = Restarts(longest_delay_s=5.0, hold_s=5.0)
        if self._folders is not None:
            self._folders.sweep()
        watch = asyncio.create_task(self._watch_memory())
        try:
            await self._wanted.wait()
            while not self._closing:
                template = start("template", (sys.executable, "-I", "-m", "modelkeep.sandbox.template"), ENVIRONMENT)
                self._template = template
                self._begin_all()
                await self._listen(template)
                template.channel.close()
                status = await template.finish(1.0)
                self._template = None
                self._lost_all()
                if not self._closing:
                    delay = restarts.died(time.monotonic()).delay_s
                    log.error("the runners' template has ended", status=status, again_in_s=delay)
                    await asyncio.sleep(delay)
        finally:
            self._closing = True
            watch.cancel()
            for timer in self._graces.values():
                timer.cancel()
            if self._template is not None:
                self._template.signal(signal.SIGKILL)
                await self._template.ended
                self._template.channel.close()
            for runner in self._runners.values():
                runner.release()
            if self._folders is not None:
                self._folders.sweep()

    def warm_up(self) -> None:
        """Start the template. It takes a second of a core, so this is left until it is wanted or nothing else starts."""
        self._wanted.set()

    def close(self) -> None:
        """Start nothing any more."""
        self._closing = True

    def want(self, name: str, server: Channel, wanted: tuple[control.Wanted, ...]) -> None:
        """Keep runners for each of these versions, and attach this server to them; let go of what nobody wants."""
        if wanted:
            self.warm_up()
        grace = self._graces.pop(name, None)
        if grace is not None:
            grace.cancel()
        known = self._servers.get(name) is server  # a server that has just come wants what nobody waits for yet
        news = {one.spec.version_id for one in wanted if not (known and self._wishes.wants(name, one.spec.version_id))}
        self._servers[name] = server
        self._wishes.take(name, wanted)
        self._settle(urgent=known)
        for version_id in news:
            kept = self._kept[version_id]
            self._tell_if_held(kept, server)
            if kept.asleep:
                report(server, control.Asleep(version_id))

    def ready(self, message: control.Ready) -> None:
        """A runner has loaded: it counts for what it holds now, and takes the place of one that is to go."""
        runner = self._runners.get(message.runner)
        if runner is None or runner.ready:
            return
        runner.loaded(message.placed)
        kept = self._kept.get(runner.spec.version_id)
        if kept is None or runner.name not in kept.names:
            return
        kept.measured_bytes = runner.held_bytes
        kept.used = max(kept.used, time.monotonic())
        for name in kept.retiring - {runner.name}:
            kept.names.remove(name)
            self._leave(name)
        kept.retiring.clear()
        self._residency.look(self._kept.values())

    def used(self, message: control.Used) -> None:
        """A server has run these versions in the last second."""
        now = time.monotonic()
        for kept in filter(None, map(self._kept.get, message.version_ids)):
            kept.used = now

    def wake(self, message: control.Wake) -> None:
        """A request waits for a version that is asleep."""
        kept = self._kept.get(message.version_id)
        if kept is not None:
            self._residency.wake(kept)
            self._residency.look(self._kept.values())

    def inspect(self, owner: Channel, message: control.Inspect) -> None:
        """Start one runner for a validation, as soon as there is memory for it; it is never started again."""
        self.warm_up()
        self._inspections.ask(owner, message)

    def kill(self, server: Channel, message: control.Kill) -> None:
        """End a runner that this server is served by, or that this worker waits for."""
        runner = self._runners.get(message.runner)
        if runner is None:
            self._inspections.withdraw(server, message.runner)
        elif runner.serves(server):
            runner.end(message.cause)

    def forget(self, name: str, server: Channel) -> None:
        """A server or worker is gone. What a server wanted is kept for a while; a validation ends with its worker."""
        self._inspections.withdraw(server)
        for runner in self._runners.values():
            if runner.ticket and runner.serves(server):
                runner.end(Cause.STOPPED)
            runner.forget(server)
        if self._servers.get(name) is server:
            del self._servers[name]
            self._graces[name] = asyncio.get_running_loop().call_later(_GRACE_S, self._expire, name)

    # ---- how many there should be

    def _expire(self, name: str) -> None:
        """A server has not come back: what it wanted is wanted no more."""
        del self._graces[name]
        self._wishes.drop(name)
        self._settle()

    def accept(self, message: control.Accept) -> None:
        """From now on this lower level of the lock-down is accepted: what may not run any more ends, the rest may try."""
        level = in_force(message.level, self._acceptable)
        stale = message.snapshot < self._heard  # a server that lags behind, or has just started, tells of what was
        self._heard = max(self._heard, message.snapshot)
        if stale or level == self._accepted:
            return
        self._accepted = level
        for kept in self._kept.values():
            kept.calm()
            if not self._may_load(kept.spec):
                log.warning("runners end: a lower lock-down is no longer accepted", version=kept.spec.version_id)
                self._shrink(kept, 0)
            self._fill(kept)
        for runner in self._runners.values():
            if runner.ticket and not self._may_load(runner.spec):
                runner.end(Cause.STOPPED)  # its job tries again, by what then is accepted

    def _may_load(self, spec: RunnerSpec) -> bool:
        return self.confinement is None or loader.may_load(replace(spec, accepted=self._accepted), self.confinement)

    def _settle(self, *, urgent: bool = False) -> None:
        """Bring what there is to what there should be. `urgent`: what is new is to answer soon, so others make room for it."""
        versions = self._wishes.versions()
        for version_id in self._kept.keys() - versions.keys():
            gone = self._kept.pop(version_id)
            gone.calm()
            self._residency.forget(gone)
            self._shrink(gone, 0)
        fresh: list[Kept] = []
        for version_id, wish in versions.items():
            kept = self._kept.get(version_id)
            if kept is None:
                kept = self._kept[version_id] = Kept(wish.spec)
                fresh.append(kept)
            kept.take(wish)
            if kept.keep == "always":
                self._residency.wake(kept)
        if self._template is not None:
            for kept in sorted(fresh, key=lambda one: one.keep != "always"):
                self._residency.settle(kept, urgent=urgent and not kept.lazy)
        for kept in self._kept.values():
            self._shrink(kept, kept.replicas)
            self._fill(kept)
            self._connect(kept)
        self._residency.look(self._kept.values())

    def _begin_all(self) -> None:
        """There is a template: have those start that were wanted while there was none, as far as there is room for them."""
        known = sorted(self._kept.values(), key=lambda one: (one.keep != "always", -one.used))
        for kept in known:
            if not kept.asleep and not self._residency.waits(kept):
                self._residency.settle(kept, urgent=False)
                if kept.asleep:
                    self._rest(kept)

    def _shrink(self, kept: Kept, replicas: int) -> None:
        """Let the youngest go until there are so many; one whose replacement is on its way is not counted, unless all go."""
        spared = kept.retiring if replicas else set()
        staying = [name for name in kept.names if name not in spared]
        for name in reversed(staying[replicas:]):
            kept.names.remove(name)
            self._leave(name)
        if not replicas:
            kept.retiring.clear()

    def _leave(self, name: str) -> None:
        """Have a runner finish and end."""
        runner = self._runners.get(name)
        if runner is None:
            return  # its artifact is still being opened: nothing will come of it
        for server in runner.attached():
            runner.detach(server)
        runner.drain()
        last_s = runner.spec.limits.run_timeout_s + _LAST_RUN_S if runner.finishing() else 0.0
        runner.last_moment = asyncio.get_running_loop().call_later(last_s, runner.end, Cause.STOPPED)

    def _fill(self, kept: Kept) -> None:
        """Start what is missing, unless this version is asleep, waits for room, or died and has to wait.

        Its first runner has been let in already; any further one is started only while there is room for it.
        """
        if self._template is None or self._closing or kept.again is not None or kept.asleep or self._residency.waits(kept):
            return
        while kept.missing > 0 and self._residency.grows(kept, self._kept.values(), first=not kept.names):
            name = self._name()
            kept.names.append(name)
            self._runners.opening[name] = kept.expected_bytes
            self._spawn(self._start(kept, name))

    def _connect(self, kept: Kept) -> None:
        """Attach to each runner of the version those servers that want it, and no others."""
        for runner in self._runners.of(kept):
            for name, server in self._servers.items():
                if not self._wishes.wants(name, kept.spec.version_id):
                    runner.detach(server)
                elif runner.cause is None:
                    runner.attach(server)

    def _wanting(self, kept: Kept) -> list[Channel]:
        version_id = kept.spec.version_id
        return [server for name, server in self._servers.items() if self._wishes.wants(name, version_id)]

    # ---- starting

    def _name(self) -> str:
        return f"runner-{next(self._numbers)}"

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, kept: Kept, name: str) -> None:
        expected = self._runners.opening[name]
        try:
            files = await open_files(self._open, kept.spec)
            golden = await open_golden(self._open, kept.spec)
        except OSError as error:
            del self._runners.opening[name]
            gone = not_started(name, kept.spec, error)
            for server in self._wanting(kept):
                report(server, gone)
            self._died(kept, name, gone.detail)
            return
        del self._runners.opening[name]
        if name not in kept.names:  # no longer wanted
            close(*files, golden)
            return
        try:
            runner = self._runners[name] = RunnerProcess(name, kept.spec, expected_bytes=expected)
        except OSError as error:  # there are no descriptors left
            close(*files, golden)
            self._died(kept, name, not_started(name, kept.spec, error).detail)
            return
        runner.golden = golden
        for server in self._wanting(kept):
            runner.attach(server)
        self._fork(runner, files)

    def _fork(self, runner: RunnerProcess, files: tuple[int, ...], inspection: control.Inspect | None = None) -> None:
        if self._template is None:
            close(*files)
            self._lost(runner)
            return
        accepted = in_force(inspection.spec.accepted, self._acceptable) if inspection is not None else self._accepted
        runner.spec = replace(runner.spec, accepted=accepted)
        folder = self._lend(runner)
        try:
            runner.fork(self._template.channel, files, inspection.sample if inspection is not None else (), folder)
        except ChannelClosed:
            self._lost(runner)
        except OSError as error:
            log.warning("a runner cannot be started", runner=runner.name, error=error.strerror)
            self._lost(runner)
        finally:
            if folder is not None:
                os.close(folder.fd)

    def _lend(self, runner: RunnerProcess) -> Folder | None:
        """Make a folder for a runner that needs one, unless runners are known to have theirs in memory here."""
        in_memory = self.confinement is not None and self.confinement.holds("namespaces")
        if self._folders is None or in_memory or not loader.unpacks(runner.spec):
            return None
        return self._folders.lend(runner.name, runner.spec.limits.memory_mb << 20)

    def _take_back(self, runner: RunnerProcess) -> None:
        if self._folders is not None:
            self._spawn(self._folders.take_back(runner.name))

    async def _listen(self, template: Child) -> None:
        while True:
            try:
                message, fds = await template.channel.receive()
            except ChannelClosed:
                return
            match message:
                case control.Grounded():
                    self._learn(message.confinement)
                case control.Forked():
                    runner = self._runners.get(message.runner)
                    if runner is None:
                        os.close(fds[0])
                    else:
                        runner.forked(message.pid, fds[0])
                case control.Exited():
                    self._exited(message)
                case _:
                    log.warning("unexpected message from the template", message=type(message).__name__)

    def _learn(self, confinement: Confinement) -> None:
        """A template has tried the lock-down."""
        if confinement != self.confinement:
            level, missing = confinement.level.short, confinement.missing
            (log.info if confinement.level >= Level.WALLED else log.warning)(
                "runners are locked in", level=level, missing=missing
            )
        self.confinement = confinement
        self._grounded(confinement)

    # ---- ending

    def _exited(self, message: control.Exited) -> None:
        runner = self._runners.pop(message.runner, None)
        if runner is None:
            return
        gone = runner.ended(message)
        self._take_back(runner)
        kept = self._kept.get(gone.version_id)
        if kept is not None:
            self._died(kept, runner.name, gone.detail, counts=gone.cause is not Cause.STOPPED)
        self._residency.look(self._kept.values())

    def _died(self, kept: Kept, name: str, detail: str, *, counts: bool = True) -> None:
        """A kept version has a runner less: start one again, after a while when it dies often. Others go on answering."""
        if name not in kept.names or self._closing:
            return
        kept.names.remove(name)
        kept.retiring.discard(name)
        if not counts:
            self._fill(kept)
            return
        decision = kept.restarts.died(time.monotonic())
        if kept.again is not None:
            kept.again.cancel()
        kept.again = asyncio.get_running_loop().call_later(decision.delay_s, self._try_again, kept)
        kept.held = detail if decision.held else None
        for server in self._wanting(kept):
            self._tell_if_held(kept, server)

    def _tell_if_held(self, kept: Kept, server: Channel) -> None:
        """Tell a server how long a version is held back, unless it has a runner that may yet answer."""
        if kept.held is not None and kept.again is not None and not kept.names:
            left_s = max(0.0, kept.again.when() - asyncio.get_running_loop().time())
            report(server, control.Held(kept.spec.version_id, left_s, kept.held))

    def _try_again(self, kept: Kept) -> None:
        kept.again = kept.held = None
        self._fill(kept)

    def _lost_all(self) -> None:
        """The template has ended, and all runners with it. That is no fault of theirs: it does not count."""
        for runner in list(self._runners.values()):
            self._lost(runner)

    def _lost(self, runner: RunnerProcess) -> None:
        self._runners.pop(runner.name, None)
        gone = runner.lost()
        self._take_back(runner)
        kept = self._kept.get(gone.version_id)
        if kept is not None and runner.name in kept.names:
            kept.names.remove(runner.name)
            kept.retiring.discard(runner.name)

    # ---- memory

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                self._look()
            except OSError:
                log.exception("what runners hold could not be seen")

    def _look(self) -> None:
        template = self._template.pid if self._template is not None else 0
        for runner in self._runners.look(template, at_rest(self._kept.values(), time.monotonic())):
            self._replace(runner)
        self._residency.relieve(self._kept.values())
        self._residency.look(self._kept.values())
        for kept in self._kept.values():
            self._fill(kept)

    def _replace(self, runner: RunnerProcess) -> None:
        """Have a runner that has grown near its limit go, once there is another in its place where there is room for both."""
        kept = self._kept.get(runner.spec.version_id)
        if kept is None or runner.name not in kept.names or kept.retiring or kept.again is not None:
            return
        log.info("a runner is replaced before its memory limit ends it", version=kept.spec.version_id, runner=runner.name)
        if self._residency.fits(kept.expected_bytes):
            kept.retiring.add(runner.name)
        else:
            kept.names.remove(runner.name)
            self._leave(runner.name)
        self._fill(kept)

    def _begin(self, tenant: Kept | Inspection) -> None:
        """There is room for it."""
        if isinstance(tenant, Inspection):
            tenant.begin()
        else:
            self._fill(tenant)

    def _rest(self, kept: Kept | Inspection) -> None:
        """Have a version's runners finish and go, until somebody asks for it; those of a validation go by themselves."""
        if isinstance(kept, Inspection):
            return
        self._shrink(kept, 0)
        for server in self._wanting(kept):
            report(server, control.Asleep(kept.spec.version_id))
