"""Wire shapes of the audit trail."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask
from modelkeep.control.audit.rules import Outcome


class EntryAnswer(Answer):
    """One change, or one refusal. Its number `seq` and `hash` are its place in the chain.

    While a lower lock-down is accepted and in force, `details` of all have it as `sandbox_accepted`. Of an `erased` entry, who,
    from where, to what, details, before and after are empty.
    """

    id: str
    at: datetime
    actor: str
    actor_name: str
    user: str
    address: str
    action: str
    target: str
    target_kind: str
    outcome: Outcome
    request_id: str
    details: dict[str, str]
    before: str | None
    after: str | None
    seq: int
    hash: str
    erased: bool


class Erasure(Ask):
    """Whom to erase from the audit trail, and why."""

    subject: Annotated[str, Field(min_length=1, max_length=100, description="The person's id (`usr_...`), or a key's.")]
    reason: Annotated[
        str, Field(min_length=1, max_length=500, description="Kept in the trail for good: it must not name the person.")
    ]


class Erased(Answer):
    """What was erased."""

    entries: Annotated[int, Field(description="Entries that named the person: what they said is gone, their places stay.")]
