"""Wire shapes of people and services, and of the links that let them in."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from modelkeep.api.schemas.users import Email, Password
from modelkeep.api.schemas.wire import Answer, Ask, Name
from modelkeep.contracts.access import Role
from modelkeep.control.links.rules import INVITATION_DAYS, LONGEST_INVITATION_DAYS
from modelkeep.control.users.rules import Kind

DisplayName = Annotated[str, Field(max_length=200, description="The name that people read.")]
Token = Annotated[str, Field(max_length=200)]


class NewUser(Ask):
    """Add a person, who then needs a password from a link, or a service, which needs keys."""

    name: Name
    kind: Kind = Kind.PERSON
    email: Email | None = None
    display_name: DisplayName = ""
    role: Annotated[Role | None, Field(description="Their role on the installation, if they are to have one.")] = None
    password_hash: (
        Annotated[str, Field(max_length=500, description="From elsewhere: Argon2id, or bcrypt of cost 12 to 16.")] | None
    ) = None


class ChangeUser(Ask):
    """Change what a user is called: what is left out stays as it is."""

    name: Name | None = None
    display_name: DisplayName | None = None


class Rename(Ask):
    """Change the name that is shown."""

    display_name: DisplayName


class ChangePassword(Ask):
    """Take another password."""

    old: Annotated[str, Field(max_length=65_536)]
    new: Password


class PasswordLinkAnswer(Answer):
    """With this token one person sets a password, once; it is shown here and never again."""

    token: str
    expires_at: datetime


class SetPassword(Ask):
    """Set a password with the token of a link."""

    token: Token
    password: Password


class Invite(Ask):
    """Let one person register."""

    role: Annotated[Role | None, Field(description="Their role on the installation, if they are to have one.")] = None
    email: Email | None = None
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=LONGEST_INVITATION_DAYS)] = INVITATION_DAYS


class InvitationAnswer(Answer):
    """An invitation, without its token."""

    id: str
    email: str | None
    role: Role | None
    created_at: datetime
    created_by: str
    expires_at: datetime


class IssuedInvitationAnswer(InvitationAnswer):
    """A new invitation; its token is shown here and never again."""

    token: str


class InvitationsAnswer(Answer):
    """All invitations that may still be used, newest first."""

    items: list[InvitationAnswer]


class Register(Ask):
    """Register, with the token of an invitation, or without where that is open."""

    token: Token | None = None
    name: Name
    email: Email
    password: Password
    display_name: DisplayName = ""
