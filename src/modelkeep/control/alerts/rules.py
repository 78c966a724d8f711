"""Alerts as values. One stands for what is the same by its labels: what happens again adds to it, and opens no second one.

firing        nobody has said that they look at it
acknowledged  somebody has, until a moment; then it fires again
resolved      it is over, and stays so
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from modelkeep.control.alerts.errors import AlertOver, InvalidAcknowledgement

MOST_EVIDENCE: Final = 20
"""So many times that something happened are kept of an alert, the last ones; all of them are counted."""
KEPT: Final = timedelta(days=90)
"""After so long a resolved alert is forgotten."""
DEFAULT_MINUTES: Final = 240
MOST_MINUTES: Final = 7 * 24 * 60
MOST_NOTE: Final = 1000


class Severity(StrEnum):
    """Whom it concerns: somebody at once, somebody in working hours, or nobody in particular."""

    PAGE = "page"
    TICKET = "ticket"
    INFO = "info"


class State(StrEnum):
    """Where an alert stands at a moment."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was seen once: in which rollout, by which signal, with which numbers of each signal; `link` is where more is.

    A number is None where there is none. Nothing here is a value that somebody sent to a model, or that one answered.
    """

    at: datetime
    rollout: str
    link: str
    signal: str = ""
    numbers: dict[str, dict[str, float | None]] = {}


class News(msgspec.Struct, frozen=True):
    """What is to be looked at: of which model, known by which labels, in which words, and what was seen."""

    severity: Severity
    model_id: str
    labels: Mapping[str, str]
    title: str
    text: str
    evidence: Evidence


class Alert(msgspec.Struct, frozen=True):
    """Something to be looked at, of which the `last_at` was seen last, and `count` how often.

    `acknowledged_until` is when it fires again. What is not so yet is None or "".
    """

    id: str
    fingerprint: str
    severity: Severity
    model_id: str
    labels: dict[str, str]
    title: str
    text: str
    opened_at: datetime
    last_at: datetime
    evidence: tuple[Evidence, ...]
    count: int = 1
    acknowledged_by: str = ""
    acknowledged_at: datetime | None = None
    acknowledged_until: datetime | None = None
    acknowledged_note: str = ""
    resolved_by: str = ""
    resolved_at: datetime | None = None
    resolved_why: str = ""

    @property
    def kind(self) -> str:
        """What kind of thing it is about."""
        return self.labels["kind"]

    @property
    def deployment(self) -> str:
        """In which deployment."""
        return self.labels["deployment"]

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.labels["model"]

    def state(self, now: datetime) -> State:
        """Return where it stands at a moment."""
        if self.resolved_at is not None:
            return State.RESOLVED
        looked_at = self.acknowledged_until is not None and now < self.acknowledged_until
        return State.ACKNOWLEDGED if looked_at else State.FIRING


class Wanted(msgspec.Struct, frozen=True):
    """Which alerts are looked for; what is None is any."""

    state: State | None = None
    severity: Severity | None = None
    deployment: str | None = None
    model: str | None = None


def fingerprint(labels: Mapping[str, str]) -> str:
    """Return what is the same for equal labels in any order, and different for others."""
    return hashlib.sha256(msgspec.json.encode(sorted(labels.items()))).hexdigest()


def opened(alert_id: str, news: News) -> Alert:
    """Return a new alert."""
    return Alert(
        id=alert_id,
        fingerprint=fingerprint(news.labels),
        severity=news.severity,
        model_id=news.model_id,
        labels=dict(news.labels),
        title=news.title,
        text=news.text,
        opened_at=news.evidence.at,
        last_at=news.evidence.at,
        evidence=(news.evidence,),
    )


def again(alert: Alert, news: News) -> Alert:
    """Return an alert after the same has happened once more; whoever has acknowledged it still looks at it."""
    _check_standing(alert)
    return msgspec.structs.replace(
        alert,
        title=news.title,
        text=news.text,
        last_at=news.evidence.at,
        count=alert.count + 1,
        evidence=(*alert.evidence, news.evidence)[-MOST_EVIDENCE:],
    )


def acknowledged(alert: Alert, by: str, now: datetime, *, minutes: int = DEFAULT_MINUTES, note: str = "") -> Alert:
    """Return an alert that somebody looks at from now on for so long; the last who says so counts."""
    _check_standing(alert)
    if not 1 <= minutes <= MOST_MINUTES or len(note) > MOST_NOTE:
        raise InvalidAcknowledgement
    return msgspec.structs.replace(
        alert,
        acknowledged_by=by,
        acknowledged_at=now,
        acknowledged_until=now + timedelta(minutes=minutes),
        acknowledged_note=note.strip(),
    )


def resolved(alert: Alert, by: str, why: str, now: datetime) -> Alert:
    """Return an alert that is over, for a reason."""
    _check_standing(alert)
    if not why.strip() or len(why) > MOST_NOTE:
        raise InvalidAcknowledgement("An alert is resolved with a note that says why, of 1,000 characters at most.")
    return msgspec.structs.replace(alert, resolved_by=by, resolved_at=now, resolved_why=why.strip())


def _check_standing(alert: Alert) -> None:
    if alert.resolved_at is not None:
        raise AlertOver
