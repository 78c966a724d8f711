"""What rollouts raise: a version that was taken back for what was counted, and a step that waits for a person.

Words are made of names, numbers and a signal alone. Why a server cannot load a version may quote the version's own code, so
that is left to the rollout's story.
"""

from typing import Final

from modelkeep.contracts.traffic import Signal
from modelkeep.control.alerts.rules import Evidence, News, Severity
from modelkeep.control.rollouts.judging import UNREACHABLE, Numbers
from modelkeep.control.rollouts.records import Story
from modelkeep.control.rollouts.rules import Rollout

ROLLED_BACK: Final = "rollout.rolled_back"
HELD: Final = "rollout.held"
_SHOWN: Final = (
    *("requests", "bad", "others", "others_bad", "log_e", "needs", "log_local", "needs_local"),
    *("log_not_worse", "needs_not_worse", "lower", "upper", "bound"),
)


def rolled_back(story: Story, signal: Signal, reason: str) -> News:
    """Return what is to be looked at after a version was taken back by itself: why it was worse."""
    rollout = story.rollout
    return News(
        severity=Severity.PAGE,
        model_id=rollout.model_id,
        labels=labels(ROLLED_BACK, rollout),
        title=f"{rollout.deployment}: version {rollout.version} was taken back by itself ({signal}).",
        text=f"It was to take over from version {rollout.from_version}, which answers alone again. {_where(rollout)}. {reason}",
        evidence=_evidence(rollout, {signal: story.numbers[signal]}, signal=signal),
    )


def held(story: Story) -> News:
    """Return what is to be looked at while a rollout is held: a person has to say how it goes on."""
    rollout = story.rollout
    return News(
        severity=Severity.TICKET,
        model_id=rollout.model_id,
        labels=labels(HELD, rollout),
        title=f"{rollout.deployment}: the rollout of version {rollout.version} is held, and a person has to decide.",
        text=f"The time of a step is over, and it lacks something: `modelkeep rollout show {rollout.id}` says what. "
        f"{_where(rollout)}; the share stays until then.",
        evidence=_evidence(rollout, story.numbers),
    )


def labels(kind: str, rollout: Rollout) -> dict[str, str]:
    """Return by what an alert about a rollout is known: the next rollout of the same version there is the same."""
    return {"kind": kind, "deployment": rollout.deployment, "model": rollout.model, "version": str(rollout.version)}


def _evidence(rollout: Rollout, known: dict[str, Numbers], *, signal: str = "") -> Evidence:
    numbers = {name: {one: _number(getattr(of, one)) for one in _SHOWN} for name, of in known.items()}
    return Evidence(rollout.changed_at, rollout.id, f"/api/v1/rollouts/{rollout.id}/evidence", signal, numbers)


def _number(value: float | None) -> float | None:
    return None if value is None or value >= UNREACHABLE else value


def _where(rollout: Rollout) -> str:
    return f"Step {rollout.step + 1} of {len(rollout.plan.steps)} ({rollout.at.percent:g} %)"
