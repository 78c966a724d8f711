"""Facts about users and keys."""

import msgspec


class KeysChanged(msgspec.Struct, frozen=True):
    """A key was issued or revoked, or what its user may do was changed: serving must learn of it."""


class SetUpDone(msgspec.Struct, frozen=True):
    """The first administrator exists: the setup token is of no more use."""


class UserDisabled(msgspec.Struct, frozen=True):
    """A user may come in no more: what they have opened must end."""

    user_id: str


class PasswordChanged(msgspec.Struct, frozen=True):
    """Whoever came in with the older password must come again; except in the session `kept`, which knew it."""

    user_id: str
    kept: str = ""
