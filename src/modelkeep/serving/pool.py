"""The versions this server can answer with, and their runners. It starts and kills nothing itself: the supervisor does."""

import asyncio
import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial

import numpy as np
import structlog

from modelkeep.contracts.confinement import Level
from modelkeep.contracts.errors import ModelkeepError, VersionQuarantined
from modelkeep.contracts.signature import Dtype, Layout, Signature
from modelkeep.contracts.snapshot import DeploymentSettings, GoldenCheck, Memory, ServedVersion
from modelkeep.sandbox import control, frames
from modelkeep.sandbox.agreement import Differs
from modelkeep.sandbox.connection import RunnerConnection, RunnerGone
from modelkeep.sandbox.golden import INSTEAD
from modelkeep.sandbox.memory import resident_bytes
from modelkeep.serving.batcher import Batcher, Finished
from modelkeep.serving.calls import Run
from modelkeep.serving.codec import Tensors
from modelkeep.serving.golden import GoldenRows
from modelkeep.serving.large import Large
from modelkeep.serving.matrix import plain_matrix
from modelkeep.serving.meter import Meter
from modelkeep.serving.modes import cost_from, plan
from modelkeep.serving.notices import said_of
from modelkeep.serving.recorder import Recorder
from modelkeep.serving.scaling import Scale
from modelkeep.serving.settings import ServingSettings
from modelkeep.serving.statistics import Sum

log = structlog.get_logger(__name__)

_LONGEST_REASON = 500
_AUTO = Memory()

Send = Callable[[control.Message], None]


class Replica:
    """One runner process of a version, by its name at the supervisor and its socket."""

    def __init__(self, name: str, connection: RunnerConnection, send: Send) -> None:
        self.name = name
        self.connection = connection
        self.leaving = False
        self._send = send

    def kill(self, cause: control.Cause = control.Cause.DEADLINE) -> None:
        """Ask the supervisor to end the process, and wait for nothing more from it: its socket may have other holders."""
        with contextlib.suppress(control.ChannelClosed):  # the supervisor has gone, and this process with it
            self._send(control.Kill(self.name, cause))
        self.connection.abort()

    def release(self) -> None:
        """Let go of the process, which others may go on using."""
        self.leaving = True
        self.connection.close()


class Served:
    """One version on this server: its queue, and whether a warm runner stands behind it."""

    def __init__(
        self,
        version: ServedVersion,
        settings: ServingSettings,
        recorder: Recorder,
        wake: Callable[[], None],
        large: Large | None = None,
    ) -> None:
        self.version = version
        self._wake = wake
        self._runs = 0
        self.last_run = 0.0
        self.number = str(version.number).encode()
        self.told = said_of(version)
        self.ready = False
        self.asleep = False
        self.failing = ""
        self.golden = GoldenRows(version)
        self.processes: dict[int, int] = {}
        """Bytes of memory that unpacked files take, by the process of the runner that they are for."""
        self.load_s = 0.0
        self.mismatches = 0
        """How often a runner of it has answered golden rows otherwise: what was answered before is not given again."""
        self.settings = DeploymentSettings()
        self.matrix = plain_matrix(version.signature)
        self._cost = cost_from(version.cost_ms)
        self._max_rows = settings.max_batch_rows
        self._recorder = recorder
        self._meter: Meter | None = None
        self._scale = Scale(self.settings.replicas, threads=version.spec.threads_used)
        self.plan = plan(self.settings.batching, self._cost, self._max_rows, independent=self.version.independent)
        self.batcher = Batcher(
            self.plan,
            max_queue=settings.max_queue,
            run_timeout_s=version.spec.limits.run_timeout_s,
            finish=self._finish,
            missed=self._missed,
            large=large,
        )

    def configure(self, settings: DeploymentSettings, meter: Meter) -> None:
        """Take the settings of the deployment that this version answers for, and where its runs are counted."""
        self._meter = meter
        self.settings = settings
        self.plan = plan(settings.batching, self._cost, self._max_rows, independent=self.version.independent)
        self.batcher.reconsider(self.plan)
        self._scale.configure(settings.replicas)

    @property
    def answers(self) -> bool:
        """Whether requests are answered: there is a runner, or will be for the first of them."""
        return self.ready or self.asleep

    @property
    def replicas(self) -> int:
        """How many runners this server wants for the version."""
        return 1 if self.version.spec.spare else self._scale.wanted

    def rest(self) -> None:
        """It has no runners until it is asked."""
        self.asleep = True
        self.batcher.unhold()
        if self.batcher.waiting:
            self._missed()

    def count_mismatch(self) -> None:
        """Count a runner that answers its golden rows otherwise than at validation."""
        self.mismatches += 1
        if self._meter is not None:
            self._meter.golden_mismatch()

    def used(self) -> bool:
        """Whether it has run since this was last asked, or runs."""
        runs, self._runs = self._runs, self.batcher.runs
        return runs != self._runs or not self.batcher.idle

    def rouse(self) -> None:
        """Have its runners started, if it sleeps: somebody asks for it, or is about to."""
        if self.asleep:
            self.asleep = False
            self._wake()

    def _missed(self) -> None:
        if self.asleep and self._meter is not None:
            self._meter.cold_start()
        self.rouse()

    def memory_bytes(self) -> int:
        """Return what its runners hold now, unpacked files included; pages that they share count for each of them."""
        return sum(resident_bytes(pid) + placed for pid, placed in list(self.processes.items()))

    def balance(self) -> bool:
        """Look at the load since the last look; whether another number of runners is wanted now."""
        batcher = self.batcher
        return self._scale.look(batcher.busy_s(), batcher.waiting, batcher.replicas, spread=self.plan.spread)

    def _finish(self, finished: Finished, run: Run) -> ModelkeepError | None:
        """Write a run's answers down, then count them."""
        trouble = self._recorder.answered(finished, run)
        if trouble is None and self._meter is not None:
            answered, now = self._meter.answered, time.monotonic()
            rows = told = answers = 0
            totals = queued = found_s = 0.0
            run_s, preprocess_s = run.run_s, run.preprocess_s
            for call, response in finished:
                rows += call.rows
                if not isinstance(response, ModelkeepError):
                    total = now - call.started
                    found = 0.0 if run.age_s is None or call.asked is None else call.asked.took_s
                    queue = max(0.0, total - run_s - preprocess_s - found)
                    answered(call.rows, total, queue, run_s, preprocess_s=preprocess_s)
                    if call.route.arm is not None:
                        call.route.arm.answered(call, total)
                    answers += 1
                    told += call.rows
                    totals += total
                    queued += queue
                    found_s += found
            runs = run.age_s is None
            if runs:
                self._meter.ran(len(finished), rows)
                self.last_run = time.time()
            self._meter.sums.ran(
                Sum(
                    answered=answers,
                    rows=told if runs else 0,
                    total_s=totals,
                    queue_s=queued,
                    preprocess_s=answers * preprocess_s,
                    run_s=answers * run_s,
                    hits=0 if runs else answers,
                    hit_s=found_s,
                    last=self.last_run,
                ),
                runs,
            )
        return trouble


class Pool:
    """All versions that the router wants, each with a runner or waiting for one."""

    def __init__(
        self, settings: ServingSettings, send: Send, changed: Callable[[], None], recorder: Recorder, large: Large | None = None
    ) -> None:
        self._settings = settings
        self._large = large or Large()
        self._recorder = recorder
        self._replicas: dict[str, tuple[Served, Replica]] = {}
        self._send = send
        self._changed = changed
        self._served: dict[str, Served] = {}
        self._openings: set[asyncio.Task[None]] = set()
        self._connections: dict[str, RunnerConnection] = {}
        self._coming: set[str] = set()
        self._asked: tuple[control.Wanted, ...] = ()
        self._memory: Mapping[str, Memory] = {}
        self._golden: Mapping[str, GoldenCheck] = {}
        self._lazy: Collection[str] = ()

    def want(
        self,
        versions: Iterable[ServedVersion],
        memory: Mapping[str, Memory],
        golden: Mapping[str, GoldenCheck] | None = None,
        lazy: Collection[str] = (),
    ) -> None:
        """Keep runners for these versions and let go of all others.

        A version is immutable: its id is enough, but for what its answers say of its deprecation. `memory`: when those that
        answer for deployments have runners at all, by their ids. `golden`: what becomes of runners that answer golden rows
        otherwise than at validation ("enforce" where nothing is said). `lazy`: those that are not loaded before somebody asks
        for them.
        """
        wanted = {version.id: version for version in versions}
        self._memory, self._golden, self._lazy = memory, golden or {}, lazy
        for version_id in self._served.keys() - wanted.keys():
            del self._served[version_id]
        for version_id, version in wanted.items():
            if version_id not in self._served:
                wake = partial(self._send, control.Wake(version_id))
                shadow = version.spec.spare  # what it answers is written down nowhere, and takes no room from others
                recorder, large = (Recorder(None, max_payload=0), Large()) if shadow else (self._recorder, self._large)
                self._served[version_id] = Served(version, self._settings, recorder, wake, large)
            self._served[version_id].told = said_of(version)
            if self._golden.get(version_id) == "off":
                self._served[version_id].golden.differs = ""
        self._ask()

    def accept(self, level: Level | None, snapshot: int) -> None:
        """Tell the supervisor what administrators accept of the lock-down, by the snapshot of this number."""
        self._send(control.Accept(level, snapshot))

    def balance(self) -> None:
        """Let the number of each version's runners follow its load; to be called about once a second."""
        changed = [served.balance() for served in self._served.values()]  # all of them look, not only until the first change
        if any(changed):
            self._ask()
        self._check_golden_rows()
        used = tuple(version_id for version_id, served in self._served.items() if served.used())
        if used:
            self._send(control.Used(used))

    def _check_golden_rows(self) -> None:
        """Have those asked again whose turn it is, as few a look as it takes to ask each in time: none come all at once."""
        every_s, now = self._settings.golden_check_s, time.monotonic()
        if not every_s:
            return
        asked = [one for one in self._served.values() if one.ready and one.golden and self._check_of(one) != "off"]
        due = (one for one in asked if now - one.golden.asked_at >= every_s)
        for served in itertools.islice(due, math.ceil(len(asked) / every_s)):
            served.golden.asked_at = now
            for owner, replica in list(self._replicas.values()):
                if owner is served and not replica.leaving:
                    self._spawn(self._ask_again(served, replica))

    def get(self, version_id: str) -> Served | None:
        """Return the version, if it is wanted."""
        return self._served.get(version_id)

    def all(self) -> list[Served]:
        """Return every wanted version."""
        return list(self._served.values())

    def running(self) -> int:
        """Return how many runs are under way that somebody waits for."""
        return sum([one.batcher.busy for one in self._served.values() if not one.version.spec.spare])

    def take(self, message: control.Message, fds: list[int]) -> None:
        """Act on a message of the supervisor about runners."""
        match message:
            case control.Connected():
                self._coming.add(message.runner)
                self._spawn(self._open(message, *fds))
            case control.Gone():
                self._gone(message)
            case control.Leave():
                self._leave(message.runner)
            case control.Held():
                self._held(message)
            case control.Asleep():
                self._asleep(message.version_id)
            case _:
                log.warning("unexpected message from the supervisor", message=type(message).__name__)

    def _ask(self) -> None:
        """Tell the supervisor what is wanted, the whole of it, when it has changed."""
        wanted = tuple(
            control.Wanted(one.version.spec, one.replicas, self._memory.get(version_id, _AUTO), version_id in self._lazy)
            for version_id, one in self._served.items()
        )
        if wanted != self._asked:
            self._asked = wanted
            self._send(control.Want(wanted))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._openings.add(task)
        task.add_done_callback(self._openings.discard)

    async def _open(self, message: control.Connected, fd: int, golden: int = -1) -> None:
        """Wait until the runner has loaded, have it answer its golden rows or one made-up row, then let it answer anyone."""
        connection = self._connections[message.runner] = await RunnerConnection.open(fd)
        connection.closed.add_done_callback(lambda _closed: self._forget(message.runner, connection))
        served = self._served.get(message.version_id)
        wanted = message.runner in self._coming
        self._coming.discard(message.runner)
        if served is None or not wanted:
            connection.close()
            if golden >= 0:
                os.close(golden)
            return
        if golden >= 0:
            served.golden.read(golden)
        replica = Replica(message.runner, connection, self._send)
        limits = served.version.spec.limits
        try:
            async with asyncio.timeout(limits.load_timeout_s):
                loaded = await connection.loaded
                if isinstance(loaded, frames.LoadFailed):
                    served.failing = f"{loaded.reason}: {loaded.detail}"[:_LONGEST_REASON]
                    log.error("model cannot be loaded", version=served.version.id, reason=loaded.reason, detail=loaded.detail)
                    return
                if not await self._answers_as_then(served, replica):
                    return
        except TimeoutError:
            served.failing = f"loading took longer than {limits.load_timeout_s:g} s"
            replica.kill()
            return
        except RunnerGone as gone:
            if gone.protocol_error:
                replica.kill(control.Cause.PROTOCOL)
            return
        served.golden.asked_at = time.monotonic()
        served.load_s = loaded.seconds
        served.processes[message.pid] = loaded.placed
        connection.closed.add_done_callback(lambda _closed: served.processes.pop(message.pid, None))
        connection.closed.add_done_callback(lambda closed: self._closed(served, replica, closed.result()))
        self._replicas[replica.name] = (served, replica)
        served.batcher.attach(replica)
        served.ready = True
        served.asleep = False
        served.failing = ""
        self._send(control.Ready(message.runner, loaded.placed))
        log.info(
            "runner ready", version=served.version.id, model=served.version.model, runner=message.runner, seconds=loaded.seconds
        )
        self._changed()

    async def _ask_again(self, served: Served, replica: Replica) -> None:
        """Have a runner that answers already answer its golden rows; one that does otherwise than at validation is ended."""
        try:
            async with asyncio.timeout(served.version.spec.limits.run_timeout_s):
                await self._answers_as_then(served, replica)
        except (TimeoutError, RunnerGone):
            pass  # it has much to do, or has ended: that is noticed elsewhere

    def _check_of(self, served: Served) -> GoldenCheck:
        return self._golden.get(served.version.id, "enforce")

    async def _answers_as_then(self, served: Served, replica: Replica) -> bool:
        """Have a runner answer its golden rows, or a made-up one; whether it may serve, which it may not if it was ended."""
        check = self._check_of(served) != "off"
        try:
            await served.golden.ask(replica.connection, made_up_row(served.version.signature), check=check)
        except Differs as error:
            return self._differs(served, replica, error)
        served.golden.differs = ""
        return True

    def _differs(self, served: Served, replica: Replica, error: Differs) -> bool:
        """Count and tell that a runner answers otherwise, and end it unless it is to go on; whether it may serve."""
        said = f"It answers golden rows otherwise than at validation; {INSTEAD}. {error}"[:_LONGEST_REASON]
        check = self._check_of(served)
        ends = check == "enforce"
        (log.error if ends else log.warning)(
            "golden rows are answered otherwise",
            version=served.version.id,
            model=served.version.model,
            detail=str(error),
            golden=check,
        )
        served.count_mismatch()
        if not ends:
            served.golden.differs = said
            return True
        served.failing = said
        replica.kill(control.Cause.MISMATCH)
        return False

    def _forget(self, runner: str, connection: RunnerConnection) -> None:
        if self._connections.get(runner) is connection:
            del self._connections[runner]

    def _leave(self, runner: str) -> None:
        """A runner is to go: it finishes what it has, and gets nothing more."""
        served, replica = self._replicas.get(runner, (None, None))
        if served is not None and replica is not None:
            served.batcher.detach(replica)
        elif runner in self._connections:
            self._connections[runner].close()
        self._coming.discard(runner)  # it may have come only now, in the same breath

    def _closed(self, served: Served, replica: Replica, gone: RunnerGone) -> None:
        if self._replicas.get(replica.name, (None, None))[1] is replica:
            del self._replicas[replica.name]
        asked_to_leave = replica.leaving
        served.batcher.detach(replica)
        served.ready = served.batcher.attached
        if asked_to_leave:
            self._changed()
            return
        if gone.protocol_error:
            log.error("runner broke the protocol", version=served.version.id, error=gone.protocol_error)
        # A runner that closes its socket and lives on is of no use to anyone.
        replica.kill(control.Cause.PROTOCOL if gone.protocol_error else control.Cause.EXIT)
        self._changed()

    def _gone(self, message: control.Gone) -> None:
        connection = self._connections.pop(message.runner, None)
        if connection is not None:
            connection.abort()  # a child that the runner left behind may still hold the other end
        served = self._served.get(message.version_id)
        if served is not None and message.cause is not control.Cause.STOPPED:
            served.failing = served.failing or f"{message.cause}: {message.detail}"
            log.warning(
                "runner gone", version=message.version_id, cause=message.cause, detail=message.detail, stderr=message.stderr
            )

    def _asleep(self, version_id: str) -> None:
        served = self._served.get(version_id)
        if served is not None:
            served.rest()
            log.debug("asleep until it is asked", version=version_id, model=served.version.model)
            self._changed()

    def _held(self, message: control.Held) -> None:
        served = self._served.get(message.version_id)
        if served is None:
            return
        served.failing = message.detail
        served.batcher.hold(VersionQuarantined(retry_after_s=message.retry_after_s))
        log.error("version held back", version=message.version_id, detail=message.detail, retry_after_s=message.retry_after_s)
        self._changed()


# A grey picture of one pixel, as a PNG.
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


def made_up_row(signature: Signature) -> Tensors:
    """Return one row of zeros, empty texts and grey pictures: what a fresh runner runs first, so that no caller pays for it."""
    tensors: Tensors = {}
    for spec in signature.inputs:
        shape = tuple(1 if length == -1 else length for length in spec.shape)
        if spec.dtype is Dtype.BYTES:
            array = np.empty(shape, dtype=object)
            array[...] = _PIXEL if signature.layout is Layout.IMAGE else ""
            tensors[spec.name] = array
        else:
            tensors[spec.name] = np.zeros(shape, dtype=spec.dtype.numpy)
    return tensors
