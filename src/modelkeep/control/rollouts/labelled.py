"""Feedback as one more source of what is counted of a rollout's steps.

Labels are counted in one place, whichever server made the prediction, and for the step in which it was made, with that step's
share, however late they come. Of those who told of a prediction nobody knows all: how many are labelled says how many were
told of, not how many were asked. Where requests of a caller stay together, a caller's are wrong once in each step.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from modelkeep.contracts.traffic import Counted, Signal
from modelkeep.control.feedback.rules import Labels
from modelkeep.control.rollouts.judging import ServerCounts, StepCounts
from modelkeep.control.rollouts.rules import Rollout

SOURCE: Final = "(feedback)"
"""Stands among the servers, none of which can be called so."""
_SIGNAL: Final[Signal] = "feedback"
_NONE: Final = Labels()

Found = Mapping[str, Mapping[str, Labels]]


def wanted(rollout: Rollout) -> bool:
    """Whether a rollout is judged by feedback."""
    return _SIGNAL in rollout.plan.gate.signals


def trials(rollout: Rollout, steps: Sequence[object]) -> list[str]:
    """Return by what the predictions of each of these steps are known."""
    return [f"{rollout.id}:{at}" for at in range(len(steps))]


def with_labels(rollout: Rollout, steps: Sequence[StepCounts], found: Found) -> list[StepCounts]:
    """Return the counts of steps with what was told of their predictions, by trial and version."""
    return [_with(step, rollout, found.get(trial, {})) for step, trial in zip(steps, trials(rollout, steps), strict=True)]


def _with(step: StepCounts, rollout: Rollout, found: Mapping[str, Labels]) -> StepCounts:
    mine, others = found.get(rollout.version_id, _NONE), found.get(rollout.from_version_id, _NONE)
    counted = Counted(mine.labelled, mine.wrong, others.labelled, others.wrong)
    if counted == Counted() and SOURCE not in step.servers:
        return step
    return msgspec.structs.replace(step, servers={**step.servers, SOURCE: ServerCounts(now={_SIGNAL: counted})})
