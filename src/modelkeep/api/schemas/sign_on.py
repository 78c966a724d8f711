"""Wire shapes of logging in through identity providers."""

from typing import Annotated, Literal

from pydantic import Field

from modelkeep.api.schemas.wire import Answer, Ask
from modelkeep.contracts.auth import LONGEST_LOGIN


class DirectoryLogin(Ask):
    """Log in as the directory knows one."""

    login: Annotated[str, Field(min_length=1, max_length=LONGEST_LOGIN, description="One's name in the directory.")]
    password: Annotated[str, Field(max_length=65_536)]


class HandedOver(Ask):
    """Exchange the code of a login that ended in a browser."""

    code: Annotated[str, Field(max_length=200, description="What the browser was given, or showed.")]
    verifier: Annotated[str, Field(pattern="^[A-Za-z0-9._~-]{43,128}$", description="What the login's challenge was made of.")]


class ProviderAnswer(Answer):
    """An identity provider: `login` is where a browser goes (oidc), or what a name and a password are sent to (ldap)."""

    name: str
    title: str
    kind: Literal["oidc", "ldap"]
    login: str


class ProvidersAnswer(Answer):
    """All ways to log in but e-mail and password."""

    items: list[ProviderAnswer]
