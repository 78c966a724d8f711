"""Aliases of a model: names that point to its versions, and where they have pointed."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, status

from modelkeep.api.auth import Reader, Releaser
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_number_cursor, split
from modelkeep.api.revisions import REVISED, IfMatch, revision_of
from modelkeep.api.routes.models import Name
from modelkeep.api.schemas.aliases import AliasAnswer, MoveAnswer, PointTo
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import ApprovalNeeded, InvalidName
from modelkeep.control.models.errors import (
    AliasNotFound,
    AliasStale,
    InvalidAlias,
    ModelArchived,
    ModelNotFound,
    ModelTrashed,
    TooManyAliases,
    VersionArchived,
    VersionNotFound,
    VersionNotReady,
    VersionTrashed,
)

router = APIRouter(prefix="/models/{name}/aliases", tags=["aliases"])
AliasName = Annotated[str, Path(max_length=100, description="The alias.")]


@router.get("")
@raises(ModelNotFound)
async def list_aliases(name: Name, actor: Reader, behind: Behind) -> Page[AliasAnswer]:
    """List the aliases of a model, by name: all of them."""
    found = await behind.models.aliases(actor, name)
    return Page(items=[AliasAnswer.model_validate(one) for one in found], next_cursor=None)


@router.put("/{alias}", responses=REVISED)
@raises(
    *(AliasStale, ApprovalNeeded, InvalidAlias, InvalidName, ModelArchived, ModelNotFound, ModelTrashed),
    *(TooManyAliases, VersionArchived, VersionNotFound, VersionNotReady, VersionTrashed),
)
async def set_alias(
    *,
    name: Name,
    alias: AliasName,
    body: PointTo,
    actor: Releaser,
    behind: Behind,
    response: Response,
    if_match: IfMatch = None,
) -> AliasAnswer:
    """Have an alias point to a ready version, made where it is new; repeated, it changes nothing."""
    changed = await behind.models.set_alias(actor, name, alias, body.version, expected=revision_of(if_match))
    response.headers["etag"] = f'"{changed.revision}"'
    return AliasAnswer.model_validate(changed)


@router.delete("/{alias}", status_code=status.HTTP_204_NO_CONTENT)
@raises(AliasNotFound, AliasStale, ApprovalNeeded, ModelNotFound)
async def delete_alias(*, name: Name, alias: AliasName, actor: Releaser, behind: Behind, if_match: IfMatch = None) -> Response:
    """Delete an alias: nobody is answered by it any more. Its history stays."""
    await behind.models.delete_alias(actor, name, alias, expected=revision_of(if_match))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("/{alias}/history")
@raises(AliasNotFound, InvalidCursor, ModelNotFound)
async def list_alias_moves(
    *, name: Name, alias: AliasName, actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None
) -> Page[MoveAnswer]:
    """List where an alias has pointed, newest first: who moved it, when, from where to where."""
    found = await behind.models.alias_history(actor, name, alias, limit=limit + 1, before=read_number_cursor(cursor))
    page, next_cursor = split(found, limit, lambda move: move.revision)
    return Page(items=[MoveAnswer.model_validate(one) for one in page], next_cursor=next_cursor)
