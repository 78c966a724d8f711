"""One-time links as values, and when each is good."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from modelkeep.contracts.access import Role

RESET_LIFE: Final = timedelta(hours=24)
HANDED_LIFE: Final = timedelta(minutes=5)
INVITATION_DAYS: Final = 7
LONGEST_INVITATION_DAYS: Final = 90
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Purpose(StrEnum):
    """What a link is for."""

    INVITATION = "invitation"
    RESET = "reset"
    SIGN_ON = "sign_on"


class Registration(StrEnum):
    """Who may register: nobody, who was invited, or anyone; who may then do nothing until they are given a role."""

    OFF = "off"
    INVITE = "invite"
    OPEN = "open"


class Link(msgspec.Struct, frozen=True):
    """A link without its token, which nobody has.

    An invitation may have a role on the installation, and may be one address's alone; a reset has a user, and so has a sign-on,
    which an identity provider has made.
    """

    id: str
    purpose: Purpose
    digest: bytes = b""
    created_at: datetime = _NEVER
    created_by: str = ""
    expires_at: datetime = _NEVER
    user_id: str | None = None
    email: str | None = None
    role: Role | None = None
    used_at: datetime | None = None

    def good(self, purpose: Purpose, now: datetime) -> bool:
        """Whether it may be used for this."""
        return self.purpose is purpose and self.used_at is None and now < self.expires_at
