"""Facts about who may do what."""

import msgspec


class AccessChanged(msgspec.Struct, frozen=True):
    """Somebody may do more or less than before: serving must learn of it."""
