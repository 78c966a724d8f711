"""Changes of deployments that are made later: asking for one, what became of them, and cancelling one."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, status

from modelkeep.api.auth import Reader, Releaser
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.routes.deployments import Name
from modelkeep.api.schemas.schedules import NewScheduledChange, ScheduledChangeAnswer
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import ApprovalNeeded
from modelkeep.control.deployments.errors import (
    DeploymentNotFound,
    InvalidReason,
    InvalidSettings,
    InvalidTraffic,
    RolloutRunning,
)
from modelkeep.control.models.errors import ModelArchived, VersionArchived, VersionNotFound, VersionNotReady
from modelkeep.control.schedules.errors import (
    InvalidMoment,
    ScheduledChangeNotFound,
    ScheduledChangeOver,
    TooManyScheduledChanges,
)

router = APIRouter(prefix="/deployments/{name}/schedule", tags=["deployments"])
ScheduledId = Annotated[str, Path(max_length=100, description="The id of the scheduled change.")]


@router.post("", status_code=status.HTTP_201_CREATED)
@raises(
    *(ApprovalNeeded, DeploymentNotFound, InvalidMoment, InvalidReason, InvalidSettings, InvalidTraffic, ModelArchived),
    *(RolloutRunning, TooManyScheduledChanges, VersionArchived, VersionNotFound, VersionNotReady),
)
async def schedule_change(name: Name, body: NewScheduledChange, actor: Releaser, behind: Behind) -> ScheduledChangeAnswer:
    """Have a change made at a moment to come, of whatever is there by then."""
    made = await behind.schedules.schedule(actor, name, body.at, body.read(), reason=body.reason)
    return ScheduledChangeAnswer.model_validate(made)


@router.get("")
@raises(DeploymentNotFound, InvalidCursor)
async def list_scheduled_changes(
    *, name: Name, actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None
) -> Page[ScheduledChangeAnswer]:
    """List what was scheduled, the last that was asked for first, and what became of it."""
    found = await behind.schedules.scheduled(actor, name, limit=limit + 1, before=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one.id)
    return Page(items=[ScheduledChangeAnswer.model_validate(one) for one in page], next_cursor=next_cursor)


@router.delete("/{scheduled}", status_code=status.HTTP_204_NO_CONTENT)
@raises(DeploymentNotFound, ScheduledChangeNotFound, ScheduledChangeOver)
async def cancel_scheduled_change(*, name: Name, scheduled: ScheduledId, actor: Releaser, behind: Behind) -> Response:
    """Cancel a change that has not been made yet."""
    await behind.schedules.cancel(actor, name, scheduled)
    return Response(status_code=status.HTTP_204_NO_CONTENT)
