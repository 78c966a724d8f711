"""What sessions refuse."""

from modelkeep.contracts.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable


class LoginRefused(Unauthenticated):
    """E-mail address and password do not fit together, or this person may not come in."""

    code = "login_refused"


class RefreshRefused(Unauthenticated):
    """This refresh token is wrong, used, too old, or its session has ended: log in again."""

    code = "refresh_refused"


class WrongPassword(Forbidden):
    """This is not your present password."""

    code = "wrong_password"


class NoSession(Invalid):
    """This is for those who have logged in, or for a page that has: what it was asked with has no such session."""

    code = "no_session"


class SessionNotFound(NotFound):
    """There is no session of yours with this id that still goes on."""

    code = "session_not_found"


class RotationUnderWay(Conflict):
    """A new signing key has been published and does not sign yet, or an old one is still needed: rotate again later."""

    code = "rotation_under_way"


class SigningKeyLost(Unavailable):
    """The key that signs sessions was sealed with another site key: restore that, or run `modelkeep keys rotate-signing`."""

    code = "signing_key_lost"
