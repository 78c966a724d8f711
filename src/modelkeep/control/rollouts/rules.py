"""Rollouts as values, and the one decision: what is to become of one, by what has been seen of it until now.

    canary      more and more requests, step by step; each needs its time, enough requests, and no evidence of worse
    evidence    the same, and a step lasts until it is shown that the version is not worse; its time is the longest it may take
    blue_green  the new version is loaded everywhere, answers everything at once, and the old one stays warm for a while

Each of them may begin in the shadow: the version is asked the same as the promoted one, and answers nobody.

A rollback wins over everything. Nothing goes forward while a server is silent or does not count.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.traffic import Signal, Split, Traffic, Trial
from modelkeep.control.deployments.rules import Deployment
from modelkeep.control.models.rules import Version
from modelkeep.control.rollouts.errors import RolloutOver
from modelkeep.control.rollouts.judging import (
    OF_SHADOWS,
    SIGNALS,
    TOLD,
    Gate,
    Numbers,
    ServerCounts,
    Spending,
    StepCounts,
    judge,
    later,
    learned,
    left_by,
    served_by,
    spending,
)

FRESH: Final = timedelta(seconds=30)
"""A server that was heard since then is alive."""
GONE: Final = timedelta(minutes=5)
"""A server that was not heard since then is gone: what it counted stays, and nobody waits for it."""


class Mode(StrEnum):
    """How a version takes over."""

    CANARY = "canary"
    EVIDENCE = "evidence"
    BLUE_GREEN = "blue_green"


class State(StrEnum):
    """Where a rollout stands. `paused`: a person stopped it. `held`: its time is over, and a person has to decide."""

    RUNNING = "running"
    PAUSED = "paused"
    HELD = "held"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self not in OPEN


OPEN: Final = (State.RUNNING, State.PAUSED, State.HELD)


class Step(msgspec.Struct, frozen=True):
    """A share of the requests in percent, and a time: of a canary the shortest, of `evidence` the longest it may last.

    0 % is for loading a version that nobody is answered by, 100 % for one that has taken over. In the `shadow` it is the share
    of the requests that the version is asked, too, and the shortest time in every mode.
    """

    percent: float
    minutes: float
    shadow: bool = False

    @property
    def compares(self) -> bool:
        """Whether two versions answer in it."""
        return 0.0 < self.percent < 100.0 and not self.shadow  # noqa: PLR2004 - all requests

    @property
    def swapped(self) -> bool:
        """Whether the version has taken over in it."""
        return self.percent >= 100.0 and not self.shadow  # noqa: PLR2004 - all requests


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a version is to take over. `least`: requests that it must have answered in each step.

    `patience_minutes`: how much longer than its time a step may last before a person is asked.
    """

    mode: Mode
    steps: tuple[Step, ...]
    gate: Gate = Gate()
    least: int = 100
    patience_minutes: float = 1440.0
    sticky: str = ""

    @property
    def compared(self) -> int:
        """How many of its steps compare two versions that both answer."""
        return sum(step.compares for step in self.steps)

    @property
    def shadow(self) -> Step | None:
        """The step in the shadow, if it begins with one."""
        return self.steps[0] if self.steps[0].shadow else None


class Rollout(msgspec.Struct, frozen=True):
    """A version on its way to take over a deployment. `ran_s`: how long it had been in its step until `since`.

    `servers` is among how many of them the probability of a wrong rollback is divided in this step.
    """

    id: str
    deployment: str
    model_id: str
    model: str
    from_version_id: str
    from_version: int
    version_id: str
    version: int
    plan: Plan
    state: State
    created_at: datetime
    created_by: str
    changed_at: datetime
    since: datetime | None
    step: int = 0
    ran_s: float = 0.0
    servers: int = 1
    revision: int = 1
    reason: str = ""
    ended_at: datetime | None = None

    @property
    def at(self) -> Step:
        """The step that it is in."""
        return self.plan.steps[self.step]

    @property
    def last(self) -> bool:
        """Whether that is its last."""
        return self.step == len(self.plan.steps) - 1

    @property
    def swapped(self) -> bool:
        """Whether the deployment has the new version already, and the old one is kept warm."""
        return self.at.swapped

    @property
    def promoted_id(self) -> str:
        """The version that the deployment must have while the rollout is in this step."""
        return self.version_id if self.swapped else self.from_version_id

    @property
    def beside_id(self) -> str:
        """The version that the rollout has put beside it."""
        return self.from_version_id if self.swapped else self.version_id

    def elapsed_s(self, now: datetime) -> float:
        """Return for how long it has been running in its step."""
        return self.ran_s + (max(0.0, (now - self.since).total_seconds()) if self.since else 0.0)


class Seen(msgspec.Struct, frozen=True):
    """What is known of a rollout: the counts of its steps until now, who is alive, and what keeps it from going forward."""

    steps: tuple[StepCounts, ...]
    alive: int = 0
    missing: str = ""


class Wait(msgspec.Struct, frozen=True, tag=True):
    """Nothing is to be done, for this reason; before `until` nothing will be, unless something is counted."""

    reason: str
    until: datetime | None = None


class Advance(msgspec.Struct, frozen=True, tag=True):
    """The next step begins."""

    reason: str = ""


class Promote(msgspec.Struct, frozen=True, tag=True):
    """The version takes over, and the rollout is over."""

    reason: str = ""


class Hold(msgspec.Struct, frozen=True, tag=True):
    """The step's time is over, for this reason without an end: a person has to say how it goes on."""

    reason: str


class RollBack(msgspec.Struct, frozen=True, tag=True):
    """The version is worse by a signal, of which these are the numbers."""

    signal: Signal
    numbers: Numbers
    reason: str


Decision = Wait | Advance | Promote | Hold | RollBack


def decide(rollout: Rollout, seen: Seen, now: datetime) -> Decision:
    """Return what is to become of a rollout."""
    if rollout.state.final:
        return Wait("It is over.")
    numbers = judged(rollout, seen.steps)
    worse = [signal for signal in rollout.plan.gate.signals if numbers[signal].worse]
    if worse:
        signal = max(worse, key=lambda one: max(numbers[one].log_e, numbers[one].log_local))
        return RollBack(signal, numbers[signal], _told(signal, numbers[signal]))
    if rollout.state is State.PAUSED:
        return Wait("A person has paused it.")
    if rollout.state is State.HELD:
        return Wait(rollout.reason)
    lacks = seen.missing or _lacks(rollout, seen, numbers, now)
    if not lacks:
        return Promote(_passed(rollout)) if rollout.last else Advance(_passed(rollout))
    longest = rollout.at.minutes + (0.0 if _is_longest(rollout) else rollout.plan.patience_minutes)
    left_s = 60.0 * longest - rollout.elapsed_s(now)
    return Hold(lacks) if left_s <= 0 else Wait(lacks, now + timedelta(seconds=left_s))


def judged(rollout: Rollout, steps: Sequence[StepCounts]) -> dict[str, Numbers]:
    """Return what is known of each signal by which it is judged."""
    return judge(rollout.plan.gate, spent(rollout), steps, sticky=bool(rollout.plan.sticky))


def spent(rollout: Rollout) -> Spending:
    """Return how the probability of a wrong rollback is divided."""
    plan = rollout.plan
    shadow = plan.shadow is not None
    return spending(plan.gate, servers=rollout.servers, sticky=bool(plan.sticky), steps=plan.compared, shadow=shadow)


def needed(rollout: Rollout) -> tuple[float, float]:
    """Return the logarithms of the evidence that it takes now to be worse, and not to be worse."""
    alphas = spent(rollout)
    alpha = alphas.whole if rollout.at.shadow else alphas.merged or alphas.local
    return -math.log(alpha), -math.log(rollout.plan.gate.beta)


def _is_longest(rollout: Rollout) -> bool:
    """Whether its step's time is the longest, not the shortest."""
    return rollout.plan.mode is Mode.EVIDENCE and not rollout.at.shadow


def _lacks(rollout: Rollout, seen: Seen, numbers: dict[str, Numbers], now: datetime) -> str:
    """Return what a step still lacks that nothing speaks against; "" for nothing."""
    plan, step = rollout.plan, rollout.at
    if plan.mode is Mode.BLUE_GREEN and not rollout.swapped and not step.shadow:
        return ""
    left_s = 60.0 * step.minutes - rollout.elapsed_s(now)
    if left_s > 0 and not _is_longest(rollout):
        return f"The step lasts {step.minutes:g} minutes at least."
    if step.shadow:
        return _lacks_in_shadow(plan, seen.steps[-1].of("disagreement").requests, numbers)
    answered = min(seen.steps[-1].of(signal).requests for signal in served_by(plan.gate) or SIGNALS[:1])
    if answered < plan.least:
        return f"The version has answered {answered} of {plan.least} requests that the step needs."
    unsure = [signal for signal in later(plan.gate) if not numbers[signal].good]
    if plan.mode is Mode.EVIDENCE and unsure:
        return f"It is not shown yet that it is not worse by: {', '.join(sorted(unsure))}."
    return ""


def _lacks_in_shadow(plan: Plan, asked: int, numbers: dict[str, Numbers]) -> str:
    """Return what a step in the shadow still lacks once its time is over."""
    if asked < plan.least:
        return f"The version has been asked {asked} of {plan.least} requests in the shadow that the step needs."
    one = numbers.get("disagreement")
    if plan.mode is Mode.EVIDENCE and one is not None and not one.good:
        return f"It is not shown yet that it answers {one.bound:.3%} of the requests otherwise at most."
    return ""


def _passed(rollout: Rollout) -> str:
    if rollout.at.shadow:
        return "In the shadow, time and requests were enough, and there is no evidence of worse."
    if rollout.plan.mode is Mode.BLUE_GREEN:
        return "No evidence of worse while it answered alone." if rollout.swapped else "All servers have loaded it."
    if rollout.plan.mode is Mode.EVIDENCE:
        return "It is shown that the version is not worse."
    return "Time and requests were enough, and there is no evidence of worse."


def _told(signal: Signal, one: Numbers) -> str:
    counts = f"{one.bad} of {one.requests} {'requests of which was told' if signal in TOLD else 'requests'}"
    if signal in OF_SHADOWS:
        return f"{signal}: {counts} were answered otherwise or not at all in the shadow, which is more than {one.bound:.3%}."
    if one.alone:
        return f"{signal}: {counts} were bad, which is more than {one.bound:.3%}."
    halted = f"; server {one.halted} had stopped by itself" if one.halted else ""
    others = f"{one.others_bad} of {one.others} of the promoted version's"
    found = max(one.log_e, one.log_local)
    return f"{signal}: {counts} were bad, and {others}: evidence e^{found:.1f}{halted}."


# ---- what is seen


def look(rollout: Rollout, steps: Sequence[StepCounts], beats: Iterable[Heartbeat], now: datetime) -> Seen:
    """Return what is known after servers have said this."""
    last, trial_id = steps[-1], f"{rollout.id}:{rollout.step}"
    servers, missing, alive = dict(last.servers), [], 0
    for beat in sorted(beats, key=lambda one: one.server):
        if trial_id in beat.trials:
            servers[beat.server] = servers.get(beat.server, ServerCounts()).heard(beat.trials[trial_id], beat.at)
        if beat.at <= (now - GONE).timestamp():
            continue
        fresh = beat.at > (now - FRESH).timestamp()
        alive += fresh
        missing.append(_absent(rollout, beat, trial_id) if fresh else f"Server {beat.server} is silent.")
    if not alive:
        missing.append("No server has been heard lately.")
    counted = msgspec.structs.replace(last, servers=servers)
    return Seen((*steps[:-1], counted), alive, next((one for one in missing if one), ""))


def _absent(rollout: Rollout, beat: Heartbeat, trial_id: str) -> str:
    """Return why a server that is alive does not take part; "" where it does."""
    failing = beat.failing.get(rollout.version_id)
    if failing:
        return f"Server {beat.server} cannot serve the version: {failing}"
    if trial_id not in beat.trials:
        return f"Server {beat.server} does not count this step yet."
    if beat.serving.get(rollout.deployment) != rollout.promoted_id:
        return f"Server {beat.server} does not answer with the promoted version yet."
    return ""


# ---- what the deployment is to do


def traffic_of(rollout: Rollout, present: Traffic) -> Traffic:
    """Return the traffic of a step: the candidate's share, or, once it has taken over, the old version without any.

    In the shadow the candidate is asked its share, and answers nobody.
    """
    shadow = _shadow_of(rollout)
    if rollout.at.shadow:
        return msgspec.structs.replace(present, splits=(), shadow=shadow)
    if shadow is not None and present.shadow == shadow:
        present = msgspec.structs.replace(present, shadow=None)
    share = 0.0 if rollout.swapped else rollout.at.percent
    return msgspec.structs.replace(present, splits=(Split(rollout.beside_id, share),))


def trial_of(rollout: Rollout, before: Sequence[StepCounts]) -> Trial:
    """Return what servers are to count in a step that comes after these.

    Where one version answers alone, nothing is compared: the share is any, and no server stops anything by itself.
    """
    gate, percent, sticky = rollout.plan.gate, rollout.at.percent, bool(rollout.plan.sticky)
    counted, left = served_by(gate), left_by(before, gate, sticky=sticky)
    compares = rollout.at.compares
    return Trial(
        rollout=rollout.id,
        step=rollout.step,
        version_id=rollout.version_id,
        share=percent / 100.0 if compares else 0.5,
        slow_ms=gate.slow_ms or learned(before),
        alphas=dict.fromkeys(counted, spent(rollout).local) if compares else {},
        before={signal: logs for signal, logs in left.items() if signal in counted} if compares else {},
        shadow=rollout.at.shadow,
    )


def _shadow_of(rollout: Rollout) -> Split | None:
    """Return the shadow that a rollout begins with; it begins with none where the deployment has one."""
    step = rollout.plan.shadow
    return None if step is None else Split(rollout.version_id, step.percent)


def without(rollout: Rollout, present: Traffic) -> Traffic:
    """Return the traffic without what the rollout has put there; what somebody else has made of it stays."""
    ours, shadow = traffic_of(rollout, present).splits, present.shadow
    splits = tuple(one for one in present.splits if one not in ours)
    return msgspec.structs.replace(present, splits=splits, shadow=None if shadow == _shadow_of(rollout) else shadow)


def disturbed(rollout: Rollout, deployment: Deployment) -> str:
    """Return how somebody else has changed what the rollout does with the deployment; "" where nobody has."""
    trial = deployment.trial
    if deployment.version_id != rollout.promoted_id:
        return "The deployment was promoted or taken back meanwhile."
    if trial is None or trial.rollout != rollout.id or trial.step != rollout.step:
        return "Somebody rolled the deployment back: it counts for this rollout no longer."
    if deployment.traffic != traffic_of(rollout, deployment.traffic) or deployment.traffic.sticky != rollout.plan.sticky:
        return "The deployment shares its requests out otherwise now."
    return ""


# ---- how it goes on


def begun(
    rollout_id: str, present: Deployment, version: Version, plan: Plan, *, servers: int, by: str, now: datetime
) -> Rollout:
    """Return a rollout of a version at the beginning of its first step, in a deployment that has another one."""
    return Rollout(
        id=rollout_id,
        deployment=present.name,
        model_id=present.model_id,
        model=present.model,
        from_version_id=present.version_id or "",
        from_version=present.version or 0,
        version_id=version.id,
        version=version.number,
        plan=plan,
        state=State.RUNNING,
        created_at=now,
        created_by=by,
        changed_at=now,
        since=now,
        servers=max(1, servers),
    )


def advanced(rollout: Rollout, servers: int, now: datetime) -> Rollout:
    """Return the rollout at the beginning of its next step."""
    step = rollout.step + 1
    changed = _changed(rollout, State.RUNNING, "", now)
    return msgspec.structs.replace(changed, step=step, since=now, ran_s=0.0, servers=max(1, servers))


def paused(rollout: Rollout, now: datetime) -> Rollout:
    """Return it stopped by a person; what was held stays held."""
    _check_open(rollout)
    if rollout.state is not State.RUNNING:
        return rollout
    stopped = msgspec.structs.replace(rollout, ran_s=rollout.elapsed_s(now), since=None)
    return _changed(stopped, State.PAUSED, "", now)


def resumed(rollout: Rollout, now: datetime) -> Rollout:
    """Return it going on: where it was paused, or, where it was held, from the beginning of its step's time."""
    _check_open(rollout)
    if rollout.state is State.RUNNING:
        return rollout
    ran_s = 0.0 if rollout.state is State.HELD else rollout.ran_s
    return _changed(msgspec.structs.replace(rollout, ran_s=ran_s, since=now), State.RUNNING, "", now)


def held(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """Return it waiting for a person."""
    stopped = msgspec.structs.replace(rollout, ran_s=rollout.elapsed_s(now), since=None)
    return _changed(stopped, State.HELD, reason, now)


def ended(rollout: Rollout, state: State, reason: str, now: datetime) -> Rollout:
    """Return it over, in one of the states that stay."""
    _check_open(rollout)
    stopped = msgspec.structs.replace(rollout, ran_s=rollout.elapsed_s(now), since=None, ended_at=now)
    return _changed(stopped, state, reason, now)


def spread(rollout: Rollout, servers: int) -> Rollout:
    """Return it with its probability divided among more servers, where there are more by now; never among fewer."""
    return msgspec.structs.replace(rollout, servers=max(rollout.servers, servers))


def _changed(rollout: Rollout, state: State, reason: str, now: datetime) -> Rollout:
    _check_open(rollout)
    return msgspec.structs.replace(rollout, state=state, reason=reason, changed_at=now, revision=rollout.revision + 1)


def _check_open(rollout: Rollout) -> None:
    if rollout.state.final:
        raise RolloutOver(f"This rollout is over ({rollout.state.value}): start another one.")
