"""What users and keys refuse."""

from modelkeep.contracts.errors import Conflict, NotFound, Unauthenticated


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


class CertificateInUse(Conflict):
    """One of these certificates or names stands for another API key already: revoke that key, or give it others."""

    code = "certificate_in_use"


class UserNotFound(NotFound):
    """There is no user with this id."""

    code = "user_not_found"


class UserExists(Conflict):
    """There is a user of this name or this e-mail address already: take another."""

    code = "user_exists"
