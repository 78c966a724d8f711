"""Statistics of very many versions: each that is served has its own, and reading them lets the event loop go on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelkeep.serving.dialects.open_inference import describe
from modelkeep.serving.metrics import Metrics
from modelkeep.serving.statistics import VERSIONS, Sum


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    found = Metrics("9.9", tmp_path)
    yield found
    found.close()


def whose(number: int) -> tuple[str, str]:
    return (f"m{number}", "1")


def run(metrics: Metrics, number: int, rows: int = 2) -> None:
    metrics.meter(f"m{number}", 1).sums.ran(Sum(answered=1, rows=rows, total_s=0.5, last=1000.0))


def rows(metrics: Metrics, *numbers: int) -> list[float]:
    return [one.rows for one in metrics.statistics.of([whose(number) for number in numbers])]


def test_a_thousand_versions_have_statistics_of_their_own(metrics: Metrics) -> None:
    for number in range(1000):
        run(metrics, number, number)
        metrics.meter(f"m{number}", 1).sums.failed(0.25)
    assert rows(metrics, *range(1000)) == list(range(1000))
    assert {(one.answered, one.failed, one.failed_s) for one in metrics.statistics.of([whose(999)])} == {(1, 1, 0.25)}
    assert b'modelkeep_version_seconds_total{deployment="other"' in metrics.text()  # which has a bound of its own
    assert b"version_sums" not in metrics.text()


def test_a_version_that_is_served_takes_the_place_of_one_that_is_not(metrics: Metrics, tmp_path: Path) -> None:
    most = VERSIONS.most or 0
    metrics.statistics.served = lambda: [whose(0), whose(2)]
    other = Metrics("9.9", tmp_path, 1)  # another server that reads along
    for number in range(most):
        run(metrics, number)
    assert rows(other, 0, 1, 2, 3) == [2, 2, 2, 2]
    run(metrics, most)
    run(metrics, most + 1)
    for server in (metrics, other):
        assert rows(server, 0, 1, 2, 3, 4, most, most + 1) == [2, 0, 2, 0, 2, 2, 2]
    run(metrics, 1)  # it is asked again, and begins anew
    assert rows(other, 1, 4, most) == [2, 0, 2]
    other.close()
    metrics.close()
    again = Metrics("9.9", tmp_path)  # the next process of this server
    assert rows(again, 0, 1, 3, 4, most) == [2, 2, 0, 0, 2]
    run(again, 1)
    assert rows(again, 1) == [4]
    again.close()


def test_a_version_that_cannot_be_written_down_takes_no_place(metrics: Metrics, tmp_path: Path) -> None:
    for number in range(VERSIONS.most or 0):
        run(metrics, number)
    long = metrics.meter("m" * 20_000, 1).sums
    long.ran(Sum(answered=1, rows=7, last=1000.0))
    run(metrics, 0)
    other = Metrics("9.9", tmp_path, 1)
    for server in (metrics, other):
        assert rows(server, 0, 1) == [4, 2]
        assert server.statistics.of([long.whose]) == [Sum()]
    other.close()


def test_where_all_are_served_what_comes_later_has_none(metrics: Metrics) -> None:
    most = VERSIONS.most or 0
    metrics.statistics.served = lambda: [whose(number) for number in range(most + 1)]
    for number in range(most + 1):
        run(metrics, number)
    assert rows(metrics, 0, most - 1, most) == [2, 2, 0]
    assert b'modelkeep_label_sets_dropped_total{metric="version_sums"} 1' in metrics.text()


async def test_the_event_loop_goes_on_while_many_are_read(metrics: Metrics) -> None:
    for number in range(1000):
        run(metrics, number)
    served = SimpleNamespace(version=SimpleNamespace(number=1))
    router = SimpleNamespace(routes=lambda: {f"m{number}": served for number in range(1000)}, serving=lambda _name: [served])
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    found = [one async for one in describe.statistics(router, metrics.statistics)]
    turning.cancel()
    assert {one.inference_count for one in found} == {2}
    assert len(found) == 1000
    assert turns > 1000 / 50
