"""What is known of a version on trial: what servers have counted of each step, and what that says.

The counts of servers are added within a step, where the share is one, and the evidence of steps is multiplied. A server counts
from 0 again when it is started anew: what it had counted before is kept beside what it counts now. Where requests of a caller
stay together, a caller is counted once by each server and in each step, so that neither servers nor steps may be put together:
each server's own counts are then judged alone, and only those of the step.

A step in the shadow is judged by itself, with a part of alpha of its own: a version that mends a thousand failures there could
else afford as many new ones once it answers somebody.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from modelkeep.contracts.traffic import Counted, Signal, TrialSeen
from modelkeep.stats.evidence import Evidence, above, below, not_worse, upper_bound

SIGNALS: Final[tuple[Signal, ...]] = ("errors", "slow", "poor")
"""What is judged unless somebody says otherwise."""
OF_SHADOWS: Final[tuple[Signal, ...]] = ("disagreement",)
"""What is counted in the shadow alone, and judged by its rate; what was found there stays so in later steps."""
PAIRED: Final[tuple[Signal, ...]] = ("errors", "poor")
"""What is judged in the shadow by requests that one of both versions alone answered badly."""
TOLD: Final[tuple[Signal, ...]] = ("feedback",)
"""What no server counts: it is told later, and judged where somebody says so."""
_EITHER: Final = 0.5
UNREACHABLE: Final = 1e308
"""Evidence that it takes where nothing is spent on a judgement."""


class Gate(msgspec.Struct, frozen=True, omit_defaults=True):
    """By what a version is judged, and how sure that has to be.

    `alpha` is the probability of taking back a version that is no worse, over the whole rollout and all signals; `beta` that
    of accepting one whose odds of a bad request are `margin` times the other's. `bounds` are rates of bad requests: below one,
    a version is good enough whatever the other does. A request is slow above `slow_ms`; 0 has servers learn that.
    """

    signals: tuple[Signal, ...] = SIGNALS
    alpha: float = 0.01
    beta: float = 0.05
    margin: float = 2.0
    bounds: dict[Signal, float] = {}
    slow_ms: float = 0.0


class ServerCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one server has counted of a step: in lives that have ended, and in this one. `at` is when it last said so."""

    at: float = 0.0
    now: dict[Signal, Counted] = {}
    past: dict[Signal, Counted] = {}
    halted: Signal | None = None
    slow_ms: float = 0.0
    lives: int = 1

    def heard(self, said: TrialSeen, at: float) -> "ServerCounts":
        """Return the counts after the server has said this. What is lower than before was counted by another life of it."""
        if at <= self.at:
            return self
        again = any(_lower(said.counts.get(signal, Counted()), before) for signal, before in self.now.items())
        past = _sum(self.past, self.now) if again else self.past
        halted = self.halted or said.halted or None
        return ServerCounts(at, dict(said.counts), past, halted, said.slow_ms or self.slow_ms, self.lives + again)

    def all(self) -> dict[Signal, Counted]:
        """Return what all lives of it have counted."""
        return _sum(self.past, self.now)


class StepCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What servers have counted of a step, by their names. `share` is the candidate's part of the requests; 0 or 1: none.

    In the `shadow` it is the part of the requests that both were asked.
    """

    share: float
    servers: dict[str, ServerCounts] = {}
    shadow: bool = False

    def of(self, signal: Signal) -> Counted:
        """Return what all servers have counted together."""
        return _added(one.all().get(signal, Counted()) for one in self.servers.values())

    @property
    def compares(self) -> bool:
        """Whether both versions answered at random, so that they can be compared."""
        return 0.0 < self.share < 1.0 and not self.shadow


class Spending(msgspec.Struct, frozen=True):
    """The probability of a wrong rollback that is spent on a signal: on the counts of all servers, and by each server alone.

    0 is for what is not judged. Where there is one server, both are the same judgement, and the probability is spent once.
    `whole` is spent where no server judges and nothing is compared twice: in the shadow, and of a version that answers alone.
    `labels` is spent on what is told later, which is counted in one place.
    """

    merged: float
    local: float
    whole: float = 0.0
    labels: float = 0.0


class Numbers(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a signal. `log_e` is the logarithm of the evidence that the candidate is worse, `needs` what it takes.

    `log_local` is the largest that one server has alone. `log_not_worse` is the evidence for the candidate, `upper` a rate of
    bad requests above which its true one is not.
    """

    requests: int
    bad: int
    others: int
    others_bad: int
    log_e: float
    needs: float
    log_local: float
    needs_local: float
    log_not_worse: float
    needs_not_worse: float
    upper: float
    lower: float
    bound: float | None = None
    alone: bool = False
    halted: str = ""

    @property
    def worse(self) -> bool:
        """Whether the candidate is worse, by what all servers, one of them, or a server itself has found.

        Where it answers `alone`, there is nothing to compare it with, and it is worse than its bound.
        """
        if self.alone:
            return self.bound is not None and self.lower > self.bound
        return self.log_e >= self.needs or self.log_local >= self.needs_local or bool(self.halted)

    @property
    def good(self) -> bool:
        """Whether it is shown that the candidate is not worse by the margin, or good enough."""
        return self.log_not_worse >= self.needs_not_worse or (self.bound is not None and self.upper <= self.bound)


def later(gate: Gate) -> list[Signal]:
    """Return the signals that are judged in steps in which the version answers somebody."""
    return [signal for signal in gate.signals if signal not in OF_SHADOWS]


def served_by(gate: Gate) -> list[Signal]:
    """Return the signals that servers count, and may stop a version by themselves for: not what is told later."""
    return [signal for signal in later(gate) if signal not in TOLD]


def in_shadow(gate: Gate) -> list[Signal]:
    """Return the signals that are judged in the shadow."""
    return [signal for signal in gate.signals if signal in (*OF_SHADOWS, *PAIRED)]


def spending(gate: Gate, *, servers: int, sticky: bool, steps: int, shadow: bool = False) -> Spending:
    """Return how the probability of a wrong rollback is divided, where so many servers count so many steps.

    `shadow`: whether there is one in the shadow, too, where signals are judged once more.
    """
    whole = gate.alpha / (len(later(gate)) + (len(in_shadow(gate)) if shadow else 0))
    if sticky:
        each = whole / max(1, steps)
        return Spending(each, each, whole, each) if servers <= 1 else Spending(0.0, each / servers, whole, each)
    both, alone = (whole, whole) if servers <= 1 else (whole / 2, whole / 2 / servers)
    return Spending(both, alone, whole, whole)


def evidence(steps: Iterable[StepCounts], signal: Signal) -> Evidence:
    """Return the evidence of steps that the candidate is worse by a signal."""
    found = Evidence()
    for step in steps:
        if step.compares:
            counted = step.of(signal)
            found = found.after(step.share, counted.bad, counted.others_bad)
    return found


def left_by(steps: Sequence[StepCounts], gate: Gate, *, sticky: bool) -> dict[Signal, tuple[float, ...]]:
    """Return the evidence that these steps, which are over, leave to the servers' judgement of the next."""
    if sticky or not any(step.compares for step in steps):
        return {}
    return {signal: evidence(steps, signal).logs for signal in later(gate)}


def learned(steps: Iterable[StepCounts]) -> float:
    """Return above how many milliseconds servers have learned to call a request slow, the largest of the last; 0 for none."""
    found = 0.0
    for step in steps:
        found = max((one.slow_ms for one in step.servers.values()), default=0.0) or found
    return found


def judge(gate: Gate, spent: Spending, steps: Sequence[StepCounts], *, sticky: bool) -> dict[str, Numbers]:
    """Return what is known of each signal from the steps so far, of which the last is under way.

    Of the shadow, what is counted there alone stays as it was found; the rest begins anew with the step that comes after.
    """
    shadow = next((one for one in steps if one.shadow), None)
    found: dict[str, Numbers] = {}
    for signal in gate.signals:
        if signal in OF_SHADOWS:
            found[signal] = _by_rate(gate, spent, shadow.of(signal) if shadow else Counted(), gate.bounds.get(signal, 1.0))
        elif steps[-1].shadow:
            found[signal] = _by_pairs(gate, spent, steps[-1], signal)
        else:
            found[signal] = _numbers(gate, spent, steps, signal, sticky=sticky)
    return found


def _by_rate(gate: Gate, spent: Spending, counted: Counted, bound: float) -> Numbers:
    """Return what is known of a signal that is worse above a rate, whatever else there is."""
    return Numbers(
        *(counted.requests, counted.bad, counted.others, counted.others_bad),
        log_e=above(bound, counted.bad, counted.requests),
        needs=_needed(spent.whole),
        log_local=0.0,
        needs_local=UNREACHABLE,
        log_not_worse=below(bound, counted.bad, counted.requests),
        needs_not_worse=_needed(gate.beta),
        upper=upper_bound(counted.bad, counted.requests, gate.beta),
        lower=_lower_bound(counted, spent.whole),
        bound=bound,
    )


def _by_pairs(gate: Gate, spent: Spending, shadow: StepCounts, signal: Signal) -> Numbers:
    """Return what is known of a signal by requests that one of both versions alone has answered badly.

    Equal requests are bad once, which each life of a server knows of its own alone: each is judged for itself.
    """
    counted = shadow.of(signal) if signal in PAIRED else Counted()
    own = [one.now[signal] for one in shadow.servers.values() if signal in PAIRED and signal in one.now]
    lives = sum(one.lives for one in shadow.servers.values())
    return Numbers(
        *(counted.requests, counted.bad, counted.others, counted.others_bad),
        log_e=max((Evidence().after(_EITHER, one.bad, one.others_bad).log_value for one in own), default=0.0),
        needs=_needed(spent.whole / max(1, lives)),
        log_local=0.0,
        needs_local=UNREACHABLE,
        log_not_worse=max((not_worse(gate.margin, [(_EITHER, one.bad, one.others_bad)]) for one in own), default=0.0),
        needs_not_worse=_needed(gate.beta / max(1, lives)),
        upper=upper_bound(counted.bad, counted.requests, gate.beta),
        lower=_lower_bound(counted, spent.whole),
    )


def _numbers(gate: Gate, spent: Spending, steps: Sequence[StepCounts], signal: Signal, *, sticky: bool) -> Numbers:
    if signal in TOLD:
        return _by_labels(gate, spent, steps, sticky=sticky)
    compared = [step for step in (steps[-1:] if sticky else steps) if step.compares]
    last, before = steps[-1], evidence(compared[:-1] if steps[-1].compares else compared, signal)
    counted = _added(step.of(signal) for step in compared) if last.compares else last.of(signal)
    own = [one.now[signal] for one in last.servers.values() if signal in one.now] if last.compares else []
    local = max((before.after(last.share, one.bad, one.others_bad).log_value for one in own), default=0.0)
    parts = _parts(compared, signal, sticky=sticky)
    bound = None if sticky and last.compares else gate.bounds.get(signal)  # of callers, not of requests
    halted = next((name for name, one in last.servers.items() if one.halted == signal), "")
    return Numbers(
        *(counted.requests, counted.bad, counted.others, counted.others_bad),
        log_e=local if sticky else evidence(compared, signal).log_value,
        needs=_needed(spent.merged),
        log_local=local,
        needs_local=_needed(spent.local),
        log_not_worse=max((not_worse(gate.margin, part) for part in parts), default=0.0),
        needs_not_worse=-math.log(gate.beta / max(1, len(parts))),
        upper=upper_bound(counted.bad, counted.requests, gate.beta),
        lower=_lower_bound(counted, spent.whole),
        bound=bound,
        alone=last.share >= 1.0,
        halted=halted,
    )


def _by_labels(gate: Gate, spent: Spending, steps: Sequence[StepCounts], *, sticky: bool) -> Numbers:
    """Return what labels say, which are counted in one place and come when they come, to steps that are over as well.

    Where callers stay together, the same caller may be wrong in several steps: each step is then judged alone, and what is
    told is that of the step with the most evidence; that it is not worse is for the last step to show.
    """
    last, compared = steps[-1], [step for step in steps if step.compares]
    if sticky and compared and last.compares:
        compared = [max(compared, key=lambda one: evidence([one], "feedback").log_value)]
    counted = _added(one.of("feedback") for one in compared) if last.compares else last.of("feedback")
    log_e = evidence(compared, "feedback").log_value
    shown = [(one.share, one.of("feedback")) for one in (steps[-1:] if sticky else steps) if one.compares]
    return Numbers(
        *(counted.requests, counted.bad, counted.others, counted.others_bad),
        log_e=log_e,
        needs=_needed(spent.labels),
        log_local=log_e,
        needs_local=_needed(spent.labels),
        log_not_worse=not_worse(gate.margin, [(share, one.bad, one.others_bad) for share, one in shown]),
        needs_not_worse=_needed(gate.beta),
        upper=upper_bound(counted.bad, counted.requests, gate.beta),
        lower=_lower_bound(counted, spent.whole),
        bound=None if sticky and last.compares else gate.bounds.get("feedback"),
        alone=last.share >= 1.0,
    )


def _parts(compared: list[StepCounts], signal: Signal, *, sticky: bool) -> list[list[tuple[float, int, int]]]:
    """Return the counts that may be judged together: all, or, where callers stay together, those of each server alone."""
    if not sticky:
        totals = [(step.share, step.of(signal)) for step in compared]
        return [[(share, one.bad, one.others_bad) for share, one in totals]]
    lives = [(step.share, life) for step in compared for one in step.servers.values() for life in (one.now, one.past) if life]
    return [[(share, life[signal].bad, life[signal].others_bad)] for share, life in lives if signal in life]


def _needed(alpha: float) -> float:
    """Return the logarithm of the evidence that it takes; out of reach where nothing is spent."""
    return -math.log(alpha) if alpha > 0 else UNREACHABLE


def _lower_bound(counted: Counted, alpha: float) -> float:
    """Return the rate of bad requests below which the true one is not, but with probability `alpha`, at whatever moment."""
    return 1.0 - upper_bound(counted.requests - counted.bad, counted.requests, alpha)


def _lower(now: Counted, before: Counted) -> bool:
    return now.requests < before.requests or now.others < before.others or now.bad < before.bad


def _sum(one: dict[Signal, Counted], other: dict[Signal, Counted]) -> dict[Signal, Counted]:
    return {signal: _added(each[signal] for each in (one, other) if signal in each) for signal in {**one, **other}}


def _added(counts: Iterable[Counted]) -> Counted:
    requests = bad = others = others_bad = 0
    for one in counts:
        requests += one.requests
        bad += one.bad
        others += one.others
        others_bad += one.others_bad
    return Counted(requests, bad, others, others_bad)
