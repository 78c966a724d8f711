"""Feedback: what was told of predictions later. Whoever may predict may tell, whoever may read predictions may read it."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query

from modelkeep.api.auth import PredictionReader, Predictor
from modelkeep.api.description import raises
from modelkeep.api.paging import Cursor, InvalidCursor, Limit, read_cursor, split
from modelkeep.api.schemas.feedback import FeedbackAnswer, FeedbackTaken, NewFeedback, PredictionFeedback, ToldAnswer
from modelkeep.api.schemas.wire import Page
from modelkeep.api.services import Behind
from modelkeep.contracts.errors import Unavailable
from modelkeep.control.feedback.errors import DeploymentNeeded
from modelkeep.control.feedback.rules import Verdict
from modelkeep.control.predictions.errors import PredictionNotFound

router = APIRouter(tags=["feedback"])


@router.post("/feedback")
@raises(Unavailable)
async def send_feedback(body: NewFeedback, actor: Predictor, behind: Behind) -> FeedbackTaken:
    """Tell whether predictions were right or wrong; each item is taken, parked or refused by itself."""
    return FeedbackTaken.of(await behind.feedback.tell(actor, body.items, behind.predictions.found_soon))


@router.get("/feedback")
@raises(DeploymentNeeded, InvalidCursor)
async def list_feedback(
    *,
    actor: PredictionReader,
    behind: Behind,
    deployment: Annotated[str | None, Query(max_length=200, description="Of this deployment.")] = None,
    version: Annotated[
        str | None,
        Query(
            max_length=200,
            pattern="^(ver_.*|[0-9]{1,9})$",
            description="Of this version: its id, or its number in `deployment`.",
        ),
    ] = None,
    verdict: Annotated[Verdict | None, Query(description="Those that were right, or wrong.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FeedbackAnswer]:
    """List what holds of predictions of which was told, newest prediction first."""
    wanted = {"deployment": deployment, "version": version, "verdict": verdict}
    said = urlencode({name: value for name, value in wanted.items() if value is not None})
    found = await behind.feedback.page(
        actor,
        limit=limit + 1,
        before=read_cursor(cursor),
        deployment=deployment,
        version=version,
        verdict=verdict,
    )
    await behind.audit.shown(actor, "feedback.list", filter=said)
    page, next_cursor = split(found, limit, lambda one: one.now.prediction_id)
    return Page(items=[FeedbackAnswer.read(one) for one in page], next_cursor=next_cursor)


@router.get("/predictions/{prediction_id}/feedback")
@raises(PredictionNotFound, Unavailable)
async def get_feedback(
    prediction_id: Annotated[str, Path(max_length=200, description="The prediction's id, as X-Prediction-ID said.")],
    actor: PredictionReader,
    behind: Behind,
) -> PredictionFeedback:
    """Return all that was told of a prediction, what holds first."""
    found = await behind.feedback.revisions(actor, prediction_id, behind.predictions.found)
    await behind.audit.shown(actor, "feedback.read", prediction_id)
    return PredictionFeedback(prediction=prediction_id, items=[ToldAnswer.of(one) for one in found])
