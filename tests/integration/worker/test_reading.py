"""The process that reads spools when nothing else wants the processor."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from fixtures.history import record
from modelkeep.control.predictions.service import Predictions
from modelkeep.infra.settings import HistorySettings
from modelkeep.infra.spool import Position, SpoolWriter
from modelkeep.worker import reading
from modelkeep.worker.history import HistoryCourier
from modelkeep.worker.reading import Asked, IdleReader, NotNow

NOON = 1767355200.0


@pytest.fixture
async def idle() -> AsyncIterator[IdleReader]:
    reader = IdleReader()
    yield reader
    await reader.close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    writer = SpoolWriter(tmp_path / "spool" / "one")
    writer.append([record(NOON + number) for number in range(50)])
    writer.close()
    return tmp_path / "spool" / "one"


def asked(spool: Path, max_bytes: int = 4 << 20) -> Asked:
    return Asked(str(spool), Position(), max_bytes)


def process_of(idle: IdleReader) -> psutil.Process:
    assert idle._process is not None
    return psutil.Process(idle._process.pid)


def plain(found: reading.Found) -> tuple[object, ...]:
    gathered = found.gathered
    kept = [
        (block.deployment, block.day, block.first_id, block.last_id, block.held, block.payload) for block in gathered.blocks
    ]
    return kept, gathered.readable, gathered.unreadable, gathered.newest_at, found.position, found.lost, found.torn, found.more


@pytest.mark.parametrize("max_bytes", [1, 3000, 4 << 20])
async def test_it_finds_what_one_finds_oneself(idle: IdleReader, spool: Path, max_bytes: int) -> None:
    for _ in range(2):  # started, and started already
        assert plain(await idle.read(asked(spool, max_bytes))) == plain(reading.read(asked(spool, max_bytes)))


async def test_it_runs_when_nothing_else_wants_the_processor(idle: IdleReader, spool: Path) -> None:
    await idle.read(asked(spool))
    assert os.sched_getscheduler(process_of(idle).pid) == os.SCHED_IDLE


async def test_one_that_dies_is_replaced(idle: IdleReader, spool: Path) -> None:
    await idle.read(asked(spool))
    first = process_of(idle)
    first.kill()
    first.wait(10)
    with pytest.raises(NotNow):
        await idle.read(asked(spool))
    assert (await idle.read(asked(spool))).gathered.readable == 50
    assert process_of(idle).pid != first.pid


async def test_a_courier_that_gets_no_answer_reads_itself(
    idle: IdleReader, spool: Path, predictions: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await idle.read(asked(spool))
    stuck = process_of(idle)
    stuck.suspend()
    monkeypatch.setattr(reading, "_PATIENCE_S", 0.05)
    courier = HistoryCourier(predictions, spool.parent, tmp_path / "none", HistorySettings(), idle=idle)
    while await courier.look():
        pass
    assert (courier.loaded, courier.lost) == (50, 0)
    assert not stuck.is_running()


async def test_a_courier_has_it_read(
    idle: IdleReader, spool: Path, predictions: Predictions, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("modelkeep.worker.history.read", None)
    courier = HistoryCourier(predictions, spool.parent, tmp_path / "none", HistorySettings(), idle=idle)
    with pytest.raises(TypeError):  # only when there is nothing to read is that found out here
        while True:
            await courier.look()
    assert courier.loaded == 50


PARENT = """
import asyncio, sys
from modelkeep.infra.spool import Position
from modelkeep.worker.reading import Asked, IdleReader

async def main():
    idle = IdleReader()
    await idle.read(Asked(sys.argv[1], Position(), 1000))
    print(idle._process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_it_ends_with_its_courier_even_when_that_is_killed(spool: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(spool)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    reader = psutil.Process(int(await asyncio.to_thread(parent.stdout.readline)))
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    async with asyncio.timeout(10):
        while reader.is_running() and reader.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
