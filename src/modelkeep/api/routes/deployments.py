"""Deployments: what answers where and how, and promoting a version."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from modelkeep.api.auth import Reader, Releaser
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.revisions import REVISED, IfMatch, revision_of
from modelkeep.api.schemas.deployments import Configure, DeploymentAnswer, Promote
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import ApprovalNeeded
from modelkeep.control.deployments.errors import DeploymentNotFound, DeploymentStale, InvalidSettings
from modelkeep.control.models.errors import (
    ModelArchived,
    ModelTrashed,
    VersionArchived,
    VersionNotFound,
    VersionNotReady,
    VersionTrashed,
)

router = APIRouter(prefix="/deployments", tags=["deployments"])
Name = Annotated[str, Path(max_length=100, description="The deployment's name.")]


@router.get("")
@raises(InvalidCursor)
async def list_deployments(actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[DeploymentAnswer]:
    """List deployments by name."""
    found = await behind.deployments.deployments(actor, limit=limit + 1, after=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one[0].name)
    return Page(items=[DeploymentAnswer.of(*one) for one in page], next_cursor=next_cursor)


@router.get("/{name}", responses=REVISED)
@raises(DeploymentNotFound)
async def get_deployment(name: Name, actor: Reader, behind: Behind, response: Response) -> DeploymentAnswer:
    """Return a deployment; its ETag is the revision that `If-Match` takes."""
    return await _answer(name, actor, behind, response, Scope.MODELS_READ)


@router.patch("/{name}", responses=REVISED)
@raises(DeploymentNotFound, DeploymentStale, InvalidSettings)
async def configure_deployment(
    *,
    name: Name,
    body: Configure,
    actor: Releaser,
    behind: Behind,
    response: Response,
    if_match: IfMatch = None,
) -> DeploymentAnswer:
    """Change settings: what is not named stays, null brings a default back."""
    await behind.deployments.configure(actor, name, body.settings, expected=revision_of(if_match))
    return await _answer(name, actor, behind, response, Scope.DEPLOYMENTS_WRITE)


@router.post("/{name}/promote", responses=REVISED)
@raises(
    *(ApprovalNeeded, DeploymentNotFound, DeploymentStale, ModelArchived, ModelTrashed),
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
    await behind.deployments.promote(actor, name, body.version, expected=revision_of(if_match))
    return await _answer(name, actor, behind, response, Scope.DEPLOYMENTS_WRITE)


async def _answer(name: str, actor: Actor, behind: Behind, response: Response, scope: Scope) -> DeploymentAnswer:
    deployment, serving = await behind.deployments.deployment(actor, name, scope)
    response.headers["etag"] = f'"{deployment.revision}"'
    return DeploymentAnswer.of(deployment, serving)
