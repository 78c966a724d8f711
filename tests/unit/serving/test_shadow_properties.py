"""Whatever a shadow does, the promoted version's callers are told the same, in the same order, in the same turn of the loop.

The same story is told twice, with a shadow and without. In it calls come, the promoted version answers or fails or is lost,
and the shadow, in between, answers, answers garbage, fails, is lost, or says nothing for ever.
"""

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.calling import ByHand, VirtualLoop, make_call, make_route, rows
from modelkeep.contracts.snapshot import ServedDeployment
from modelkeep.contracts.traffic import Split, Traffic, Trial
from modelkeep.sandbox import frames
from modelkeep.serving import shadow as of_shadows
from modelkeep.serving.batcher import Batcher
from modelkeep.serving.modes import Plan
from modelkeep.serving.shadow import spare
from modelkeep.serving.shadows import Shadows

PLANS = [Plan("cheap", 4, 0.0, together=True), Plan("compute", 4, 0.0, together=False), Plan("flat", 4, 0.002, together=True)]
OURS = st.sampled_from(["call", "call", "call", "answer", "answer", "fail", "lose", "wait"])
THEIRS = st.sampled_from(["nothing", "nothing", "answer", "otherwise", "garbage", "short", "fail", "lose", "sleep"])
STORY = st.lists(st.tuples(OURS, THEIRS, st.integers(1, 3)), min_size=1, max_size=40)
MOST = 3


class Served:
    """A version behind a batcher, with one runner by hand that comes back when it is lost."""

    def __init__(self, version: Any, plan: Plan, log: list[Any] | None = None) -> None:
        self.version = version
        self.ready = True
        self.log = log
        self.batcher = Batcher(plan, max_queue=100, run_timeout_s=30.0, finish=lambda _finished, _run: None)
        self.runner = ByHand()
        self.batcher.attach(self.runner)

    def rouse(self) -> None:
        """It is awake."""

    def give(self, kind: str) -> None:
        """Do this with the run in hand, without letting anything happen yet."""
        if not self.runner.running:
            return
        inputs, answer = self.runner.runs[-1]
        (array,) = inputs.values()
        if kind == "lose":
            lost, self.runner = self.runner, ByHand()
            lost.lose()
            self.batcher.detach(lost)
            self.batcher.attach(self.runner)
        elif kind == "fail":
            answer.set_result((frames.RunFailed(1, "failed", "no", None), {}))
        elif kind in {"answer", "otherwise", "garbage", "short"}:
            outputs = {
                "answer": {"y": array * 3},
                "otherwise": {"y": array * 4},
                "garbage": {"z": np.array([None] * len(array), dtype=object), "y": np.array(["x"] * len(array), dtype=object)},
                "short": {"y": array[:-1]},
            }[kind]
            answer.set_result((frames.Result(1, 0.25), outputs))


async def told(
    story: list[tuple[str, str, int]], plan: Plan, share: float | None, *, tried: bool = False
) -> tuple[list[Any], Any]:
    """Tell the story; returns, for each turn of the loop, which calls were told what in it, and the shadow.

    `tried`: for a rollout that is in the shadow.
    """
    route = make_route()
    primary = Served(route.served.version, plan)
    route.served = primary  # type: ignore[assignment]
    shadowed = Served(spare(msgspec.structs.replace(primary.version, id="v2", number=2)), plan)
    shadows = Shadows(None)
    shadows.watch(lambda: 0)
    if share is not None:
        trial = Trial("rol_1", 0, "v2", 0.5, shadow=True) if tried else None
        deployment = ServedDeployment("m", "v1", 1, traffic=Traffic(shadow=Split("v2", share)), trial=trial)
        shadows.settle({"m": (deployment, primary, shadowed)})  # type: ignore[dict-item]
    turns: list[Any] = []
    now: list[Any] = []
    calls = 0
    for ours, theirs, after in story:
        if ours == "call":
            call = make_call(rows(calls, calls + 100), route=route)
            call.answer.add_done_callback(lambda done, number=calls: now.append((number, said(done))))  # type: ignore[attr-defined]
            calls += 1
            primary.batcher.submit(call)
        elif ours == "wait":
            await asyncio.sleep(1.0)
        else:
            primary.give(ours)
        if theirs == "sleep":
            shadowed.ready = not shadowed.ready
        else:
            shadowed.give(theirs)
        for _ in range(after):
            await asyncio.sleep(0)
            turns.append(list(now))
            now.clear()
        shadow = shadows.get("m")
        if shadow is not None:
            assert len(shadow._queue) <= of_shadows.MOST_WAITING
            assert shadow._bytes == sum(one.size for one in shadow._queue)
    return turns, shadows.get("m")


def said(done: asyncio.Future[Any]) -> object:
    error = done.exception()
    return type(error).__name__ if error is not None else done.result().body


@settings(max_examples=150)
@given(STORY, st.sampled_from(PLANS), st.booleans())
def test_callers_are_told_the_same_in_the_same_turn_whatever_the_shadow_does(
    story: list[tuple[str, str, int]],
    plan: Plan,
    tried: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_shadows, "MOST_WAITING", MOST)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            alone, _none = runner.run(told(story, plan, None))
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            beside, shadow = runner.run(told(story, plan, 100.0, tried=tried))
    assert alone == beside
    answered = sum(isinstance(what, bytes) for turn in alone for _number, what in turn)
    assert shadow._asked >= answered - 1, "but for one that is told in the last turn"


@given(STORY, st.booleans())
def test_every_call_that_is_chosen_comes_to_one_end(story: list[tuple[str, str, int]], tried: bool) -> None:
    async def whole() -> None:
        _turns, shadow = await told(story, PLANS[0], 100.0, tried=tried)
        shadow.served.ready = True
        for _ in range(1000):
            waits = shadow.primary.runner.running or shadow.primary.batcher.waiting
            if not (waits or shadow._queue or shadow._underway or shadow._pairs or shadow._comparing):
                break
            shadow.primary.give("answer")  # what waits there, the shadow waits behind
            shadow.served.give("answer")
            await asyncio.sleep(0.01)
        compared = shadow.seen()
        assert shadow._asked == compared.requests + shadow._dropped.total() + shadow._failed.total()
        assert shadow.disagreement.requests == compared.requests + shadow._failed.total()
        assert shadow._bytes == 0
        assert (shadow.pairs is not None) == tried
        if tried:
            errors, otherwise = shadow.pairs.counts["errors"], shadow.pairs.counts["disagreement"]
            assert otherwise.requests == shadow.disagreement.requests - shadow._failed["not_compared"]
            assert otherwise.bad == shadow.disagreement.bad
            assert errors.bad <= shadow._failed["model_failed"]
            assert errors.bad + errors.others_bad <= errors.requests

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(whole())
