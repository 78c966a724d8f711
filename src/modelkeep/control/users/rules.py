"""Users, keys and setup tokens as values, and when each is good."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.snapshot import Scope

SETUP_TOKEN_LIFE: Final = timedelta(hours=24)
NOTE_USE_EVERY: Final = timedelta(minutes=5)


class User(msgspec.Struct, frozen=True):
    """A person."""

    id: str
    name: str
    created_at: datetime


class Key(msgspec.Struct, frozen=True):
    """An API key, without its secret, which nobody has."""

    id: str
    user_id: str
    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

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
