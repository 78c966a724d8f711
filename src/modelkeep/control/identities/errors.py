"""What logging in through an identity provider refuses. Refusals by the provider itself are in `contracts.auth`."""

from modelkeep.contracts.errors import Forbidden, Invalid, NotFound, Unauthenticated


class ProviderNotFound(NotFound):
    """There is no identity provider of this name here."""

    code = "identity_provider_not_found"


class SignOnLost(Unauthenticated):
    """This login was not begun in this browser, or more than ten minutes ago: begin again."""

    code = "sign_on_lost"


class CodeRefused(Unauthenticated):
    """This code is wrong, used or too old, or was got for another program: begin again."""

    code = "sign_on_code_refused"


class NotAdmitted(Forbidden):
    """The identity provider knows you, but you may not come in here: ask your administrator."""

    code = "not_admitted"


class InvalidPage(Invalid):
    """A page to go on at is named by its path on this host, such as /models, and not by an address."""

    code = "invalid_page"
