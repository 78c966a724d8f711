"""Deadlines: never early, hardly late, forgotten when they are told to be, and few timers however many calls."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.calling import VirtualLoop, make_call, make_route, rows
from modelkeep.serving.calls import Call
from modelkeep.serving.deadlines import Deadlines
from modelkeep.serving.messages import Response

TICK_S = 0.01


class Watched:
    """Deadlines on a loop whose clock jumps, and when each call was told."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.route = make_route()
        self.rung: dict[Call, float] = {}
        self.deadlines = Deadlines(self.ring)
        self.timers = 0

    def ring(self, call: Call) -> None:
        assert call not in self.rung, "told twice"
        self.rung[call] = self.loop.time()
        self.deadlines.discard(call)  # as the engine does

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def add(self, *after_s: float) -> list[Call]:
        async def adding() -> list[Call]:
            calls = [make_call(rows(1), deadline=self.loop.time() + seconds, route=self.route) for seconds in after_s]
            for call in calls:
                self.deadlines.add(call)
            self.timers = len(self.loop._scheduled)  # type: ignore[attr-defined]
            return calls

        return self.loop.run_until_complete(adding())


@contextmanager
def watching() -> Iterator[Watched]:
    """Its loop is closed however a test ends: Hypothesis breaks examples off, too."""
    with closing(VirtualLoop()) as loop:
        yield Watched(loop)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watching() as one:
        yield one


@settings(max_examples=60)
@given(after_s=st.lists(st.floats(0, 0.5), min_size=1, max_size=20), began=st.floats(0, 0.02), data=st.data())
def test_each_is_told_once_never_early_and_at_most_a_tick_late_unless_it_is_discarded(
    after_s: list[float], began: float, data: st.DataObject
) -> None:
    with watching() as watched:
        watched.run(began)
        calls = watched.add(*after_s)
        gone = data.draw(st.sets(st.sampled_from(calls)))
        for call in gone:
            watched.deadlines.discard(call)
        watched.run(1.0)
        assert watched.rung.keys() == set(calls) - gone
        for call, at in watched.rung.items():
            assert call.deadline - 1e-9 <= at <= call.deadline + TICK_S + 1e-9
        assert not watched.deadlines._buckets, "everything is forgotten in the end"


def test_ten_thousand_calls_within_a_tenth_of_a_second_use_few_timers(watched: Watched) -> None:
    calls = watched.add(*(1.0 + number / 100_000 for number in range(10_000)))
    assert watched.timers <= 12
    watched.run(2.0)
    assert watched.rung.keys() == set(calls)


def test_a_call_that_has_ended_is_held_on_to_by_nobody(watched: Watched) -> None:
    (call,) = watched.add(30.0)
    watched.deadlines.discard(call)
    assert not any(call in bucket for bucket in watched.deadlines._buckets.values())
    watched.deadlines.discard(call)


def test_a_call_that_was_never_added_can_be_discarded(watched: Watched) -> None:
    (other,) = watched.add(0.5)

    async def discard() -> None:
        watched.deadlines.discard(make_call(rows(1), route=watched.route))

    watched.loop.run_until_complete(discard())
    watched.run(1.0)
    assert list(watched.rung) == [other]


@pytest.mark.parametrize("late_s", [0.0, 5.0])
def test_a_deadline_that_has_passed_is_told_at_once(watched: Watched, late_s: float) -> None:
    (call,) = watched.add(-late_s)
    watched.run(2 * TICK_S)
    assert call in watched.rung


def test_a_call_that_ended_before_it_was_added_is_not_held_on_to(watched: Watched) -> None:
    async def add() -> None:
        call = make_call(rows(1), deadline=watched.loop.time() + 30.0, route=watched.route)
        call.answer.set_result(Response(200, b""))
        watched.deadlines.add(call)

    watched.loop.run_until_complete(add())
    assert not watched.deadlines._buckets
