"""Versions of a model: upload, look, watch, download, archive."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response, status
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import StreamingResponse

from modelkeep.api import ranges, uploads
from modelkeep.api.auth import Reader, Writer
from modelkeep.api.description import raises
from modelkeep.api.idempotency import said
from modelkeep.api.paging import LARGEST_NUMBER, Cursor, InvalidCursor, Limit, read_number_cursor, split
from modelkeep.api.routes.models import Name, Trashed
from modelkeep.api.schemas.lifecycle import Because
from modelkeep.api.schemas.models import Describe, PlannedUpload, VersionAnswer
from modelkeep.api.schemas.wire import Page, located
from modelkeep.api.services import Behind, Services
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import (
    ApprovalNeeded,
    BeingRemoved,
    DamagedFile,
    Forbidden,
    InvalidName,
    MasterKeyMissing,
    NotFound,
    StorageUnavailable,
    Unauthenticated,
    UnsupportedFormat,
)
from modelkeep.contracts.hooks import FILE
from modelkeep.control.access.errors import WorkspaceNotFound, WorkspaceUnclear
from modelkeep.control.deployments.errors import DeploymentExists
from modelkeep.control.models.errors import (
    HooksNotFound,
    InvalidLabels,
    InvalidParent,
    InvalidPreprocess,
    ModelArchived,
    ModelExists,
    ModelNotFound,
    ModelTrashed,
    Purged,
    VersionInUse,
    VersionNotFound,
    VersionTrashed,
)
from modelkeep.control.models.rules import Version
from modelkeep.control.safety.errors import CodeFormatsOff
from modelkeep.infra.multipart import InvalidMultipart

_ETAG: Final = {"ETag": {"description": "The file's SHA-256.", "required": True, "schema": {"type": "string"}}}
_WHOLE: Final = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "headers": _ETAG}
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file.", **_WHOLE},
    206: {"description": "The part of the file that `Range` names.", **_WHOLE},
    304: {"description": "It is what you have.", "headers": _ETAG},
    416: {"description": "The file ends before this range.", "headers": _ETAG},
}
_HOOKS: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The file.", **_WHOLE}}
_EVENT: Final = {
    "type": "object",
    "description": "One event; its data is the version as JSON.",
    "required": ["event", "data"],
    "properties": {"event": {"const": "state"}, "data": {"type": "string", "contentMediaType": "application/json"}},
}
_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events `state`, each with a version as its data.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}
_UNSAID = Because()
router = APIRouter(prefix="/models/{name}/versions", tags=["versions"])
Create = Annotated[bool, Query(description="Make the model too, when it is new.")]
InWorkspace = Annotated[
    str | None, Query(max_length=100, description="The workspace in which a new model is made; yours, where you have but one.")
]
Number = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="The version's number.")]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    openapi_extra=uploads.OPENAPI,
    responses=located(202, "/api/v1/models/churn/versions/3"),
)
@raises(
    *(
        CodeFormatsOff,
        InvalidName,
        InvalidParent,
        ModelArchived,
        ModelNotFound,
        ModelTrashed,
        UnsupportedFormat,
        WorkspaceNotFound,
        WorkspaceUnclear,
    ),
    *(DeploymentExists, ModelExists),
    *(uploads.InvalidUpload, InvalidLabels, InvalidMultipart, InvalidPreprocess),
    *(BeingRemoved, MasterKeyMissing, StorageUnavailable),
)
async def upload_version(
    *,
    name: Name,
    request: Request,
    actor: Writer,
    behind: Behind,
    response: Response,
    create: Create = False,
    workspace: InWorkspace = None,
) -> VersionAnswer:
    """Upload a file as the next version. The answer comes once it is safely stored; validation follows."""
    create_in = await behind.access.home(actor, workspace) if create else None
    place = await behind.models.expect_upload(actor, name, create_in=create_in)
    received = await uploads.receive(request, behind.blobs, await uploads.allowed(behind, actor, place), behind.settings)
    actor = await behind.identities.renewed(actor)  # hours may have gone by: it is decided again
    uploads.check_received(received, await uploads.allowed(behind, actor, place))
    said(request.state, received.fingerprint())
    version = await behind.models.receive(actor, name, received, create_in=create_in, into=place)
    response.headers["location"] = f"/api/v1/models/{version.model}/versions/{version.number}"
    return VersionAnswer.model_validate(version)


@router.post("/check", status_code=status.HTTP_204_NO_CONTENT)
@raises(
    *(
        CodeFormatsOff,
        InvalidName,
        ModelArchived,
        ModelNotFound,
        ModelTrashed,
        UnsupportedFormat,
        WorkspaceNotFound,
        WorkspaceUnclear,
    ),
    uploads.InvalidUpload,
)
async def check_upload(
    *, name: Name, body: PlannedUpload, actor: Writer, behind: Behind, create: Create = False, workspace: InWorkspace = None
) -> Response:
    """Say whether an upload would be taken, before gigabytes are sent for nothing. Nothing is made."""
    create_in = await behind.access.home(actor, workspace) if create else None
    place = await behind.models.expect_upload(actor, name, create_in=create_in)
    uploads.check(body, await uploads.allowed(behind, actor, place), behind.settings)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get("")
@raises(InvalidCursor, ModelNotFound)
async def list_versions(
    *, name: Name, actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None, trashed: Trashed = False
) -> Page[VersionAnswer]:
    """List versions, newest first."""
    found = await behind.models.versions(actor, name, limit=limit + 1, before=read_number_cursor(cursor), trashed=trashed)
    page, next_cursor = split(found, limit, lambda version: version.number)
    return Page(items=[VersionAnswer.model_validate(version) for version in page], next_cursor=next_cursor)


@router.get("/{number}")
@raises(ModelNotFound, VersionNotFound)
async def get_version(name: Name, number: Number, actor: Reader, behind: Behind) -> VersionAnswer:
    """Return a version."""
    return VersionAnswer.model_validate(await behind.models.version(actor, name, number))


@router.patch("/{number}")
@raises(ModelNotFound, Purged, VersionNotFound)
async def describe_version(name: Name, number: Number, body: Describe, actor: Writer, behind: Behind) -> VersionAnswer:
    """Change a version's description."""
    return VersionAnswer.model_validate(await behind.models.describe_version(actor, name, number, body.description))


@router.post("/{number}/archive")
@raises(ApprovalNeeded, ModelNotFound, ModelTrashed, Purged, VersionInUse, VersionNotFound, VersionTrashed)
async def archive_version(name: Name, number: Number, actor: Writer, behind: Behind, body: Because = _UNSAID) -> VersionAnswer:
    """Archive a version that does not serve."""
    return VersionAnswer.model_validate(await behind.lifecycle.archive(actor, name, number, reason=body.reason))


@router.post("/{number}/restore")
@raises(ModelNotFound, ModelTrashed, Purged, VersionNotFound)
async def restore_version(name: Name, number: Number, actor: Writer, behind: Behind, body: Because = _UNSAID) -> VersionAnswer:
    """Bring a version back from the archive or the trash."""
    return VersionAnswer.model_validate(await behind.lifecycle.restore(actor, name, number, reason=body.reason))


@router.get("/{number}/events", response_class=EventSourceResponse, responses=_EVENTS)
@raises(ModelNotFound, VersionNotFound)
async def watch_version(name: Name, number: Number, actor: Reader, behind: Behind) -> EventSourceResponse:
    """Watch a version: an event `state` with it now and at each change, until it is ready or rejected."""
    first = await behind.models.version(actor, name, number)
    return EventSourceResponse(_states(behind, actor, first))


@router.get("/{number}/artifact", response_class=StreamingResponse, responses=_FILE)
@raises(DamagedFile, MasterKeyMissing, ModelNotFound, NotFound, StorageUnavailable, VersionNotFound)
async def download_artifact(
    *,
    name: Name,
    number: Number,
    actor: Reader,
    behind: Behind,
    range_: Annotated[str | None, Header(alias="range", description="The bytes that are wanted: `bytes=0-99`.")] = None,
    if_none_match: Annotated[str | None, Header(description="ETags of what you have: 304 where it is one of them.")] = None,
    if_range: Annotated[
        str | None, Header(description="The ETag that `Range` is meant for; the whole file where it is another.")
    ] = None,
) -> Response:
    """Download the uploaded file, whole or in part."""
    version = await behind.models.version(actor, name, number)
    etag = f'"{version.digest}"'
    headers = {"etag": etag, "accept-ranges": "bytes"}
    if if_none_match is not None and (if_none_match.strip() == "*" or etag in if_none_match):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    try:
        part = ranges.wanted(range_, version.size) if if_range in {None, etag} else None
    except ranges.Unsatisfiable:
        headers["content-range"] = f"bytes */{version.size}"
        return Response(status_code=status.HTTP_416_RANGE_NOT_SATISFIABLE, headers=headers)
    start, end = part or (0, version.size)
    headers |= {
        "content-length": str(end - start),
        "content-disposition": uploads.disposition(version.filename),
    }
    if part is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{version.size}"
    pieces = behind.blobs.read(version.digest, start=start, end=end)
    first = await anext(pieces, b"")  # a missing file is an error while there is still a status to say so
    return StreamingResponse(
        _with_first(first, pieces),
        status.HTTP_206_PARTIAL_CONTENT if part else status.HTTP_200_OK,
        headers,
        "application/octet-stream",
    )


@router.get("/{number}/hooks", response_class=Response, responses=_HOOKS)
@raises(DamagedFile, HooksNotFound, MasterKeyMissing, ModelNotFound, NotFound, StorageUnavailable, VersionNotFound)
async def download_hooks(name: Name, number: Number, actor: Reader, behind: Behind) -> Response:
    """Download the version's hooks."""
    hooks = (await behind.models.version(actor, name, number)).hooks
    if hooks is None:
        raise HooksNotFound
    source = b"".join([piece async for piece in behind.blobs.read(hooks.digest)])
    headers = {"etag": f'"{hooks.digest}"', "content-disposition": uploads.disposition(FILE)}
    return Response(source, headers=headers, media_type="application/octet-stream")


async def _with_first(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


async def _states(behind: Services, actor: Actor, version: Version) -> AsyncIterator[ServerSentEvent]:
    yield _state(version)
    while not version.state.final:
        await asyncio.sleep(behind.settings.events_poll_s)
        try:
            actor = await behind.identities.renewed(actor)  # who may no more is told no more
            newer = await behind.models.version(actor, version.model, version.number)
        except (Unauthenticated, Forbidden, NotFound):
            return
        if newer.state is not version.state:
            yield _state(newer)
        version = newer


def _state(version: Version) -> ServerSentEvent:
    return ServerSentEvent(VersionAnswer.model_validate(version).model_dump_json(), event="state")
