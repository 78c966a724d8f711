"""The life of models and versions: deprecate, trash, hold, purge, what happened, and where a version came from."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, status

from modelkeep.api.auth import Auditor, PlaceAdmin, Reader, Writer
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.routes.models import Name
from modelkeep.api.routes.versions import Number
from modelkeep.api.schemas.lifecycle import (
    Deprecate,
    ErasureRecordAnswer,
    LifeChangeAnswer,
    LineageAnswer,
    Purge,
    PutOnHold,
)
from modelkeep.api.schemas.models import ModelAnswer, VersionAnswer
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import ApprovalNeeded
from modelkeep.control.models.errors import (
    ModelArchived,
    ModelInUse,
    ModelNotFound,
    ModelTrashed,
    NotTrashed,
    OnHold,
    Purged,
    VersionArchived,
    VersionInUse,
    VersionNotFound,
    VersionTrashed,
)
from modelkeep.control.models.life import DEEPEST, Change, Deprecation, Erasure, deprecation

router = APIRouter(tags=["lifecycle"])
# in an address, whose bytes are bounded: a character may take twelve of them
Why = Annotated[str, Query(max_length=500, description="Why; it is kept with the change.")]
_MODEL = "/models/{name}"
_VERSION = "/models/{name}/versions/{number}"


@router.delete(_MODEL)
@raises(ApprovalNeeded, ModelInUse, ModelNotFound, OnHold, Purged)
async def trash_model(name: Name, actor: Writer, behind: Behind, reason: Why = "") -> ModelAnswer:
    """Put a model into the trash, where it can be restored until it is purged."""
    return ModelAnswer.model_validate(await behind.lifecycle.trash(actor, name, reason=reason))


@router.delete(_VERSION)
@raises(ApprovalNeeded, ModelNotFound, ModelTrashed, OnHold, Purged, VersionInUse, VersionNotFound)
async def trash_version(name: Name, number: Number, actor: Writer, behind: Behind, reason: Why = "") -> VersionAnswer:
    """Put a version into the trash, where it can be restored until it is purged."""
    return VersionAnswer.model_validate(await behind.lifecycle.trash(actor, name, number, reason=reason))


@router.put(f"{_MODEL}/deprecation")
@raises(ModelArchived, ModelNotFound, ModelTrashed, Purged)
async def deprecate_model(name: Name, body: Deprecate, actor: Writer, behind: Behind) -> ModelAnswer:
    """Say that a model should not be used any more: all its answers do from now on."""
    return ModelAnswer.model_validate(
        await behind.lifecycle.deprecate(actor, name, None, _said(behind.clock(), body), reason=body.reason)
    )


@router.put(f"{_VERSION}/deprecation")
@raises(ModelNotFound, ModelTrashed, Purged, VersionArchived, VersionNotFound, VersionTrashed)
async def deprecate_version(name: Name, number: Number, body: Deprecate, actor: Writer, behind: Behind) -> VersionAnswer:
    """Say that a version should not be used any more: its answers do from now on."""
    return VersionAnswer.model_validate(
        await behind.lifecycle.deprecate(actor, name, number, _said(behind.clock(), body), reason=body.reason)
    )


@router.delete(f"{_MODEL}/deprecation")
@raises(ModelArchived, ModelNotFound, ModelTrashed, Purged)
async def revive_model(name: Name, actor: Writer, behind: Behind, reason: Why = "") -> ModelAnswer:
    """Take the deprecation of a model back."""
    return ModelAnswer.model_validate(await behind.lifecycle.revive(actor, name, reason=reason))


@router.delete(f"{_VERSION}/deprecation")
@raises(ModelNotFound, ModelTrashed, Purged, VersionArchived, VersionNotFound, VersionTrashed)
async def revive_version(name: Name, number: Number, actor: Writer, behind: Behind, reason: Why = "") -> VersionAnswer:
    """Take the deprecation of a version back."""
    return VersionAnswer.model_validate(await behind.lifecycle.revive(actor, name, number, reason=reason))


@router.put(f"{_MODEL}/hold")
@raises(ModelNotFound, Purged)
async def hold_model(name: Name, body: PutOnHold, actor: PlaceAdmin, behind: Behind) -> ModelAnswer:
    """Put a legal hold on a model and all its versions: nothing of it is trashed or purged."""
    return ModelAnswer.model_validate(await behind.lifecycle.hold(actor, name, reason=body.reason))


@router.put(f"{_VERSION}/hold")
@raises(ModelNotFound, Purged, VersionNotFound)
async def hold_version(name: Name, number: Number, body: PutOnHold, actor: PlaceAdmin, behind: Behind) -> VersionAnswer:
    """Put a legal hold on a version: it is neither trashed nor purged."""
    return VersionAnswer.model_validate(await behind.lifecycle.hold(actor, name, number, reason=body.reason))


@router.delete(f"{_MODEL}/hold")
@raises(ModelNotFound)
async def release_model(name: Name, actor: PlaceAdmin, behind: Behind, reason: Why = "") -> ModelAnswer:
    """Take the legal hold on a model away."""
    return ModelAnswer.model_validate(await behind.lifecycle.release(actor, name, reason=reason))


@router.delete(f"{_VERSION}/hold")
@raises(ModelNotFound, VersionNotFound)
async def release_version(name: Name, number: Number, actor: PlaceAdmin, behind: Behind, reason: Why = "") -> VersionAnswer:
    """Take the legal hold on a version away."""
    return VersionAnswer.model_validate(await behind.lifecycle.release(actor, name, number, reason=reason))


@router.post(f"{_MODEL}/purge", status_code=status.HTTP_202_ACCEPTED)
@raises(ApprovalNeeded, ModelNotFound, NotTrashed, OnHold)
async def purge_model(name: Name, body: Purge, actor: PlaceAdmin, behind: Behind) -> Page[ErasureRecordAnswer]:
    """Have a model in the trash removed for good, with all its versions."""
    return _records(await behind.lifecycle.purge(actor, name, reason=body.reason))


@router.post(f"{_VERSION}/purge", status_code=status.HTTP_202_ACCEPTED)
@raises(ApprovalNeeded, ModelNotFound, NotTrashed, OnHold, VersionNotFound)
async def purge_version(
    name: Name, number: Number, body: Purge, actor: PlaceAdmin, behind: Behind
) -> Page[ErasureRecordAnswer]:
    """Have a version in the trash removed for good."""
    return _records(await behind.lifecycle.purge(actor, name, number, reason=body.reason))


@router.get(f"{_MODEL}/changes")
@raises(InvalidCursor, ModelNotFound)
async def list_model_changes(
    name: Name, actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None
) -> Page[LifeChangeAnswer]:
    """List what happened in the life of a model, newest first: who did what, when, and why."""
    return _changes(await behind.lifecycle.changes(actor, name, limit=limit + 1, before=read_cursor(cursor)), limit)


@router.get(f"{_VERSION}/changes")
@raises(InvalidCursor, ModelNotFound, VersionNotFound)
async def list_version_changes(
    *, name: Name, number: Number, actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None
) -> Page[LifeChangeAnswer]:
    """List what happened in the life of a version, newest first: who did what, when, and why."""
    return _changes(await behind.lifecycle.changes(actor, name, number, limit=limit + 1, before=read_cursor(cursor)), limit)


@router.get(f"{_VERSION}/lineage")
@raises(ModelNotFound, VersionNotFound)
async def version_lineage(
    name: Name,
    number: Number,
    actor: Reader,
    behind: Behind,
    depth: Annotated[int, Query(ge=1, le=DEEPEST, description="How many steps to go, either way.")] = 10,
) -> LineageAnswer:
    """Return where a version came from and what came of it, as far as you may see that."""
    return LineageAnswer.model_validate(await behind.lifecycle.lineage(actor, name, number, depth=depth))


@router.get("/erasures")
@raises(InvalidCursor)
async def list_erasures(actor: Auditor, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[ErasureRecordAnswer]:
    """List the records of purges, newest first: which files are gone, and how many bytes that was."""
    found = await behind.lifecycle.erasures(actor, limit=limit + 1, before=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one.id)
    return Page(items=[ErasureRecordAnswer.model_validate(one) for one in page], next_cursor=next_cursor)


def _said(now: datetime, body: Deprecate) -> Deprecation:
    return deprecation(now.astimezone(UTC), since=body.since, sunset=body.sunset, note=body.note, successor=body.successor)


def _records(found: list[Erasure]) -> Page[ErasureRecordAnswer]:
    return Page(items=[ErasureRecordAnswer.model_validate(one) for one in found], next_cursor=None)


def _changes(found: list[Change], limit: int) -> Page[LifeChangeAnswer]:
    page, next_cursor = split(found, limit, lambda one: one.id)
    return Page(items=[LifeChangeAnswer.model_validate(one) for one in page], next_cursor=next_cursor)
