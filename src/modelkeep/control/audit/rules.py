"""What an entry of the audit trail says."""

from datetime import datetime

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One change: who, what, to what, when, asked by which request."""

    id: str
    at: datetime
    actor: str
    actor_name: str
    action: str
    target: str
    request_id: str
    details: dict[str, str]
