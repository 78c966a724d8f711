"""People and services: adding, roles, disabling, passwords, invitations and registration."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response, status

from modelkeep.api.auth import Admin, Oneself
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.routes.auth import origin
from modelkeep.api.schemas.people import (
    ChangePassword,
    ChangeUser,
    InvitationAnswer,
    InvitationsAnswer,
    Invite,
    IssuedInvitationAnswer,
    NewUser,
    PasswordLinkAnswer,
    Register,
    Rename,
    SetPassword,
)
from modelkeep.api.schemas.users import UserAnswer
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import InvalidName, Limited
from modelkeep.contracts.ids import new_id
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.links.errors import InvitationNotFound, LinkRefused, RegistrationClosed
from modelkeep.control.links.service import Newcomer
from modelkeep.control.sessions.errors import WrongPassword
from modelkeep.control.users.errors import UserExists, UserNotFound
from modelkeep.control.users.rules import User, email_of
from modelkeep.infra.attempts import TriedTooOften
from modelkeep.infra.clock import utc_now
from modelkeep.infra.passwords import PasswordsBusy, UnknownHash, WeakPassword, check_hash

router = APIRouter(tags=["people"])
UserId = Annotated[str, Path(max_length=100, description="The user's id.")]
InvitationId = Annotated[str, Path(max_length=100, description="The invitation's id.")]


@router.patch("/me")
@raises(UserNotFound)
async def rename_me(body: Rename, actor: Oneself, behind: Behind) -> UserAnswer:
    """Change the name that is shown of oneself."""
    return UserAnswer.model_validate(await behind.users.rename(actor, body.display_name))


@router.post("/me/password", status_code=status.HTTP_204_NO_CONTENT)
@raises(PasswordsBusy, TriedTooOften, UserNotFound, WeakPassword, WrongPassword)
async def change_password(body: ChangePassword, actor: Oneself, behind: Behind) -> Response:
    """Take another password, knowing the present one; one's other sessions end."""
    await behind.sessions.change_password(actor, body.old, body.new)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/users")
@raises(InvalidCursor)
async def list_users(actor: Admin, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[UserAnswer]:
    """List people and services, newest first."""
    del actor
    found = await behind.users.users(limit=limit + 1, before=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda user: user.id)
    return Page(items=[UserAnswer.model_validate(user) for user in page], next_cursor=next_cursor)


@router.post("/users", status_code=status.HTTP_201_CREATED)
@raises(InvalidName, UnknownHash, UserExists)
async def add_user(body: NewUser, actor: Admin, behind: Behind) -> UserAnswer:
    """Add a person, who gets a password from `reset-password`, or a service, which gets keys."""
    new = User(
        id=new_id("usr"),
        name=body.name,
        created_at=utc_now(),
        email=None if body.email is None else email_of(body.email),
        display_name=body.display_name,
        kind=body.kind,
    )
    kept = None if body.password_hash is None else check_hash(body.password_hash)
    return UserAnswer.model_validate(await behind.users.add(actor, new, kept, body.role))


@router.get("/users/{user_id}")
@raises(UserNotFound)
async def get_user(user_id: UserId, actor: Admin, behind: Behind) -> UserAnswer:
    """Return a person or a service."""
    del actor
    return UserAnswer.model_validate(await behind.users.user(user_id))


@router.patch("/users/{user_id}")
@raises(InvalidName, UserExists, UserNotFound)
async def change_user(user_id: UserId, body: ChangeUser, actor: Admin, behind: Behind) -> UserAnswer:
    """Change what a user is called: the short name, which is theirs alone, and the one that people read."""
    changed = await behind.users.change(actor, user_id, name=body.name, display_name=body.display_name)
    return UserAnswer.model_validate(changed)


@router.post("/users/{user_id}/disable")
@raises(LastAdmin, UserNotFound)
async def disable_user(user_id: UserId, actor: Admin, behind: Behind) -> UserAnswer:
    """Let a user in no more: sessions end, and keys open nothing, from this moment on."""
    return UserAnswer.model_validate(await behind.users.set_active(actor, user_id, active=False))


@router.post("/users/{user_id}/enable")
@raises(UserNotFound)
async def enable_user(user_id: UserId, actor: Admin, behind: Behind) -> UserAnswer:
    """Let a user in again. Sessions stay ended; keys are good again."""
    return UserAnswer.model_validate(await behind.users.set_active(actor, user_id, active=True))


@router.delete("/users/{user_id}/sessions", status_code=status.HTTP_204_NO_CONTENT)
@raises(UserNotFound)
async def sign_out_user(user_id: UserId, actor: Admin, behind: Behind) -> Response:
    """End all sessions of a user, who may log in again; their keys stay good."""
    await behind.sessions.sign_out(actor, user_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/users/{user_id}/reset-password", status_code=status.HTTP_201_CREATED)
@raises(UserNotFound)
async def reset_password(user_id: UserId, actor: Admin, behind: Behind) -> PasswordLinkAnswer:
    """Make a token with which this one person sets a password, once, within 24 hours. It is shown in this answer alone."""
    issued = await behind.links.reset(actor, user_id)
    return PasswordLinkAnswer(token=issued.token.reveal(), expires_at=issued.link.expires_at)


@router.post("/auth/reset-password", status_code=status.HTTP_204_NO_CONTENT)
@raises(Limited, LinkRefused, PasswordsBusy, TriedTooOften, UserNotFound, WeakPassword)
async def set_password(body: SetPassword, request: Request, behind: Behind) -> Response:
    """Set a password with the token that an administrator handed over; one's sessions end."""
    come_from = origin(request)
    await behind.links.set_password(body.token, body.password, address=come_from.address, request_id=come_from.request_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/auth/register", status_code=status.HTTP_201_CREATED)
@raises(InvalidName, Limited, LinkRefused, PasswordsBusy, RegistrationClosed, TriedTooOften, UserExists, WeakPassword)
async def register(body: Register, request: Request, behind: Behind) -> UserAnswer:
    """Register, with the token of an invitation; without one where the installation is open to anyone."""
    come_from = origin(request)
    new = Newcomer(body.name, body.email, body.password, body.display_name)
    user = await behind.links.register(body.token, new, address=come_from.address, request_id=come_from.request_id)
    return UserAnswer.model_validate(user)


@router.get("/invitations")
async def list_invitations(actor: Admin, behind: Behind) -> InvitationsAnswer:
    """List the invitations that may still be used, newest first."""
    del actor
    return InvitationsAnswer(items=[InvitationAnswer.model_validate(one) for one in await behind.links.invitations()])


@router.post("/invitations", status_code=status.HTTP_201_CREATED)
@raises(RegistrationClosed)
async def invite(body: Invite, actor: Admin, behind: Behind) -> IssuedInvitationAnswer:
    """Invite one person, with a role; the token is shown in this answer alone."""
    issued = await behind.links.invite(actor, role=body.role, email=body.email, expires_in_days=body.expires_in_days)
    invitation = InvitationAnswer.model_validate(issued.link)
    return IssuedInvitationAnswer(**invitation.model_dump(), token=issued.token.reveal())


@router.delete("/invitations/{invitation_id}", status_code=status.HTTP_204_NO_CONTENT)
@raises(InvitationNotFound)
async def withdraw_invitation(invitation_id: InvitationId, actor: Admin, behind: Behind) -> Response:
    """Have an invitation be good no more."""
    await behind.links.withdraw(actor, invitation_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)
