"""Users, keys and setup tokens as values, and when each is good."""

import re
from datetime import datetime, timedelta
from typing import Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import FieldError, Invalid
from modelkeep.contracts.snapshot import Rate

SETUP_TOKEN_LIFE: Final = timedelta(hours=24)
NOTE_USE_EVERY: Final = timedelta(minutes=5)
UNLIMITED: Final = "unlimited"
HIGHEST_RATE: Final = 100_000_000
_RATE: Final = re.compile(r"([0-9]{1,9})/min")


class User(msgspec.Struct, frozen=True):
    """A person."""

    id: str
    name: str
    created_at: datetime


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


def use_is_news(key: Key, now: datetime) -> bool:
    """Whether a use of the key now is worth writing down: only now and then, so that reading does not become writing."""
    return key.last_used_at is None or now - key.last_used_at >= NOTE_USE_EVERY


def is_last_admin(key: Key, others: list[Key], now: datetime) -> bool:
    """Whether nobody could administer once `key` is revoked."""
    return Scope.ADMIN in key.scopes and not any(Scope.ADMIN in other.scopes and other.good(now) for other in others)


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
