"""Deployments: what answers where and how, changing and planning that, going back, and what was when."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, status

from modelkeep.api.auth import Reader, Releaser
from modelkeep.api.description import raises
from modelkeep.api.paging import LARGEST_NUMBER, Cursor, InvalidCursor, Limit, read_cursor, read_number_cursor, split
from modelkeep.api.revisions import REVISED, IfMatch, revision_of
from modelkeep.api.schemas.deployments import (
    ChangeDeployment,
    DeploymentAnswer,
    NewDeployment,
    PlanAnswer,
    PlanChange,
    Promote,
    RevisionAnswer,
    RollBack,
)
from modelkeep.api.schemas.wire import Page, located
from modelkeep.api.services import Behind
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import ApprovalNeeded, InvalidName
from modelkeep.control.deployments.errors import (
    DeploymentExists,
    DeploymentNotFound,
    DeploymentStale,
    InvalidReason,
    InvalidSettings,
    InvalidTraffic,
    ModelsOwnDeployment,
    NothingToRollBack,
    RevisionNotFound,
    RolloutRunning,
)
from modelkeep.control.models.errors import (
    ModelArchived,
    ModelNotFound,
    ModelTrashed,
    VersionArchived,
    VersionNotFound,
    VersionNotReady,
    VersionTrashed,
)

router = APIRouter(prefix="/deployments", tags=["deployments"])
Name = Annotated[str, Path(max_length=100, description="The deployment's name.")]
RevisionNumber = Annotated[int, Path(ge=0, le=LARGEST_NUMBER, description="The revision.")]


@router.post("", status_code=status.HTTP_201_CREATED, responses=located(201, "/api/v1/deployments/churn-eu"))
@raises(
    *(ApprovalNeeded, DeploymentExists, InvalidName, InvalidReason, InvalidSettings, InvalidTraffic, ModelArchived),
    *(ModelNotFound, VersionArchived, VersionNotFound, VersionNotReady),
)
async def create_deployment(body: NewDeployment, actor: Releaser, behind: Behind, response: Response) -> DeploymentAnswer:
    """Give a model another deployment."""
    await behind.deployments.create(actor, body.name, body.model, body.read(), reason=body.reason)
    response.headers["location"] = f"/api/v1/deployments/{body.name}"
    return await _answer(body.name, actor, behind, response, Scope.DEPLOYMENTS_WRITE)


@router.get("")
@raises(InvalidCursor)
async def list_deployments(actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[DeploymentAnswer]:
    """List deployments by name."""
    found = await behind.deployments.deployments(actor, limit=limit + 1, after=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one[0].name)
    numbers = await behind.deployments.numbers(one for one, _serving in page)
    return Page(items=[DeploymentAnswer.of(*one, numbers) for one in page], next_cursor=next_cursor)


@router.get("/{name}", responses=REVISED)
@raises(DeploymentNotFound)
async def get_deployment(name: Name, actor: Reader, behind: Behind, response: Response) -> DeploymentAnswer:
    """Return a deployment; its ETag is the revision that `If-Match` takes."""
    return await _answer(name, actor, behind, response, Scope.MODELS_READ)


@router.patch("/{name}", responses=REVISED)
@raises(
    *(ApprovalNeeded, DeploymentNotFound, DeploymentStale, InvalidReason, InvalidSettings, InvalidTraffic, ModelArchived),
    *(RolloutRunning, VersionArchived, VersionNotFound, VersionNotReady),
)
async def configure_deployment(
    *,
    name: Name,
    body: ChangeDeployment,
    actor: Releaser,
    behind: Behind,
    response: Response,
    if_match: IfMatch = None,
) -> DeploymentAnswer:
    """Change settings and traffic: what is not named stays, null brings a default back."""
    await behind.deployments.change(actor, name, body.read(), expected=revision_of(if_match), reason=body.reason)
    return await _answer(name, actor, behind, response, Scope.DEPLOYMENTS_WRITE)


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT)
@raises(ApprovalNeeded, DeploymentNotFound, DeploymentStale, ModelsOwnDeployment, RolloutRunning)
async def delete_deployment(*, name: Name, actor: Releaser, behind: Behind, if_match: IfMatch = None) -> Response:
    """Delete a deployment that is not its model's own: it answers no more. Its revisions stay."""
    await behind.deployments.delete(actor, name, expected=revision_of(if_match))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post("/{name}/promote", responses=REVISED)
@raises(
    *(ApprovalNeeded, DeploymentNotFound, DeploymentStale, InvalidReason, ModelArchived, ModelTrashed, RolloutRunning),
    *(VersionArchived, VersionNotFound, VersionNotReady, VersionTrashed),
)
async def promote_version(
    *,
    name: Name,
    body: Promote,
    actor: Releaser,
    behind: Behind,
    response: Response,
    if_match: IfMatch = None,
) -> DeploymentAnswer:
    """Have the deployment answer with this ready version."""
    await behind.deployments.promote(actor, name, body.version, expected=revision_of(if_match), reason=body.reason)
    return await _answer(name, actor, behind, response, Scope.DEPLOYMENTS_WRITE)


@router.post("/{name}/rollback", responses=REVISED)
@raises(
    *(ApprovalNeeded, DeploymentNotFound, DeploymentStale, InvalidReason, ModelArchived, NothingToRollBack),
    *(RevisionNotFound, VersionArchived, VersionNotFound, VersionNotReady),
)
async def roll_back(
    *,
    name: Name,
    body: RollBack,
    actor: Releaser,
    behind: Behind,
    response: Response,
    if_match: IfMatch = None,
) -> DeploymentAnswer:
    """Go back to what answered before, or to a revision; a rollout that is on ends."""
    expected = revision_of(if_match)
    await behind.deployments.rollback(actor, name, body.revision, expected=expected, reason=body.reason)
    return await _answer(name, actor, behind, response, Scope.DEPLOYMENTS_WRITE)


@router.post("/{name}/plan")
@raises(
    *(DeploymentNotFound, InvalidSettings, InvalidTraffic, ModelArchived, RolloutRunning),
    *(VersionArchived, VersionNotFound, VersionNotReady),
)
async def plan_change(name: Name, body: PlanChange, actor: Releaser, behind: Behind) -> PlanAnswer:
    """Say what a change would do; nothing is changed."""
    return PlanAnswer.model_validate(await behind.deployments.plan(actor, name, body.read()))


@router.get("/{name}/revisions")
@raises(DeploymentNotFound, InvalidCursor)
async def list_revisions(
    *, name: Name, actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None
) -> Page[RevisionAnswer]:
    """List what a deployment was, newest first: who made it so, when, and why."""
    found, numbers = await behind.deployments.revisions(actor, name, limit=limit + 1, before=read_number_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one.revision)
    return Page(items=[RevisionAnswer.of(one, numbers) for one in page], next_cursor=next_cursor)


@router.get("/{name}/revisions/{number}")
@raises(DeploymentNotFound, RevisionNotFound)
async def get_revision(name: Name, number: RevisionNumber, actor: Reader, behind: Behind) -> RevisionAnswer:
    """Return what a deployment was in one revision."""
    return RevisionAnswer.of(*await behind.deployments.revision(actor, name, number))


async def _answer(name: str, actor: Actor, behind: Behind, response: Response, scope: Scope) -> DeploymentAnswer:
    deployment, serving = await behind.deployments.deployment(actor, name, scope)
    response.headers["etag"] = f'"{deployment.revision}"'
    return DeploymentAnswer.of(deployment, serving, await behind.deployments.numbers([deployment]))
