"""Rollouts: a new version takes over step by step, and goes back where what is counted says that it is worse."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response, status

from modelkeep.api.auth import Reader, Releaser
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.revisions import REVISED, IfMatch, revision_of
from modelkeep.api.schemas.rollouts import EvidenceAnswer, NewRollout, RolloutAnswer, RolloutFacts, TakeBack
from modelkeep.api.schemas.wire import Page, located
from modelkeep.api.services import Behind
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import ApprovalNeeded, Stale
from modelkeep.control.deployments.errors import DeploymentNotFound, DeploymentStale, NothingPromoted
from modelkeep.control.models.errors import ModelArchived, VersionArchived, VersionNotFound, VersionNotReady
from modelkeep.control.rollouts.errors import InvalidRollout, RolloutNotFound, RolloutOver, RolloutUnderWay, TrafficTaken

router = APIRouter(prefix="/rollouts", tags=["rollouts"])
Id = Annotated[str, Path(max_length=200, description="The rollout's id.")]
_MADE: Final[dict[int | str, dict[str, Any]]] = located(201, "/api/v1/rollouts/rol_01J9Z3K6T2Q8W4V5R7X0Y1B2C3")

_NO_REASON: Final = TakeBack()


@router.post("", status_code=status.HTTP_201_CREATED, responses=_MADE)
@raises(
    *(ApprovalNeeded, DeploymentNotFound, DeploymentStale, InvalidRollout, NothingPromoted, RolloutUnderWay, TrafficTaken),
    *(ModelArchived, VersionArchived, VersionNotFound, VersionNotReady),
)
async def start_rollout(
    *, body: NewRollout, actor: Releaser, behind: Behind, response: Response, if_match: IfMatch = None
) -> RolloutAnswer:
    """Have a version take over a deployment step by step; `If-Match` takes the deployment's revision."""
    expected = revision_of(if_match)
    made = await behind.rollouts.start(actor, body.deployment, body.version, body.asked(), expected=expected)
    response.headers["location"] = f"/api/v1/rollouts/{made.id}"
    return await _answer(made.id, actor, behind, response)


@router.get("")
@raises(InvalidCursor)
async def list_rollouts(
    *,
    actor: Reader,
    behind: Behind,
    deployment: Annotated[str | None, Query(max_length=100, description="Of this deployment alone.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RolloutFacts]:
    """List rollouts, newest first."""
    before = read_cursor(cursor)
    found = await behind.rollouts.rollouts(actor, limit=limit + 1, before=before, deployment=deployment)
    page, next_cursor = split(found, limit, lambda one: one.id)
    return Page(items=[RolloutFacts.of(one) for one in page], next_cursor=next_cursor)


@router.get("/{rollout_id}", responses=REVISED)
@raises(RolloutNotFound)
async def get_rollout(rollout_id: Id, actor: Reader, behind: Behind, response: Response) -> RolloutAnswer:
    """Return a rollout: where it stands, what is known of each signal, and what has happened."""
    return await _answer(rollout_id, actor, behind, response)


@router.get("/{rollout_id}/evidence")
@raises(RolloutNotFound)
async def get_rollout_evidence(rollout_id: Id, actor: Reader, behind: Behind) -> EvidenceAnswer:
    """Return the evidence of a rollout as it came, for a plot."""
    rollout, needs, points = await behind.rollouts.evidence(actor, rollout_id)
    return EvidenceAnswer.of(rollout, needs, points)


@router.post("/{rollout_id}/pause", responses=REVISED)
@raises(RolloutNotFound, RolloutOver, Stale)
async def pause_rollout(
    *, rollout_id: Id, actor: Releaser, behind: Behind, response: Response, if_match: IfMatch = None
) -> RolloutAnswer:
    """Have it go no further; its share stays, and what is worse is still taken back."""
    await behind.rollouts.pause(actor, rollout_id, expected=revision_of(if_match))
    return await _answer(rollout_id, actor, behind, response)


@router.post("/{rollout_id}/resume", responses=REVISED)
@raises(RolloutNotFound, RolloutOver, Stale)
async def resume_rollout(
    *, rollout_id: Id, actor: Releaser, behind: Behind, response: Response, if_match: IfMatch = None
) -> RolloutAnswer:
    """Have it go on; where it was held, its step's time begins again."""
    await behind.rollouts.resume(actor, rollout_id, expected=revision_of(if_match))
    return await _answer(rollout_id, actor, behind, response)


@router.post("/{rollout_id}/advance", responses=REVISED)
@raises(ApprovalNeeded, ModelArchived, RolloutNotFound, RolloutOver, Stale, VersionArchived)
async def advance_rollout(
    *, rollout_id: Id, actor: Releaser, behind: Behind, response: Response, if_match: IfMatch = None
) -> RolloutAnswer:
    """Go on to the next step, whatever this one still lacks; from the last one, promote."""
    await behind.rollouts.advance(actor, rollout_id, expected=revision_of(if_match))
    return await _answer(rollout_id, actor, behind, response)


@router.post("/{rollout_id}/promote", responses=REVISED)
@raises(ApprovalNeeded, ModelArchived, RolloutNotFound, RolloutOver, Stale, VersionArchived)
async def promote_rollout(
    *, rollout_id: Id, actor: Releaser, behind: Behind, response: Response, if_match: IfMatch = None
) -> RolloutAnswer:
    """Promote the version now, whatever is still to be shown."""
    await behind.rollouts.promote(actor, rollout_id, expected=revision_of(if_match))
    return await _answer(rollout_id, actor, behind, response)


@router.post("/{rollout_id}/rollback", responses=REVISED)
@raises(ModelArchived, RolloutNotFound, RolloutOver, Stale, VersionArchived)
async def roll_back_rollout(
    *,
    rollout_id: Id,
    actor: Releaser,
    behind: Behind,
    response: Response,
    body: TakeBack = _NO_REASON,
    if_match: IfMatch = None,
) -> RolloutAnswer:
    """Take the version back at once; nobody has to agree."""
    await behind.rollouts.roll_back(actor, rollout_id, body.reason, expected=revision_of(if_match))
    return await _answer(rollout_id, actor, behind, response)


async def _answer(rollout_id: str, actor: Actor, behind: Behind, response: Response) -> RolloutAnswer:
    story = await behind.rollouts.rollout(actor, rollout_id)
    response.headers["etag"] = f'"{story.rollout.revision}"'
    return RolloutAnswer.told(story)
