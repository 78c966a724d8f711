"""Scheduled changes as values. One is made once, or fails once, and what became of it stays."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from modelkeep.contracts.access import Guarded
from modelkeep.control.approvals.rules import Act
from modelkeep.control.deployments.planning import Change
from modelkeep.control.schedules.errors import InvalidMoment, ScheduledChangeOver

MOST_WAITING: Final = 100
LATEST: Final = timedelta(days=366)
_KIND: Final[Guarded] = "promotion"


class State(StrEnum):
    """Where a scheduled change stands."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Scheduled(msgspec.Struct, frozen=True):
    """A change of a deployment that is made at a moment, as whoever asked may then.

    `agreed` is the revision at which two people agreed to it, where it needed two. `revision` is what it made of the
    deployment, `problem` why it was not made.
    """

    id: str
    deployment_id: str
    deployment: str
    at: datetime
    change: Change
    reason: str
    asked_by: str
    by: str
    user: str
    asked_at: datetime
    agreed: int | None = None
    state: State = State.WAITING
    ended_at: datetime | None = None
    revision: int | None = None
    problem: str = ""


def check_moment(at: datetime, now: datetime) -> datetime:
    """Return a moment for which something may be scheduled."""
    if not now < at <= now + LATEST:
        raise InvalidMoment
    return at


def scheduling(act: Act, change: Change, at: datetime) -> Act:
    """Return scheduling a change as what two people may have to agree to, for what the change itself is such."""
    summary = f"At {at.isoformat(timespec='seconds')}: {act.summary}"
    return msgspec.structs.replace(
        act, kind=_KIND, action="deployment.schedule", summary=summary, seen=(act.seen, change, at.isoformat())
    )


def end(scheduled: Scheduled, state: State, now: datetime, *, revision: int | None = None, problem: str = "") -> Scheduled:
    """Return it as it is when it is over; raises `ScheduledChangeOver` where it was."""
    if scheduled.state is not State.WAITING:
        raise ScheduledChangeOver
    return msgspec.structs.replace(scheduled, state=state, ended_at=now, revision=revision, problem=problem)
