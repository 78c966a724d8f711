"""Facts about alerts."""

import msgspec


class AlertRaised(msgspec.Struct, frozen=True):
    """Something is to be looked at: for the first time (`count` 1), or again while the alert stands."""

    alert: str
    kind: str
    severity: str
    model_id: str
    deployment: str
    count: int
