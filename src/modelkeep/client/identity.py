"""Who asks: people, services, their sessions and tokens, and the links that let them in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Self

from modelkeep.client.results import Key, _FromDocument

_SOON: Final = timedelta(seconds=30)


@dataclass(frozen=True, repr=False)
class Tokens(_FromDocument):
    """What a login got: an access token, and the refresh token that gets the next pair, once. Neither is printed."""

    SHOWN: ClassVar[tuple[str, ...]] = ("session", "expires_at", "refresh_expires_at")

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: str
    refresh_expires_at: str = ""
    session: str = ""
    _ends: datetime = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", datetime.fromisoformat(self.expires_at).astimezone(UTC))

    @property
    def end_soon(self) -> bool:
        """Whether the access token has ended, or does so before a request with it arrives; as far as this clock is right."""
        return datetime.now(UTC) > self._ends - _SOON


@dataclass(frozen=True, repr=False)
class User(_FromDocument):
    """A person, or a service."""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "name", "email", "kind", "status", "created_at")

    id: str
    name: str = ""
    email: str | None = None
    display_name: str = ""
    kind: str = "person"
    status: str = "active"
    created_at: str = ""


@dataclass(frozen=True, repr=False)
class Me(_FromDocument):
    """Who asks: a user with a `key`, or in a `session`; their `roles`, and what `scopes` bound the key (None: nothing)."""

    SHOWN: ClassVar[tuple[str, ...]] = ("user", "key", "session", "scopes")

    user: User
    key: Key | None = None
    session: str | None = None
    scopes: Sequence[str] | None = None
    roles: Sequence[Mapping[str, str]] = ()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the value for a JSON object."""
        found = super().read(document)
        object.__setattr__(found, "user", User.read(document["user"]))
        object.__setattr__(found, "key", Key.read(document["key"]) if document.get("key") else None)
        return found


@dataclass(frozen=True, repr=False)
class Session(_FromDocument):
    """From a login to its end: where it began, and whether it is `this` one."""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "created_at", "used_at", "expires_at", "address", "program", "this")

    id: str
    created_at: str = ""
    used_at: str = ""
    expires_at: str = ""
    address: str = ""
    program: str = ""
    this: bool = False


@dataclass(frozen=True, repr=False)
class Provider(_FromDocument):
    """A way to log in: with a name and a password ("ldap"), or in a browser ("oidc")."""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "title", "kind")

    name: str
    title: str = ""
    kind: str = ""
    login: str = ""


@dataclass(frozen=True)
class BrowserLogin:
    """A login in a browser that has begun: whoever opens `address` there comes back with a code, and `finish_login` takes that.

    With a port, the browser is sent there, on its own machine, with `state` and `code` or `error` in the query.
    """

    address: str
    state: str = ""
    verifier: str = field(default="", repr=False)


@dataclass(frozen=True, repr=False)
class Invitation(_FromDocument):
    """Lets one person register; `token` is known once, when it is made, and is not printed with the others."""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "email", "role", "created_at", "expires_at")

    id: str
    email: str | None = None
    role: str | None = None
    created_at: str = ""
    created_by: str = ""
    expires_at: str = ""
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, repr=False)
class PasswordLink(_FromDocument):
    """With this `token` one person sets a password, once; it is not printed with the others."""

    SHOWN: ClassVar[tuple[str, ...]] = ("expires_at",)

    token: str = field(repr=False)
    expires_at: str = ""
