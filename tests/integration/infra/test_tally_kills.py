"""Processes that count and are killed: nothing counted is lost, and nothing grows."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures import counting
from modelkeep.infra.tally import Tallies, Tally
from modelkeep.serving.metrics import Metrics

KILLS = 200


@pytest.fixture
def begin() -> Iterator[Callable[..., ForkServerProcess]]:
    """Start a function of `fixtures.counting` in a process; return once it counts."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modelkeep.serving.metrics"])
    running: list[ForkServerProcess] = []

    def start(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
        ready, theirs = context.Pipe(duplex=False)
        process = context.Process(target=function, args=(*arguments, theirs), daemon=True)
        process.start()
        running.append(process)
        theirs.close()
        with ready:
            assert ready.recv_bytes() == b"on"
        return process

    yield start
    for process in running:
        process.kill()
        process.join()
        process.close()


def counted(page: bytes) -> dict[tuple, float]:
    return {
        (sample.name, *sample.labels.items()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def used(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_blocks for path in folder.iterdir()}


def test_after_200_kills_every_count_is_there_and_files_and_page_are_as_after_the_first(
    tmp_path: Path, begin: Callable[..., ForkServerProcess]
) -> None:
    folder = tmp_path / "metrics"
    asked = Metrics("1", folder, slot=1)
    noted = [tmp_path / "even", tmp_path / "odd"]
    for file in noted:
        file.write_bytes(bytes(8))
    before: dict[tuple, float] = {}
    lines, size = 0, {}
    for kill in range(KILLS):
        process = begin(counting.predictions, folder, 0, noted[kill % 2])
        assert counted(asked.text())["modelkeep_inflight_requests",] == 1
        process.kill()
        process.join()
        page = asked.text()
        now = counted(page)
        assert now["modelkeep_inflight_requests",] == 0, "what died answers nothing"
        assert all(now[key] >= value for key, value in before.items()), "a counter went down"
        known = sum(int.from_bytes(file.read_bytes(), "little") for file in noted)
        answered = now["modelkeep_predictions_total", ("deployment", "d"), ("version", "1"), ("outcome", "ok")]
        assert known <= answered <= known + kill + 1, "a kill may fall between counting and noting it, once each"
        before = now
        if kill == 0:
            lines, size = len(page.splitlines()), used(folder)
    assert len(asked.text().splitlines()) == lines
    assert used(folder) == size
    total = before["modelkeep_prediction_duration_seconds_count", ("deployment", "d"), ("stage", "total")]
    rows = before["modelkeep_prediction_rows_total", ("deployment", "d"), ("version", "1")]
    assert abs(total - answered) <= KILLS
    assert abs(rows - 2 * answered) <= 2 * KILLS
    asked.close()


def test_a_reader_never_sees_half_a_directory(tmp_path: Path, begin: Callable[..., ForkServerProcess]) -> None:
    process = begin(counting.series, tmp_path, 0)
    own = Tally(tmp_path, 1, [counting.NAMED])
    reader = Tallies(tmp_path, own)
    seen = 0
    reads = 0
    while process.is_alive():
        live = reader.read()[0][counting.NAMED]
        whole = Tallies(tmp_path, own).read()[0][counting.NAMED] if reads % 20 == 0 else live
        reads += 1
        for series in (live, whole):
            names = [values[0] for values in series if values[0] != "other"]
            assert names == [f"{number:06}" * 8 for number in range(len(names))]
            assert all(numbers[0] in {0.0, 1.0} for numbers in list(series.values())[: len(names)])
        assert len(live) >= seen
        seen = len(live)
    assert sum(numbers[0] for numbers in reader.read()[0][counting.NAMED].values()) == 20_000
    assert reads
    reader.close()
    own.close()
    assert os.listdir(tmp_path)  # noqa: PTH208
