"""Deployments: what answers where and how, and promoting a version."""

import re
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from modelkeep.api.auth import Reader, Writer
from modelkeep.api.paging import Cursor, Limit, read_cursor, split
from modelkeep.api.schemas.deployments import Configure, DeploymentAnswer, Promote
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import Invalid

router = APIRouter(prefix="/deployments", tags=["deployments"])
Name = Annotated[str, Path(max_length=100, description="The deployment's name.")]
_REVISION = re.compile(r'(?:W/)?"?([0-9]{1,9})"?')


@router.get("")
async def list_deployments(actor: Reader, behind: Behind, limit: Limit = 50, cursor: Cursor = None) -> Page[DeploymentAnswer]:
    """List deployments by name."""
    del actor
    found = await behind.deployments.deployments(limit=limit + 1, after=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda one: one[0].name)
    return Page(items=[DeploymentAnswer.of(*one) for one in page], next_cursor=next_cursor)


@router.get("/{name}")
async def get(name: Name, actor: Reader, behind: Behind, response: Response) -> DeploymentAnswer:
    """Return a deployment; its ETag is the revision that `If-Match` takes."""
    del actor
    return await _answer(name, behind, response)


@router.patch("/{name}")
async def configure(
    *,
    name: Name,
    body: Configure,
    actor: Writer,
    behind: Behind,
    response: Response,
    if_match: Annotated[str | None, Header(description="The revision you have seen; a newer one refuses the change.")] = None,
) -> DeploymentAnswer:
    """Change settings: what is not named stays, null brings a default back."""
    await behind.deployments.configure(actor, name, body.settings, expected=_revision(if_match))
    return await _answer(name, behind, response)


@router.post("/{name}/promote")
async def promote(
    *,
    name: Name,
    body: Promote,
    actor: Writer,
    behind: Behind,
    response: Response,
    if_match: Annotated[str | None, Header(description="The revision you have seen; a newer one refuses the change.")] = None,
) -> DeploymentAnswer:
    """Have the deployment answer with this ready version."""
    await behind.deployments.promote(actor, name, body.version, expected=_revision(if_match))
    return await _answer(name, behind, response)


async def _answer(name: str, behind: Behind, response: Response) -> DeploymentAnswer:
    deployment, serving = await behind.deployments.deployment(name)
    response.headers["etag"] = f'"{deployment.revision}"'
    return DeploymentAnswer.of(deployment, serving)


def _revision(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = _REVISION.fullmatch(if_match.strip())
    if found is None:
        raise Invalid("If-Match takes the ETag of the deployment, which is its revision.")
    return int(found[1])
