"""News over a real file and real datagrams: what is applied, what counts as fresh, and what goes up."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from fixtures.calling import Counted, no_recorder
from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ModelFailed
from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.snapshot import News, ServedDeployment, ServedKey, ServedVersion, Snapshot, encode_snapshot
from modelkeep.contracts.traffic import Counted as TrialCounted
from modelkeep.contracts.traffic import Trial
from modelkeep.infra.bell import Bell, Listener
from modelkeep.serving.feed import Feed
from modelkeep.serving.keys import Keys
from modelkeep.serving.pool import Pool
from modelkeep.serving.router import Router
from modelkeep.serving.settings import ServingSettings


class Server:
    """The parts of a server that news is for."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "snapshot"
        self.run_dir = folder
        self.keys = Keys(max_staleness_s=60)
        self.router = Router(
            lambda changed: Pool(ServingSettings(), lambda _message: None, changed, no_recorder()),
            lambda _deployment, _version: Counted(),  # type: ignore[arg-type,return-value]
        )
        self.feed = Feed(snapshot_file=self.file, run_dir=folder, router=self.router, keys=self.keys, name="server-1")

    def write(self, snapshot: Snapshot, *, age_s: float = 0) -> None:
        """Do as the courier: write beside the file, then rename."""
        fresh = self.file.with_suffix(".new")
        fresh.write_bytes(encode_snapshot(snapshot))
        os.utime(fresh, (time.time() - age_s,) * 2)
        fresh.rename(self.file)

    def ring(self, number: int, at: float | None = None) -> None:
        assert Bell(self.run_dir / "server.sock").ring(msgspec.msgpack.encode(News(number, time.time() if at is None else at)))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[Callable[[], "asyncio.Future[Heartbeat]"]]:
    """Run the feed; gives a function that waits for the next heartbeat, which follows everything that was heard."""
    stop = asyncio.Event()
    with Listener(server.run_dir / "courier.sock") as courier:
        task = asyncio.create_task(server.feed.run(stop))

        async def beat() -> Heartbeat:
            while not (heard := await courier.wait(5)):
                assert not task.done()
            return msgspec.msgpack.decode(heard[-1], type=Heartbeat)

        await asyncio.sleep(0)  # its first step: the bell hangs
        try:
            yield beat
        finally:
            stop.set()
            server.ring(0, at=0.0)
            await task


def snapshot(number: int, *deployments: ServedDeployment, versions: tuple[ServedVersion, ...] = ()) -> Snapshot:
    keys = (ServedKey("key_1", hashlib.sha256(b"mk_one").digest(), "ci", through(Scope.PREDICT)),)
    return Snapshot(number, time.time(), deployments, versions, keys)


def test_a_server_without_a_file_has_no_news(server: Server) -> None:
    server.feed.read()
    assert server.router.snapshot.number == 0
    assert server.keys.staleness_s > 1e6


def test_the_last_news_outlives_both_processes_and_is_as_old_as_its_file(server: Server) -> None:
    server.write(snapshot(3), age_s=40)
    server.feed.read()
    assert server.router.snapshot.number == 3
    assert 39 < server.keys.staleness_s < 50


def test_older_news_in_the_file_is_not_applied(server: Server) -> None:
    server.write(snapshot(3))
    server.feed.read()
    server.write(Snapshot(2, time.time()))
    server.feed.read()
    assert server.router.snapshot.number == 3
    assert server.keys.check(b"mk_one", Scope.PREDICT).id == "key_1"


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"not a snapshot", encode_snapshot(Snapshot(9, 0.0))[:-1]])
def test_a_damaged_file_leaves_the_last_news_in_force_and_vouches_for_nothing(server: Server, damage: bytes) -> None:
    server.write(snapshot(3), age_s=40)
    server.feed.read()
    server.file.write_bytes(damage)
    server.feed.read()
    assert server.router.snapshot.number == 3
    assert server.keys.staleness_s > 39


async def test_a_ring_brings_newer_news_in_and_a_heartbeat_up(
    server: Server, make_version: Callable[..., ServedVersion]
) -> None:
    async with running(server) as beat:
        server.write(snapshot(1, ServedDeployment("m", "v1", 1), versions=(make_version("v1"),)))
        server.ring(1)
        heartbeat = await beat()
    assert (heartbeat.server, heartbeat.snapshot, heartbeat.serving) == ("server-1", 1, {})
    assert server.router.routes().keys() == {"m"}
    assert server.keys.staleness_s < 5


async def test_a_ring_for_the_same_news_keeps_it_fresh(server: Server) -> None:
    server.write(snapshot(1), age_s=50)
    async with running(server) as beat:
        server.ring(1)
        await beat()
    assert server.keys.staleness_s < 5


async def test_a_ring_for_news_that_is_not_there_yet_keeps_nothing_fresh(server: Server) -> None:
    server.write(snapshot(1), age_s=50)
    async with running(server) as beat:
        server.ring(2)
        await beat()
        assert server.router.snapshot.number == 1
        assert server.keys.staleness_s > 49
        server.write(snapshot(2))
        server.ring(2)
        await beat()
        assert server.router.snapshot.number == 2
    assert server.keys.staleness_s < 5


async def test_a_ring_that_is_no_news_is_passed_over(server: Server) -> None:
    server.write(snapshot(1))
    async with running(server) as beat:
        for noise in (b"\x00", b"", b"\xff" * 100, msgspec.msgpack.encode({"number": "1"})):
            assert Bell(server.run_dir / "server.sock").ring(noise)
            await beat()
        server.write(snapshot(2))
        server.ring(2)
        await beat()
    assert server.router.snapshot.number == 2


def test_a_heartbeat_with_nobody_to_hear_it_is_no_error(server: Server) -> None:
    server.feed.beat()


async def test_a_candidate_that_is_called_back_is_told_of_at_once(server: Server) -> None:
    """Not with the next heartbeat: the feed does not even run here."""
    server.write(snapshot(1, ServedDeployment("m", "v1", 1, trial=Trial("rol_1", 1, "v2", 0.1, 100.0, {"errors": 0.01}))))
    server.feed.read()
    count = server.router.trials.of("m")
    assert count is not None
    with Listener(server.run_dir / "courier.sock") as courier:
        assert await courier.wait(0) == []
        while not count.halted:
            count.failed(0, None, ModelFailed())
        (heard,) = await courier.wait(5)
    beat = msgspec.msgpack.decode(heard, type=Heartbeat)
    assert beat.trials["rol_1:1"].halted == "errors"
    assert beat.trials["rol_1:1"].counts["errors"] == TrialCounted(4, 4)
