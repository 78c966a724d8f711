"""From the spool into the history, by whatever dies on the way: once and whole."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from fixtures.control import TestClock
from fixtures.history import NOON, Loader, record
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.snapshot import DeploymentSettings, Recording, ServedDeployment, Snapshot, encode_snapshot
from modelkeep.control.predictions import blocks
from modelkeep.control.predictions.errors import PositionMoved, PredictionNotFound
from modelkeep.control.predictions.rules import Wanted
from modelkeep.control.predictions.service import Predictions
from modelkeep.infra.db import Database
from modelkeep.infra.settings import DatabaseSettings, HistorySettings
from modelkeep.infra.spool import Position, SpoolReader, SpoolWriter, segments
from modelkeep.worker.history import HistoryCourier

DAY = 86_400.0


@pytest.fixture
def predictions(db: Database, clock: TestClock) -> Predictions:
    clock.now = datetime.fromtimestamp(NOON, UTC)
    return Predictions(db, clock)


@pytest.fixture
def spools(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def courier(predictions: Predictions, spools: Path, tmp_path: Path) -> HistoryCourier:
    return HistoryCourier(predictions, spools, tmp_path / "snapshot", HistorySettings(), poll_s=0.05)


async def ids(predictions: Predictions, wanted: Wanted = Wanted()) -> list[str]:  # noqa: B008 - a frozen value
    return [one.id async for part in predictions.all(wanted) for one in part]


async def load_all(courier: HistoryCourier) -> None:
    while await courier.look():
        pass


async def test_what_servers_append_is_found_and_loaded_segments_go(
    predictions: Predictions, courier: HistoryCourier, spools: Path
) -> None:
    one, two = SpoolWriter(spools / "one", segment_bytes=3000), SpoolWriter(spools / "two")
    records = [record(NOON + number) for number in range(60)]
    for at, each in enumerate(records):
        (one if at % 3 else two).append([each])
    await load_all(courier)
    assert await ids(predictions) == [each.id for each in reversed(records)]
    assert (courier.loaded, courier.lost, courier.torn, courier.progress.behind_since) == (60, 0, 0, 0.0)
    assert [len(segments(spools / name)) for name in ("one", "two")] == [1, 1]
    late = record(NOON + 100)
    one.append([late])
    await load_all(courier)
    assert (await predictions.prediction(late.id)) == late
    one.close()
    two.close()


async def test_a_prediction_is_found_by_its_id_within_two_seconds(
    predictions: Predictions, courier: HistoryCourier, spools: Path
) -> None:
    writer = SpoolWriter(spools / "one")
    stop = asyncio.Event()
    running = asyncio.create_task(courier.run(stop))
    for _ in range(3):
        new = record(time.time())
        writer.append([new])
        appended = time.monotonic()
        while new.id not in await ids(predictions, Wanted(id=new.id)):
            assert time.monotonic() - appended < 2
            await asyncio.sleep(0.01)
    stop.set()
    await running
    writer.close()


async def test_a_prediction_is_found_in_whatever_block_of_many_it_lies(
    predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quiet deployments have blocks of hours, so that a day has many that might hold an id; one page opens some of them."""
    monkeypatch.setattr("modelkeep.control.predictions.search._MOST_BLOCKS", 2)
    records = [[record(NOON + hour * 3600, deployment=f"d{at}") for hour in range(3)] for at in range(7)]
    await predictions.prepare()
    await Loader(predictions)([one for each in records for one in each])
    held = {one.id for each in records for one in each}
    gone = {record(NOON + 1800).id}
    assert await predictions.missing(held | gone) == gone
    for each in records:
        assert await predictions.prediction(each[1].id) == each[1]
    with pytest.raises(PredictionNotFound):
        await predictions.prediction(gone.pop())


async def test_a_part_of_a_spool_is_loaded_once_whoever_tries(predictions: Predictions, spools: Path, tmp_path: Path) -> None:
    couriers = [HistoryCourier(predictions, spools, tmp_path / "none", HistorySettings()) for _ in range(2)]
    writer = SpoolWriter(spools / "one")
    expected = []
    for _round in range(4):
        each = record()
        expected.append(each.id)
        writer.append([each])
        done = await asyncio.gather(*(one.look() for one in couriers), return_exceptions=True)
        for courier, outcome in zip(couriers, done, strict=True):
            if isinstance(outcome, PositionMoved):
                courier._positions.clear()
            else:
                assert outcome is False
        for courier in couriers:
            await courier.look()
        assert sorted(await ids(predictions)) == sorted(expected)
    writer.close()


async def test_what_cannot_be_read_is_counted_in_the_history(
    predictions: Predictions, courier: HistoryCourier, spools: Path
) -> None:
    writer = SpoolWriter(spools / "one")
    writer.append([record() for _ in range(5)])
    writer.close()
    [segment] = segments(spools / "one")
    content = bytearray(segment.path.read_bytes())
    content[len(content) // 2] ^= 1
    segment.path.write_bytes(content)
    successor = SpoolWriter(spools / "one")
    successor.append([record()])
    await load_all(courier)
    assert len(await ids(predictions)) == 5
    assert courier.lost == 1
    assert await predictions.lost() == {"unreadable": 1}
    successor.close()


async def test_the_courier_waits_for_a_database_that_is_away_and_loses_nothing(spools: Path, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    db = Database(DatabaseSettings(url=f"sqlite:///{folder}/history.db", busy_timeout_s=0.2))
    predictions = Predictions(db, lambda: datetime.now(UTC))
    courier = HistoryCourier(predictions, spools, tmp_path / "none", HistorySettings(), poll_s=0.02)
    writer = SpoolWriter(spools / "one")
    written = [record(time.time()) for _ in range(3)]
    writer.append(written)
    stop = asyncio.Event()
    running = asyncio.create_task(courier.run(stop))
    while not courier.progress.behind_since:
        await asyncio.sleep(0.01)
    folder.mkdir()
    while courier.loaded < 3:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert sorted(await ids(predictions)) == sorted(one.id for one in written)
    writer.close()
    await db.close()


DYING = """
import asyncio, os, random, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from modelkeep.control.predictions import blocks, store
from modelkeep.control.predictions.service import Predictions
from modelkeep.infra.db import Database
from modelkeep.infra.settings import DatabaseSettings, HistorySettings
from modelkeep.infra.spool import SpoolReader
from modelkeep.worker import history

url, spools, left = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def die_here(frame, event, argument):
    # every call of ours is a step between which the process may be killed
    global left
    if event == "call" and frame.f_code.co_filename.endswith(("store.py", "history.py", "spool.py", "service.py", "db.py")):
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    predictions = Predictions(Database(DatabaseSettings(url=url)), lambda: datetime.fromtimestamp(1767355200 + 7200, UTC))
    history._AT_ONCE = 2000
    courier = history.HistoryCourier(predictions, spools, Path("none"), HistorySettings())
    await predictions.prepare()
    import threading
    threading.setprofile(die_here)
    sys.setprofile(die_here)
    while await courier.look():
        pass
    await courier.tidy()
    sys.setprofile(None)
    os._exit(0)

asyncio.run(main())
"""


async def test_a_courier_that_is_killed_at_any_step_loads_everything_once(
    db: Database, predictions: Predictions, spools: Path
) -> None:
    chance = random.Random(7)
    writer = SpoolWriter(spools / "one", segment_bytes=2500)
    written: list[PredictionRecord] = []
    url = db.url.render_as_string(hide_password=False)
    await predictions.prepare()
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    for left in [3, *(chance.randint(5, 300) for _ in range(8)), 1_000_000]:
        for _ in range(6):
            written.append(record(NOON + len(written)))
            writer.append(written[-1:])
        command = [sys.executable, "-c", DYING, url, str(spools), str(left)]
        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        found = await ids(predictions)
        assert len(found) == len(set(found))
        assert set(found) <= {one.id for one in written}
    assert done.returncode == 0, done.stderr
    assert await ids(predictions) == [one.id for one in reversed(written)]
    assert len(segments(spools / "one")) == 1
    writer.close()


# ---- tidying


async def blocks_of(db: Database) -> list[tuple[str, int]]:
    async with db.read() as tx:
        rows = await tx.connection.exec_driver_sql("SELECT deployment, held FROM prediction_blocks ORDER BY first_id")
        return [(str(name), int(held)) for name, held in rows.all()]


async def test_small_blocks_become_few_and_keep_every_record(db: Database, predictions: Predictions, clock: TestClock) -> None:
    load = Loader(predictions)
    written = [record(NOON - 600 + number, deployment=f"d{number % 2}", version=number % 5) for number in range(80)]
    for each in written:
        await load([each])
    recent = record(NOON)
    await load([recent])
    assert len(await blocks_of(db)) == 81
    assert await predictions.compact() == 78
    assert sorted(await blocks_of(db)) == [("d0", 40), ("d1", 40), ("forest", 1)]
    assert await ids(predictions) == [recent.id, *(each.id for each in reversed(written))]
    assert await ids(predictions, Wanted(version="3")) == [each.id for each in reversed(written) if each.version == 3]
    assert await predictions.compact() == 0


async def test_a_few_small_blocks_wait_until_their_day_is_over(
    db: Database, predictions: Predictions, clock: TestClock
) -> None:
    load = Loader(predictions)
    for number in range(3):
        await load([record(NOON - 3600 + number)])
    assert await predictions.compact() == 0
    clock.advance(days=1)
    assert await predictions.compact() == 2
    assert await blocks_of(db) == [("forest", 3)]


async def test_a_merge_leaves_blocks_of_a_thousand(db: Database, predictions: Predictions) -> None:
    load = Loader(predictions)
    for _ in range(8):
        await load([record(NOON - 600) for _ in range(300)])
    assert await predictions.compact() > 0
    assert all(held <= 1000 for _name, held in await blocks_of(db))
    assert sum(held for _name, held in await blocks_of(db)) == 2400


async def test_days_go_when_they_are_over_for_their_deployment(predictions: Predictions) -> None:
    load = Loader(predictions)
    by_age = {age: [record(NOON - age * DAY, deployment=name) for name in ("a", "b")] for age in (0, 2, 8, 40)}
    for records in by_age.values():
        await load(records)
    assert await predictions.retire(keep_days=30, kept={"b": 7}, max_bytes=1 << 30) == 0
    left = await ids(predictions)
    assert left == [one.id for one in sorted([*by_age[0], *by_age[2], by_age[8][0]], key=lambda one: one.id, reverse=True)]
    assert await predictions.lost() == {}


async def test_beyond_the_cap_the_oldest_days_go_and_are_counted(db: Database, predictions: Predictions) -> None:
    load = Loader(predictions)
    for age in (3, 2, 1, 0):
        await load([record(NOON - age * DAY, inputs=os.urandom(3000)) for _ in range(100)])
    assert await predictions.retire(keep_days=30, kept={}, max_bytes=700_000) == 200
    assert len(await ids(predictions)) == 200
    assert await predictions.lost() == {"over_cap": 200}
    assert await predictions.retire(keep_days=30, kept={}, max_bytes=700_000) == 0


async def test_one_day_beyond_the_cap_loses_its_oldest_blocks(predictions: Predictions) -> None:
    load = Loader(predictions)
    written = [record(NOON + number, inputs=os.urandom(30_000)) for number in range(40)]
    for each in written:
        await load([each])
    lost = await predictions.retire(keep_days=30, kept={}, max_bytes=900_000)
    assert 10 <= lost < 40
    assert await ids(predictions) == [one.id for one in reversed(written[lost:])]


async def test_the_courier_retires_as_the_snapshot_says(
    predictions: Predictions, courier: HistoryCourier, tmp_path: Path
) -> None:
    setting = DeploymentSettings(recording=Recording(keep_days=2))
    snapshot = Snapshot(1, NOON, (ServedDeployment("short", "ver_A", 1, setting),))
    (tmp_path / "snapshot").write_bytes(encode_snapshot(snapshot))
    load = Loader(predictions)
    kept, gone = record(NOON - 5 * DAY, deployment="long"), record(NOON - 5 * DAY, deployment="short")
    await load([kept, gone])
    await courier.tidy()
    assert await ids(predictions) == [kept.id]


async def test_partitions_are_there_ahead_and_go_with_their_day(postgres: str, tmp_path: Path, clock: TestClock) -> None:
    from fixtures.databases import new_postgres_database

    db = Database(DatabaseSettings(url=new_postgres_database(postgres)))
    predictions = Predictions(db, clock)

    async def partitions() -> list[str]:
        async with db.read() as tx:
            query = "SELECT relid::text FROM pg_partition_tree('prediction_blocks') WHERE isleaf ORDER BY 1"
            return [str(row[0]) for row in (await tx.connection.exec_driver_sql(query)).all()]

    clock.now = datetime.fromtimestamp(NOON, UTC)
    await predictions.prepare()
    assert await partitions() == ["prediction_blocks_20260102", "prediction_blocks_20260103"]
    await Loader(predictions)([record(NOON - 5 * DAY)])
    assert len(await partitions()) == 3
    assert (await predictions.retire(keep_days=5, kept={}, max_bytes=1 << 30)) == 0
    assert await partitions() == ["prediction_blocks_20260102", "prediction_blocks_20260103"]
    clock.now += timedelta(days=1)
    await predictions.prepare()
    assert f"prediction_blocks_{date(2026, 1, 4):%Y%m%d}" in await partitions()
    await db.close()


async def test_a_request_is_found_by_its_id_also_where_the_id_lies_about_its_time(predictions: Predictions) -> None:
    load = Loader(predictions)
    honest = record()
    lying = record(NOON + 9 * 3600, request_id=record(NOON - 30 * DAY).request_id)
    await load([honest, *(record() for _ in range(10))])
    await load([lying])
    for sought in (honest, lying):
        found = await predictions.facts(Wanted(request_id=sought.request_id), limit=5)
        assert [one.id for one in found.records] == [sought.id]


async def test_pages_hold_every_record_once_however_blocks_overlap(predictions: Predictions) -> None:
    chance = random.Random(3)
    load = Loader(predictions)
    written = [
        record(NOON + number, deployment=chance.choice("abc"), version=number % 3, user=f"usr_{number % 2}")
        for number in range(300)
    ]
    waiting = list(written)
    chance.shuffle(waiting)
    while waiting:
        size = chance.randint(1, 12)
        await load(waiting[:size])
        waiting = waiting[size:]
    for wanted in (
        Wanted(),
        Wanted(deployment="b"),
        Wanted(version="2"),
        Wanted(user="usr_1"),
        Wanted(deployment="a", since=NOON + 50, until=NOON + 200),
    ):
        seen, before = list[str](), None
        while True:
            page = await predictions.facts(wanted, limit=7, before=before)
            seen += [one.id for one in page.records]
            if page.before is None:
                break
            assert before is None or page.before < before
            before = page.before
        assert seen == [one.id for one in reversed(written) if wanted.matches(one)]


def test_the_reader_of_a_spool_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert SpoolReader(tmp_path / "none").read(Position()).records == []
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record()), type=PredictionRecord).outcome == "ok"


async def test_a_list_holds_nothing_of_the_blocks_that_it_was_read_from(predictions: Predictions) -> None:
    await Loader(predictions)([record() for _ in range(3)])
    found = (await predictions.facts(Wanted(), limit=5)).records
    assert [(bytes(one.inputs), bytes(one.outputs)) for one in found] == [(b"\xc0", b"\xc0")] * 3


async def test_a_record_from_before_it_said_who_asked_is_found_by_all_else(predictions: Predictions) -> None:
    old = record()
    raw = msgspec.msgpack.encode(msgspec.structs.astuple(old)[:-1])
    await predictions.load("one", Position(), Position(1, 1, 0), blocks.gather([raw]), {})
    assert [one.id for one in (await predictions.facts(Wanted(key=old.key_id), limit=5)).records] == [old.id]
    assert (await predictions.facts(Wanted(user="usr_A"), limit=5)).records == []
