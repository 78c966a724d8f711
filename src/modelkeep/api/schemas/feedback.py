"""Wire shapes of feedback."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import Field, WithJsonSchema

from modelkeep.api.schemas.wire import Answer, Ask
from modelkeep.control.feedback.rules import MOST_ITEMS, FeedbackStatus, Labelled, Outcome, Told, Verdict
from modelkeep.control.feedback.service import counts

Item = Annotated[
    Any,
    WithJsonSchema(
        {
            "title": "Item",
            "description": (
                "`prediction` (its id) and `verdict` (right or wrong); if known, `truth` (any JSON of at most 4 KiB), `at` "
                "(the moment that this is about, RFC 3339 with its zone; without it now) and `note` (a text of at most 1,000 "
                "characters). What is none of this is refused by itself, and keeps no other item."
            ),
        }
    ),
]


class NewFeedback(Ask):
    """What is said of predictions, item by item."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS, description="Up to 1,000.")]


class ItemAnswer(Answer):
    """What became of an item, and the `reason` where it was refused.

    `parked`: the history does not have this prediction yet. It is looked for again for a day.
    """

    prediction: str
    status: FeedbackStatus
    reason: str = ""


class FeedbackTaken(Answer):
    """What became of each item, in the order in which they were sent, and how many became what."""

    accepted: int
    unchanged: int
    parked: int
    refused: int
    items: list[ItemAnswer]

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> "FeedbackTaken":
        """Return the answer."""
        return cls(**counts(outcomes), items=[ItemAnswer.model_validate(one) for one in outcomes])


class ToldAnswer(Answer):
    """One telling: what, of which moment, by whom, and when it came."""

    verdict: Verdict
    truth: Any = Field(default=None, description="What is true, where that was told.")
    note: str
    at: datetime
    told_at: datetime
    by: str

    @classmethod
    def of(cls, told: Told) -> "ToldAnswer":
        """Return the answer."""
        return cls(**_told(told))


class FeedbackAnswer(ToldAnswer):
    """What holds of a prediction: the last that was told, by the moment that it is about."""

    prediction: str
    deployment: str
    version: int
    version_id: str
    predicted_at: datetime

    @classmethod
    def read(cls, one: Labelled) -> "FeedbackAnswer":
        """Return the answer."""
        facts = {name: getattr(one, name) for name in ("deployment", "version", "version_id", "predicted_at")}
        return cls(prediction=one.now.prediction_id, **facts, **_told(one.now))


class PredictionFeedback(Answer):
    """All that was told of a prediction: what holds comes first."""

    prediction: str
    items: list[ToldAnswer]


def _told(told: Told) -> dict[str, Any]:
    named = {name: getattr(told, name) for name in ("verdict", "note", "at", "told_at", "by")}
    return named | {"truth": None if told.truth is None else msgspec.json.decode(told.truth)}
