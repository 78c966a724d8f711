"""Messages from serving up to the control plane."""

import msgspec


class Heartbeat(msgspec.Struct, frozen=True):
    """A server says which snapshot it has applied and, for each deployment, the version that answers now.

    `failing`: version id -> why it cannot be served (a sentence); empty when all is well. Times are Unix seconds.
    """

    server: str
    at: float
    snapshot: int
    serving: dict[str, str] = {}
    failing: dict[str, str] = {}
