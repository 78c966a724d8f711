"""Users, keys and setup tokens as values, and when each is good."""

import re
import unicodedata
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import FieldError, Invalid
from modelkeep.contracts.snapshot import Rate

KEY_PREFIX: Final = "key"
SETUP_TOKEN_LIFE: Final = timedelta(hours=24)
NOTE_USE_EVERY: Final = timedelta(minutes=5)
UNLIMITED: Final = "unlimited"
HIGHEST_RATE: Final = 100_000_000
LONGEST_EMAIL: Final = 254
_RATE: Final = re.compile(r"([0-9]{1,9})/min")
_EMAIL: Final = re.compile(r"[^\s@]{1,64}@[^\s@]+")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Kind(StrEnum):
    """Who a user is: a person, who may log in, or a service, which has keys alone."""

    PERSON = "person"
    SERVICE = "service"


class Status(StrEnum):
    """Whether a user may come in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class User(msgspec.Struct, frozen=True):
    """A person or a service. The hash of a password is no part of it, so that nothing shows it by mistake."""

    id: str
    name: str
    created_at: datetime
    email: str | None = None
    display_name: str = ""
    status: Status = Status.ACTIVE
    kind: Kind = Kind.PERSON

    @property
    def active(self) -> bool:
        """Whether the user may come in at all."""
        return self.status is Status.ACTIVE


class Key(msgspec.Struct, frozen=True):
    """An API key, without its secret, which nobody has.

    `rate_per_minute` None is unlimited; `burst` None is a sixth of it: what ten seconds allow. `models` are the ids of those
    that it is good for, None for all; like its scopes they bound what its owner may do, and add nothing to it.
    """

    id: str
    user_id: str
    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    rate_per_minute: int | None = None
    burst: int | None = None
    models: tuple[str, ...] | None = None

    @property
    def rate(self) -> str:
        """Its rate as people write it."""
        return UNLIMITED if self.rate_per_minute is None else f"{self.rate_per_minute}/min"

    @property
    def served_rate(self) -> Rate | None:
        """Its rate as serving holds it; None for unlimited."""
        if self.rate_per_minute is None:
            return None
        return Rate(self.rate_per_minute, self.burst or max(1, self.rate_per_minute // 6))

    def good(self, now: datetime) -> bool:
        """Whether the key opens anything at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class SetupToken(msgspec.Struct, frozen=True):
    """The one-time token that makes the first administrator."""

    id: str
    digest: bytes
    expires_at: datetime
    used_at: datetime | None = None

    def good(self, now: datetime) -> bool:
        """Whether the token may still be used."""
        return self.used_at is None and now < self.expires_at


def by_key(actor: Actor) -> bool:
    """Whether the actor has sent a key, rather than logged in or shown another system's token."""
    return actor.id.startswith(f"{KEY_PREFIX}_")


def use_is_news(key: Key, now: datetime) -> bool:
    """Whether a use of the key now is worth writing down: only now and then, so that reading does not become writing."""
    return key.last_used_at is None or now - key.last_used_at >= NOTE_USE_EVERY


def email_of(text: str) -> str:
    """Return an e-mail address as it is kept: the same for all ways of writing it. Raises `Invalid` for what is none."""
    email = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.strip()).casefold())
    unseen = any(unicodedata.category(sign) in _UNSEEN for sign in email)
    if unseen or len(email) > LONGEST_EMAIL or not _EMAIL.fullmatch(email):
        message = f"Write it as ada@example.org, with at most {LONGEST_EMAIL} characters."
        raise Invalid("This is no e-mail address.", fields=(FieldError("email", "invalid_email", message),))
    return email


def expiry(days: int | None, now: datetime) -> datetime | None:
    """Return when a key made now ends; None for never."""
    if days is None:
        return None
    if days < 1:
        raise Invalid("A key lives for at least one day.")
    return now + timedelta(days=days)


def read_rate(text: str) -> int | None:
    """Return the requests a minute that `100/min` says; None for `unlimited`."""
    if text == UNLIMITED:
        return None
    found = _RATE.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= HIGHEST_RATE:
        message = f"Write it as 100/min, from 1/min to {HIGHEST_RATE}/min, or as {UNLIMITED}."
        raise Invalid("A rate is so many requests a minute.", fields=(FieldError("rate", "invalid_rate", message),))
    return int(found[1])
