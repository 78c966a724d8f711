"""Models."""

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status

from modelkeep.api.auth import Reader, Writer
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.routes.predictions import Moment
from modelkeep.api.schemas.deployments import AsOfAnswer, MomentAnswer
from modelkeep.api.schemas.lifecycle import Because
from modelkeep.api.schemas.models import Describe, ModelAnswer, MoveModel, NewModel
from modelkeep.api.schemas.wire import Page, located
from modelkeep.api.services import Behind
from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import ApprovalNeeded, InvalidName
from modelkeep.control.access.errors import SubjectNotFound, WorkspaceNotFound, WorkspaceUnclear
from modelkeep.control.deployments.errors import DeploymentExists
from modelkeep.control.models.errors import ModelExists, ModelNotFound, ModelTrashed, Purged

router = APIRouter(prefix="/models", tags=["models"])
_UNSAID = Because()
Trashed = Annotated[bool, Query(description="Those in the trash instead.")]
Name = Annotated[str, Path(max_length=100, description="The model's name.")]


@router.post("", status_code=status.HTTP_201_CREATED, responses=located(201, "/api/v1/models/churn"))
@raises(DeploymentExists, InvalidName, ModelExists, WorkspaceNotFound, WorkspaceUnclear)
async def create_model(body: NewModel, actor: Writer, behind: Behind, response: Response) -> ModelAnswer:
    """Make a model, and with it the deployment of its name."""
    workspace_id = await behind.access.home(actor, body.workspace)
    model = await behind.models.create(actor, body.name, body.description, workspace_id=workspace_id)
    response.headers["location"] = f"/api/v1/models/{model.name}"
    return ModelAnswer.model_validate(model)


@router.get("")
@raises(InvalidCursor)
async def list_models(
    *,
    actor: Reader,
    behind: Behind,
    limit: Limit = 50,
    cursor: Cursor = None,
    archived: Annotated[bool, Query(description="Archived models too.")] = False,
    trashed: Trashed = False,
    search: Annotated[
        str, Query(max_length=100, description="Those alone whose names have this in them; upper and lower case are alike.")
    ] = "",
) -> Page[ModelAnswer]:
    """List models by name."""
    found = await behind.models.models(
        actor, limit=limit + 1, after=read_cursor(cursor), archived=archived, trashed=trashed, search=search
    )
    page, next_cursor = split(found, limit, lambda model: model.name)
    return Page(items=[ModelAnswer.model_validate(model) for model in page], next_cursor=next_cursor)


@router.get("/{name}")
@raises(ModelNotFound)
async def get_model(name: Name, actor: Reader, behind: Behind) -> ModelAnswer:
    """Return a model."""
    return ModelAnswer.model_validate(await behind.models.model(actor, name))


@router.patch("/{name}")
@raises(ModelNotFound)
async def describe_model(name: Name, body: Describe, actor: Writer, behind: Behind) -> ModelAnswer:
    """Change a model's description."""
    return ModelAnswer.model_validate(await behind.models.describe(actor, name, body.description))


@router.get("/{name}/as-of")
@raises(ModelNotFound)
async def model_as_of(
    *,
    name: Name,
    actor: Reader,
    behind: Behind,
    t: Annotated[Moment, Query(description="The moment; UTC where no zone is named.")],
    deployment: Annotated[str | None, Query(max_length=100, description="One deployment alone.")] = None,
) -> AsOfAnswer:
    """Say what answered for a model at a moment, also in deployments that are gone, and why."""
    at = t if t.tzinfo else t.replace(tzinfo=UTC)
    found, numbers, aliases = await behind.deployments.as_of(actor, name, at, deployment)
    answers = [MomentAnswer.at_that_time(one, numbers) for one in found]
    return AsOfAnswer(model=name, at=at, deployments=answers, aliases=aliases)


@router.post("/{name}/move")
@raises(ModelNotFound, SubjectNotFound, WorkspaceNotFound)
async def move_model(name: Name, body: MoveModel, actor: Writer, behind: Behind) -> ModelAnswer:
    """Move a model into another workspace, or give it to another person.

    The first is for administrators of the model, the second for its owner too.
    """
    if body.owner is not None:
        await behind.access.check_person(body.owner)
    into = None
    if body.workspace is not None:
        into = (await behind.access.workspace(actor, body.workspace, Scope.MODELS_WRITE)).id
    return ModelAnswer.model_validate(await behind.models.move(actor, name, into, owner_id=body.owner))


@router.post("/{name}/archive")
@raises(ApprovalNeeded, ModelNotFound, ModelTrashed, Purged)
async def archive_model(name: Name, actor: Writer, behind: Behind, body: Because = _UNSAID) -> ModelAnswer:
    """Archive a model: it answers no more, and nothing is deleted."""
    return ModelAnswer.model_validate(await behind.lifecycle.archive(actor, name, reason=body.reason))


@router.post("/{name}/restore")
@raises(ModelNotFound, Purged)
async def restore_model(name: Name, actor: Writer, behind: Behind, body: Because = _UNSAID) -> ModelAnswer:
    """Bring a model back from the archive or the trash: it answers again as before."""
    return ModelAnswer.model_validate(await behind.lifecycle.restore(actor, name, reason=body.reason))
