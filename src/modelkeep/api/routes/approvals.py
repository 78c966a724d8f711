"""Approvals: what was asked for that needs a second person, and the answers. They are shown to whom may do the same."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from modelkeep.api.auth import AnyKey
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.schemas.approvals import ApprovalAnswer, Refuse
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.control.approvals.errors import ApprovalNotFound, ApprovalOver, SecondPersonNeeded
from modelkeep.control.approvals.rules import State

router = APIRouter(prefix="/approvals", tags=["approvals"])
ApprovalId = Annotated[str, Path(max_length=100, description="The approval's id.")]


@router.get("")
@raises(InvalidCursor)
async def list_approvals(
    *,
    actor: AnyKey,
    behind: Behind,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[State | None, Query(description="Only those that stand so.")] = None,
) -> Page[ApprovalAnswer]:
    """List what was asked for that you may do, too, newest first: by others, and by yourself."""
    found = await behind.approvals.approvals(actor, limit=limit + 1, before=read_cursor(cursor), state=state)
    page, next_cursor = split(found, limit, lambda one: one.id)
    return Page(items=[ApprovalAnswer.model_validate(one) for one in page], next_cursor=next_cursor)


@router.get("/{approval_id}")
@raises(ApprovalNotFound)
async def get_approval(approval_id: ApprovalId, actor: AnyKey, behind: Behind) -> ApprovalAnswer:
    """Return what was asked, by whom, and how it stands."""
    return ApprovalAnswer.model_validate(await behind.approvals.approval(actor, approval_id))


@router.post("/{approval_id}/approve")
@raises(ApprovalNotFound, ApprovalOver, SecondPersonNeeded)
async def approve(approval_id: ApprovalId, actor: AnyKey, behind: Behind) -> ApprovalAnswer:
    """Agree to what another person asked; they repeat their request, and it goes through once."""
    return ApprovalAnswer.model_validate(await behind.approvals.approve(actor, approval_id))


@router.post("/{approval_id}/refuse")
@raises(ApprovalNotFound, ApprovalOver)
async def refuse(approval_id: ApprovalId, body: Refuse, actor: AnyKey, behind: Behind) -> ApprovalAnswer:
    """Refuse what was asked, also where it was approved and is not done yet; whoever asked takes it back so."""
    return ApprovalAnswer.model_validate(await behind.approvals.refuse(actor, approval_id, body.reason))
