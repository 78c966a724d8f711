"""What a trial counts, and when its brake is pulled: exactly what happened, and exactly where the evidence says."""

import random
import statistics
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.errors import ModelFailed, RunnerLost, Timeout
from modelkeep.contracts.snapshot import ServedDeployment
from modelkeep.contracts.traffic import Counted, Signal, Trial
from modelkeep.serving import trials as module
from modelkeep.serving.calls import Run, Share
from modelkeep.serving.codec import AnswerNotFinite
from modelkeep.serving.trials import LEARNS_FROM, LEAST_SLOW_MS, MOST_ENDED, WARM_UP, Count, Rollout, Trials
from modelkeep.stats.evidence import Evidence

CANDIDATE, PROMOTED = 0, 1


def trial(share: float = 0.1, step: int = 1, **more: Any) -> Trial:
    return Trial("rol_1", step, "v2", share, **{"slow_ms": 100.0, "alphas": {"errors": 0.01}, **more})


def count_of(one: Trial, rollout: Rollout | None = None, *, warm: bool = True) -> Count:
    told: list[str] = []
    count = Count("m", one, rollout or Rollout(), lambda: told.append(count.halted))
    count.told = told  # type: ignore[attr-defined]
    if warm:
        warmed(count)
    return count


def warmed(count: Count) -> None:
    for arm in (CANDIDATE, PROMOTED) * WARM_UP:
        count.rollout.warms(arm, alone=False)


def answer(*numbers: float, dtype: str = "f4") -> Share:
    return Share(Run({"y": np.array([0.0, *numbers], dtype=dtype)}, 0.1), 1, 1 + len(numbers))


def test_answers_and_failures_are_counted_for_whom_they_are() -> None:
    count = count_of(trial())
    count.answered(CANDIDATE, None, 5.0, answer(1.0))
    count.answered(PROMOTED, None, 500.0, answer(1.0))
    count.answered(PROMOTED, None, 100.0, answer(float("nan")))
    for error in (ModelFailed(), Timeout("late"), RunnerLost.of(7.0)):
        count.failed(PROMOTED, None, error)
    assert count.seen().counts == {
        "errors": Counted(1, 0, 5, 3),
        "slow": Counted(1, 0, 2, 1),
        "poor": Counted(1, 0, 2, 1),
    }
    assert (count.seen().slow_ms, count.seen().halted) == (100.0, "")


def test_requests_that_are_lost_with_one_run_are_bad_once() -> None:
    count = count_of(trial(share=0.5))
    for run in (1.5, 1.5, 2.5, 1.5):
        count.failed(CANDIDATE, None, RunnerLost.of(run))
    count.failed(PROMOTED, None, RunnerLost.of(3.5))
    assert count.seen().counts["errors"] == Counted(4, 2, 1, 1)


@pytest.mark.parametrize(
    ("share", "poor"),
    [
        (answer(1.0, float("nan")), True),
        (answer(float("inf")), True),
        (answer(float("-inf"), dtype="f8"), True),
        (answer(float("nan"), dtype="f2"), True),
        (answer(1.0, 0.0), False),
        (answer(7, dtype="i8"), False),
        (Share(Run({"y": np.array([float("nan"), 1.0])}, 0.1), 1, 2), False),
        (Share(Run({"y": np.array(["nan"], dtype=object)}, 0.1), 0, 1), False),
        (None, False),
    ],
    ids=["nan", "infinity", "double", "half", "good", "integers", "another's row", "texts", "none"],
)
def test_poor_is_nan_or_infinity_in_ones_own_rows(share: Share | None, poor: bool) -> None:
    count = count_of(trial())
    count.answered(CANDIDATE, None, 1.0, share)
    assert count.seen().counts["poor"] == Counted(1, int(poor), 0, 0)


def test_an_answer_that_is_refused_for_its_nan_is_poor_and_an_error() -> None:
    count = count_of(trial())
    count.failed(CANDIDATE, None, AnswerNotFinite())
    assert count.seen().counts == {"errors": Counted(1, 1), "slow": Counted(), "poor": Counted(1, 1)}


def test_nobody_is_slow_or_too_late_before_both_are_warm() -> None:
    count = count_of(trial(), warm=False)
    for _ in range(500):
        count.answered(PROMOTED, None, 9000.0, None)
    for at in range(WARM_UP):
        count.failed(CANDIDATE, None, Timeout("late"))
        assert count.seen().counts["slow"] == Counted(), at
    assert count.seen().counts["errors"] == Counted(0, 0, 500, 0)
    count.answered(CANDIDATE, None, 9000.0, None)
    count.answered(PROMOTED, None, 1.0, None)
    count.failed(CANDIDATE, None, Timeout("late"))
    assert count.seen().counts == {"errors": Counted(2, 1, 501, 0), "slow": Counted(1, 1, 1, 0), "poor": Counted(1, 0, 501, 0)}


def test_a_candidate_that_fails_outright_is_called_back_before_it_is_warm() -> None:
    count, asked = count_of(trial(), warm=False), 0
    while not count.halted:
        count.failed(CANDIDATE, None, ModelFailed())
        asked += 1
    assert asked == 4 < WARM_UP


def test_versions_that_are_warm_stay_so_in_later_steps_of_a_rollout_and_not_in_the_next_rollout() -> None:
    rollout = Rollout()
    count_of(trial(), rollout)
    for known, slow in ((rollout, Counted(1, 1)), (Rollout(), Counted())):
        count = count_of(trial(0.5, 2), known, warm=False)
        count.answered(CANDIDATE, None, 9000.0, None)
        assert count.seen().counts["slow"] == slow


def test_a_version_that_is_alone_waits_for_nobody_else_to_be_warm() -> None:
    count = count_of(trial(), warm=False)
    count.alone = True
    for _ in range(WARM_UP + 3):
        count.answered(CANDIDATE, None, 9000.0, None)
    assert count.seen().counts["slow"] == Counted(3, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_from_the_first_request_on_equal_versions_are_called_back_no_more_often_than_was_allowed(share: float) -> None:
    """Versions that are cold and late at first, equally often; what counts then must not depend on whose it is."""
    halts = 0
    for seed in range(400):
        drawing, count = random.Random(seed), count_of(trial(share), warm=False)
        for asked in range(1000):
            arm = CANDIDATE if drawing.random() < share else PROMOTED
            if drawing.random() < (0.5 if asked < 100 else 0.05):
                count.failed(arm, None, Timeout("late") if asked < 100 else ModelFailed())
            else:
                count.answered(arm, None, 1.0, None)
        halts += bool(count.halted)
    assert halts <= 11, "more than 11 of 400 happen once in 1,000 times at 1 %, and the bound is one for all times"


def test_what_is_slow_is_learned_from_the_first_answers_of_the_promoted_version() -> None:
    count = count_of(trial(slow_ms=0.0))
    for at in range(LEARNS_FROM):
        assert (count.seen().slow_ms, count.seen().counts["slow"]) == (0.0, Counted())
        count.answered(CANDIDATE, None, 9000.0, None)
        count.answered(PROMOTED, None, float(at + 1), None)
    assert count.slow_ms == pytest.approx(2 * np.percentile(np.arange(1, LEARNS_FROM + 1), 95))
    assert count.seen().counts["slow"] == Counted(), "what taught it is not judged by it"
    count.answered(CANDIDATE, None, count.slow_ms + 1, None)
    count.answered(PROMOTED, None, count.slow_ms - 1, None)
    assert count.seen().counts["slow"] == Counted(1, 1, 1, 0)


def test_what_is_learned_to_be_slow_is_never_so_little_that_a_busy_machine_makes_it_so() -> None:
    count = count_of(trial(slow_ms=0.0))
    for _ in range(LEARNS_FROM):
        count.answered(PROMOTED, None, 1.0, None)
    assert count.slow_ms == LEAST_SLOW_MS
    count.answered(CANDIDATE, None, LEAST_SLOW_MS, None)
    assert count.seen().counts["slow"] == Counted(1, 0)
    assert count_of(trial(slow_ms=3.0)).slow_ms == 3.0, "who says what is slow knows"


def test_a_unit_is_bad_once_by_each_signal_over_all_steps_of_a_rollout() -> None:
    rollout = Rollout()
    first, second = count_of(trial(), rollout), count_of(trial(0.5, 2), rollout)
    for count in (first, first, second):
        count.failed(CANDIDATE, 7, ModelFailed())
        count.answered(CANDIDATE, 7, 200.0, None)
        count.failed(PROMOTED, 8, ModelFailed())
        count.failed(PROMOTED, None, ModelFailed())
    assert first.seen().counts["errors"] == Counted(4, 1, 4, 3)
    assert first.seen().counts["slow"] == Counted(2, 1, 0, 0)
    assert second.seen().counts["errors"] == Counted(2, 0, 2, 1)
    assert second.seen().counts["slow"] == Counted(1, 0, 0, 0)


def test_only_so_many_units_are_remembered_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNITS", 3)
    rollout = Rollout()
    assert [rollout.is_first("errors", unit) for unit in (1, 2, 3, 3, 2, 4)] == [True, True, True, False, False, True]
    assert not rollout.is_first("errors", 2)
    assert rollout.is_first("errors", 1), "forgotten"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["good", "slow", "poor", "failed"]),
        st.sampled_from([CANDIDATE, PROMOTED]),
        st.one_of(st.none(), st.integers(0, 4)),
    ),
    max_size=300,
)


@given(EVENTS, st.floats(0.05, 0.6), st.floats(0.0001, 0.2))
def test_counts_are_what_happened_and_the_brake_is_pulled_where_the_evidence_says(
    events: list[tuple[str, int, int | None]], share: float, alpha: float
) -> None:
    """The history is told a second time, plainly, beside the count."""
    alphas: dict[Signal, float] = {"errors": alpha, "slow": alpha / 2}
    before: dict[Signal, tuple[float, ...]] = {"errors": Evidence().after(share, 1, 2).logs}
    count = count_of(trial(share, alphas=alphas, before=before))
    requests: Counter[tuple[str, int]] = Counter()
    bad: Counter[tuple[str, int]] = Counter()
    known, halted = set(), ""
    for what, arm, unit in events:
        if not halted:
            signals = ["errors"] if what == "failed" else ["errors", "poor", "slow"]
            hit = {"failed": "errors"}.get(what, what)
            for signal in signals:
                requests[signal, arm] += 1
                if signal == hit and (unit is None or (signal, unit) not in known):
                    known.add((signal, unit))
                    bad[signal, arm] += 1
            for signal, allowed in alphas.items():
                evidence = Evidence(before.get(signal, Evidence().logs))
                if not halted and evidence.after(share, bad[signal, 0], bad[signal, 1]).worse(allowed):
                    halted = signal
        if what == "failed":
            count.failed(arm, unit, ModelFailed())
        else:
            count.answered(arm, unit, 200.0 if what == "slow" else 1.0, answer(float("nan") if what == "poor" else 1.0))
        assert count.halted == halted
        assert count.told == [halted] * bool(halted), "it is told once, when it happens"  # type: ignore[attr-defined]
    for signal, counted in count.seen().counts.items():
        assert counted == Counted(requests[signal, 0], bad[signal, 0], requests[signal, 1], bad[signal, 1])


def test_a_signal_that_may_end_nothing_is_counted_and_ends_nothing() -> None:
    count = count_of(trial(alphas={"slow": 0.01}))
    for _ in range(50):
        count.failed(CANDIDATE, None, ModelFailed())
    assert (count.halted, count.seen().counts["errors"].bad) == ("", 50)


def test_what_was_bad_in_earlier_steps_counts_and_may_be_enough() -> None:
    nearly = Evidence().after(0.1, 3, 0)
    assert not nearly.worse(0.01)
    assert nearly.after(0.1, 1, 0).worse(0.01)
    count = count_of(trial(before={"errors": nearly.logs}))
    assert count.halted == ""
    count.failed(CANDIDATE, None, ModelFailed())
    assert count.halted == "errors"
    assert count_of(trial(before={"errors": Evidence().after(0.1, 9, 0).logs}), warm=False).halted == "errors"


def asked_until_halted(seed: int, rates: tuple[float, float], share: float, most: int) -> int | None:
    """Return after how many requests, the first ones included, a candidate was called back; None where it never was."""
    drawing, count = random.Random(seed), count_of(trial(share), warm=False)
    for asked in range(1, most + 1):
        arm = CANDIDATE if drawing.random() < share else PROMOTED
        if drawing.random() < rates[arm]:
            count.failed(arm, None, ModelFailed())
        if count.halted:
            return asked
    return None


def test_a_candidate_that_fails_20_percent_where_1_percent_is_usual_is_called_back_after_about_250_requests() -> None:
    found = [asked_until_halted(seed, (0.20, 0.01), 0.1, 5000) for seed in range(300)]
    asked = [one for one in found if one is not None]
    assert len(asked) == 300
    assert 220 < statistics.median(asked) < 290
    assert 350 < statistics.quantiles(asked, n=10)[-1] < 540


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_equal_versions_are_called_back_no_more_often_than_was_allowed(rate: float) -> None:
    halts = sum(asked_until_halted(seed, (rate, rate), 0.1, 4000) is not None for seed in range(400))
    assert halts <= 11, "more than 11 of 400 happen once in 1,000 times at 1 %, and the bound is one for all times"


def deployment(name: str = "m", one: Trial | None = None) -> ServedDeployment:
    return ServedDeployment(name, "v1", 1, trial=one)


def count_some(found: Count | None, bad: int) -> None:
    assert found is not None
    warmed(found)
    for _ in range(bad):
        found.failed(PROMOTED, None, ModelFailed())


def test_news_that_keep_a_trial_keep_its_counts_and_so_do_a_pause_and_a_change_of_what_it_may_end() -> None:
    trials = Trials()
    trials.follow([deployment(one=trial())])
    count_some(trials.of("m"), 3)
    trials.follow([deployment(one=trial(alphas={})), deployment("n")])
    assert trials.seen()["rol_1:1"].counts["errors"] == Counted(0, 0, 3, 3)
    found = trials.of("m")
    assert found is not None
    assert found.trial.alphas == {}
    trials.follow([deployment()])
    assert trials.of("m") is None
    assert trials.seen()["rol_1:1"].counts["errors"] == Counted(0, 0, 3, 3)
    trials.follow([deployment(one=trial())])
    assert trials.of("m") is found
    assert len(trials.seen()) == 1


def test_the_counts_of_steps_before_are_told_of_and_what_finishes_late_is_counted_in_them_and_ends_nothing() -> None:
    trials, told = Trials(), []
    trials.told = lambda: told.append(1)
    trials.follow([deployment(one=trial())])
    first = trials.of("m")
    count_some(first, 1)
    for step in range(2, 9):
        trials.follow([deployment(one=trial(step=step))])
    assert list(trials.seen()) == [f"rol_1:{step}" for step in range(8 - MOST_ENDED, 9)]
    late = next(one for one in trials._ended if one.trial.step == 7)
    count_some(late, 0)
    for _ in range(9):
        late.failed(CANDIDATE, None, ModelFailed())
    assert trials.seen()["rol_1:7"].counts["errors"] == Counted(9, 9, 0, 0)
    assert (late.halted, told) == ("", [])


def test_a_step_goes_on_with_the_units_and_the_pace_of_the_one_before() -> None:
    trials = Trials()
    trials.follow([deployment(one=trial(slow_ms=0.0))])
    first = trials.of("m")
    trials.follow([deployment(one=trial(step=2, slow_ms=0.0))])
    second = trials.of("m")
    assert first is not None and second is not None  # noqa: PT018 - for the type checker
    assert second.rollout is first.rollout
    assert second is not first


def test_however_many_deployments_have_had_trials_a_heartbeat_has_room() -> None:
    import msgspec

    trials = Trials()
    trials.follow([deployment(f"m{at}", Trial(f"rol_01JD0000000000000000000{at:03}", 1, "v2", 0.1)) for at in range(200)])
    running = len(msgspec.msgpack.encode(trials.seen()))
    trials.follow([deployment(f"m{at}") for at in range(200)])
    assert len(trials.seen()) == 32
    assert len(msgspec.msgpack.encode(trials.seen())) < 8192 < running < 64 * 1024


def test_a_halted_trial_is_told_of_at_once() -> None:
    trials, told = Trials(), []
    trials.told = lambda: told.append(trials.seen()["rol_1:1"].halted)
    trials.follow([deployment(one=trial())])
    found = trials.of("m")
    count_some(found, 0)
    assert found is not None
    for _ in range(9):
        found.failed(CANDIDATE, None, ModelFailed())
    assert told == ["errors"]
