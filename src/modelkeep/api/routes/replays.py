"""Replays: predictions of a version, answered again by its uploaded file. Whoever may read predictions may ask for one."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, status

from modelkeep.api.auth import PredictionReader
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.routes.models import Name
from modelkeep.api.routes.versions import Number
from modelkeep.api.schemas.replays import NewReplay, ReplayAnswer, ReplayFacts
from modelkeep.api.schemas.wire import Page, located
from modelkeep.api.services import Behind
from modelkeep.control.models.errors import (
    ModelArchived,
    ModelNotFound,
    ModelTrashed,
    VersionArchived,
    VersionNotFound,
    VersionNotReady,
    VersionTrashed,
)
from modelkeep.control.replays.errors import InvalidReplay, ReplayNotFound, RowsNotKept, TooManyReplays
from modelkeep.control.replays.rules import encode_rows, read_asked

router = APIRouter(tags=["replays"])


@router.post(
    "/models/{name}/versions/{number}/replays",
    status_code=status.HTTP_202_ACCEPTED,
    responses=located(202, "/api/v1/replays/rpl_01J9Z3K6T2Q8W4V5R7X0Y1B2C3"),
)
@raises(
    *(InvalidReplay, RowsNotKept, TooManyReplays),
    *(ModelArchived, ModelNotFound, ModelTrashed, VersionArchived, VersionNotFound, VersionNotReady, VersionTrashed),
)
async def ask_replay(
    *, name: Name, number: Number, body: NewReplay, actor: PredictionReader, behind: Behind, response: Response
) -> ReplayAnswer:
    """Have predictions answered again: by id, the `last` ones, of some `days`, or `rows` of one's own (`predict` too)."""
    asked = read_asked(body.predictions, body.last, body.rows, days=body.days, candidate=body.candidate)
    rows = encode_rows(body.rows) if asked.rows else None
    replay = await behind.replays.ask(actor, name, number, asked, rows)
    response.headers["location"] = f"/api/v1/replays/{replay.id}"
    return ReplayAnswer.model_validate(replay)


@router.get("/models/{name}/versions/{number}/replays")
@raises(InvalidCursor, ModelNotFound, VersionNotFound)
async def list_replays(
    *, name: Name, number: Number, actor: PredictionReader, behind: Behind, limit: Limit = 50, cursor: Cursor = None
) -> Page[ReplayFacts]:
    """List replays of a version, newest first."""
    found = await behind.replays.replays(actor, name, number, limit=limit + 1, before=read_cursor(cursor))
    page, next_cursor = split(found, limit, lambda replay: replay.id)
    return Page(items=[ReplayFacts.model_validate(replay) for replay in page], next_cursor=next_cursor)


@router.get("/replays/{replay_id}")
@raises(ReplayNotFound)
async def get_replay(
    replay_id: Annotated[str, Path(max_length=200, description="The replay's id.")], actor: PredictionReader, behind: Behind
) -> ReplayAnswer:
    """Return a replay: how far it is, and what came of it."""
    return ReplayAnswer.model_validate(await behind.replays.replay(actor, replay_id))
