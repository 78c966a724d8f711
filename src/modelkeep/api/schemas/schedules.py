"""Wire shapes of scheduled changes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from modelkeep.api.schemas.deployments import PlanChange, Reason
from modelkeep.api.schemas.wire import Answer
from modelkeep.control.schedules.rules import State


class NewScheduledChange(PlanChange):
    """Have a change made at a moment to come, in one's own name."""

    at: Annotated[AwareDatetime, Field(description="When; with its time zone.")]
    reason: Reason = ""


class PlannedChangeAnswer(Answer):
    """What is to be changed: a version to promote, settings and traffic. Null is left as it is."""

    version: int | None
    settings: dict[str, Any] | None
    traffic: dict[str, Any] | None


class ScheduledChangeAnswer(Answer):
    """A change that is made at a moment: `revision` is what it made of the deployment, `problem` why it was not made."""

    id: str
    deployment: str
    at: datetime
    change: PlannedChangeAnswer
    reason: str
    state: State
    by: str
    asked_at: datetime
    ended_at: datetime | None
    revision: int | None
    problem: str
