"""The courier, over each kind of database."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fixtures.control import ADMIN, SITE, ready_version
from modelkeep.app.control_plane import ControlPlane, control_plane
from modelkeep.contracts.prediction import CacheSeen, Heartbeat
from modelkeep.contracts.snapshot import Limits, News, decode_snapshot
from modelkeep.contracts.traffic import Counted, TrialSeen
from modelkeep.infra.bell import Bell, Listener
from modelkeep.infra.db import Database
from modelkeep.worker.courier import Courier, is_news


@pytest.fixture
def live(db: Database, tmp_path: Path) -> ControlPlane:
    """The control plane with the real clock and a bell that the courier hears."""
    return control_plane(db, ring_worker=bool, ring_courier=Bell(tmp_path / "courier.sock").ring, limits=Limits(), site=SITE)


@asynccontextmanager
async def carrying(db: Database, live: ControlPlane, folder: Path, poll_s: float = 0.05) -> AsyncIterator[Listener]:
    """A courier that carries inside the block; yields the server's ear."""
    stop = asyncio.Event()
    with Listener(folder / "server.sock") as ear:
        courier = Courier(db, live.deployments, folder / "snapshot", folder, Bell(folder / "server.sock"), poll_s=poll_s)
        running = asyncio.create_task(courier.run(stop))
        try:
            yield ear
        finally:
            stop.set()
            await asyncio.wait_for(running, 10)


async def news(ear: Listener, number: int) -> News:
    """Wait until the bell says that this snapshot, or a later one, is the newest."""
    async with asyncio.timeout(10):
        while True:
            for ring in await ear.wait(1):
                heard = msgspec.msgpack.decode(ring, type=News)
                if heard.number >= number:
                    return heard


async def test_every_snapshot_arrives_whole_and_the_bell_says_so(db: Database, live: ControlPlane, tmp_path: Path):
    await live.deployments.publish()
    async with carrying(db, live, tmp_path, poll_s=300) as ear:
        assert (await news(ear, 1)).number == 1
        await live.models.create(ADMIN, "iris")
        await ready_version(live, "iris")
        heard = await news(ear, 2)
        snapshot = decode_snapshot((tmp_path / "snapshot").read_bytes())
        assert snapshot.number == heard.number == 2
        assert [one.name for one in snapshot.deployments] == ["iris"]
        assert abs(heard.at - time.time()) < 5
    assert (tmp_path / "snapshot").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "snapshot.new").exists()


async def test_before_the_first_snapshot_nothing_is_said(db: Database, live: ControlPlane, tmp_path: Path):
    async with carrying(db, live, tmp_path) as ear:
        assert await ear.wait(0.3) == []
        assert not (tmp_path / "snapshot").exists()
        await live.deployments.publish()
        await news(ear, 1)


async def test_the_file_is_as_young_as_the_last_look_and_what_is_there_is_replaced_at_a_start(
    db: Database, live: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("modelkeep.worker.courier._TOUCH_EVERY_S", 0.0)
    (tmp_path / "snapshot").write_bytes(b"of a database that was restored from a backup")
    await live.deployments.publish()
    async with carrying(db, live, tmp_path) as ear:
        await news(ear, 1)
        assert decode_snapshot((tmp_path / "snapshot").read_bytes()).number == 1
        os.utime(tmp_path / "snapshot", (0, 0))
        async with asyncio.timeout(5):
            while (tmp_path / "snapshot").stat().st_mtime < time.time() - 60:
                await asyncio.sleep(0.02)


async def test_the_newest_heartbeat_of_each_server_is_kept(db: Database, live: ControlPlane, tmp_path: Path):
    await live.models.create(ADMIN, "iris")
    version = await ready_version(live, "iris")
    bell = Bell(tmp_path / "courier.sock")
    async with carrying(db, live, tmp_path) as ear:
        await news(ear, 1)
        now = time.time()
        for beat in (
            Heartbeat("s1", now - 1, 1, {}),
            Heartbeat("s1", now, 2, {"iris": version.id}),
            Heartbeat("s2", now, 1, {}),
        ):
            assert bell.ring(msgspec.msgpack.encode(beat))
        assert bell.ring(b"not a heartbeat")
        async with asyncio.timeout(5):
            while True:
                _deployment, serving = await live.deployments.deployment(ADMIN, "iris")
                if len(serving) == 2:
                    break
                await asyncio.sleep(0.02)
    assert [(one.server, one.snapshot, one.version) for one in serving] == [("s1", 2, 1), ("s2", 1, None)]


async def test_heartbeats_do_not_make_the_courier_look_for_news(db: Database, live: ControlPlane, tmp_path: Path):
    """A server answers every ring with a heartbeat: were each of these a reason to ring, the two would never rest."""
    await live.deployments.publish()
    async with carrying(db, live, tmp_path, poll_s=300) as ear:
        await news(ear, 1)
        for later in range(20):
            Bell(tmp_path / "courier.sock").ring(msgspec.msgpack.encode(Heartbeat("s1", time.time() + later, 1)))
        assert await ear.wait(0.3) == []


def test_a_heartbeat_that_says_nothing_new_is_not_written():
    written: list[Heartbeat] = []
    for at, snapshot in ((0.0, 1), (2.0, 1), (4.0, 1), (6.0, 2), (8.0, 2), (16.0, 2)):
        beat = Heartbeat("s1", at, snapshot)
        if is_news(beat, written[-1] if written else None):
            written.append(beat)
    assert [beat.at for beat in written] == [0.0, 6.0, 16.0]


def test_what_a_trial_counts_is_written_each_second_and_its_end_at_once():
    written: list[Heartbeat] = []
    told: list[tuple[float, int, str]] = [
        (0.0, 0, ""),
        (0.5, 10, ""),
        (0.99, 20, ""),
        (1.1, 30, ""),
        (1.3, 40, "errors"),
        (2.0, 41, "errors"),
        (2.5, 41, "errors"),
        (3.5, 41, "errors"),
    ]
    for at, requests, halted in told:
        beat = Heartbeat("s1", at, 1, trials={"rol_1:1": TrialSeen({"errors": Counted(requests)}, halted=halted)})
        if is_news(beat, written[-1] if written else None):
            written.append(beat)
    assert [beat.at for beat in written] == [0.0, 0.99, 1.3, 2.5]
    assert is_news(Heartbeat("s1", 4.0, 1), written[-1]), "what is told of no more is news too"


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        ({"m": CacheSeen("", 1)}, {"m": CacheSeen("", 2)}, False),
        ({"m": CacheSeen("", 1)}, {"m": CacheSeen("off")}, True),
        ({"m": CacheSeen("fast")}, {"m": CacheSeen()}, True),
        ({"m": CacheSeen("off")}, {}, False),
        ({}, {"m": CacheSeen("off")}, False),
    ],
)
def test_that_answers_are_kept_or_not_is_news_and_what_came_of_them_is_not(before: Any, after: Any, news: bool) -> None:
    assert is_news(Heartbeat("s1", 2.0, 1, cache=after), Heartbeat("s1", 1.0, 1, cache=before)) is news


async def test_a_database_that_goes_away_stops_the_news_and_not_the_courier(
    db: Database, live: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from modelkeep.infra.db import DatabaseUnavailable

    await live.deployments.publish()
    async with carrying(db, live, tmp_path) as ear:
        await news(ear, 1)

        def gone() -> None:
            raise DatabaseUnavailable

        monkeypatch.setattr(db, "read", gone)
        await asyncio.sleep(0.15)
        await ear.wait(0.01)
        assert await ear.wait(0.3) == []
        monkeypatch.undo()
        await news(ear, 1)
