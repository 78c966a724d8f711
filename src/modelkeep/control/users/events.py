"""Facts about users and keys."""

import msgspec


class KeysChanged(msgspec.Struct, frozen=True):
    """A key was issued or revoked: serving must learn of it."""
