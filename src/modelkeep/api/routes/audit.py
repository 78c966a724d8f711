"""The audit trail."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from modelkeep.api.auth import Admin, Auditor
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_number_cursor, split
from modelkeep.api.routes.predictions import Moment, as_query
from modelkeep.api.schemas.audit import EntryAnswer, Erased, Erasure
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind, Services
from modelkeep.control.audit import cef
from modelkeep.control.audit.errors import OwnTracks, ReasonNeeded, SubjectNotFound
from modelkeep.control.audit.rules import Outcome, Wanted, lines
from modelkeep.control.audit.service import Audit

router = APIRouter(prefix="/audit", tags=["audit"])
Format = Literal["jsonl", "cef"]
_MEDIA: Final[dict[Format, str]] = {"jsonl": "application/x-ndjson", "cef": "text/plain; charset=utf-8"}
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file.",
        "content": {kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}} for kind in _MEDIA.values()},
        "headers": {
            "Content-Disposition": {"description": "A name for the file.", "required": True, "schema": {"type": "string"}}
        },
    }
}


def _wanted(
    *,
    actor: Annotated[str | None, Query(max_length=200, description="The id of the key that asked, or `system`.")] = None,
    action: Annotated[str | None, Query(max_length=200, description="What was done, such as `deployment.promote`.")] = None,
    target: Annotated[str | None, Query(max_length=200, description="The id of what was changed.")] = None,
    outcome: Annotated[Outcome | None, Query(description="Whether it was done or refused.")] = None,
    request_id: Annotated[str | None, Query(max_length=200, description="The id of the request, as X-Request-ID said.")] = None,
    since: Annotated[Moment | None, Query(description="From this moment on; UTC where no zone is named.")] = None,
    until: Annotated[Moment | None, Query(description="Before this moment, as `since`.")] = None,
) -> Wanted:
    return Wanted(actor, action, target, outcome, request_id, _in_utc(since), _in_utc(until))


Filter = Annotated[Wanted, Depends(_wanted)]


@router.get("")
@raises(InvalidCursor)
async def list_audit_entries(
    actor: Auditor, behind: Behind, wanted: Filter, limit: Limit = 50, cursor: Cursor = None
) -> Page[EntryAnswer]:
    """List changes and refusals, newest first."""
    del actor
    found = await behind.audit.entries(wanted, limit=limit + 1, before=read_number_cursor(cursor))
    page, next_cursor = split(found, limit, lambda entry: entry.seq)
    return Page(items=[EntryAnswer.model_validate(entry) for entry in page], next_cursor=next_cursor)


@router.get("/export", response_class=StreamingResponse, responses=_FILE)
async def export_audit_entries(
    actor: Auditor,
    behind: Behind,
    wanted: Filter,
    format: Annotated[Format, Query(description="JSON lines, which can be verified, or CEF.")] = "jsonl",  # noqa: A002 - the field's word
) -> StreamingResponse:
    """Stream the trail as a file, oldest first.

    JSON lines have all that a verifier needs: records, hashes, payloads with their keys, and the signed checkpoints.
    """
    await behind.audit.shown(actor, "audit.export", format=format, filter=as_query(wanted))
    pieces = _json_lines if format == "jsonl" else _cef
    return StreamingResponse(
        pieces(behind.audit, wanted),
        media_type=_MEDIA[format],
        headers={"content-disposition": f'attachment; filename="audit.{format}"'},
    )


@router.post("/erasures")
@raises(OwnTracks, ReasonNeeded, SubjectNotFound)
async def erase_from_audit(body: Erasure, actor: Admin, behind: Behind) -> Erased:
    """Erase a person: what entries say that name them, or one of their keys, is deleted; the chain verifies as before.

    Nobody erases themselves: another administrator does.
    """
    whom, own = await _named(behind, body.subject), await _named(behind, actor.user)
    return Erased(entries=await behind.audit.erase(actor, whom, body.reason, own))


async def _named(behind: Services, user_id: str) -> frozenset[str]:
    """Return the ids that stand for a user in the trail: their own, those of their keys, and those at their providers."""
    return await behind.users.named(user_id) | await behind.identities.named(user_id)


async def _json_lines(audit: Audit, wanted: Wanted) -> AsyncIterator[bytes]:
    head = await audit.head()
    yield msgspec.json.encode({"trail": {"whole": wanted.everything, "entries": head.seq}}) + b"\n"
    async for checkpoints in audit.checkpoints(upto=head.seq):
        yield b"".join(msgspec.json.encode({"checkpoint": one.document()}) + b"\n" for one in checkpoints)
    last = 0
    async for entries in audit.sealed(wanted):  # on to those that come meanwhile: what is erased is told by a later one
        yield b"".join(lines(entries, keys=True))
        last = entries[-1].seq
    yield msgspec.json.encode({"end": {"seq": max(last, head.seq) if wanted.everything else last}}) + b"\n"


async def _cef(audit: Audit, wanted: Wanted) -> AsyncIterator[bytes]:
    async for entries in audit.sealed(wanted):
        yield b"".join(cef.line(one.read()) for one in entries)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
