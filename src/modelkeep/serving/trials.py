"""What servers count of a version on trial, and the brake: where the evidence says worse, it gets no more requests here.

Only requests that the shares gave to the candidate or to the promoted version by chance, or by the hash of their unit, are
counted: not those of rules or of callers who named a version, and none while the candidate has no runner. So a bad request was
the candidate's with probability `share` where both are equally often bad, and that is all that the evidence rests on.

A failure and an answer that is none count from the first request on: a version that fails outright fails a handful of callers
then, not `WARM_UP` more. Only time has to be warm, for caches are cold at first. So nothing is slow, and nobody is too late,
before both have had `WARM_UP` requests here since the rollout began; later steps find them warm. That moment depends on the
past alone, and from then on the requests of both count: whether one does never depends on whose it is, and that is all that
keeps the evidence exact. To begin with each of the two once it is warm itself would be evidence of nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import structlog

from modelkeep.contracts.errors import ModelkeepError, RunnerLost, Timeout
from modelkeep.contracts.snapshot import ServedDeployment
from modelkeep.contracts.traffic import Counted, Signal, Trial, TrialSeen
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import AnswerNotFinite
from modelkeep.stats.evidence import Evidence

log = structlog.get_logger(__name__)

WARM_UP: Final = 20
"""How many requests a version may be slow in, or too late, once on each server."""
LEARNS_FROM: Final = 200
"""From how many answers of the promoted version a server learns what is slow."""
MOST_UNITS: Final = 100_000
"""How many units are remembered as having been bad; the oldest are forgotten, and could then be bad once more."""
MOST_ENDED: Final = 4
"""How many trials of one deployment are told of after they ended."""
_MOST_ENDED_OF_ALL: Final = 32
LEAST_SLOW_MS: Final = 50.0
"""What is learned to be slow is never less: for so long a busy machine puts a process off, with all of its requests at once,
and the one that is asked less is the colder one. None of that is the version's."""
_LOST_KNOWN: Final = 64
_SLOWER: Final = 2.0
_PERCENTILE: Final = 95
_SIGNALS: Final[tuple[Signal, ...]] = ("errors", "slow", "poor")
_BITS: Final[dict[Signal, int]] = {signal: 1 << at for at, signal in enumerate(_SIGNALS)}


class Rollout:
    """What is remembered over all steps of a rollout: which units were bad by which signals, what is slow, and who is warm."""

    __slots__ = ("_bad", "_begun", "slow_ms")

    def __init__(self) -> None:
        self._bad: OrderedDict[int, int] = OrderedDict()
        self._begun = [0, 0]
        self.slow_ms = 0.0

    def warms(self, arm: int, *, alone: bool) -> bool:
        """Whether both are warm by now, of which one has another request here; where the candidate is alone, whether it is."""
        begun = self._begun
        if (begun[0] if alone else min(begun)) >= WARM_UP:
            return True
        begun[arm] += 1
        return False

    def is_first(self, signal: Signal, unit: int | None) -> bool:
        """Whether a unit is bad for the first time by a signal; a request without a unit always is."""
        if unit is None:
            return True
        known, bit = self._bad.get(unit, 0), _BITS[signal]
        if known & bit:
            return False
        self._bad[unit] = known | bit
        if len(self._bad) > MOST_UNITS:
            self._bad.popitem(last=False)
        return True


class Tally:
    """Requests and bad ones of one signal: of the candidate, and of the promoted version."""

    __slots__ = ("bad", "requests")

    def __init__(self) -> None:
        self.requests = [0, 0]
        self.bad = [0, 0]

    @property
    def counted(self) -> Counted:
        """The numbers, as they are sent."""
        return Counted(self.requests[0], self.bad[0], self.requests[1], self.bad[1])


class Count:
    """What this server has counted of one trial, and whether the candidate is called back here: by which signal.

    `alone`: the candidate is promoted already, and there is nobody beside it to be compared with.
    """

    def __init__(self, deployment: str, trial: Trial, rollout: Rollout, told: Callable[[], None]) -> None:
        self.deployment = deployment
        self.trial = trial
        self._id = trial.id
        self.rollout = rollout
        self.halted: Signal | str = ""
        self.over = False
        self.alone = False
        self._told = told
        self._tallies: dict[Signal, Tally] = {signal: Tally() for signal in _SIGNALS}
        self._first_ms: list[float] = []
        self._lost: deque[float] = deque(maxlen=_LOST_KNOWN)
        self.arms = (Arm(self, 0), Arm(self, 1))
        for signal in trial.alphas:
            self._judge(signal)

    @property
    def slow_ms(self) -> float:
        """Above how many milliseconds an answer is slow; 0 while that is being learned."""
        return self.trial.slow_ms or self.rollout.slow_ms

    @property
    def counting(self) -> str:
        """The trial's id while requests count for it, so that their labels may: until the candidate is called back."""
        return "" if self.halted else self._id

    def seen(self) -> TrialSeen:
        """Return what is said of it upwards."""
        counts = {signal: tally.counted for signal, tally in self._tallies.items()}
        return TrialSeen(counts, self.slow_ms, self.halted)  # type: ignore[arg-type] # mypy loses the union of literals

    def answered(self, arm: int, unit: int | None, total_ms: float, share: Share | None) -> None:
        """Count an answer."""
        if self.halted:
            return
        warm = self.rollout.warms(arm, alone=self.alone)
        self._count("errors", arm, unit, bad=False)
        self._count("poor", arm, unit, bad=share is not None and is_poor(share))
        if not warm:
            return
        if self.slow_ms:
            self._count("slow", arm, unit, bad=total_ms > self.slow_ms)
        elif arm:
            self._learn(total_ms)

    def failed(self, arm: int, unit: int | None, error: ModelkeepError) -> None:
        """Count a request that was not answered, and neither turned away nor at fault itself.

        Requests that are lost with one run have one cause, and are bad once: they are all of one version.
        """
        if self.halted:
            return
        if not self.rollout.warms(arm, alone=self.alone) and isinstance(error, Timeout):
            return
        first = not isinstance(error, RunnerLost) or error.run not in self._lost
        if isinstance(error, RunnerLost) and first:
            self._lost.append(error.run)
        self._count("errors", arm, unit, bad=first)
        if isinstance(error, AnswerNotFinite):
            self._count("poor", arm, unit, bad=True)

    def _count(self, signal: Signal, arm: int, unit: int | None, *, bad: bool) -> None:
        tally = self._tallies[signal]
        tally.requests[arm] += 1
        if bad and self.rollout.is_first(signal, unit):
            tally.bad[arm] += 1
            if arm == 0 and not self.over and signal in self.trial.alphas and self._judge(signal):
                self._told()

    def _judge(self, signal: Signal) -> bool:
        """Call the candidate back where the evidence of this signal says that it is worse; whether it does now."""
        trial = self.trial
        before = trial.before.get(signal)
        evidence = Evidence(before) if before else Evidence()
        tally = self._tallies.get(signal)
        if tally is not None:
            evidence = evidence.after(trial.share, *tally.bad)
        if self.halted or not evidence.worse(trial.alphas[signal]):
            return False
        self.halted = signal
        log.warning(
            "a candidate is worse: it gets nothing more here",
            deployment=self.deployment,
            version=trial.version_id,
            trial=trial.id,
            signal=signal,
            evidence=round(evidence.log_value, 3),
        )
        return True

    def _learn(self, total_ms: float) -> None:
        """Take twice the 95th percentile of the promoted version's first answers for slow, or the least that is."""
        self._first_ms.append(total_ms)
        if len(self._first_ms) >= LEARNS_FROM:
            self.rollout.slow_ms = max(LEAST_SLOW_MS, _SLOWER * float(np.percentile(self._first_ms, _PERCENTILE)))
            self._first_ms.clear()


class Arm:
    """One of the two that a trial compares, as a route knows it: 0 is the candidate, 1 the promoted version."""

    __slots__ = ("_at", "count")

    def __init__(self, count: Count, at: int) -> None:
        self.count = count
        self._at = at

    def unit(self, call: Call) -> int | None:
        """Return where the unit of a request is on the line by which it was given to one of the two; None without one."""
        return call.unit

    def answered(self, call: Call, total_s: float) -> None:
        """Count an answer that took so long."""
        self.count.answered(self._at, call.unit, total_s * 1000, call.share)

    def failed(self, call: Call, error: ModelkeepError) -> None:
        """Count a request that was not answered."""
        self.count.failed(self._at, call.unit, error)


class Alone(Arm):
    """A candidate that is promoted already: whoever asks, asks it, so that no unit has been chosen for it."""

    __slots__ = ()

    def __init__(self, count: Count) -> None:
        super().__init__(count, 0)

    def unit(self, call: Call) -> int | None:
        """Return None."""
        del call
        return None

    def answered(self, call: Call, total_s: float) -> None:
        """Count an answer that took so long."""
        self.count.answered(0, None, total_s * 1000, call.share)

    def failed(self, call: Call, error: ModelkeepError) -> None:
        """Count a request that was not answered."""
        del call
        self.count.failed(0, None, error)


class Trials:
    """The trials that are under way here, and what the last ones that ended had counted. `told` hears when one is halted."""

    def __init__(self) -> None:
        self.told: Callable[[], None] = lambda: None
        self._running: dict[str, Count] = {}
        self._ended: list[Count] = []

    def follow(self, deployments: Iterable[ServedDeployment]) -> None:
        """Take the trials of a new snapshot. One that goes on keeps its counts, also after a pause."""
        before = self._running
        known = {(one.deployment, one.trial.id): one for one in (*self._ended, *before.values())}
        rollouts = {(one.deployment, one.trial.rollout): one.rollout for one in known.values()}
        self._running = {}
        for deployment in deployments:
            trial = deployment.trial
            if trial is None:
                continue
            count = known.get((deployment.name, trial.id))
            if count is None:
                rollout = rollouts.get((deployment.name, trial.rollout)) or Rollout()
                count = Count(deployment.name, trial, rollout, self._halted)
            count.trial, count.over = trial, False
            self._running[deployment.name] = count
        under_way = {id(one) for one in self._running.values()}
        self._ended = [one for one in (*self._ended, *before.values()) if id(one) not in under_way]
        for one in self._ended:
            one.over = True
        self._forget()

    def of(self, deployment: str) -> Count | None:
        """Return the count of the trial that is under way for a deployment."""
        return self._running.get(deployment)

    def seen(self) -> dict[str, TrialSeen]:
        """Return what was counted of each trial, by its id; those that ended are told of for a while yet."""
        return {one.trial.id: one.seen() for one in (*self._ended, *self._running.values())}

    def _forget(self) -> None:
        """Keep the newest of those that ended: no more than a heartbeat has room for."""
        kept: list[Count] = []
        of_each: dict[str, int] = {}
        for one in reversed(self._ended[-_MOST_ENDED_OF_ALL:]):
            of_each[one.deployment] = of_each.get(one.deployment, 0) + 1
            if of_each[one.deployment] <= MOST_ENDED:
                kept.append(one)
        self._ended = kept[::-1]

    def _halted(self) -> None:
        self.told()


def is_poor(share: Share) -> bool:
    """Whether an answer has NaN or infinity in it."""
    outputs = share.run.outputs
    return any(array.dtype.kind == "f" and not np.isfinite(share.tensor(name)).all() for name, array in outputs.items())
