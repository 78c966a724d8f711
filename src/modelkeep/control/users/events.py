"""Facts about users and keys."""

import msgspec

from modelkeep.contracts.access import Role
from modelkeep.contracts.actor import Actor


class KeysChanged(msgspec.Struct, frozen=True):
    """A key was issued or revoked, or what its user may do was changed: serving must learn of it."""


class SetUpDone(msgspec.Struct, frozen=True):
    """The first administrator exists: the setup token is of no more use."""

    user_id: str
    request_id: str


class UserAdded(msgspec.Struct, frozen=True):
    """There is a new user, who is to have this role on the installation; None for none."""

    user_id: str
    role: Role | None
    actor: Actor


class MayHaveBeenLast(msgspec.Struct, frozen=True):
    """Somebody can come in no more, or not by this key: whoever administers must be able to."""


class UserDisabled(msgspec.Struct, frozen=True):
    """A user may come in no more: what they have opened must end."""

    user_id: str


class PasswordChanged(msgspec.Struct, frozen=True):
    """Whoever came in with the older password must come again; except in the session `kept`, which knew it."""

    user_id: str
    kept: str = ""
