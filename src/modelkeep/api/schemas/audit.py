"""Wire shapes of the audit trail."""

from datetime import datetime

from modelkeep.api.schemas.wire import Answer


class EntryAnswer(Answer):
    """One change. While a lower lock-down is accepted and in force, `details` of all have it as `sandbox_accepted`."""

    id: str
    at: datetime
    actor: str
    actor_name: str
    action: str
    target: str
    request_id: str
    details: dict[str, str]
