"""What users and keys refuse."""

from modelkeep.contracts.errors import Conflict, Invalid, NotFound, Unauthenticated


class SetupTokenInvalid(Unauthenticated):
    """This setup token is wrong, used or too old: take the one that `modelkeep serve` printed last."""

    code = "setup_token_invalid"


class AlreadySetUp(Conflict):
    """This installation has its first administrator already: ask them for a key."""

    code = "already_set_up"


class KeyNotFound(NotFound):
    """There is no API key with this id."""

    code = "key_not_found"


class KeyRotationUnderWay(Conflict):
    """This key has two secrets already: end the one from before first, or wait until its time is over."""

    code = "key_rotation_under_way"


class LastAdminKey(Conflict):
    """This is the last key that may administer: make another one before you revoke it."""

    code = "last_admin_key"


class UserNotFound(NotFound):
    """There is no user with this id."""

    code = "user_not_found"


class UserExists(Conflict):
    """There is a user of this name or this e-mail address already: take another."""

    code = "user_exists"


class LastAdmin(Conflict):
    """This is the last active administrator: make another one first."""

    code = "last_admin"


class BeyondRole(Invalid):
    """A key may do no more than its user's role: ask for less, or change the role."""

    code = "beyond_role"
