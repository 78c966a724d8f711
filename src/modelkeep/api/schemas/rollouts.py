"""Wire shapes of rollouts."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask, Name, Number
from modelkeep.contracts.traffic import Signal
from modelkeep.control.rollouts.asked import DEFAULT_STEPS, Asked
from modelkeep.control.rollouts.judging import UNREACHABLE, Numbers
from modelkeep.control.rollouts.records import Happened, Point, StepRecord, Story
from modelkeep.control.rollouts.rules import Mode, Rollout, State

Text = Annotated[str, Field(max_length=100)]


class NewRollout(Ask):
    """Say which version is to take over where; what is not said has a default."""

    deployment: Name
    version: Number
    mode: Annotated[Mode, Field(description="How it takes over.")] = Mode.CANARY
    steps: Annotated[
        tuple[Text, ...],
        Field(max_length=20, description="Share and time of each step; of `evidence`, the longest time."),
    ] = DEFAULT_STEPS
    shadow: Annotated[Text, Field(description="A first step in the shadow, such as 20:10m: share asked, least time.")] = ""
    signals: Annotated[
        tuple[Signal, ...] | None,
        Field(max_length=5, description="By what it is judged; null: errors, slow, poor, and in the shadow disagreement."),
    ] = None
    alpha: Annotated[float, Field(description="Probability of taking back a version that is no worse, in all.")] = 0.01
    beta: Annotated[float, Field(description="Probability of accepting one that is worse by the margin.")] = 0.05
    margin: Annotated[float, Field(description="How many times the odds of a bad request are too many.")] = 2.0
    bounds: Annotated[
        dict[Signal, float], Field(default_factory=dict, description="Rates of bad requests that are good enough.")
    ]
    slow_ms: Annotated[float, Field(description="Slower is bad; 0 has servers learn it.")] = 0.0
    least: Annotated[int, Field(strict=True, description="Requests that each step needs of the version.")] = 100
    patience_minutes: Annotated[float, Field(description="After its time, how long a step may lack something.")] = 1440.0
    bake_minutes: Annotated[float, Field(description="Of `blue_green`: how long the old version stays warm.")] = 30.0

    def asked(self) -> Asked:
        """Return it as the service takes it."""
        return Asked(**{name: getattr(self, name) for name in Asked.__struct_fields__})


class TakeBack(Ask):
    """Say why, if you like."""

    reason: Annotated[str, Field(max_length=1000, description="It is kept with the rollout.")] = ""


class StepAnswer(Answer):
    """A share of the requests in percent, and a time. In the `shadow` it is asked these, and answers nobody."""

    percent: float
    minutes: float
    shadow: bool


class GateAnswer(Answer):
    """By what it is judged, and how sure that has to be."""

    signals: list[Signal]
    alpha: float
    beta: float
    margin: float
    bounds: dict[Signal, float]
    slow_ms: float


class RolloutFacts(Answer):
    """A rollout: from which version to which, how, and where it stands. `step` counts from 1; `reason` is of its state.

    `percent` of the requests are what the version answers in this step, or, in the `shadow`, what it is asked.
    """

    id: str
    deployment: str
    model: str
    from_version: int
    from_version_id: str
    version: int
    version_id: str
    mode: Mode
    steps: list[StepAnswer]
    gate: GateAnswer
    least: int
    patience_minutes: float
    sticky: str
    state: State
    reason: str
    step: int
    percent: float
    shadow: bool
    servers: int
    revision: int
    created_at: datetime
    created_by: str
    changed_at: datetime
    ended_at: datetime | None

    @classmethod
    def facts(cls, one: Rollout) -> dict[str, object]:
        """Return its fields."""
        named = {name: getattr(one, name) for name in one.__struct_fields__}
        plan = {name: getattr(one.plan, name) for name in one.plan.__struct_fields__}
        return {**named, **plan, "step": one.step + 1, "percent": one.at.percent, "shadow": one.at.shadow}

    @classmethod
    def of(cls, one: Rollout) -> Self:
        """Return it as lists show it."""
        return cls.model_validate(cls.facts(one))


class NumbersAnswer(Answer):
    """What is known of a signal: counts of both versions, and evidence as natural logarithms.

    `log_e` reaches `needs` where the version is worse, by all servers together; `log_local` and `needs_local` are the same of
    one server alone. `log_not_worse` reaches `needs_not_worse` where it is shown that it is not worse by the margin. `lower`
    and `upper` bound its rate of bad requests. A `needs` of null is for what is not judged. In the shadow both had the same
    requests, and bad are those that one of the two alone answered badly; `disagreement` is judged by its `bound`.
    """

    requests: int
    bad: int
    others: int
    others_bad: int
    log_e: float
    needs: float | None
    log_local: float
    needs_local: float | None
    log_not_worse: float
    needs_not_worse: float
    lower: float
    upper: float
    bound: float | None
    worse: bool
    good: bool
    halted: str

    @classmethod
    def of(cls, one: Numbers) -> Self:
        """Return them as they are shown."""
        said = {name: getattr(one, name) for name in cls.model_fields}
        for name in ("needs", "needs_local"):
            said[name] = said[name] if said[name] < UNREACHABLE else None
        return cls.model_validate(said)


class StepSoFar(Answer):
    """A step that has begun, and how it ended. `numbers`: what was known then, with the steps before it."""

    step: int
    percent: float
    shadow: bool
    started_at: datetime
    ended_at: datetime | None
    decision: str
    numbers: dict[str, NumbersAnswer]

    @classmethod
    def of(cls, one: StepRecord) -> Self:
        """Return it with its place counted from 1."""
        return cls(
            step=one.step + 1,
            percent=one.percent,
            shadow=one.shadow,
            started_at=one.started_at,
            ended_at=one.ended_at,
            decision=one.decision,
            numbers=_numbers(one.numbers),
        )


class EventAnswer(Answer):
    """Something that happened to it: what, by whom, why, and what was known then."""

    at: datetime
    what: str
    by: str
    step: int
    reason: str
    numbers: dict[str, NumbersAnswer]

    @classmethod
    def of(cls, one: Happened) -> Self:
        """Return it with its step counted from 1."""
        return cls(at=one.at, what=one.what, by=one.by, step=one.step + 1, reason=one.reason, numbers=_numbers(one.numbers))


class RolloutAnswer(RolloutFacts):
    """A rollout, its steps so far, what is known of each signal now, and what has happened to it."""

    numbers: dict[str, NumbersAnswer]
    begun: list[StepSoFar]
    events: list[EventAnswer]

    @classmethod
    def told(cls, story: Story) -> Self:
        """Return it whole."""
        rest = {
            "numbers": _numbers(story.numbers),
            "begun": [StepSoFar.of(one) for one in story.steps],
            "events": [EventAnswer.of(one) for one in story.events],
        }
        return cls.model_validate({**cls.facts(story.rollout), **rest})


class ShownAnswer(Answer):
    """What was known of a signal at a moment."""

    log_e: float
    log_not_worse: float
    upper: float
    requests: int
    bad: int
    others: int
    others_bad: int


class PointAnswer(Answer):
    """What was known at a moment, by signal."""

    at: datetime
    step: int
    signals: dict[str, ShownAnswer]


class EvidenceAnswer(Answer):
    """The evidence of a rollout as it came: 2,000 moments at most, evenly thinned. `needs...`: by signal, in logarithms."""

    rollout: str
    state: State
    needs: float
    needs_not_worse: float
    points: list[PointAnswer]

    @classmethod
    def of(cls, rollout: Rollout, needs: tuple[float, float], points: Iterable[Point]) -> Self:
        """Return it with its steps counted from 1."""
        shown = [
            PointAnswer(
                at=one.at,
                step=one.step + 1,
                signals={signal: ShownAnswer.model_validate(known) for signal, known in one.shown.items()},
            )
            for one in points
        ]
        return cls(rollout=rollout.id, state=rollout.state, needs=needs[0], needs_not_worse=needs[1], points=shown)


def _numbers(by_signal: dict[str, Numbers]) -> dict[str, NumbersAnswer]:
    return {signal: NumbersAnswer.of(one) for signal, one in by_signal.items()}
