"""The audit trail."""

from typing import Annotated

from fastapi import APIRouter, Query

from modelkeep.api.auth import Auditor
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.schemas.audit import EntryAnswer
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("")
@raises(InvalidCursor)
async def list_audit_entries(
    actor: Auditor,
    behind: Behind,
    limit: Limit = 50,
    cursor: Cursor = None,
    target: Annotated[str | None, Query(max_length=100, description="Only changes to this id.")] = None,
) -> Page[EntryAnswer]:
    """List changes, newest first."""
    del actor
    found = await behind.audit.entries(limit=limit + 1, before=read_cursor(cursor), target=target)
    page, next_cursor = split(found, limit, lambda entry: entry.id)
    return Page(items=[EntryAnswer.model_validate(entry) for entry in page], next_cursor=next_cursor)
