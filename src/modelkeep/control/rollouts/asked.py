"""A plan as it is asked for: steps as `5:10m`, defaults for what is not said, and what is wrong with it."""

import re
from itertools import pairwise
from typing import Final

import msgspec

from modelkeep.contracts.errors import FieldError
from modelkeep.contracts.traffic import Signal
from modelkeep.control.rollouts.errors import InvalidRollout
from modelkeep.control.rollouts.judging import SIGNALS, Gate
from modelkeep.control.rollouts.rules import Mode, Plan, Step

DEFAULT_STEPS: Final = ("5:10m", "25:30m", "50:1h")
MOST_STEPS: Final = 20
_BY_NAME: Final[tuple[Signal, ...]] = ("feedback",)
"""What is judged where somebody says so."""
_MAY_JUDGE: Final = (*SIGNALS, *_BY_NAME)
_STEP: Final = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,4})?)%?:([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd])")
_MINUTES: Final = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}
_ALONE_BOUND: Final = 0.05
"""Of a version that answers alone there is nothing to compare it with: a rate of bad requests that is too high anywhere."""
_DEFAULTS: Final = Gate()


class Asked(msgspec.Struct, frozen=True):
    """What somebody may say of a rollout; what they do not say has a default."""

    mode: Mode = Mode.CANARY
    steps: tuple[str, ...] = DEFAULT_STEPS
    signals: tuple[Signal, ...] = SIGNALS
    alpha: float = _DEFAULTS.alpha
    beta: float = _DEFAULTS.beta
    margin: float = _DEFAULTS.margin
    bounds: dict[Signal, float] = {}
    slow_ms: float = 0.0
    least: int = 100
    patience_minutes: float = 1440.0
    bake_minutes: float = 30.0


def plan_of(asked: Asked, sticky: str) -> Plan:
    """Return the plan; raises `InvalidRollout` with the place of each fault."""
    faults = list(_faults(asked))
    if faults:
        raise InvalidRollout(f"{faults[0].path}: {faults[0].message}", fields=tuple(faults))
    bounds, steps = asked.bounds, tuple(step for step in map(read_step, asked.steps) if step)
    if asked.mode is Mode.BLUE_GREEN:
        steps = (Step(0.0, 0.0), Step(100.0, asked.bake_minutes))
        counted = [one for one in asked.signals if one not in _BY_NAME]  # of those that are told of, any part may be bad
        bounds = {**dict.fromkeys(counted, _ALONE_BOUND), **bounds}
    gate = Gate(asked.signals, asked.alpha, asked.beta, asked.margin, bounds, asked.slow_ms)
    return Plan(asked.mode, steps, gate, asked.least, asked.patience_minutes, sticky)


def read_step(text: str) -> Step | None:
    """Return a step such as `5:10m` (percent of the requests, and a time in s, m, h or d); None where it is none."""
    found = _STEP.fullmatch(text.strip())
    return None if found is None else Step(float(found[1]), round(float(found[2]) * _MINUTES[found[3]], 6))


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
    if not asked.signals or len(set(asked.signals)) < len(asked.signals) or not set(asked.signals) <= set(_MAY_JUDGE):
        faults.append(FieldError("signals", "signals", f"At least one of {', '.join(_MAY_JUDGE)}, each once."))
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
        if one not in asked.signals
    ]
    return faults
