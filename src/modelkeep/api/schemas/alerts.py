"""Wire shapes of alerts."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask
from modelkeep.control.alerts.rules import DEFAULT_MINUTES, MOST_MINUTES, MOST_NOTE, Alert, Evidence, Severity, State


class Acknowledge(Ask):
    """Say for how long you look at it, and what you like."""

    for_minutes: Annotated[
        int, Field(strict=True, ge=1, le=MOST_MINUTES, description="After so many minutes it fires again.")
    ] = DEFAULT_MINUTES
    note: Annotated[str, Field(max_length=MOST_NOTE, description="It is kept with the alert.")] = ""


class Resolve(Ask):
    """Say why it is over."""

    note: Annotated[str, Field(min_length=1, max_length=MOST_NOTE, description="It is kept with the alert.")]


class AlertFacts(Answer):
    """What somebody has to look at: since when, how often it happened, who looks at it until when, and how it ended.

    Alerts of equal `fingerprint` are about the same; one of them at most is not resolved.
    """

    id: str
    kind: str
    severity: Severity
    state: State
    fingerprint: str
    labels: dict[str, str]
    title: str
    text: str
    opened_at: datetime
    last_at: datetime
    count: int
    acknowledged_by: str
    acknowledged_at: datetime | None
    acknowledged_until: datetime | None
    acknowledged_note: str
    resolved_by: str
    resolved_at: datetime | None
    resolved_why: str

    @classmethod
    def of(cls, alert: Alert, now: datetime) -> Self:
        """Return it as it stands now."""
        return cls.model_validate(cls.facts(alert, now))

    @classmethod
    def facts(cls, alert: Alert, now: datetime) -> dict[str, object]:
        """Return what is told of each alert, by field."""
        told = {name: getattr(alert, name) for name in AlertFacts.model_fields if name != "state"}
        return {**told, "state": alert.state(now)}


class AlertEvidenceAnswer(Answer):
    """What was seen once: in which rollout, by which signal, and the numbers of each; `link` leads to its plot."""

    at: datetime
    rollout: str
    link: str
    signal: str
    numbers: dict[str, dict[str, float | None]]


class AlertAnswer(AlertFacts):
    """An alert, and what was seen the last twenty times."""

    evidence: list[AlertEvidenceAnswer]

    @classmethod
    def whole(cls, alert: Alert, now: datetime) -> Self:
        """Return all of it."""
        return cls.model_validate({**cls.facts(alert, now), "evidence": [_seen(one) for one in alert.evidence]})


def _seen(one: Evidence) -> AlertEvidenceAnswer:
    return AlertEvidenceAnswer.model_validate(one)
