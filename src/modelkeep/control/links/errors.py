"""What one-time links refuse."""

from modelkeep.contracts.errors import Forbidden, NotFound, Unauthenticated


class RegistrationClosed(Forbidden):
    """Nobody registers here by themselves: the setting `auth.registration` says so."""

    code = "registration_closed"


class LinkRefused(Unauthenticated):
    """This one-time link is wrong, used or too old: ask an administrator for another."""

    code = "link_refused"


class InvitationNotFound(NotFound):
    """There is no invitation with this id that may still be used."""

    code = "invitation_not_found"
