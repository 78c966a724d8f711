"""Runners of validations and replays: each takes its share of the memory of all, and waits until there is room for it.

A job has up to two of them at once, the uploaded file and the form that may serve instead. So room is kept for the second with
the first, and the second never waits: two jobs cannot wait for each other. Who waits longer than a while is told why.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from modelkeep.app.census import Census
from modelkeep.app.kept import A_RUNNER, Kept
from modelkeep.app.residency import Residency
from modelkeep.app.runner_process import Open, RunnerProcess, close, not_started, open_files, report
from modelkeep.contracts.snapshot import KeepLoaded
from modelkeep.sandbox import control
from modelkeep.sandbox.control import Cause, Channel

log = structlog.get_logger(__name__)

WAIT_S: Final = 120.0
_LOADED: Final = 2  # what a file takes in memory that nobody has loaded yet, for each of its bytes


class Inspection:
    """One runner that was asked for. As a `Tenant` it may wait for room; it never goes for others, and ends by itself."""

    keep: KeepLoaded = "always"
    idle_s = float("inf")
    spare = False
    names: tuple[str, ...] = ()

    def __init__(
        self, owner: Channel, message: control.Inspect, begin: "Callable[[Inspection], None]", limit_bytes: int
    ) -> None:
        self.owner = owner
        self.message = message
        self.asleep = False
        self.used = 0.0
        self.patience: asyncio.TimerHandle | None = None
        self._begin = begin
        self._limit_bytes = limit_bytes

    @property
    def runner_bytes(self) -> int:
        """What its runner will hold: as much as validation saw, or some more than the file."""
        spec = self.message.spec
        return min(spec.memory_bytes or _LOADED * spec.size, spec.limits.memory_mb << 20) + A_RUNNER

    @property
    def reserve_bytes(self) -> int:
        """What is kept free for the runner beside it, which finds it there; of two large ones, what the budget has left."""
        return 0 if self.message.beside else max(0, min(self.runner_bytes, self._limit_bytes - self.runner_bytes))

    @property
    def expected_bytes(self) -> int:
        """What it needs room for."""
        return self.runner_bytes + self.reserve_bytes

    def begin(self) -> None:
        """There is room."""
        if self.patience is not None:
            self.patience.cancel()
        self._begin(self)


class Inspections:
    """Those that wait, and those whose file is being opened. `fork` starts the process of a runner; `name` is a new name."""

    def __init__(
        self,
        census: Census,
        residency: "Residency[Kept | Inspection]",
        *,
        opener: Open,
        fork: Callable[[RunnerProcess, tuple[int, ...], control.Inspect], None],
        name: Callable[[], str],
    ) -> None:
        self._census = census
        self._residency = residency
        self._open = opener
        self._fork = fork
        self._name = name
        self._waiting: dict[str, Inspection] = {}
        self._starting: set[asyncio.Task[None]] = set()

    def ask(self, owner: Channel, message: control.Inspect) -> None:
        """Start a runner, now or when there is room for it."""
        one = Inspection(owner, message, self._begin, self._residency.limit_bytes)
        if message.beside:
            one.begin()
            return
        self._waiting[message.ticket] = one
        self._residency.settle(one, urgent=True)
        if message.ticket in self._waiting:
            log.info("a validation waits for memory", version=message.spec.version_id, reason=self._lack(one))
            one.patience = asyncio.get_running_loop().call_later(WAIT_S, self._refuse, one)

    def withdraw(self, owner: Channel, ticket: str | None = None) -> None:
        """Nobody waits for this one any more, or for any that this worker asked for."""
        for one in list(self._waiting.values()):
            if one.owner is owner and ticket in {None, one.message.ticket}:
                self._forget(one)

    def _begin(self, one: Inspection) -> None:
        self._waiting.pop(one.message.ticket, None)
        name = self._name()
        self._census.opening[name] = 0 if one.message.beside else one.expected_bytes  # its room is kept for it
        starting = asyncio.get_running_loop().create_task(self._start(one, name))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _start(self, one: Inspection, name: str) -> None:
        message = one.message
        try:
            files = await open_files(self._open, message.spec)
        except OSError as error:
            report(one.owner, not_started(name, message.spec, error, message.ticket))
            return
        finally:
            del self._census.opening[name]
        try:
            runner = self._census[name] = RunnerProcess(name, message.spec, message.ticket, one.runner_bytes)
        except OSError as error:  # there are no descriptors left
            close(*files)
            report(one.owner, not_started(name, message.spec, error, message.ticket))
            return
        runner.beside, runner.reserve_bytes = message.beside, one.reserve_bytes
        runner.attach(one.owner)
        runner.drain()
        self._fork(runner, files, message)

    def _refuse(self, one: Inspection) -> None:
        self._forget(one)
        spec = one.message.spec
        detail = f"it waited {WAIT_S:g} s for memory: {self._lack(one)}"
        log.warning("a validation found no memory", version=spec.version_id, reason=detail)
        report(one.owner, control.Gone("", spec.version_id, Cause.NOT_STARTED, detail, ticket=one.message.ticket))

    def _forget(self, one: Inspection) -> None:
        self._waiting.pop(one.message.ticket, None)
        self._residency.forget(one)
        if one.patience is not None:
            one.patience.cancel()

    def _lack(self, one: Inspection) -> str:
        needed, held, most = (
            size >> 20 for size in (one.expected_bytes, self._census.held_bytes(), self._residency.limit_bytes)
        )
        return f"{needed} MiB are needed, and runners hold {held} of the {most} MiB that they may (runners.budget_mb)"
