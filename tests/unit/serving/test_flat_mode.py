"""Where a run costs nearly the same for one row and for many: a little wait for those that will be back, never for nobody."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from fixtures.calling import ByHand, VirtualLoop, leave, make_call, rows, turn
from modelkeep.serving import batcher
from modelkeep.serving.batcher import Batcher
from modelkeep.serving.calls import Call
from modelkeep.serving.modes import Plan

WAIT_S = 0.002


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualLoop]:
    """A loop whose clock jumps; the batcher goes by it, too."""
    with closing(VirtualLoop()) as loop:
        monkeypatch.setattr(batcher, "time", SimpleNamespace(monotonic=loop.time))
        yield loop


def flat(max_rows: int = 8) -> Batcher:
    plan = Plan("flat", max_rows, WAIT_S, together=True)
    return Batcher(plan, max_queue=100, run_timeout_s=60.0, finish=lambda _finished, _run: None)


async def submit(queue: Batcher, *values: int) -> list[Call]:
    calls = [make_call(rows(value), owner=str(value)) for value in values]
    for call in calls:
        queue.submit(call)
    await turn()
    return calls


def test_a_lone_caller_is_not_delayed_however_often_it_asks(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(), ByHand()
        queue.attach(runner)
        for value in range(20):
            before = loop.time()
            await submit(queue, value)
            assert runner.rows == [value]
            assert loop.time() == before
            await runner.answer()

    loop.run_until_complete(story())


def test_a_run_waits_for_those_that_were_here_and_not_for_longer_than_it_may(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(), ByHand()
        queue.attach(runner)
        await submit(queue, 1, 2, 3)
        await runner.answer()
        began = loop.time()
        await submit(queue, 4, 5)
        await asyncio.sleep(WAIT_S / 2)
        assert len(runner.runs) == 1, "the third is waited for"
        await asyncio.sleep(WAIT_S / 2 + 1e-6)
        assert runner.rows == [4, 5]
        assert loop.time() - began == pytest.approx(WAIT_S, abs=1e-5)

    loop.run_until_complete(story())


def test_the_last_of_those_that_were_here_starts_the_run(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(), ByHand()
        queue.attach(runner)
        await submit(queue, 1, 2, 3)
        await runner.answer()
        before = loop.time()
        await submit(queue, 4)
        await submit(queue, 5)
        assert len(runner.runs) == 1
        await submit(queue, 6)
        assert runner.rows == [4, 5, 6]
        assert loop.time() == before

    loop.run_until_complete(story())


def test_a_full_run_waits_for_nobody(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(max_rows=4), ByHand()
        queue.attach(runner)
        await submit(queue, *range(12))
        before = loop.time()
        for expected in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]):
            assert runner.rows == expected
            await runner.answer()
        assert loop.time() == before

    loop.run_until_complete(story())


def test_after_a_crowd_has_gone_only_one_run_waits(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(), ByHand()
        queue.attach(runner)
        await submit(queue, 1, 2, 3, 4)
        await runner.answer()
        await submit(queue, 5)
        await asyncio.sleep(WAIT_S + 1e-6)
        assert runner.rows == [5]
        await runner.answer()
        before = loop.time()
        await submit(queue, 6)
        assert runner.rows == [6]
        assert loop.time() == before

    loop.run_until_complete(story())


def test_one_that_leaves_while_it_is_waited_for_others_is_not_run(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(), ByHand()
        queue.attach(runner)
        await submit(queue, 1, 2, 3)
        await runner.answer()
        leaving, staying = await submit(queue, 4, 5)
        leave(queue, leaving)
        await asyncio.sleep(WAIT_S + 1e-6)
        assert runner.rows == [5]
        await runner.answer()
        assert staying.done
        assert queue.idle

    loop.run_until_complete(story())


def test_one_to_be_tried_again_waits_for_nobody(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(), ByHand()
        queue.attach(runner)
        await submit(queue, 1, 2, 3)
        before = loop.time()
        await runner.fail("refused")
        for value in (1, 2, 3):
            assert runner.rows == [value]
            await runner.answer()
        assert loop.time() == before

    loop.run_until_complete(story())


def test_no_timer_is_left_behind_by_a_run_that_did_not_wait_to_the_end(loop: VirtualLoop) -> None:
    async def story() -> None:
        queue, runner = flat(), ByHand()
        queue.attach(runner)
        await submit(queue, 1, 2)
        await runner.answer()
        await submit(queue, 3)
        await submit(queue, 4)
        assert runner.rows == [3, 4]
        await runner.answer()
        await asyncio.sleep(WAIT_S * 0.9)
        await submit(queue, 5)
        await asyncio.sleep(WAIT_S * 0.5)  # the old timer has rung
        assert len(runner.runs) == 2, "the new wait has its own length"
        await asyncio.sleep(WAIT_S * 0.5 + 1e-6)
        assert runner.rows == [5]

    loop.run_until_complete(story())
