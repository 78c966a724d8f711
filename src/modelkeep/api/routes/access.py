"""Workspaces, groups, grants, and why somebody may do something."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status

from modelkeep.api.auth import Admin, AnyKey
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.schemas.access import (
    ExplanationAnswer,
    GrantAnswer,
    GrantFacts,
    GroupAnswer,
    MembersAnswer,
    NewGrant,
    NewGroup,
    NewWorkspace,
    WorkspaceAnswer,
)
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind, Services
from modelkeep.contracts.access import INSTALLATION, Place, PlaceKind, Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import ApprovalNeeded, Forbidden, InvalidName
from modelkeep.control.access.errors import (
    GrantNotFound,
    GroupExists,
    GroupNotFound,
    InvalidGrant,
    LastAdmin,
    SubjectNotFound,
    WorkspaceExists,
    WorkspaceInUse,
    WorkspaceNotFound,
)
from modelkeep.control.access.rules import Subject, SubjectKind, check_may_list
from modelkeep.control.models.errors import ModelNotFound
from modelkeep.control.users.rules import by_key

router = APIRouter(tags=["access"])
Group = Annotated[str, Path(max_length=100, description="The group's name.")]
Person = Annotated[str, Path(max_length=100, description="The person's id.")]
SubjectKindAsked = Annotated[SubjectKind | None, Query(description="Of whom: a person, a group or a key.")]
SubjectId = Annotated[str | None, Query(max_length=100, description="Their id; a group's name.")]
Where = Annotated[PlaceKind | None, Query(description="On what kind of place.")]
On = Annotated[str | None, Query(max_length=100, description="The name of the workspace or model.")]


@router.get("/workspaces")
@raises(InvalidCursor)
async def list_workspaces(actor: AnyKey, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[WorkspaceAnswer]:
    """List the workspaces on which you have a role, by name; all for who has one on the installation."""
    found = await behind.access.workspaces(actor, limit=limit + 1, after=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one.name)
    return Page(items=[WorkspaceAnswer.model_validate(one) for one in page], next_cursor=next_cursor)


@router.post("/workspaces", status_code=status.HTTP_201_CREATED)
@raises(InvalidName, WorkspaceExists)
async def create_workspace(body: NewWorkspace, actor: Admin, behind: Behind) -> WorkspaceAnswer:
    """Make a workspace."""
    return WorkspaceAnswer.model_validate(await behind.access.create_workspace(actor, body.name))


@router.delete("/workspaces/{name}", status_code=status.HTTP_204_NO_CONTENT)
@raises(ApprovalNeeded, WorkspaceInUse, WorkspaceNotFound)
async def remove_workspace(
    name: Annotated[str, Path(max_length=100, description="The workspace's name.")], actor: Admin, behind: Behind
) -> Response:
    """Remove a workspace without models, and what was granted on it."""
    await behind.models.remove_workspace(actor, name)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/groups")
@raises(InvalidCursor)
async def list_groups(actor: Admin, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[GroupAnswer]:
    """List groups by name."""
    found = await behind.access.groups(actor, limit=limit + 1, after=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one.name)
    return Page(items=[GroupAnswer.model_validate(one) for one in page], next_cursor=next_cursor)


@router.post("/groups", status_code=status.HTTP_201_CREATED)
@raises(GroupExists, InvalidName)
async def create_group(body: NewGroup, actor: Admin, behind: Behind) -> GroupAnswer:
    """Make a group."""
    return GroupAnswer.model_validate(await behind.access.create_group(actor, body.name))


@router.delete("/groups/{name}", status_code=status.HTTP_204_NO_CONTENT)
@raises(GroupNotFound, LastAdmin)
async def remove_group(name: Group, actor: Admin, behind: Behind) -> Response:
    """Remove a group; what its members had through it, they have no more."""
    await behind.access.remove_group(actor, name)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/groups/{name}/members")
@raises(GroupNotFound)
async def list_members(name: Group, actor: Admin, behind: Behind) -> MembersAnswer:
    """List the people in a group."""
    return MembersAnswer(items=await behind.access.members(actor, name))


@router.put("/groups/{name}/members/{user_id}", status_code=status.HTTP_204_NO_CONTENT)
@raises(GroupNotFound, SubjectNotFound)
async def add_member(name: Group, user_id: Person, actor: Admin, behind: Behind) -> Response:
    """Put a person into a group; repeated, it changes nothing."""
    await behind.access.add_member(actor, name, user_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.delete("/groups/{name}/members/{user_id}", status_code=status.HTTP_204_NO_CONTENT)
@raises(GroupNotFound, LastAdmin)
async def remove_member(name: Group, user_id: Person, actor: Admin, behind: Behind) -> Response:
    """Take a person out of a group; repeated, it changes nothing."""
    await behind.access.remove_member(actor, name, user_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/grants")
@raises(Forbidden, GroupNotFound, InvalidCursor, InvalidGrant, ModelNotFound, WorkspaceNotFound)
async def list_grants(
    *,
    actor: AnyKey,
    behind: Behind,
    limit: Limit = 50,
    cursor: Cursor = None,
    subject_kind: SubjectKindAsked = None,
    subject: SubjectId = None,
    kind: Where = None,
    on: On = None,
) -> Page[GrantAnswer]:
    """List grants, newest first: on one place for its administrators and its owner, all for those of the installation."""
    if (subject_kind is None) != (subject is None):
        raise InvalidGrant
    place = None if kind is None else await _place(behind, actor, kind, on or "")
    check_may_list(actor, place)  # before a group is looked up by its name
    of = None if subject_kind is None or subject is None else await _subject(behind, subject_kind, subject)
    found = await behind.access.grants(actor, limit=limit + 1, before=read_cursor(cursor), subject=of, place=place)
    page, next_cursor = split(found, limit, lambda one: one.id)
    return Page(items=[GrantAnswer.model_validate(one) for one in page], next_cursor=next_cursor)


@router.post("/grants", status_code=status.HTTP_201_CREATED)
@raises(Forbidden, GroupNotFound, InvalidGrant, ModelNotFound, SubjectNotFound, WorkspaceNotFound)
async def give_role(body: NewGrant, actor: AnyKey, behind: Behind) -> GrantAnswer:
    """Give a role, as an administrator of the place, or as the owner of the model; given before, it stays as it is."""
    place = await _place(behind, actor, body.kind, body.on)
    subject = await _subject(behind, body.subject_kind, body.subject)
    return GrantAnswer.model_validate(await behind.access.give(actor, subject, body.role, place))


@router.delete("/grants/{grant_id}", status_code=status.HTTP_204_NO_CONTENT)
@raises(Forbidden, GrantNotFound, LastAdmin)
async def take_role(
    grant_id: Annotated[str, Path(max_length=100, description="The grant's id.")], actor: AnyKey, behind: Behind
) -> Response:
    """Take a role back; it counts for nothing from now on."""
    given = await behind.access.grant(grant_id)
    place = await behind.models.place_of(given.on) if given.kind == "model" else Place(given.on)
    await behind.access.take(actor, given, place)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/authz/explain")
@raises(Forbidden, GroupNotFound, InvalidGrant, ModelNotFound, SubjectNotFound, WorkspaceNotFound)
async def explain(
    *,
    actor: AnyKey,
    behind: Behind,
    scope: Annotated[Scope, Query(description="What would be done.")],
    subject_kind: SubjectKindAsked = None,
    subject: SubjectId = None,
    kind: Annotated[PlaceKind, Query(description="Where.")] = "installation",
    on: On = None,
) -> ExplanationAnswer:
    """Say whether somebody may do something, and why; of others than yourself only administrators may ask."""
    if (subject_kind is None) != (subject is None):
        raise InvalidGrant
    place = await _place(behind, actor, kind, on or "")
    who = Subject("key", actor.id) if by_key(actor) else Subject("user", actor.user)
    if subject_kind == "group":
        actor.need(Scope.ADMIN, place)  # before it is looked up by its name
    if subject_kind is not None and subject is not None:
        who = await _subject(behind, subject_kind, subject)
    found = await behind.access.explain(actor, who, scope, place)
    return ExplanationAnswer(
        allowed=found.allowed,
        reason=found.reason,
        scope=scope,
        grant=None if found.grant is None else GrantFacts.model_validate(found.grant),
    )


async def _place(behind: Services, actor: Actor, kind: PlaceKind, on: str) -> Place:
    """Return the place of this name, to one who may know that it is there."""
    match kind:
        case "installation":
            if on:
                raise InvalidGrant
            return INSTALLATION
        case "workspace":
            return Place((await behind.access.workspace(actor, on)).id)
        case "model":
            return await behind.models.place(actor, on)


async def _subject(behind: Services, kind: SubjectKind, subject: str) -> Subject:
    """Return who is meant: groups have names, all else has ids."""
    return Subject(kind, (await behind.access.group(subject)).id if kind == "group" else subject)
