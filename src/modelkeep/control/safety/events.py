"""Facts about switches."""

import msgspec


class SandboxAccepted(msgspec.Struct, frozen=True):
    """Which level of the lock-down is enough has changed: serving must learn of it."""
