"""What goes wrong in one part of the worker is told, and ends neither the part nor anything beside it."""

import asyncio
import itertools

import pytest
from structlog.testing import capture_logs

from fixtures.calling import VirtualLoop
from modelkeep.infra.db import DatabaseUnavailable
from modelkeep.worker.again import again, going_on

TROUBLES = [(DatabaseUnavailable(), "waits"), (OSError("the disk is full"), "waits"), (ValueError("a mistake"), "failed")]


@pytest.mark.parametrize(("trouble", "said"), TROUBLES)
def test_it_is_done_again_after_its_time_and_sooner_after_trouble(trouble: Exception, said: str) -> None:
    began: list[float] = []

    async def step() -> None:
        began.append(asyncio.get_running_loop().time())
        if len(began) == 2:
            raise trouble
        if len(began) == 4:
            raise asyncio.CancelledError

    with capture_logs() as logs, asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(again(step, 3600.0, part="tidying"))
    assert [round(after - before) for before, after in itertools.pairwise(began)] == [3600, 60, 3600]
    assert [one["event"] for one in logs] == [f"tidying_{said}"]


def test_what_is_done_often_is_not_done_less_often_for_trouble() -> None:
    began: list[float] = []

    async def step() -> None:
        began.append(asyncio.get_running_loop().time())
        if len(began) == 3:
            raise asyncio.CancelledError
        raise DatabaseUnavailable

    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(again(step, 5.0, part="looking"))
    assert [round(after - before) for before, after in itertools.pairwise(began)] == [5, 5]


@pytest.mark.parametrize(("trouble", "said"), TROUBLES)
def test_trouble_is_told_with_what_it_is_about_and_why(trouble: Exception, said: str) -> None:
    with capture_logs() as logs, going_on("rollout", rollout="rol_1"):
        raise trouble
    (told,) = logs
    assert (told["event"], told["rollout"]) == (f"rollout_{said}", "rol_1")
    assert told["log_level"] == ("warning" if said == "waits" else "error")
    assert "reason" in told or "exc_info" in told


@pytest.mark.parametrize("end", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_ends_it(end: type[BaseException]) -> None:
    with pytest.raises(end), going_on("anything"):
        raise end
