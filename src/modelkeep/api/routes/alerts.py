"""Alerts: what somebody has to look at. Whoever may see a model sees its alerts; whoever may operate it answers them."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query

from modelkeep.api.auth import Reader, Releaser
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.schemas.alerts import Acknowledge, AlertAnswer, AlertFacts, Resolve
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.control.alerts.errors import AlertNotFound, AlertOver, InvalidAcknowledgement
from modelkeep.control.alerts.rules import Severity, State, Wanted

router = APIRouter(prefix="/alerts", tags=["alerts"])
Id = Annotated[str, Path(max_length=200, description="The alert's id.")]
_AS_USUAL: Final = Acknowledge()


@router.get("")
@raises(InvalidCursor)
async def list_alerts(
    *,
    actor: Reader,
    behind: Behind,
    state: Annotated[State | None, Query(description="Only those that stand so.")] = None,
    severity: Annotated[Severity | None, Query(description="Of this severity alone.")] = None,
    deployment: Annotated[str | None, Query(max_length=100, description="Of this deployment alone.")] = None,
    model: Annotated[str | None, Query(max_length=100, description="Of this model alone.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AlertFacts]:
    """List alerts, the last that was opened first."""
    wanted = Wanted(state, severity, deployment, model)
    found = await behind.alerts.alerts(actor, wanted, limit=limit + 1, before=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one.id)
    now = behind.clock()
    return Page(items=[AlertFacts.of(one, now) for one in page], next_cursor=next_cursor)


@router.get("/{alert_id}")
@raises(AlertNotFound)
async def get_alert(alert_id: Id, actor: Reader, behind: Behind) -> AlertAnswer:
    """Return an alert with what was seen, the last twenty times."""
    return AlertAnswer.whole(await behind.alerts.alert(actor, alert_id), behind.clock())


@router.post("/{alert_id}/acknowledge")
@raises(AlertNotFound, AlertOver, InvalidAcknowledgement)
async def acknowledge_alert(alert_id: Id, actor: Releaser, behind: Behind, body: Acknowledge = _AS_USUAL) -> AlertAnswer:
    """Say that you look at it, for so many minutes; after that it fires again."""
    changed = await behind.alerts.acknowledge(actor, alert_id, minutes=body.for_minutes, note=body.note)
    return AlertAnswer.whole(changed, behind.clock())


@router.post("/{alert_id}/resolve")
@raises(AlertNotFound, AlertOver, InvalidAcknowledgement)
async def resolve_alert(alert_id: Id, body: Resolve, actor: Releaser, behind: Behind) -> AlertAnswer:
    """Say that it is over, and why."""
    return AlertAnswer.whole(await behind.alerts.resolve(actor, alert_id, body.note), behind.clock())
