"""Who of a provider's people may come in, and into which groups: decided by its settings alone."""

import base64
import hashlib
import re
import unicodedata
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import msgspec

from modelkeep.contracts.access import Role
from modelkeep.contracts.auth import Identity, LdapSettings, OidcSettings, ProviderSettings
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.names import check_name
from modelkeep.control.identities.errors import InvalidPage
from modelkeep.control.users.rules import email_of

SIGN_ON_LIFE: Final = timedelta(minutes=10)
KEPT: Final = timedelta(hours=1)
"""How long a browser keeps a login under way: longer than it is good, so that who comes late is told where they began."""
REFUSED: Final = "sign_on_error"
"""What a page finds the code of a refusal under, in its own address."""
ASK_EVERY: Final = timedelta(minutes=30)
"""How often a directory is asked again what it knows of somebody who does not come."""
LOOK_EVERY: Final = timedelta(days=1)
"""How often those are looked for who have not come for too long to a provider that cannot be asked again."""
_LONGEST_SHOWN: Final = 200
_PROVIDER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9._-]+")
_LONGEST_PAGE: Final = 1000
_PAGE: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?#-]*")


class Why(StrEnum):
    """Why somebody whom a provider knows may not come in: for the audit trail, and not for them."""

    GROUP = "no_group"
    DOMAIN = "no_domain"
    EMAIL = "no_verified_email"
    TAKEN = "email_taken"
    UNKNOWN = "unknown"
    DISABLED = "disabled"


class Known(msgspec.Struct, frozen=True):
    """Who somebody of a provider is here."""

    provider: str
    subject: str
    user_id: str
    created_at: datetime
    used_at: datetime
    asked_at: datetime | None = None


class Terminal(msgspec.Struct, frozen=True):
    """A program on somebody's machine that has sent them to a browser.

    It alone has the verifier of `challenge` (PKCE, S256). It listens on `port` of the browser's machine for what comes with
    `state`; where that is 0, the code is pasted into it.
    """

    challenge: str
    port: int = 0
    state: str = ""

    def address(self, **said: str) -> str:
        """Return where it hears of this."""
        return f"http://127.0.0.1:{self.port}/?{urlencode({'state': self.state, **said})}"


class CameBack(msgspec.Struct, frozen=True):
    """What a provider sent a browser back with; without a `code` it has refused."""

    state: str
    code: str | None = None
    issuer: str | None = None

    def __repr__(self) -> str:
        return "CameBack(hidden)"


class SignOn(msgspec.Struct, frozen=True):
    """A login under way, as the browser keeps it, sealed.

    For a `page` it ends in a session of that browser, and there. For a `terminal` it ends in a code for that.
    """

    state: str
    nonce: str
    verifier: str
    expires_at: datetime
    page: str = ""
    terminal: "Terminal | None" = None

    def __repr__(self) -> str:
        return "SignOn(hidden)"


def check(providers: list[OidcSettings | LdapSettings]) -> None:
    """Raise `Invalid` for settings that do not go together."""
    for one in providers:
        if not _PROVIDER_NAME.fullmatch(one.name):
            raise Invalid("An identity provider's name has small letters, digits and hyphens.")
        if one.default_role not in {"", *Role}:
            raise Invalid(f"The identity provider {one.name} gives a role that there is not.")
        for group in one.group_map.values():
            check_name(group)
    names = [one.name for one in providers]
    issuers = [one.issuer for one in providers if isinstance(one, OidcSettings)]
    back = [one.redirect_uri for one in providers if isinstance(one, OidcSettings)]
    if any(len(set(each)) < len(each) for each in (names, back)):
        raise Invalid("Two identity providers have the same name or the same redirect_uri.")
    services = [one.issuer for one in providers if isinstance(one, OidcSettings) and one.service_audience]
    if len(set(services)) < len(services) and issuers:
        raise Invalid("Of several identity providers with one issuer, only one may have a service_audience.")


def challenge_of(verifier: str) -> str:
    """Return what a verifier is known by before it is shown (RFC 7636, S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def check_page(page: str) -> None:
    """Raise `InvalidPage` unless this is a path of whatever host asks, however a browser, or a proxy, may read it."""
    path = re.split("[?#]", page)[0] if _PAGE.fullmatch(page) and len(page) <= _LONGEST_PAGE else ""
    read = unquote(path)
    if not path or any("//" in one or "\\" in one or not one.isprintable() for one in (path, read, unquote(read))):
        raise InvalidPage


def told(page: str, code: str) -> str:
    """Return the address of a page with why nobody was logged in."""
    parts = urlsplit(page)
    said = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != REFUSED]
    return parts._replace(query=urlencode([*said, (REFUSED, code)])).geturl()


def verified_email(identity: Identity, settings: ProviderSettings) -> str:
    """Return the e-mail address as it is kept, "" where there is none that counts."""
    if not identity.email or not (identity.email_verified or settings.trust_emails):
        return ""
    try:
        return email_of(identity.email)
    except Invalid:
        return ""


def refusal(identity: Identity, settings: ProviderSettings) -> Why | None:
    """Return why nobody like this may come in, None where they may."""
    if settings.groups and identity.groups.isdisjoint(settings.groups):
        return Why.GROUP
    domain = verified_email(identity, settings).rpartition("@")[2]
    if settings.domains and domain not in {one.casefold() for one in settings.domains}:
        return Why.DOMAIN
    return None


def groups_of(identity: Identity, settings: ProviderSettings) -> frozenset[str]:
    """Return the names of the groups here that somebody's groups there stand for."""
    return frozenset(here for there, here in settings.group_map.items() if there in identity.groups)


def name_from(identity: Identity, email: str) -> str:
    """Return a user's name from what a provider says."""
    wanted = (identity.name or email).partition("@")[0]
    plain = unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode().lower()
    return _NOT_IN_NAMES.sub("-", plain).strip("._-")[:50] or "person"


def same_login(login: str) -> str:
    """Return a name in a directory so that those which it takes for one are one: who guesses cannot write it in other ways."""
    return " ".join(unicodedata.normalize("NFKC", login).casefold().split())


def shown_name(identity: Identity) -> str:
    """Return the name that is shown of somebody new."""
    return "".join(sign for sign in identity.display_name if sign.isprintable())[:_LONGEST_SHOWN]
