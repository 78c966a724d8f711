"""Wire shapes of approvals."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask
from modelkeep.contracts.access import Guarded
from modelkeep.control.approvals.rules import LONGEST_REASON, State


class ApproverFacts(Answer):
    """Who approved, or refused, and when."""

    user: str
    name: str
    at: datetime


class ApprovalAnswer(Answer):
    """What somebody asked for that needs a second person. Once `approved`, they repeat the same request until `until`, once.

    It is of the request alone, and of how its `subject` was then; `action` and `subject` are as the audit trail has them.
    """

    id: str
    state: State
    kind: Guarded
    action: str
    subject: str
    summary: str
    asked_by: str
    asked_by_name: str
    asked_at: datetime
    until: datetime
    approved_by: list[ApproverFacts]
    refused_by: ApproverFacts | None
    reason: str
    used_at: datetime | None


class Refuse(Ask):
    """Refuse what was asked."""

    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, description="Why; it is kept with the refusal.")]
