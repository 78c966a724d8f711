"""Whatever happens, in whatever order: every request is answered exactly once, with its own rows or with its own error.

A state machine drives a batcher with requests that are well, bad, too large, mute, deadly, or answered short, while runners
come and go, callers leave and time passes (virtually).
"""

import asyncio
import selectors

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelkeep.contracts.errors import InvalidInput, ModelFailed, Overloaded, RunnerLost, Timeout, VersionQuarantined
from modelkeep.sandbox import frames
from modelkeep.sandbox.connection import RunnerGone
from modelkeep.serving.batcher import Batcher
from modelkeep.serving.codec import Tensors

MAX_ROWS = 4
MAX_QUEUE = 6
FRAME_ROWS = 6
LIMIT_S = 10.0
WELL, BAD, SHORT, MUTE, DEADLY = range(5)
CLIMATES = [[WELL], [WELL, BAD], [WELL, SHORT], [WELL, WELL, MUTE], [WELL, DEADLY], [WELL, WELL, BAD, SHORT, MUTE, DEADLY]]


class VirtualSelector(selectors.DefaultSelector):
    """Never sleeps: the loop's clock jumps to when the next timer is due."""

    now = 0.0

    def select(self, timeout: float | None = None):
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self.selector = VirtualSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class Request:
    """What the test knows of one request. Its rows are `number * 100`, and so on upwards."""

    def __init__(self, number: int, kind: str, rows: int, nature: int) -> None:
        self.number = number
        self.kind = kind
        self.values = list(range(number * 100, number * 100 + rows))
        self.nature = nature
        self.losses = 0
        self.late_alone = False
        self.shared_failure = False
        self.runs = 0
        self.cancelled = False
        self.held = False
        self.answer: asyncio.Future


class Runner:
    """A fake replica that checks each run it is given."""

    def __init__(self, machine: "Batching") -> None:
        self.connection = self
        self.machine = machine
        self.gone = False
        self.run_now: tuple[list[Request], Tensors, asyncio.Future] | None = None

    def run(self, tensors: Tensors) -> asyncio.Future:
        if self.gone:
            raise RunnerGone
        (array,) = tensors.values()
        if len(array) > FRAME_ROWS:
            raise frames.FrameError
        assert self.run_now is None, "two runs at once"
        values = array.ravel().tolist()
        requests = [self.machine.requests[number] for number in dict.fromkeys(value // 100 for value in values)]
        assert values == [value for one in requests for value in one.values], "rows of a request are not whole, or out of order"
        assert len({one.kind for one in requests}) == 1, "different kinds were merged"
        assert len(requests) == 1 or len(values) <= MAX_ROWS, "more rows than allowed were merged"
        assert len(requests) == 1 or not any(one.shared_failure for one in requests), "a suspect shares a run"
        assert not any(one.cancelled for one in requests), "a run for somebody who has left"
        for one in requests:
            one.runs += 1
            assert one.runs <= 4
        answer = asyncio.get_running_loop().create_future()
        self.run_now = (requests, tensors, answer)
        return answer

    def kill(self) -> None:
        assert self.run_now is not None, "killed without a run"
        requests = self.run_now[0]
        if len(requests) == 1:
            requests[0].late_alone = True
        self.lose()

    def lose(self) -> None:
        self.gone = True
        if self.run_now is not None:
            requests, _tensors, answer = self.run_now
            self.run_now = None
            for one in requests:
                one.losses += 1
                one.shared_failure = True
            answer.set_exception(RunnerGone())

    def complete(self) -> None:
        """Do what the requests in the run are made to bring about."""
        assert self.run_now is not None
        requests, tensors, answer = self.run_now
        natures = {one.nature for one in requests}
        if MUTE in natures:
            return
        if DEADLY in natures:
            self.lose()
            return
        self.run_now = None
        (array,) = tensors.values()
        if BAD in natures or SHORT in natures:
            for one in requests:
                one.shared_failure = True
        if BAD in natures:
            answer.set_result((frames.RunFailed(1, "refused", ""), {}))
        elif SHORT in natures:
            answer.set_result((frames.Result(1, 0.1), {"y": array[1:] * 3}))
        else:
            answer.set_result((frames.Result(1, 0.1), {"y": array * 3}))


class Batching(RuleBasedStateMachine):
    """Requests and runners, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.queue = Batcher(max_rows=MAX_ROWS, max_queue=MAX_QUEUE, run_timeout_s=LIMIT_S)
        self.requests: list[Request] = []
        self.runner: Runner | None = None
        self.held = False
        self.faults: list[object] = []
        self.loop.set_exception_handler(lambda _loop, context: self.faults.append(context))

    def do(self, act) -> None:
        async def doing() -> None:
            act()
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(doing())

    @initialize(climate=st.sampled_from(CLIMATES))
    def begin_with_a_runner(self, climate: list[int]) -> None:
        self.climate = climate
        self.attach()

    @rule(
        burst=st.lists(
            st.tuples(st.sampled_from("aaab"), st.sampled_from([1, 1, 2, 3, FRAME_ROWS + 1]), st.integers(0, 5)),
            min_size=1,
            max_size=4,
        )
    )
    def submit(self, burst: list[tuple[str, int, int]]) -> None:
        self.do(lambda: [self.submit_one(*each) for each in burst])

    def submit_one(self, kind: str, rows: int, nature: int) -> None:
        one = Request(len(self.requests), kind, rows, self.climate[nature % len(self.climate)])
        self.requests.append(one)
        waiting = self.queue.waiting
        try:
            one.answer = self.queue.submit({kind: np.array(one.values)[:, None]}, rows)
        except (Overloaded, VersionQuarantined) as refused:
            one.answer = asyncio.get_running_loop().create_future()
            one.answer.set_exception(refused)
            one.held = self.held
            assert self.held or waiting >= MAX_QUEUE, "refused without need"
        else:
            assert not self.held
            assert waiting < MAX_QUEUE, "taken though the queue is full"

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.requests))
        if not one.answer.done():
            one.cancelled = True
            self.do(one.answer.cancel)

    @precondition(lambda self: self.runner and self.runner.run_now)
    @rule()
    def complete(self) -> None:
        self.do(self.runner.complete)
        self.notice()

    @precondition(lambda self: self.runner)
    @rule()
    def lose(self) -> None:
        self.do(self.runner.lose)
        self.notice()

    @precondition(lambda self: self.runner is None)
    @rule()
    def attach(self) -> None:
        self.runner = Runner(self)
        self.held = False
        self.do(lambda: self.queue.attach(self.runner))

    @precondition(lambda self: self.runner is None)
    @rule()
    def hold(self) -> None:
        for one in self.requests:
            one.held = one.held or not one.answer.done()
        self.held = True
        self.do(lambda: self.queue.hold(VersionQuarantined(retry_after_s=60)))

    @rule()
    def time_passes(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(LIMIT_S * 1.5))
        self.notice()

    def notice(self) -> None:
        """The pool's part: a runner that is gone is detached."""
        runner = self.runner
        if runner is not None and runner.gone:
            self.runner = None
            self.do(lambda: self.queue.detach(runner))

    @invariant()
    def nothing_went_wrong_in_a_callback(self) -> None:
        assert not self.faults

    @invariant()
    def nobody_waits_without_reason(self) -> None:
        waiting = [one for one in self.requests if not one.answer.done()]
        if waiting and self.runner is not None:
            assert self.runner.run_now is not None, "a request waits though the runner is free"
        if self.held:
            assert not waiting

    @invariant()
    def the_queue_says_what_waits(self) -> None:
        running = self.runner.run_now[0] if self.runner is not None and self.runner.run_now else []
        live = [one for one in self.requests if not one.answer.done() and one not in running]
        assert self.queue.waiting == len(live)

    @invariant()
    def every_answer_is_right(self) -> None:
        for one in self.requests:
            if not one.answer.done() or one.cancelled:
                continue
            error = one.answer.exception()
            if error is None:
                assert one.nature == WELL
                assert one.answer.result().outputs["y"].ravel().tolist() == [value * 3 for value in one.values]
            else:
                assert why(one, error), f"{one.__dict__} was answered {error!r}"

    def teardown(self) -> None:
        for _ in range(len(self.requests) * 4 + 4):
            if self.runner is None:
                self.attach()
            elif self.runner.run_now is None:
                break
            else:
                self.complete()
                self.time_passes()
        assert all(one.answer.done() for one in self.requests)
        assert self.queue.idle
        self.every_answer_is_right()
        self.nothing_went_wrong_in_a_callback()
        self.loop.close()


def why(one: Request, error: BaseException) -> bool:
    """Whether this request had it coming."""
    match error:
        case Overloaded():
            return one.runs == 0
        case VersionQuarantined():
            return one.held
        case InvalidInput():
            return one.nature == BAD or len(one.values) > FRAME_ROWS
        case ModelFailed():
            return one.nature == SHORT
        case RunnerLost():
            return one.losses >= 2
        case Timeout():
            return one.late_alone
    return False


Batching.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestBatching = Batching.TestCase
