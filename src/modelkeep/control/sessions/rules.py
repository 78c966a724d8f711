"""Sessions, refresh tokens and signing keys as values, and when each is good."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

REFRESH_LIFE: Final = timedelta(days=7)
SESSION_LIFE: Final = timedelta(days=30)
DOUBLE_CLICK: Final = timedelta(seconds=10)
PUBLISHED_BEFORE: Final = timedelta(minutes=10)
"""How long a new signing key is published before it signs: whoever keeps the published keys has fetched it by then."""
LONGEST_PROGRAM: Final = 200


class Life(msgspec.Struct, frozen=True):
    """How long a session goes on: without being refreshed, and at all. `browser`: its tokens are in a browser's cookies."""

    idle: timedelta = REFRESH_LIFE
    whole: timedelta = SESSION_LIFE
    browser: bool = False


BROWSERS: Final = Life(timedelta(hours=1), timedelta(hours=12), browser=True)


class Session(msgspec.Struct, frozen=True):
    """From a login to its end: `address` and `program` (as it calls itself) are where that was.

    `provider` is the identity provider that said who it is, "" where a password did; it ends after `idle_s` without a refresh.
    The tokens of a `browser` are in its cookies, and those of others never are.
    """

    id: str
    user_id: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    address: str = ""
    program: str = ""
    provider: str = ""
    idle_s: int = int(REFRESH_LIFE.total_seconds())
    browser: bool = False

    @property
    def idle_until(self) -> datetime:
        """When it ends unless it is refreshed."""
        return min(self.used_at + timedelta(seconds=self.idle_s), self.expires_at)

    def good(self, now: datetime) -> bool:
        """Whether it still goes on."""
        return self.ended_at is None and now < self.idle_until


class RefreshToken(msgspec.Struct, frozen=True):
    """What gets the next access token, once. `answer` is what it got, sealed with itself."""

    digest: bytes
    session_id: str
    expires_at: datetime
    rotated_at: datetime | None = None
    answer: bytes | None = None

    def again(self, now: datetime) -> bool:
        """Whether a second use now is an honest double click, which gets the same answer."""
        return self.rotated_at is not None and self.answer is not None and now < self.rotated_at + DOUBLE_CLICK


class Keyed(msgspec.Struct, frozen=True):
    """A signing key and its time: it verifies until `good_until`, for good where that is None."""

    number: int
    kid: str
    public: bytes
    sealed: bytes
    signs_from: datetime
    good_until: datetime | None = None

    def good(self, now: datetime) -> bool:
        """Whether what it has signed still counts."""
        return self.good_until is None or now < self.good_until


class Resealed(msgspec.Struct, frozen=True):
    """How many signing keys were sealed anew, how many had been so before, and how many that count open with nothing."""

    rewritten: int = 0
    already: int = 0
    lost: int = 0


class Tokens(msgspec.Struct, frozen=True):
    """What a login or a refresh gets."""

    access: str
    refresh: str
    session_id: str
    expires_at: datetime
    refresh_expires_at: datetime

    def __repr__(self) -> str:
        return f"Tokens({self.session_id!r})"


def signing(keys: list[Keyed], now: datetime) -> Keyed | None:
    """Return the key that signs now: the newest whose time has come."""
    return max((key for key in keys if key.signs_from <= now), key=lambda key: key.number, default=None)
