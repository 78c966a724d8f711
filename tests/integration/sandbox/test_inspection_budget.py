"""Runners of validations and replays keep within the memory of all, wait for it, and say what they waited for."""

import asyncio
import errno
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import Context
from pathlib import Path

import pytest
from msgspec.structs import replace

from fixtures import artifacts, python_models
from modelkeep.app import inspections
from modelkeep.app import runners as supervising
from modelkeep.app.kept import A_RUNNER
from modelkeep.app.residency import Budget
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.sandbox import control
from modelkeep.sandbox.control import Cause, Channel, ChannelClosed
from modelkeep.worker.runners import Runners, RunnerUnavailable

PATIENCE_S = 60.0
EACH = 60 << 20
JOBS = 8


class House:
    """The supervisor's runners, and a worker that asks for some over a real channel."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        near, far = socket.socketpair()
        self.mine, self.theirs = Channel(near), Channel(far)
        self.limit = limit_bytes
        self.runners = supervising.Runners(self._open, lambda confinement: None, Budget(limit_bytes, 2.0))
        self.worker = Runners(self.mine)
        self._tasks = [asyncio.create_task(work) for work in (self.runners.run(), self._supervise(), self._work())]

    async def close(self) -> None:
        self.runners.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.mine.close()
        self.theirs.close()

    def spec(self, data: bytes, form: str = "echo", **changes: object) -> RunnerSpec:
        digest = hashlib.sha256(data).hexdigest()
        (self._folder / digest).write_bytes(data)
        return replace(RunnerSpec("ver_1", digest, len(data), form, form, limits=Limits(memory_mb=2048)), **changes)

    @property
    def held_by_runners(self) -> int:
        return sum(one.held_bytes for one in self.runners._runners.values())

    @property
    def waiting(self) -> int:
        return len(self.runners._inspections._waiting)

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not check():
                await asyncio.sleep(0.01)

    async def _open(self, digest: str) -> int:
        return os.open(self._folder / digest, os.O_RDONLY | os.O_CLOEXEC)

    async def _supervise(self) -> None:
        with suppress(ChannelClosed):
            while True:
                message, _fds = await self.theirs.receive()
                match message:
                    case control.Inspect():
                        self.runners.inspect(self.theirs, message)
                    case control.Kill():
                        self.runners.kill(self.theirs, message)
                    case control.Ready():
                        self.runners.ready(message)

    async def _work(self) -> None:
        with suppress(ChannelClosed):
            while True:
                message, fds = await self.mine.receive()
                self.worker.take(message, fds)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[[int], House]]:
    made: list[House] = []

    def house(limit_bytes: int) -> House:
        made.append(House(tmp_path, limit_bytes))
        return made[-1]

    yield house
    for one in made:
        await one.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_without_descriptors_a_runner_is_refused_and_nothing_stays_open(
    make: Callable[[int], House], monkeypatch: pytest.MonkeyPatch
):
    house = make(900 << 20)
    spec = house.spec(artifacts.echo())
    async with house.worker.start(spec, ()) as one:
        await one.connection.loaded
    before = open_files()

    def no_more(*args: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(inspections, "RunnerProcess", no_more)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(RunnerUnavailable, match="Too many open files"):
            async with house.worker.start(spec, ()):
                raise AssertionError
    assert open_files() == before


async def test_who_gives_up_in_the_moment_in_which_a_runner_comes_leaves_none_behind(make: Callable[[int], House]):
    house = make(900 << 20)
    spec = house.spec(artifacts.echo())
    came = asyncio.Event()
    take = house.worker.take

    def take_and_give_up(message: control.Message, fds: list[int]) -> None:
        take(message, fds)
        if isinstance(message, control.Connected):
            asking.cancel()
            came.set()

    async def ask() -> None:
        async with house.worker.start(spec, ()):
            raise AssertionError

    house.worker.take = take_and_give_up  # type: ignore[method-assign]
    asking = asyncio.create_task(ask())
    async with asyncio.timeout(PATIENCE_S):
        await came.wait()
    assert house.runners._runners
    with pytest.raises(asyncio.CancelledError):
        await asking
    await house.until(lambda: not house.runners._runners)


async def test_as_many_validate_at_once_as_there_is_memory_for_and_all_come_to_an_end(make: Callable[[int], House]):
    house = make(900 << 20)
    spec = house.spec(artifacts.echo(load_mb=EACH >> 20), memory_bytes=EACH)
    at_once: list[str] = []
    most = ended = 0

    async def job(number: int) -> None:
        """What a validation does: the file in one runner, then another form beside it, twice."""
        nonlocal most, ended
        async with house.worker.start(spec, ()) as first:
            await first.connection.loaded
            at_once.append(f"job {number}")
            for _form in range(2):
                async with house.worker.start(spec, ()) as beside:
                    await beside.connection.loaded
                    most = max(most, len(at_once))
                    assert house.held_by_runners <= house.limit
            at_once.remove(f"job {number}")
        ended += 1

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(job(number) for number in range(JOBS)))
    assert ended == JOBS
    assert 1 <= most <= house.limit // (2 * (EACH + A_RUNNER)) < JOBS, "more would have been too many"


async def test_who_waits_in_vain_is_told_for_what(make: Callable[[int], House], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspections, "WAIT_S", 0.05)
    house = make(1 << 20)
    spec = house.spec(artifacts.echo())
    async with house.worker.start(spec, ()) as first:  # the first always has room: it could not be smaller later
        await first.connection.loaded

        async def other() -> None:
            async with asyncio.timeout(PATIENCE_S), house.worker.start(spec, ()):
                raise AssertionError("there was no room for it")

        apart = asyncio.create_task(other(), context=Context())
        with pytest.raises(RunnerUnavailable, match=r"MiB are needed, and runners hold \d+ of the 1 MiB that they may"):
            await apart
        assert house.waiting == 0
    await house.until(lambda: not house.runners._runners)
    async with asyncio.timeout(PATIENCE_S), house.worker.start(spec, ()) as again:
        await again.connection.loaded


async def test_who_gives_up_waits_no_more_and_gets_no_runner(make: Callable[[int], House]):
    house = make(1 << 20)
    spec = house.spec(artifacts.echo())
    async with house.worker.start(spec, ()) as first:
        await first.connection.loaded

        async def other() -> None:
            async with house.worker.start(spec, ()):
                raise AssertionError("there was no room for it")

        apart = asyncio.create_task(other(), context=Context())
        await house.until(lambda: house.waiting == 1)
        apart.cancel()
        with pytest.raises(asyncio.CancelledError):
            await apart
        await house.until(lambda: house.waiting == 0)
    await house.until(lambda: not house.runners._runners)
    assert not house.runners._residency.waiting


async def test_a_worker_that_is_gone_waits_for_nothing(make: Callable[[int], House]):
    house = make(1 << 20)
    spec = house.spec(artifacts.echo())
    house.runners.inspect(house.theirs, control.Inspect("tkt_1", spec))
    house.runners.inspect(house.theirs, control.Inspect("tkt_2", spec))
    await house.until(lambda: house.waiting == 1)
    house.runners.forget("worker", house.theirs)
    assert house.waiting == house.runners._residency.waiting == 0


async def test_what_a_class_unpacks_counts_in_its_runners_memory_while_it_is_validated(make: Callable[[int], House]):
    house = make(4 << 30)
    data = python_models.archive({"ballast": os.urandom(50 << 20)}, model=python_models.DOUBLES)
    spec = house.spec(data, "python", limits=Limits(memory_mb=512))
    async with house.worker.start(spec, ()) as session:
        loaded = await session.connection.loaded
        if not loaded.placed:
            pytest.skip("this machine has no namespaces: it is unpacked on the disk")
        (runner,) = house.runners._runners.values()
        await house.until(lambda: runner.ready)
        runner.check_memory()
        assert runner.cause is None
        assert runner.held_bytes >= loaded.placed >= 50 << 20
        resident = runner._resident
        runner.spec = replace(runner.spec, limits=Limits(memory_mb=(resident >> 20) + 25))
        runner.check_memory()
        assert runner.cause is Cause.MEMORY, "resident memory alone is within that limit"
