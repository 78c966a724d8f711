"""How often a rollout is wrong, and how fast it is right: many rollouts by fixed seeds, looked at after every bad request."""

import math
import os

import numpy as np
import pytest
from numpy.typing import NDArray

from fixtures.odds import Drawn, Floats, at_least, gains, log_mean
from modelkeep.contracts.traffic import Counted
from modelkeep.control.rollouts.judging import PAIRED, SIGNALS, Gate, ServerCounts, StepCounts, judge, spending
from modelkeep.stats.evidence import above

RUNS = int(os.environ.get("MODELKEEP_TEST_ROLLOUTS", "1000"))
FAST_RUNS = int(os.environ.get("MODELKEEP_TEST_FAST_ROLLOUTS", "600"))
SHARES = (0.05, 0.25, 0.5)
SURE = 0.001
"""A number of mistakes is consistent with what is promised unless chance has it so seldom."""
SHADOWED = Gate((*SIGNALS, "disagreement"), bounds={"disagreement": 0.1})
"""How a rollout is judged that begins in the shadow."""


def rolled_back(gate: Gate, servers: int, signal: Drawn) -> Floats:
    """Which rollouts one signal ever took back."""
    spent = spending(gate, servers=servers, sticky=False, steps=len(SHARES))
    merged, local = signal.evidence()
    found: Floats = (merged >= -math.log(spent.merged)) | (local >= -math.log(spent.local))
    return found


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("seed", [1, 2])
def test_of_equal_versions_one_in_a_hundred_is_taken_back_however_often_one_looks(servers: int, seed: int) -> None:
    chance, gate = np.random.default_rng(seed), Gate()
    wrong = np.zeros(RUNS, dtype=bool)
    for _signal in SIGNALS:
        drawn = Drawn.by(chance, runs=RUNS, shares=SHARES, bad=150, servers=servers)
        wrong |= rolled_back(gate, servers, drawn)
    assert at_least(int(wrong.sum()), RUNS, gate.alpha) > SURE, f"{wrong.sum()} of {RUNS}"


def test_looked_at_with_a_larger_alpha_many_more_are() -> None:
    """That the tests above can fail: a rule that spends a fifth is found out."""
    drawn = Drawn.by(np.random.default_rng(3), runs=RUNS, shares=SHARES, bad=150, servers=1)
    wrong = int(rolled_back(Gate(("errors",), alpha=0.2), 1, drawn).sum())
    assert at_least(wrong, RUNS, 0.01) < SURE


@pytest.mark.parametrize("seed", [4, 5])
def test_at_the_margin_one_in_twenty_is_accepted_at_most(seed: int) -> None:
    gate = Gate()
    drawn = Drawn.by(np.random.default_rng(seed), runs=RUNS, shares=SHARES, bad=200, servers=1, odds=gate.margin)
    wrong = int((drawn.not_worse(gate.margin) >= -math.log(gate.beta)).sum())
    assert at_least(wrong, RUNS, gate.beta) > SURE, f"{wrong} of {RUNS}"
    assert wrong > 0, "the bound is sharp enough to be met"


def test_a_version_that_is_not_worse_is_accepted_in_the_end() -> None:
    drawn = Drawn.by(np.random.default_rng(6), runs=RUNS, shares=(0.5,), bad=400, servers=1)
    accepted = (drawn.not_worse(2.0) >= math.log(20)).mean()
    assert accepted > 0.95


def requests_to_rollback(chance: np.random.Generator, *, servers: int, share: float, base: float, worse: float) -> Floats:
    """How many requests it took, of versions that are bad so often, until one signal took the candidate back."""
    spent = spending(Gate(("errors",)), servers=servers, sticky=False, steps=1)
    ours = chance.random((FAST_RUNS, 3000)) < share
    bad = chance.random(ours.shape) < np.where(ours, worse, base)
    at = chance.integers(0, servers, ours.shape)
    mine, others = gains(share)
    step = np.where(ours[..., None], mine, others) * bad[..., None]
    crossed = log_mean(step.cumsum(axis=1)) >= -math.log(spent.merged)
    for server in range(servers):
        crossed |= log_mean((step * (at == server)[..., None]).cumsum(axis=1)) >= -math.log(spent.local)
    assert crossed[:, -1].all()
    found: Floats = crossed.argmax(axis=1) + 1.0
    return found


def test_a_version_that_fails_a_fifth_is_taken_back_after_as_many_requests_as_the_reference_says() -> None:
    took = requests_to_rollback(np.random.default_rng(7), servers=1, share=0.1, base=0.01, worse=0.2)
    assert np.median(took) == pytest.approx(254, abs=40)


def test_four_servers_take_it_back_after_little_more() -> None:
    took = requests_to_rollback(np.random.default_rng(8), servers=4, share=0.1, base=0.01, worse=0.2)
    assert np.median(took) == pytest.approx(250, abs=40)


@pytest.mark.parametrize("servers", [1, 3])
def test_what_is_drawn_here_is_what_the_judgement_says(servers: int) -> None:
    drawn = Drawn.by(np.random.default_rng(9), runs=20, shares=(0.1, 0.4), bad=25, servers=servers, odds=3.0)
    gate = Gate(("errors",))
    spent = spending(gate, servers=servers, sticky=False, steps=2)
    merged, local = drawn.evidence()
    best = drawn.not_worse(gate.margin)
    for run in range(20):
        found = [(0.0, 0.0, -math.inf)]
        steps: list[StepCounts] = []
        for share, ours, at in zip(drawn.shares, drawn.ours, drawn.servers, strict=True):
            counts = {str(server): [0, 0] for server in range(servers)}
            for mine, server in zip(ours[run], at[run], strict=True):
                counts[str(server)][0 if mine else 1] += 1
                now = {
                    name: ServerCounts(1.0, {"errors": Counted(bad, bad, others, others)})
                    for name, (bad, others) in counts.items()
                }
                known = judge(gate, spent, [*steps, StepCounts(share, now)], sticky=False)["errors"]
                found.append((known.log_e, known.log_local, known.log_not_worse))
            steps.append(StepCounts(share, now))
        assert max(one[0] for one in found) == pytest.approx(max(merged[run], 0.0), abs=1e-9)
        assert max(one[1] for one in found) == pytest.approx(max(local[run], 0.0), abs=1e-9)
        assert max(one[2] for one in found) == pytest.approx(best[run], abs=1e-9)


def found_above(rate: float, otherwise: NDArray[np.bool_]) -> Floats:
    """The evidence after each request of many shadows that more than this rate are answered otherwise.

    A mixture over all rates foretells each request in turn: by one half more than what there was before.
    """
    requests = np.arange(otherwise.shape[1])
    bad = otherwise.cumsum(axis=1)
    before = bad - otherwise
    told = np.where(otherwise, before + 0.5, requests - before + 0.5) / (requests + 1.0)
    likeliest = np.minimum(rate, bad / (requests + 1.0))
    good = requests + 1 - bad
    against = good * np.log1p(-likeliest) + np.where(bad > 0, bad * np.log(np.maximum(likeliest, 1e-300)), 0.0)
    found: Floats = np.log(told).cumsum(axis=1) - against
    return found


def test_what_is_drawn_of_disagreement_here_is_what_the_judgement_says() -> None:
    otherwise = np.random.default_rng(10).random((5, 200)) < 0.2
    drawn, spent = found_above(0.1, otherwise), spending(SHADOWED, servers=2, sticky=False, steps=3, shadow=True)
    for run in range(5):
        for requests in (1, 7, 60, 200):
            bad = int(otherwise[run, :requests].sum())
            assert above(0.1, bad, requests) == pytest.approx(drawn[run, requests - 1], abs=1e-9)
            counted = {"disagreement": Counted(requests, bad, requests, 0)}
            step = StepCounts(0.2, {"one": ServerCounts(1.0, counted)}, shadow=True)
            known = judge(SHADOWED, spent, [step], sticky=False)["disagreement"]
            assert known.log_e == pytest.approx(drawn[run, requests - 1], abs=1e-9)
            assert known.worse == (known.lower > 0.1)


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("seed", [11, 12])
def test_of_equal_versions_at_the_bound_of_disagreement_one_in_a_hundred_is_taken_back_with_a_step_in_the_shadow(
    servers: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    spent = spending(SHADOWED, servers=servers, sticky=False, steps=len(SHARES), shadow=True)
    wrong = (found_above(0.1, chance.random((RUNS, 1000)) < 0.1) >= -math.log(spent.whole)).any(axis=1)
    for _signal in PAIRED:
        merged, _local = Drawn.by(chance, runs=RUNS, shares=(0.5,), bad=150, servers=1).evidence()
        wrong |= merged >= -math.log(spent.whole)
    for _signal in SIGNALS:
        merged, local = Drawn.by(chance, runs=RUNS, shares=SHARES, bad=100, servers=servers).evidence()
        wrong |= (merged >= -math.log(spent.merged)) | (local >= -math.log(spent.local))
    assert at_least(int(wrong.sum()), RUNS, SHADOWED.alpha) > SURE, f"{wrong.sum()} of {RUNS}"


def test_at_the_bound_a_larger_alpha_is_found_out() -> None:
    """That the test above can fail."""
    otherwise = np.random.default_rng(13).random((RUNS, 1000)) < 0.1
    wrong = int((found_above(0.1, otherwise) >= -math.log(0.5)).any(axis=1).sum())
    assert at_least(wrong, RUNS, 0.01) < SURE


def test_a_version_that_answers_every_other_request_otherwise_is_soon_out_of_the_shadow() -> None:
    spent = spending(SHADOWED, servers=1, sticky=False, steps=len(SHARES), shadow=True)
    out = found_above(0.1, np.random.default_rng(14).random((FAST_RUNS, 400)) < 0.5) >= -math.log(spent.whole)
    assert out.any(axis=1).all()
    took = out.argmax(axis=1) + 1
    assert np.median(took) < 30, "before the 100 requests that a step lasts"
    assert took.max() < 100
