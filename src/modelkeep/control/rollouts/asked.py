"""A plan as it is asked for: steps as `5:10m`, defaults for what is not said, and what is wrong with it."""

import re
from itertools import pairwise
from typing import Final

import msgspec

from modelkeep.contracts.errors import FieldError
from modelkeep.contracts.traffic import Signal
from modelkeep.control.rollouts.errors import InvalidRollout
from modelkeep.control.rollouts.judging import OF_SHADOWS, SIGNALS, TOLD, Gate
from modelkeep.control.rollouts.rules import Mode, Plan, Step

DEFAULT_STEPS: Final = ("5:10m", "25:30m", "50:1h")
MOST_STEPS: Final = 20
_MAY_JUDGE: Final = (*SIGNALS, *TOLD)
_STEP: Final = re.compile(r"(100|[0-9]{1,2}(?:\.[0-9]{1,4})?)%?:([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])")
_MINUTES: Final = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}
_ALONE_BOUND: Final = 0.05
"""Of a version that answers alone there is nothing to compare it with: a rate of bad requests that is too high anywhere."""
_DISAGREEMENT: Final = 0.10
"""Versions that were trained twice answer some requests otherwise; one that does in more than a tenth is another model."""
_DEFAULTS: Final = Gate()


class Asked(msgspec.Struct, frozen=True):
    """What somebody may say of a rollout; what they do not say has a default.

    `shadow` is a first step, such as `20:10m`, in which the version is asked and answers nobody. `signals` are then, unless
    somebody names them, also what is counted there.
    """

    mode: Mode = Mode.CANARY
    steps: tuple[str, ...] = DEFAULT_STEPS
    signals: tuple[Signal, ...] | None = None
    alpha: float = _DEFAULTS.alpha
    beta: float = _DEFAULTS.beta
    margin: float = _DEFAULTS.margin
    bounds: dict[Signal, float] = {}
    slow_ms: float = 0.0
    least: int = 100
    patience_minutes: float = 1440.0
    bake_minutes: float = 30.0
    shadow: str = ""

    @property
    def judged(self) -> tuple[Signal, ...]:
        """By what it is judged."""
        if self.signals is not None:
            return self.signals
        signals = (*SIGNALS, *OF_SHADOWS) if self.shadow else SIGNALS
        return tuple(one for one in signals if one != "slow" or not self._learns_nothing)

    @property
    def _learns_nothing(self) -> bool:
        """Whether nobody says what is slow: the promoted version is gone before servers could learn that from it."""
        return self.mode is Mode.BLUE_GREEN and not self.slow_ms


def plan_of(asked: Asked, sticky: str) -> Plan:
    """Return the plan; raises `InvalidRollout` with the place of each fault."""
    faults = list(_faults(asked))
    if faults:
        raise InvalidRollout(f"{faults[0].path}: {faults[0].message}", fields=tuple(faults))
    signals, bounds = asked.judged, asked.bounds
    steps = tuple(step for step in map(read_step, asked.steps) if step)
    if asked.mode is Mode.BLUE_GREEN:
        steps = (Step(0.0, 0.0), Step(100.0, asked.bake_minutes))
        counted = [one for one in signals if one not in TOLD]  # of those that are told of, any part may be bad
        bounds = {**dict.fromkeys(counted, _ALONE_BOUND), **bounds}
    if shadow := read_shadow(asked.shadow):
        steps = (shadow, *steps)
        rates = {one: asked.bounds.get(one, _DISAGREEMENT) for one in OF_SHADOWS if one in signals}
        bounds = {**bounds, **rates}
    gate = Gate(signals, asked.alpha, asked.beta, asked.margin, bounds, asked.slow_ms)
    return Plan(asked.mode, steps, gate, asked.least, asked.patience_minutes, sticky)


def read_step(text: str) -> Step | None:
    """Return a step such as `5:10m` (percent of the requests, and a time in s, m, h or d); None where it is none."""
    found = _STEP.fullmatch(text.strip())
    if found is None or found[1] == "100":
        return None
    return Step(float(found[1]), round(float(found[2]) * _MINUTES[found[3]], 6))


def read_shadow(text: str) -> Step | None:
    """Return a step in the shadow, in which a version may be asked all of the requests; None where it is none."""
    found = _STEP.fullmatch(text.strip())
    if found is None or not float(found[1]):
        return None
    return Step(float(found[1]), round(float(found[2]) * _MINUTES[found[3]], 6), shadow=True)


def _faults(asked: Asked) -> list[FieldError]:
    faults = []
    steps = [read_step(text) for text in asked.steps]
    if not 1 <= len(steps) <= MOST_STEPS:
        faults.append(FieldError("steps", "length", f"1 to {MOST_STEPS} steps."))
    for place, step in enumerate(steps):
        if step is None or step.percent <= 0:
            faults.append(
                FieldError(f"steps[{place}]", "step", "A step is a share and a time, such as 5:10m; 0 < share < 100.")
            )
    shares = [step.percent for step in steps if step]
    if any(later <= earlier for earlier, later in pairwise(shares)):
        faults.append(FieldError("steps", "order", "Each step has a larger share than the one before."))
    faults += _faults_of_signals(asked)
    if asked.shadow and read_shadow(asked.shadow) is None:
        text = "A step in the shadow is a share of the requests and a time, such as 20:10m; 0 < share <= 100."
        faults.append(FieldError("shadow", "step", text))
    ranges = [
        *(("alpha", asked.alpha, 1e-9, 0.5), ("beta", asked.beta, 1e-9, 0.5), ("margin", asked.margin, 1.05, 100.0)),
        *(("slow_ms", asked.slow_ms, 0.0, 1e7), ("least", asked.least, 1, 1e9)),
        *(("patience_minutes", asked.patience_minutes, 0.0, 1e6), ("bake_minutes", asked.bake_minutes, 0.0, 1e6)),
        *((f"bounds.{signal}", bound, 1e-6, 1.0) for signal, bound in asked.bounds.items()),
    ]
    faults += [
        FieldError(name, "range", f"From {low:g} to {high:g}.") for name, said, low, high in ranges if not low <= said <= high
    ]
    faults += [
        FieldError(f"bounds.{one}", "signal", "Not among the signals that are judged.")
        for one in asked.bounds
        if one not in asked.judged
    ]
    return faults


def _faults_of_signals(asked: Asked) -> list[FieldError]:
    signals = asked.judged
    answering = set(signals) - set(OF_SHADOWS)
    if not answering or len(set(signals)) < len(signals) or not answering <= set(_MAY_JUDGE):
        return [FieldError("signals", "signals", f"At least one of {', '.join(_MAY_JUDGE)}, each once.")]
    if "slow" in signals and asked.mode is Mode.BLUE_GREEN and not asked.slow_ms:
        text = "The promoted version is gone before servers could learn from it what is slow: say slow_ms, or leave slow out."
        return [FieldError("slow_ms", "needed", text)]
    if len(answering) < len(signals) and not asked.shadow:
        text = "disagreement is counted in the shadow: begin the rollout there, with shadow, such as 20:10m."
        return [FieldError("signals", "shadow", text)]
    return []
