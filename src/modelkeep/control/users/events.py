"""Facts about users and keys."""

import msgspec


class KeysChanged(msgspec.Struct, frozen=True):
    """A key was issued or revoked: serving must learn of it."""


class SetUpDone(msgspec.Struct, frozen=True):
    """The first administrator exists: the setup token is of no more use."""

    user_id: str
    request_id: str
