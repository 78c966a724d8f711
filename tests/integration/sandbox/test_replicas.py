"""Runners as the supervisor keeps them: real processes, wanted by servers that come, go and change their minds."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket

import numpy as np
import pytest
from msgspec.structs import replace

from fixtures import artifacts, python_models
from fixtures.runners import PATIENCE_S
from modelkeep.app import runners as keeping
from modelkeep.app.residency import Budget
from modelkeep.app.runners import Runners
from modelkeep.contracts.confinement import Level
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.sandbox import control, frames
from modelkeep.sandbox.connection import RunnerConnection, RunnerGone
from modelkeep.sandbox.control import Channel, ChannelClosed

ROWS = np.array([[1.0, 2.0]])


class FakeServer:
    """A server's side of its channel: it gives its runners work in turn, and lets go of those that it is told to leave."""

    def __init__(self, runners, name):
        near, far = socket.socketpair()
        self.name, self.runners = name, runners
        self.channel, self.theirs = Channel(near), Channel(far)
        self.connections, self.pids, self.told, self.opened = {}, {}, [], []
        self.answered, self.failed = 0, 0
        self._changed = asyncio.Condition()
        self._listening = asyncio.create_task(self._listen())

    def want(self, spec, replicas=1):
        self.runners.want(self.name, self.theirs, (control.Wanted(spec, replicas),) if spec else ())

    async def _listen(self):
        opening = set()
        with contextlib.suppress(ChannelClosed):
            while True:
                message, fds = await self.channel.receive()
                self.told.append(message)
                if isinstance(message, control.Connected):
                    opening.add(asyncio.create_task(self._open(message.runner, fds[0])))
                elif isinstance(message, control.Leave):
                    opening.add(asyncio.create_task(self._leave(message.runner)))
                await self._notify()

    async def _open(self, runner, fd):
        connection = await RunnerConnection.open(fd)
        self.opened.append(connection)
        try:
            await connection.loaded
        except RunnerGone:
            return
        self.pids[runner] = self.runners._runners[runner].pid
        self.connections[runner] = (connection, [])
        connection.closed.add_done_callback(lambda _gone: self.connections.pop(runner, None))
        await self._notify()

    async def _leave(self, runner):
        connection, running = self.connections.pop(runner)
        await asyncio.gather(*running, return_exceptions=True)
        connection.close()
        await self._notify()

    async def _notify(self):
        async with self._changed:
            self._changed.notify_all()

    async def until(self, check):
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(check)

    async def serving(self, count):
        await self.until(lambda: len(self.connections) == count)

    async def work(self, stop):
        """Run one row after the other, each on the next runner; a run that got no answer counts as failed."""
        turn = 0
        while not stop.is_set():
            await asyncio.sleep(0)
            if not self.connections:
                continue
            turn += 1
            connection, running = list(self.connections.values())[turn % len(self.connections)]
            try:
                run = connection.run({"input": ROWS})
                running.append(run)
                result, outputs = await run
                assert isinstance(result, frames.Result)
                assert outputs["input"].tolist() == ROWS.tolist()
                self.answered += 1
            except RunnerGone:
                self.failed += 1
            running.remove(run)

    def die(self):
        """As the kernel does it: every descriptor closes, and the supervisor hears of it."""
        self._listening.cancel()
        for connection in self.opened:
            connection.close()
        self.channel.close()
        self.runners.forget(self.name, self.theirs)
        self.theirs.close()


@pytest.fixture
async def house(tmp_path):
    """Runners that are kept, and a way to make servers."""

    async def open_artifact(digest):
        return os.open(tmp_path / digest, os.O_RDONLY | os.O_CLOEXEC)

    runners = Runners(open_artifact, lambda confinement: None, Budget(4 << 30, 2.0))
    running = asyncio.create_task(runners.run())
    servers = []

    def server(name="server-1"):
        servers.append(FakeServer(runners, name))
        return servers[-1]

    def spec(**behaviour):
        data = artifacts.echo(**behaviour)
        digest = hashlib.sha256(data).hexdigest()
        (tmp_path / digest).write_bytes(data)
        limits = Limits(memory_mb=2048, load_timeout_s=20, run_timeout_s=20)
        return RunnerSpec("ver_1", digest, len(data), "echo", "echo", limits=limits)

    yield server, spec
    runners.close()
    for one in servers:
        one.die()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def load(*servers):
    stop = asyncio.Event()
    working = [asyncio.create_task(one.work(stop)) for one in servers for _ in range(4)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*working)


async def answers(server, more=50):
    """Until so many more runs were answered: the load runs in this very loop."""
    wanted = server.answered + more
    async with asyncio.timeout(PATIENCE_S):
        while server.answered < wanted:
            await asyncio.sleep(0)


async def test_from_one_replica_to_three_and_back_no_run_is_lost(house):
    make, spec = house
    server, version = make(), spec()
    server.want(version)
    await server.serving(1)
    async with load(server):
        server.want(version, 3)
        await server.serving(3)
        await answers(server)
        server.want(version, 1)
        await server.until(lambda: sum(isinstance(one, control.Gone) for one in server.told) == 2)
        await answers(server)
    gone = [one for one in server.told if isinstance(one, control.Gone)]
    assert [one.cause for one in gone] == [control.Cause.STOPPED] * 2
    assert list(server.connections) == ["runner-1"], "the oldest stays"
    assert server.failed == 0


async def test_the_end_of_a_server_ends_no_runner_and_loses_no_run_of_another(house):
    make, spec = house
    one, other, version = make(), make("server-2"), spec()
    for server in (one, other):
        server.want(version, 2)
    for server in (one, other):
        await server.serving(2)
    assert one.pids == other.pids
    async with load(other):
        await answers(other)
        one.die()
        await answers(other)
        again = make("server-1")
        again.want(version, 2)
        await again.serving(2)
    assert again.pids == other.pids
    assert other.failed == 0
    assert not [message for message in other.told if isinstance(message, control.Gone)]


async def test_while_one_of_three_is_dead_the_others_answer_and_it_is_replaced(house):
    make, spec = house
    server, version = make(), spec()
    server.want(version, 3)
    await server.serving(3)
    async with load(server):
        await answers(server)
        victim = min(server.pids.values())
        os.kill(victim, signal.SIGKILL)
        await server.until(lambda: len(server.connections) == 2)
        await answers(server)
        await server.serving(3)
    assert server.failed <= 4, "only what the dead one was running"


async def test_the_largest_wish_counts(house):
    make, spec = house
    one, other, version = make(), make("server-2"), spec()
    one.want(version, 1)
    other.want(version, 2)
    await one.serving(2)
    await other.serving(2)
    other.want(version, 1)
    await one.serving(1)
    await other.serving(1)


async def test_a_server_that_wants_a_version_no_more_leaves_its_runner_to_the_others(house):
    make, spec = house
    one, other, version = make(), make("server-2"), spec()
    for server in (one, other):
        server.want(version)
        await server.serving(1)
    async with load(other):
        one.want(None)
        await one.serving(0)
        await answers(other)
    assert not [message for message in other.told if isinstance(message, control.Gone | control.Leave)]
    other.want(None)
    await other.until(lambda: any(isinstance(message, control.Gone) for message in other.told))


async def test_what_a_server_wanted_is_let_go_when_it_does_not_come_back(house, monkeypatch):
    make, spec = house
    monkeypatch.setattr(keeping, "_GRACE_S", 0.1)
    one, other, version = make(), make("server-2"), spec()
    one.want(version, 2)
    other.want(version, 1)
    await other.serving(2)
    one.die()
    await other.serving(1)


async def test_a_runner_that_will_not_leave_is_ended_after_the_run_limit(house, monkeypatch):
    make, spec = house
    monkeypatch.setattr(keeping, "_LAST_RUN_S", -19.9)
    server, version = make(), spec()
    server.want(version)
    await server.serving(1)
    _connection, running = server.connections["runner-1"]
    running.append(asyncio.get_running_loop().create_future())  # a run that never ends
    server.want(None)
    await server.until(lambda: any(isinstance(message, control.Gone) for message in server.told))
    running[0].cancel()


async def test_five_deaths_hold_a_version_and_a_server_that_comes_later_is_told(house):
    make, spec = house
    server, version = make(), spec(load_signal=int(signal.SIGSEGV))
    server.want(version)
    await server.until(lambda: any(isinstance(message, control.Held) for message in server.told))
    later = make("server-2")
    later.want(version)
    await later.until(lambda: any(isinstance(message, control.Held) for message in later.told))
    (held,) = (message for message in later.told if isinstance(message, control.Held))
    assert 50 < held.retry_after_s <= 60
    assert "SIGSEGV" in held.detail


async def test_only_who_is_served_by_a_runner_may_end_it(house):
    make, spec = house
    one, stranger = make(), make("server-2")
    one.want(spec())
    await one.serving(1)
    for server in (stranger, one):
        server.runners.kill(server.theirs, control.Kill("runner-1", control.Cause.DEADLINE))
        assert (server.runners._runners["runner-1"].cause is None) == (server is stranger)
    await one.until(lambda: any(isinstance(message, control.Gone) for message in one.told))


async def test_what_is_wanted_before_there_is_a_template_keeps_within_the_budget(tmp_path):
    async def open_artifact(digest):
        return os.open(tmp_path / digest, os.O_RDONLY | os.O_CLOEXEC)

    budget = Budget(900 << 20, 0.5)
    data = artifacts.echo(load_mb=60)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / digest).write_bytes(data)
    spec = RunnerSpec("", digest, len(data), "echo", "echo", limits=Limits(memory_mb=2048), memory_bytes=60 << 20)
    wanted = tuple(control.Wanted(replace(spec, version_id=f"ver_{at}")) for at in range(20))
    runners = Runners(open_artifact, lambda confinement: None, budget)
    running = asyncio.create_task(runners.run())
    server = FakeServer(runners, "server-1")

    def asleep():
        return {one.version_id for one in server.told if isinstance(one, control.Asleep)}

    def answers(version_id):
        mine = {one.name for one in runners._runners.values() if one.spec.version_id == version_id}
        return mine & server.connections.keys()

    try:
        runners.want(server.name, server.theirs, wanted)
        await server.until(lambda: len(server.connections) + len(asleep()) == len(wanted))
        assert 2 <= len(asleep()) < len(wanted), "more would have been too many, whether or not they were asked for at once"
        woken = min(asleep())
        for name in list(server.connections):
            runners.ready(control.Ready(name))
        runners.wake(control.Wake(woken))
        await server.until(lambda: answers(woken))
        async with asyncio.timeout(PATIENCE_S):
            while runners._runners.held_bytes() > budget.limit_bytes:
                await asyncio.sleep(0.05)
    finally:
        runners.close()
        server.die()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_a_class_unpacks_counts_in_what_its_runner_holds(tmp_path):
    async def open_artifact(digest):
        return os.open(tmp_path / digest, os.O_RDONLY | os.O_CLOEXEC)

    def version(name, **files):
        data = python_models.archive(files, model=python_models.DOUBLES)
        digest = hashlib.sha256(data).hexdigest()
        (tmp_path / digest).write_bytes(data)
        return control.Wanted(RunnerSpec(name, digest, len(data), "python", "python", limits=Limits(memory_mb=512)))

    wanted = (version("ver_light"), version("ver_heavy", ballast=os.urandom(50 << 20)))
    runners = Runners(open_artifact, lambda confinement: None, Budget(4 << 30, 2.0))
    running = asyncio.create_task(runners.run())
    server = FakeServer(runners, "server-1")
    try:
        runners.want(server.name, server.theirs, wanted)
        await server.until(lambda: len(server.connections) == len(wanted))
        held, placed = {}, {}
        for name, runner in runners._runners.items():
            version_id = runner.spec.version_id
            placed[version_id] = server.connections[name][0].loaded.result().placed
            runners.ready(control.Ready(name, placed[version_id]))
            held[version_id] = runner.held_bytes
        in_memory = runners.confinement.holds("namespaces")
        assert placed["ver_light"] < 1 << 20
        assert 50 << 20 <= placed["ver_heavy"] < 52 << 20 if in_memory else placed["ver_heavy"] == 0
        assert abs(held["ver_heavy"] - held["ver_light"] - placed["ver_heavy"]) < 12 << 20, (held, placed)
        assert runners._runners.held_bytes() >= sum(held.values())
        boasting = runners._runners[name]
        boasting.ready = False
        boasting.loaded(1 << 50)
        assert boasting.held_bytes < 2 * (512 << 20), "what it says of itself is not believed beyond its limit"
    finally:
        runners.close()
        server.die()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_word_of_the_newest_snapshot_about_the_lock_down_holds_whoever_brings_it_last():
    runners = Runners(lambda digest: None, lambda confinement: None, Budget(4 << 30, 2.0), Level.FILTERED)

    def says(level, snapshot):
        runners.accept(control.Accept(level, snapshot))
        return runners._accepted

    assert says(Level.FILTERED, 7) is Level.FILTERED
    assert says(None, 10) is None
    assert says(Level.FILTERED, 9) is None
    assert says(None, 10) is None
    assert says(Level.FILTERED, 11) is Level.FILTERED
    assert says(None, 10) is Level.FILTERED
    assert says(Level.OPEN, 12) is None, "the machine's own settings do not let them"
