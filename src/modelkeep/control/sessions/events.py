"""Facts about sessions and the keys that sign for them."""

import msgspec


class TrustChanged(msgspec.Struct, frozen=True):
    """A session has ended before its time, or there is another signing key: serving must learn of it."""
