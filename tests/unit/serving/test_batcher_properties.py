"""Whatever happens, in whatever order: every request is answered exactly once, with its own rows or with its own error.

A state machine drives a batcher with requests that are well, bad, unfit, too large, mute, deadly, or answered short, of several
callers, some with a deadline, while up to four runners come and go, plans change, callers leave and time passes (virtually).
"""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fixtures.calling import VirtualLoop, leave, make_call, turn
from modelkeep.contracts.errors import InvalidInput, ModelFailed, Overloaded, RunnerLost, Timeout, VersionQuarantined
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.sandbox import frames
from modelkeep.sandbox.connection import RunnerGone
from modelkeep.serving import batcher
from modelkeep.serving.batcher import Batcher, Finished, TooLate
from modelkeep.serving.calls import Call, Run
from modelkeep.serving.codec import Tensors
from modelkeep.serving.deadlines import Deadlines
from modelkeep.serving.matrix import Matrix
from modelkeep.serving.messages import ClientGone
from modelkeep.serving.modes import Plan

MAX_ROWS = 4
MAX_QUEUE = 6
MAX_RUNNERS = 4
FRAME_ROWS = 6
LIMIT_S = 10.0
PATIENCE_S = 5.0
TICKS_S = 0.021
LARGEST = FRAME_ROWS + 1
WELL, BAD, SHORT, MUTE, DEADLY, UNFIT = range(6)
CLIMATES = [
    [WELL],
    [WELL, BAD],
    [WELL, SHORT],
    [WELL, WELL, MUTE],
    [WELL, DEADLY],
    [WELL, UNFIT],
    [WELL, WELL, BAD, SHORT, MUTE, DEADLY, UNFIT],
]
PLANS = [
    Plan("cheap", MAX_ROWS, 0.0, together=True),
    Plan("flat", MAX_ROWS, 0.002, together=True),
    Plan("compute", MAX_ROWS, 0.0, together=False),
    Plan("off", MAX_ROWS, 0.0, together=False),
]
FLOATS = Signature((TensorSpec("floats", Dtype.FP32, (-1, 1)),), (TensorSpec("y", Dtype.FP32, (-1, 1)),))


class Asked:
    """What the test knows of one request. Its rows are `number * 100`, and so on upwards."""

    call: Call

    def __init__(self, number: int, kind: str, rows: int, nature: int, patience: float) -> None:
        self.number = number
        self.kind = kind
        self.values = list(range(number * 100, number * 100 + rows))
        self.nature = nature if nature != UNFIT or kind == "floats" else WELL
        self.patience = patience
        self.losses = 0
        self.late_alone = False
        self.suspect = False
        self.runs = 0
        self.held = False
        self.refused: Exception | None = None

    @property
    def payload(self) -> Tensors | Matrix:
        if self.kind != "floats":
            return {self.kind: np.array(self.values)[:, None]}
        scale = 1e300 if self.nature == UNFIT else 1.0
        return Matrix(FLOATS, [[(value + 1) * scale - (self.nature != UNFIT)] for value in self.values])

    @property
    def done(self) -> bool:
        return self.refused is not None or self.call.done

    @property
    def gone(self) -> bool:
        return self.refused is None and self.call.done and isinstance(self.call.answer.exception(), ClientGone)


class Runner:
    """A fake replica that checks each run it is given."""

    def __init__(self, machine: "Batching") -> None:
        self.connection = self
        self.machine = machine
        self.gone = False
        self.detached = False
        self.released = 0
        self.run_now: tuple[list[Asked], Tensors, Callable[[object], None]] | None = None

    @property
    def free(self) -> bool:
        return self.run_now is None and not self.gone and not self.detached

    def ask(self, tensors: Tensors, told: Callable[[object], None]) -> None:
        assert not self.detached, "a run for one that was let go"
        if self.gone:
            raise RunnerGone
        (array,) = tensors.values()
        if len(array) > FRAME_ROWS:
            raise frames.FrameError
        assert self.run_now is None, "two runs at once"
        values = [round(value) for value in array.ravel().tolist()]
        asked = [self.machine.asked[number] for number in dict.fromkeys(value // 100 for value in values)]
        assert values == [value for one in asked for value in one.values], "rows of a request are not whole, or out of order"
        assert len({one.kind for one in asked}) == 1, "different kinds were merged"
        assert len(asked) == 1 or len(values) <= MAX_ROWS, "more rows than allowed were merged"
        assert len(asked) == 1 or self.machine.plan.together, "merged, though the plan says each alone"
        assert len(asked) == 1 or not any(one.suspect for one in asked), "a suspect shares a run"
        assert not any(one.done for one in asked), "a run for somebody who has left, or has an answer"
        for one in asked:
            one.runs += 1
            assert one.runs <= 3
        self.run_now = (asked, tensors, told)

    def kill(self) -> None:
        assert self.run_now is not None, "killed without a run"
        asked = self.run_now[0]
        if len(asked) == 1:
            asked[0].late_alone = True
        self.lose()

    def release(self) -> None:
        assert self.detached, "released without being detached"
        assert self.run_now is None, "released while it runs"
        self.released += 1

    def lose(self) -> None:
        self.gone = True
        if self.run_now is not None:
            asked, _tensors, told = self.run_now
            self.run_now = None
            for one in asked:
                one.losses += 1
                one.suspect = True
            told(RunnerGone())

    def complete(self) -> None:
        """Do what the requests in the run are made to bring about."""
        assert self.run_now is not None
        asked, tensors, told = self.run_now
        natures = {one.nature for one in asked}
        assert UNFIT not in natures, "what fits no number of the model's is run"
        if MUTE in natures:
            return
        if DEADLY in natures:
            self.lose()
            return
        self.run_now = None
        (array,) = tensors.values()
        if BAD in natures or SHORT in natures:
            for one in asked:
                one.suspect = True
        if BAD in natures:
            told((frames.RunFailed(1, "refused", ""), {}))
        elif SHORT in natures:
            told((frames.Result(1, 0.1), {"y": array[1:] * 3}))
        else:
            told((frames.Result(1, 0.1), {"y": array * 3}))


class Batching(RuleBasedStateMachine):
    """Requests and runners, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(batcher, "time", SimpleNamespace(monotonic=self.loop.time))
        self.asked: list[Asked] = []
        self.runners: list[Runner] = []
        self.held = False
        self.finished: list[Call] = []
        self.faults: list[object] = []
        self.loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        self.queue: Batcher
        self.deadlines: Deadlines
        self.plan = PLANS[0]
        self.longest_wait_s = 0.0
        self.idle_since: tuple[int, float] | None = None
        self.busy_s = 0.0

    def do(self, act: Callable[[], object]) -> None:
        async def doing() -> None:
            act()
            await turn()

        self.loop.run_until_complete(doing())

    def overdue(self, call: Call) -> None:
        self.queue.leave(call)
        call.fail(Timeout())

    @initialize(climate=st.sampled_from(CLIMATES), plan=st.sampled_from(PLANS))
    def begin_with_a_runner(self, climate: list[int], plan: Plan) -> None:
        def finish(finished: Finished, _run: Run) -> None:
            assert not any(call.done for call, _response in finished)
            self.finished += [call for call, _response in finished]

        def make() -> None:
            self.queue = Batcher(plan, max_queue=MAX_QUEUE, run_timeout_s=LIMIT_S, finish=finish)
            self.deadlines = Deadlines(self.overdue)

        self.climate = climate
        self.plan = plan
        self.longest_wait_s = plan.max_wait_s
        self.do(make)
        self.attach()

    @rule(
        burst=st.lists(
            st.tuples(
                st.sampled_from("aaabc"),
                st.sampled_from(["x", "x", "x", "z", "floats"]),
                st.sampled_from([1, 1, 2, 3, LARGEST]),
                st.integers(0, 6),
                st.sampled_from([float("inf"), float("inf"), PATIENCE_S]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def submit(self, burst: list[tuple[str, str, int, int, float]]) -> None:
        self.do(lambda: [self.submit_one(*each) for each in burst])

    def submit_one(self, owner: str, kind: str, rows: int, nature: int, patience: float) -> None:
        one = Asked(len(self.asked), kind, rows, self.climate[nature % len(self.climate)], patience)
        self.asked.append(one)
        deadline = self.loop.time() + patience
        one.call = make_call(one.payload, owner=owner, deadline=deadline)
        queue = self.queue
        full = self.is_full(owner)
        wait = queue.predicted_wait_s
        held = self.held and not queue.attached
        try:
            queue.submit(one.call)
        except (Overloaded, VersionQuarantined) as refused:
            one.refused = refused
            match refused:
                case TooLate():
                    assert self.loop.time() + 1.25 * (wait + queue._run_s) > deadline, "refused though there is time"
                    assert not any(runner.free for runner in self.runners), "refused though a runner is free"
                case Overloaded():
                    assert full, "refused though there is room"
                case _:
                    assert held
        else:
            assert not held
            assert not full, "taken though the queue is full"
            if patience < float("inf"):
                self.deadlines.add(one.call)

    def is_full(self, owner: str) -> bool:
        """Whether the queue must refuse this caller: it is full, and the caller has its share of it, or it is twice full."""
        queued = sum(len(calls) for calls in self.queue._callers.values())
        mine = len(self.queue._callers.get(owner, ()))
        if queued < MAX_QUEUE:
            return False
        return queued >= 2 * MAX_QUEUE or (mine > 0 and (mine + 1) * len(self.queue._callers) > MAX_QUEUE)

    @precondition(lambda self: any(not one.done for one in self.asked))
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([one for one in self.asked if not one.done]))
        self.deadlines.discard(one.call)
        self.do(lambda: leave(self.queue, one.call))

    @precondition(lambda self: any(runner.run_now for runner in self.runners))
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        self.do(data.draw(st.sampled_from([runner for runner in self.runners if runner.run_now])).complete)
        self.notice()

    @precondition(lambda self: self.runners)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A runner dies, and the pool hears of it in the same turn or in a later one."""
        runner = data.draw(st.sampled_from(self.runners))
        self.do(runner.lose)
        if data.draw(st.booleans()):
            self.notice()

    @precondition(lambda self: sum(not runner.gone for runner in self.runners) < MAX_RUNNERS)
    @rule()
    def attach(self) -> None:
        runner = Runner(self)
        self.runners.append(runner)
        self.held = False
        self.do(lambda: self.queue.attach(runner))

    @precondition(lambda self: any(not runner.detached for runner in self.runners))
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        """A runner is asked to go: it ends what it has."""
        self.let_go(data.draw(st.sampled_from([runner for runner in self.runners if not runner.detached])))
        self.notice()

    def let_go(self, runner: Runner) -> None:
        runner.detached = True
        self.mark_held()
        self.do(lambda: self.queue.detach(runner))

    @rule()
    def hold(self) -> None:
        self.held = True
        self.mark_held()
        self.do(lambda: self.queue.hold(VersionQuarantined(retry_after_s=60)))

    def mark_held(self) -> None:
        """Whoever waits now may hear that there is no runner and will be none."""
        if self.held and all(runner.detached for runner in self.runners):
            for one in self.asked:
                one.held = one.held or not one.done

    @rule(plan=st.sampled_from(PLANS))
    def replan(self, plan: Plan) -> None:
        self.plan = plan
        self.longest_wait_s = max(self.longest_wait_s, plan.max_wait_s)
        self.do(lambda: self.queue.reconsider(plan))

    @rule(seconds=st.sampled_from([0.0005, 0.003, 1.0, LIMIT_S * 1.5]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.notice()

    def notice(self) -> None:
        """The pool's part: a runner that is gone is detached, and one that has ended what it had is forgotten."""
        for runner in list(self.runners):
            if runner.gone and not runner.detached:
                self.let_go(runner)
            if runner.gone or (runner.detached and runner.run_now is None):
                assert runner.gone or runner.released == 1
                self.runners.remove(runner)

    @invariant()
    def nothing_went_wrong_in_a_callback(self) -> None:
        assert not self.faults

    @invariant()
    def nobody_waits_without_reason(self) -> None:
        waiting = [one for one in self.asked if not one.done and not self.is_running(one)]
        if not waiting or not any(runner.free for runner in self.runners):
            self.idle_since = None
        else:
            now = self.loop.time()
            if self.idle_since is None or self.idle_since[0] != self.queue.runs:
                self.idle_since = (self.queue.runs, now)
            assert self.longest_wait_s, "a request waits though a runner is free"
            assert now - self.idle_since[1] <= self.longest_wait_s + 1e-6, "a request waits too long beside a free runner"
        if self.held and all(runner.detached for runner in self.runners):
            assert not waiting

    def is_running(self, one: Asked) -> bool:
        return any(runner.run_now is not None and one in runner.run_now[0] for runner in self.runners)

    @invariant()
    def the_queue_says_what_waits(self) -> None:
        live = [one for one in self.asked if not one.done and not self.is_running(one)]
        queue = getattr(self, "queue", None)
        if queue is None:
            return
        assert queue.waiting == len(live)
        assert queue._queued == sum(len(calls) for calls in queue._callers.values())
        assert all(queue._callers.values())
        assert queue._queued <= 2 * MAX_QUEUE
        assert queue.busy == sum(runner.run_now is not None for runner in self.runners)
        assert queue.replicas == sum(not runner.detached for runner in self.runners)

    @invariant()
    def the_time_that_runners_have_run_only_grows(self) -> None:
        if hasattr(self, "queue"):
            before, self.busy_s = self.busy_s, self.queue.busy_s()
            assert self.busy_s >= before - 1e-6

    @invariant()
    def nobody_waits_long_after_the_deadline(self) -> None:
        for one in self.asked:
            if not one.done:
                assert self.loop.time() <= one.call.deadline + TICKS_S

    @invariant()
    def every_answer_is_right(self) -> None:
        for one in self.asked:
            if not one.done or one.gone:
                continue
            error = one.refused or one.call.answer.exception()
            if error is None:
                assert one.nature == WELL
                assert json.loads(one.call.answer.result().body) == [[value * 3] for value in one.values]
                assert self.finished.count(one.call) == 1, "an answer that was not written down once"
            else:
                assert self.why(one, error), f"{one.__dict__} was answered {error!r}"
                assert one.call not in self.finished

    def why(self, one: Asked, error: BaseException) -> bool:
        """Whether this request had it coming."""
        match error:
            case Overloaded():
                return one.runs == 0
            case VersionQuarantined():
                return one.held or one.refused is not None
            case InvalidInput():
                return one.nature in {BAD, UNFIT} or len(one.values) > FRAME_ROWS
            case ModelFailed():
                return one.nature == SHORT
            case RunnerLost():
                return one.losses == 2
            case Timeout():
                return one.late_alone or self.loop.time() > one.call.deadline
        return False

    def teardown(self) -> None:
        try:
            if hasattr(self, "queue"):
                self.come_to_an_end()
        finally:  # also of an example that Hypothesis has broken off
            self.patch.undo()
            self.loop.close()

    def come_to_an_end(self) -> None:
        for _ in range(len(self.asked) * 4 + 8):
            self.notice()
            if not any(not runner.detached for runner in self.runners):
                self.attach()
            for runner in list(self.runners):
                if runner.run_now is not None:
                    self.do(runner.complete)
            self.time_passes(LIMIT_S * 1.5)
            if all(one.done for one in self.asked) and self.queue.idle:
                break
        assert all(one.done for one in self.asked)
        assert self.queue.idle
        self.every_answer_is_right()
        self.nothing_went_wrong_in_a_callback()


Batching.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestBatching = Batching.TestCase
