"""Wire shapes of logging in."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from modelkeep.api.schemas.users import Email
from modelkeep.api.schemas.wire import Answer, Ask


class Login(Ask):
    """Log in."""

    email: Email
    password: Annotated[str, Field(max_length=65_536)]


class Refresh(Ask):
    """Go on with a session."""

    refresh_token: Annotated[str, Field(max_length=200)]


class TokensAnswer(Answer):
    """An access token, and what gets the next one."""

    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a scheme
    access_token: str
    expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime
    session: str


class BrowserAnswer(Answer):
    """A session of a browser: `csrf_token` goes into `X-CSRF-Token` of whatever changes something.

    `expires_at` is when it has to be refreshed, `idle_until` when it ends unless it is.
    """

    csrf_token: str
    session: str
    expires_at: datetime | None = None
    idle_until: datetime | None = None


class SessionAnswer(Answer):
    """From a login to its end."""

    id: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    address: str
    program: str
    this: bool


class SessionsAnswer(Answer):
    """All of one's sessions that go on, newest first."""

    items: list[SessionAnswer]


class JwkAnswer(Answer):
    """A public key (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    use: Literal["sig"]
    alg: Literal["EdDSA"]
    kid: str
    x: str


class JwksAnswer(Answer):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[JwkAnswer]


class RotatedAnswer(Answer):
    """A new signing key was published."""

    signs_from: datetime
