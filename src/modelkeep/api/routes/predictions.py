"""The prediction history. Whoever may read predictions of a model sees what was asked of it, contents included."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import WithJsonSchema

from modelkeep.api.auth import PredictionReader
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, encode_cursor, read_cursor
from modelkeep.api.schemas.predictions import PredictionAnswer, PredictionFacts, answer_of, facts_of
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind, Services
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.prediction import Outcome
from modelkeep.control.predictions import export
from modelkeep.control.predictions.errors import ParquetNotInstalled, PredictionNotFound
from modelkeep.control.predictions.export import MEDIA_TYPES, Format
from modelkeep.control.predictions.rules import Wanted

_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file.",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()},
        "headers": {
            "Content-Disposition": {"description": "A name for the file.", "required": True, "schema": {"type": "string"}}
        },
    }
}
Moment = Annotated[
    datetime,
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt _].+)?$"}, {"type": "number"}],
            "examples": ["2026-03-14T09:26:53Z", "2026-03-14", 1773480413],
        }
    ),
]
"""A date, or a date and a time, in ISO 8601, or the seconds since 1970."""

router = APIRouter(prefix="/predictions", tags=["predictions"])


def _wanted(
    *,
    id: Annotated[str | None, Query(max_length=200, description="One prediction's id.")] = None,  # noqa: A002 - the field's name
    request_id: Annotated[str | None, Query(max_length=200, description="The id of the request, as X-Request-ID said.")] = None,
    deployment: Annotated[str | None, Query(max_length=200, description="The deployment that answered.")] = None,
    version: Annotated[
        str | None, Query(max_length=200, description="The version that answered: its id or its number.")
    ] = None,
    key: Annotated[str | None, Query(max_length=200, description="The id of the key or session that asked.")] = None,
    user: Annotated[str | None, Query(max_length=200, description="The id of the person or service who asked.")] = None,
    outcome: Annotated[Outcome | None, Query(description="How it ended.")] = None,
    since: Annotated[Moment | None, Query(description="From this moment on; UTC where no zone is named.")] = None,
    until: Annotated[Moment | None, Query(description="Before this moment, as `since`.")] = None,
) -> Wanted:
    return Wanted(id, request_id, deployment, version, key, user, outcome, _seconds(since), _seconds(until))


Filter = Annotated[Wanted, Depends(_wanted)]


@router.get("")
@raises(InvalidCursor, Unavailable)
async def list_predictions(
    actor: PredictionReader, behind: Behind, wanted: Filter, limit: Limit = 50, cursor: Cursor = None
) -> Page[PredictionFacts]:
    """List predictions, newest first.

    A page may hold fewer than `limit`, even none, and still name a `next_cursor`: it ends early where a rare find takes long.
    """
    found = await behind.predictions.facts(await _shown(wanted, actor, behind), limit=limit, before=read_cursor(cursor))
    return Page(items=[facts_of(record) for record in found.records], next_cursor=encode_cursor(found.before))


@router.get("/export", response_class=StreamingResponse, responses=_FILE)
@raises(ParquetNotInstalled)
async def export_predictions(
    actor: PredictionReader,
    behind: Behind,
    wanted: Filter,
    format: Annotated[Format, Query(description="JSON lines, or Parquet with typed columns.")] = "jsonl",  # noqa: A002 - as above
) -> StreamingResponse:
    """Stream all wanted predictions as a file, newest first, with what went in and came out."""
    write = export.writer(format)
    shown = await _shown(wanted, actor, behind)
    await behind.audit.shown(actor, "prediction.export", format=format, filter=as_query(wanted))
    return StreamingResponse(
        write(behind.predictions.all(shown)),
        media_type=MEDIA_TYPES[format],
        headers={"content-disposition": f'attachment; filename="predictions.{format}"'},
    )


@router.get("/{prediction_id}")
@raises(PredictionNotFound, Unavailable)
async def get_prediction(
    prediction_id: Annotated[str, Path(max_length=200, description="The prediction's id, as X-Prediction-ID said.")],
    actor: PredictionReader,
    behind: Behind,
) -> PredictionAnswer:
    """Return a prediction with what went in and came out."""
    among = await behind.deployments.names(actor, Scope.PREDICTIONS_READ)
    found = await behind.predictions.prediction(prediction_id, among)
    await behind.audit.shown(actor, "prediction.read", found.id)
    return answer_of(found)


async def _shown(wanted: Wanted, actor: Actor, behind: Services) -> Wanted:
    """Return the filter within those deployments of which the actor may read predictions."""
    return msgspec.structs.replace(wanted, among=await behind.deployments.names(actor, Scope.PREDICTIONS_READ))


def as_query(wanted: msgspec.Struct) -> str:
    """Return a filter as the audit trail has it: as a query says it."""
    return urlencode({name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None})


def _seconds(moment: datetime | None) -> float | None:
    """Return Unix seconds."""
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
