"""Shadows: how versions that are asked beside the promoted one compare with it. Whoever may read predictions may read this."""

from typing import Annotated

from fastapi import APIRouter, Query

from modelkeep.api.auth import PredictionReader
from modelkeep.api.description import raises
from modelkeep.api.paging import LARGEST_NUMBER
from modelkeep.api.routes.deployments import Name
from modelkeep.api.schemas.shadows import ShadowAnswer, ShadowFacts
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.control.deployments.errors import DeploymentNotFound
from modelkeep.control.shadows.errors import ShadowNotSeen

router = APIRouter(prefix="/deployments", tags=["deployments"])


@router.get("/{name}/shadow")
@raises(DeploymentNotFound, ShadowNotSeen)
async def get_shadow(
    *,
    name: Name,
    actor: PredictionReader,
    behind: Behind,
    version: Annotated[
        int | None, Query(ge=1, le=LARGEST_NUMBER, description="Of this version; else of the one asked now, or last.")
    ] = None,
) -> ShadowAnswer:
    """Tell how the answers of a deployment's shadow compare with those of its promoted version."""
    return ShadowAnswer.of(await behind.shadows.report(actor, name, version))


@router.get("/{name}/shadows")
@raises(DeploymentNotFound)
async def list_shadows(*, name: Name, actor: PredictionReader, behind: Behind) -> Page[ShadowFacts]:
    """List the shadows that a deployment has had, the one last heard of first: a hundred at most."""
    found = await behind.shadows.shadows(actor, name)
    return Page(items=[ShadowFacts.of(one) for one in found], next_cursor=None)
