"""The batcher against a fake runner whose answers are given by hand: what is merged, who gets what, and what failure does."""

import asyncio
import json
import traceback
from collections.abc import Sequence

import numpy as np
import pytest

from fixtures.calling import ByHand as Runner
from fixtures.calling import leave, make_call, make_request, make_route, rows, turn
from fixtures.standings import through
from modelkeep.contracts.errors import (
    Internal,
    InvalidInput,
    ModelFailed,
    ModelkeepError,
    OutOfMemory,
    Overloaded,
    RunnerLost,
    StorageFull,
    Timeout,
    VersionQuarantined,
)
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.serving.batcher import Batcher, Finished, TooLate
from modelkeep.serving.calls import Call, Run
from modelkeep.serving.codec import Tensors
from modelkeep.serving.matrix import Matrix
from modelkeep.serving.messages import Response
from modelkeep.serving.modes import Mode, Plan


def batcher(
    mode: Mode = "cheap", *, max_rows: int = 8, max_wait_s: float = 0.0, max_queue: int = 4, run_timeout_s: float = 60.0
) -> Batcher:
    plan = Plan(mode, max_rows, max_wait_s, mode in {"cheap", "flat"})
    return Batcher(plan, max_queue=max_queue, run_timeout_s=run_timeout_s, finish=lambda _finished, _run: None)


async def submit(queue: Batcher, *values: int, name: str = "x", owner: str = "") -> Call:
    call = make_call(rows(*values, name=name), owner=owner)
    queue.submit(call)
    await turn()
    return call


def tripled(call: Call) -> list[int]:
    return [value for (value,) in json.loads(call.answer.result().body)]


def error_of(call: Call) -> BaseException | None:
    assert call.done
    return call.answer.exception()


class Clock:
    """The batcher's clock, moved by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stands for the time module in the batcher."""
    clock = Clock()
    monkeypatch.setattr("modelkeep.serving.batcher.time", clock)
    return clock


async def test_a_lone_caller_never_waits() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    answer = await submit(queue, 1, 2)
    assert runner.rows == [1, 2]
    await runner.answer()
    assert tripled(answer) == [3, 6]
    assert answer.share is not None
    assert answer.share.run.run_s == 0.25
    assert queue.idle


async def test_what_arrives_during_a_run_forms_the_next_one_and_each_gets_its_own_rows() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    first = await submit(queue, 1)
    others = [await submit(queue, 2, 3), await submit(queue, 4), await submit(queue, 5, 6)]
    assert len(runner.runs) == 1
    assert queue.waiting == 3
    await runner.answer()
    assert runner.rows == [2, 3, 4, 5, 6]
    await runner.answer()
    assert [tripled(one) for one in (first, *others)] == [[3], [6, 9], [12], [15, 18]]
    assert queue.runs == 2


async def test_no_run_passes_the_most_rows_unless_one_request_does_so_alone() -> None:
    queue, runner = batcher(max_rows=4), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    await submit(queue, 1, 2, 3)
    await submit(queue, 4, 5)
    await submit(queue, 6, 7, 8, 9, 10)
    for expected in ([0], [1, 2, 3], [4, 5], [6, 7, 8, 9, 10]):
        assert runner.rows == expected
        await runner.answer()


@pytest.mark.parametrize(
    "other",
    [
        {"z": np.zeros((1, 1), dtype=np.int64)},
        {"x": np.zeros((1, 1), dtype=np.int32)},
        {"x": np.zeros((1, 2), dtype=np.int64)},
        {"x": np.zeros((1, 1), dtype=np.int64), "z": np.zeros(1)},
    ],
)
async def test_only_equal_kinds_share_a_run(other: Tensors) -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    await submit(queue, 1)
    queue.submit(make_call(other))
    await runner.answer()
    assert runner.rows == [1]
    await runner.answer()
    assert runner.runs[-1][0].keys() == other.keys()


async def test_one_bad_row_fails_alone() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    good, bad, fine = await submit(queue, 1), await submit(queue, 2), await submit(queue, 3)
    await runner.answer()
    await runner.fail("refused", "stack of the model", row=1)
    assert runner.rows == [1]
    await runner.answer()
    assert runner.rows == [2]
    await runner.fail("refused", "stack of the model", row=0)
    assert runner.rows == [3]
    await runner.answer()
    assert (tripled(good), tripled(fine)) == ([3], [9])
    refused = error_of(bad)
    assert isinstance(refused, InvalidInput)
    assert (refused.fields[0].path, refused.fields[0].code) == ("inputs[0]", "refused_by_model")
    assert "stack" not in str(refused)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("refused", InvalidInput), ("bad_image", InvalidInput), ("memory", OutOfMemory), ("model_failed", ModelFailed)]
    + [(code, ModelFailed) for code in ("output_invalid", "something new")],
)
async def test_a_failed_run_has_an_error_of_its_own_kind(code: str, kind: type[ModelkeepError]) -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    answer = await submit(queue, 1)
    await runner.fail(code, "x" * 10_000)
    assert type(error_of(answer)) is kind
    assert len(str(error_of(answer))) < 300


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": np.zeros((2, 1))},
        {"y": np.zeros((4, 1))},
        {"y": np.zeros(())},
        {"y": np.zeros((3, 1)), "z": np.zeros((0, 1))},
    ],
)
async def test_an_answer_that_is_not_one_a_row_is_given_to_nobody(outputs: Tensors) -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    answers = [await submit(queue, 1, 2), await submit(queue, 3)]
    await runner.answer()
    assert runner.rows == [1, 2, 3]
    await runner.give(outputs)
    assert runner.rows == [1, 2]
    await runner.give({"y": np.zeros((1, 1))})
    assert runner.rows == [3]
    await runner.answer()
    assert isinstance(error_of(answers[0]), ModelFailed)
    assert tripled(answers[1]) == [9]


async def test_a_merged_run_too_large_for_a_frame_is_run_one_by_one() -> None:
    queue, runner = batcher(), Runner(max_cells=3)
    queue.attach(runner)
    await submit(queue, 0)
    answers = [await submit(queue, 1, 2), await submit(queue, 3, 4, 5, 6), await submit(queue, 7, 8)]
    await runner.answer()
    assert runner.rows == [1, 2]
    await runner.answer()
    assert runner.rows == [7, 8]
    await runner.answer()
    assert (tripled(answers[0]), tripled(answers[2])) == ([3, 6], [21, 24])
    assert isinstance(error_of(answers[1]), InvalidInput)


async def test_a_long_line_of_requests_too_large_for_a_frame_exhausts_no_stack() -> None:
    queue, runner = batcher(max_queue=5000), Runner(max_cells=1)
    answers = [await submit(queue, 1, 2, name=f"x{at}") for at in range(5000)]
    queue.attach(runner)
    assert all(isinstance(error_of(one), InvalidInput) for one in answers)


async def test_a_caller_that_leaves_is_not_run_and_disturbs_nobody() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    running, waiting, other = await submit(queue, 0), await submit(queue, 1), await submit(queue, 2)
    leave(queue, running)
    leave(queue, waiting)
    await runner.answer()
    assert runner.rows == [2]
    await runner.answer()
    assert tripled(other) == [6]


async def test_one_that_leaves_a_merged_run_moves_no_rows() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    first, leaving, last = await submit(queue, 1), await submit(queue, 2, 3), await submit(queue, 4)
    await runner.answer()
    assert runner.rows == [1, 2, 3, 4]
    leave(queue, leaving)
    await runner.answer()
    assert (tripled(first), tripled(last)) == ([3], [12])


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    queue, runner = batcher(max_queue=2), Runner()
    queue.attach(runner)
    for value in range(3):
        await submit(queue, value)
    with pytest.raises(Overloaded) as refused:
        await submit(queue, 3)
    assert refused.value.retry_after_s == 1


async def test_callers_that_have_left_take_no_place_in_the_queue() -> None:
    queue = batcher(max_queue=2)
    left = [await submit(queue, 1), await submit(queue, 2)]
    for one in left:
        leave(queue, one)
    assert queue.waiting == 0
    assert queue.idle
    assert not (await submit(queue, 3)).done
    await submit(queue, 4)
    with pytest.raises(Overloaded):
        await submit(queue, 5)


async def test_requests_wait_for_a_runner_that_is_being_loaded() -> None:
    queue, runner = batcher(), Runner()
    answers = [await submit(queue, 1), await submit(queue, 2)]
    assert not queue.idle
    queue.attach(runner)
    assert runner.rows == [1, 2]
    await runner.answer()
    assert [tripled(one) for one in answers] == [[3], [6]]


async def test_requests_of_a_lost_runner_are_tried_once_more_and_alone() -> None:
    queue, lost, next_one = batcher(), Runner(), Runner()
    queue.attach(lost)
    await submit(queue, 0)
    answers = [await submit(queue, 1), await submit(queue, 2)]
    await lost.answer()
    lost.lose()
    await turn()
    assert not any(one.done for one in answers)
    queue.attach(next_one)
    assert next_one.rows == [1]
    await next_one.answer()
    assert next_one.rows == [2]
    await next_one.answer()
    assert [tripled(one) for one in answers] == [[3], [6]]


async def test_a_request_that_loses_two_runners_is_given_up() -> None:
    queue = batcher()
    answer = await submit(queue, 1)
    for _ in range(2):
        runner = Runner()
        queue.attach(runner)
        runner.lose()
        await turn()
    assert isinstance(error_of(answer), RunnerLost)
    assert queue.idle


async def test_a_runner_that_is_gone_before_the_run_costs_nothing() -> None:
    queue, gone, next_one = batcher(), Runner(), Runner()
    gone.lose()
    queue.attach(gone)
    answer = await submit(queue, 1)
    assert not answer.done
    queue.attach(next_one)
    await next_one.answer()
    assert tripled(answer) == [3]


async def test_the_end_of_an_old_runner_does_not_detach_the_new_one() -> None:
    queue, old, new = batcher(), Runner(), Runner()
    queue.attach(old)
    answer = await submit(queue, 1)
    queue.attach(new)
    old.lose()
    await turn()
    queue.detach(old)
    assert new.rows == [1]
    await new.answer()
    assert tripled(answer) == [3]


async def test_a_run_past_its_limit_costs_the_runner_its_life_and_only_the_culprit_an_answer() -> None:
    queue, slow = batcher(run_timeout_s=0.01), Runner()
    queue.attach(slow)
    answers = [await submit(queue, 0), await submit(queue, 1), await submit(queue, 2)]
    await slow.answer()
    assert slow.rows == [1, 2]
    await asyncio.wait({slow.runs[-1][1]})
    await turn()
    assert slow.killed == 1
    again = Runner()
    queue.attach(again)
    assert again.rows == [1]
    await asyncio.wait({again.runs[-1][1]})
    await turn()
    assert isinstance(error_of(answers[1]), Timeout)
    last = Runner()
    queue.attach(last)
    await last.answer()
    assert tripled(answers[2]) == [6]


async def test_a_runner_lost_after_a_late_run_is_not_taken_for_another_late_one() -> None:
    queue, slow = batcher(run_timeout_s=0.01), Runner()
    queue.attach(slow)
    late = await submit(queue, 1)
    await asyncio.wait({slow.runs[-1][1]})
    await turn()
    assert isinstance(error_of(late), Timeout)
    answer = await submit(queue, 2)
    for _ in range(2):
        runner = Runner()
        queue.attach(runner)
        runner.lose()
        await turn()
    assert isinstance(error_of(answer), RunnerLost)


async def test_a_run_in_time_is_not_killed_later() -> None:
    queue, runner = batcher(run_timeout_s=0.01), Runner()
    queue.attach(runner)
    await submit(queue, 1)
    await runner.answer()
    await asyncio.sleep(0.03)
    assert runner.killed == 0


async def test_a_version_held_back_refuses_what_waits_and_what_comes_until_a_runner_is_there() -> None:
    queue = batcher()
    waiting = await submit(queue, 1)
    queue.hold(VersionQuarantined(retry_after_s=60))
    assert isinstance(error_of(waiting), VersionQuarantined)
    with pytest.raises(VersionQuarantined) as refused:
        await submit(queue, 2)
    assert refused.value.retry_after_s == 60
    runner = Runner()
    queue.attach(runner)
    answer = await submit(queue, 3)
    await runner.answer()
    assert tripled(answer) == [9]


async def test_requests_whose_runner_is_lost_while_the_version_is_held_back_do_not_wait() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    answer = await submit(queue, 1)
    queue.hold(VersionQuarantined(retry_after_s=60))
    runner.lose()
    await turn()
    queue.detach(runner)
    assert isinstance(error_of(answer), VersionQuarantined)
    with pytest.raises(VersionQuarantined):
        await submit(queue, 2)


async def test_a_hold_refuses_nobody_while_another_runner_answers() -> None:
    queue, lost, other = batcher(), Runner(), Runner()
    queue.attach(other)
    queue.attach(lost)
    answer = await submit(queue, 1)
    queue.hold(VersionQuarantined(retry_after_s=60))
    lost.lose()
    await turn()
    queue.detach(lost)
    assert other.rows == [1]
    await other.answer()
    assert tripled(answer) == [3]
    assert not (await submit(queue, 2)).done


async def test_calls_of_one_kind_but_not_of_one_width_share_no_run() -> None:
    spec = TensorSpec("x", Dtype.FP64, (-1, -1))
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    for width in (2, 3):
        queue.submit(make_call(Matrix(Signature((spec,)), [[1.0] * width])))
    await runner.answer()
    assert runner.rows == [1.0, 1.0]
    await runner.answer()
    assert runner.rows == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("max_rows", [2, 3, 4, 5])
async def test_no_kind_starves_behind_two_callers_of_another(max_rows: int) -> None:
    queue, runner = batcher(max_rows=max_rows, max_queue=1000), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    other = make_call(rows(7, name="z"), owner="c")
    queue.submit(make_call(rows(0), owner="a"))
    queue.submit(other)
    for value in range(100):
        for owner in ("b", "a"):
            queue.submit(make_call(rows(value), owner=owner))
    for _ in range(4):
        await runner.answer()
    assert other.done


async def test_a_failure_to_write_down_is_an_answer_too() -> None:
    def fails(_finished: Finished, _run: Run) -> None:
        raise OSError

    queue = Batcher(Plan("cheap", 8, 0.0, together=True), max_queue=8, run_timeout_s=60.0, finish=fails)
    runner = Runner()
    queue.attach(runner)
    first, second = await submit(queue, 1), await submit(queue, 2)
    await runner.answer()
    assert isinstance(error_of(first), Internal)
    assert runner.rows == [2]
    await runner.answer()
    assert isinstance(error_of(second), Internal)


async def test_one_that_waits_to_be_tried_again_and_leaves_is_forgotten() -> None:
    queue, lost = batcher(), Runner()
    queue.attach(lost)
    call = await submit(queue, 1)
    lost.lose()
    await turn()
    queue.detach(lost)
    leave(queue, call)
    assert queue.waiting == 0
    assert queue.idle


async def test_refusals_do_not_pile_up_in_one_error() -> None:
    queue = batcher()
    queue.hold(VersionQuarantined(retry_after_s=60))
    lengths: Sequence[int] = []
    for _ in range(50):
        with pytest.raises(VersionQuarantined) as refused:
            await submit(queue, 1)
        lengths = [*lengths, len(traceback.extract_tb(refused.value.__traceback__))]
    assert len(set(lengths)) == 1


async def test_one_that_left_a_run_which_failed_is_not_counted_among_those_that_wait() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    _first, leaving, _last = await submit(queue, 1), await submit(queue, 2), await submit(queue, 3)
    await runner.answer()
    leave(queue, leaving)
    await runner.fail("refused")
    assert runner.rows == [1]
    assert queue.waiting == 1
    await runner.answer()
    assert runner.rows == [3]


async def test_the_time_of_a_run_that_was_lost_counts_as_time_that_a_runner_was_busy(clock: Clock) -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    clock.now += 2
    assert queue.busy_s() == 2
    runner.lose()
    await turn()
    assert queue.busy_s() == 2


async def run_of(queue: Batcher, runner: Runner, clock: Clock, seconds: float, *owners: str) -> None:
    """Have one run with a request of each owner take so long, after one that takes no time."""
    await submit(queue, 0)
    for at, owner in enumerate(owners):
        queue.submit(make_call(rows(at), owner=owner))
    await runner.answer()
    clock.now += seconds
    await runner.answer()


async def test_whoever_cannot_be_answered_in_time_is_told_at_once(clock: Clock) -> None:
    queue, runner = batcher("off", max_queue=100), Runner()
    queue.attach(runner)
    await run_of(queue, runner, clock, 2.0, "a")
    for value in range(4):
        await submit(queue, value)
    assert queue.predicted_wait_s == 4 * 2.0
    with pytest.raises(TooLate) as refused:
        queue.submit(make_call(rows(9), deadline=clock.now + 1.24 * (8.0 + 2.0)))  # its own run takes 2 s, too
    assert refused.value.retry_after_s == 8
    queue.submit(make_call(rows(9), deadline=clock.now + 1.26 * (8.0 + 2.0)))


async def test_two_runners_halve_the_predicted_wait_and_a_free_one_ends_it(clock: Clock) -> None:
    queue, one, two = batcher("off", max_queue=100), Runner(), Runner()
    queue.attach(one)
    await run_of(queue, one, clock, 2.0, "a")
    await submit(queue, 1)
    assert queue.predicted_wait_s == 2.0
    queue.attach(two)
    assert queue.predicted_wait_s == 0.0
    queue.submit(make_call(rows(2), deadline=clock.now + 0.1))
    await turn()
    assert two.rows == [2]
    await submit(queue, 3)
    assert queue.predicted_wait_s == (1 + 1) * 2.0 / 2


async def test_requests_that_share_a_run_share_its_time_and_the_pace_follows_slowly(clock: Clock) -> None:
    queue, runner = batcher(max_queue=100), Runner()
    queue.attach(runner)
    await run_of(queue, runner, clock, 2.0, "a", "b", "c", "d")
    await submit(queue, 1)
    assert queue.predicted_wait_s == 0.5
    clock.now += 1.5
    await runner.answer()
    await submit(queue, 2)
    assert queue.predicted_wait_s == pytest.approx(0.5 + 0.2 * (1.5 - 0.5))


async def test_a_full_queue_says_how_long_it_will_take(clock: Clock) -> None:
    queue, runner = batcher("off", max_queue=3), Runner()
    queue.attach(runner)
    await run_of(queue, runner, clock, 2.0, "a")
    for value in range(4):
        await submit(queue, value)
    with pytest.raises(Overloaded) as refused:
        await submit(queue, 9)
    assert refused.value.retry_after_s == 8


async def test_a_caller_with_a_thousand_waiting_delays_another_by_a_run_only() -> None:
    queue, runner = batcher(max_rows=8, max_queue=2000), Runner()
    queue.attach(runner)
    for value in range(1000):
        queue.submit(make_call(rows(value), owner="greedy"))
    await turn()
    modest = make_call(rows(7777), owner="modest")
    queue.submit(modest)
    assert 7777 not in runner.rows
    await runner.answer()
    assert 7777 in runner.rows
    await runner.answer()
    assert modest.done


async def test_callers_take_turns_one_by_one_where_each_has_a_run_of_its_own() -> None:
    queue, runner = batcher("off", max_queue=100), Runner()
    queue.attach(runner)
    await submit(queue, 0, owner="a")
    for value in (1, 2, 3):
        await submit(queue, value, owner="a")
    for value in (11, 12):
        await submit(queue, value, owner="b")
    await submit(queue, 21, owner="c")
    seen = []
    for _ in range(6):
        await runner.answer()
        seen += runner.rows
    assert seen == [1, 11, 21, 2, 12, 3]


async def test_a_full_queue_takes_the_first_of_another_caller_and_never_more_than_twice_its_bound() -> None:
    queue = batcher(max_queue=4)
    for value in range(4):
        await submit(queue, value, owner="greedy")
    with pytest.raises(Overloaded):
        await submit(queue, 4, owner="greedy")
    for number in range(4):
        assert not (await submit(queue, number, owner=f"modest-{number}")).done
    with pytest.raises(Overloaded):
        await submit(queue, 9, owner="one too many")
    assert queue.waiting == 8


async def test_a_full_queue_takes_as_many_of_another_caller_as_its_share() -> None:
    queue = batcher(max_queue=4)
    for value in range(4):
        await submit(queue, value, owner="greedy")
    for value in range(2):
        await submit(queue, value, owner="modest")
    with pytest.raises(Overloaded):
        await submit(queue, 9, owner="modest")
    assert queue.waiting == 6


async def test_a_runner_that_is_let_go_ends_what_it_has_and_gets_nothing_more() -> None:
    queue, leaving, other = batcher(), Runner(), Runner()
    queue.attach(leaving)
    running = await submit(queue, 1)
    queue.detach(leaving)
    waiting = await submit(queue, 2)
    assert leaving.released == 0
    await leaving.answer()
    assert (tripled(running), leaving.released, len(leaving.runs)) == ([3], 1, 1)
    assert (queue.replicas, queue.attached, queue.busy) == (0, False, 0)
    queue.attach(other)
    assert (queue.replicas, queue.attached, queue.busy) == (1, True, 1)
    await other.answer()
    assert tripled(waiting) == [6]
    queue.detach(other)
    assert other.released == 1


async def test_several_runners_answer_at_the_same_time() -> None:
    queue, one, two = batcher("off"), Runner(), Runner()
    queue.attach(one)
    queue.attach(two)
    first, second = await submit(queue, 1), await submit(queue, 2)
    assert queue.busy == 2
    await one.answer()
    await two.answer()
    assert sorted([*tripled(first), *tripled(second)]) == [3, 6]


async def test_another_plan_holds_from_the_next_run_on() -> None:
    queue, runner = batcher("off"), Runner()
    queue.attach(runner)
    for value in range(5):
        await submit(queue, value)
    await runner.answer()
    assert runner.rows == [1]
    queue.reconsider(Plan("cheap", 2, 0.0, together=True))
    await runner.answer()
    assert runner.rows == [2, 3]


async def test_a_value_too_large_for_the_model_fails_alone() -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 1)),))
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    good, bad = (make_call(Matrix(signature, [[value]])) for value in (1.5, 1e300))
    queue.submit(good)
    queue.submit(bad)
    await runner.answer()
    assert runner.rows == [1.5]
    await runner.answer()
    assert isinstance(error_of(bad), InvalidInput)
    assert good.answer.result().body == b"[[4.5]]"


@pytest.mark.parametrize("error", [InvalidInput("No."), ValueError("a fault of ours")])
async def test_an_answer_that_cannot_be_written_hurts_no_other(error: Exception) -> None:
    def fails(_call: Call, _share: object) -> Response:
        raise error

    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    good, bad = make_call(rows(1)), make_call(rows(2), write=fails)
    for call in (bad, good):
        queue.submit(call)
    await runner.answer()
    await runner.answer()
    assert tripled(good) == [3]
    assert isinstance(error_of(bad), InvalidInput if isinstance(error, InvalidInput) else Internal)


async def test_all_of_a_run_are_refused_where_its_answers_may_not_be_given() -> None:
    queue = Batcher(
        Plan("cheap", 8, 0.0, together=True), max_queue=8, run_timeout_s=60.0, finish=lambda _finished, _run: StorageFull()
    )
    runner = Runner()
    queue.attach(runner)
    for value in range(3):
        queue.submit(make_call(rows(value)))
    calls = [make_call(rows(value)) for value in range(2)]
    await turn()
    for call in calls:
        queue.submit(call)
    await runner.answer()
    await runner.answer()
    errors = [error_of(call) for call in calls]
    assert [type(error) for error in errors] == [StorageFull, StorageFull]
    assert errors[0] is not errors[1]


class Broken:
    """An answer that cannot be given."""

    def done(self) -> bool:
        return False

    def set_result(self, _response: Response) -> None:
        raise OSError

    set_exception = set_result


async def test_one_that_cannot_be_told_its_answer_keeps_it_from_no_other() -> None:
    queue, runner = batcher(), Runner()
    queue.attach(runner)
    await submit(queue, 0)
    broken, good = make_call(rows(1)), make_call(rows(2))
    broken.answer = Broken()
    for call in (broken, good):
        queue.submit(call)
    await runner.answer()
    later = await submit(queue, 3)
    assert runner.rows == [1, 2]
    await runner.answer()
    assert tripled(good) == [6]
    assert runner.rows == [3]
    await runner.answer()
    assert tripled(later) == [9]


async def test_keys_and_sessions_of_one_person_wait_in_one_line() -> None:
    owners = set()
    for name in ("key_1", "key_2", "ses_1"):
        request = make_request()
        request.key = ServedKey(name, b"", "k", through(user="usr_1"))
        call = Call(make_route(), request, "native", b"{}", 0.0)
        owners.add(call.owner)
        assert call.key_id == name, "the history tells by which"
    assert owners == {"usr_1"}
