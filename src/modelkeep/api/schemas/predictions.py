"""Wire shapes of the prediction history."""

import base64
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from modelkeep.api.schemas.wire import Answer
from modelkeep.contracts.prediction import Outcome, PredictionRecord, RecordFound
from modelkeep.control.predictions.contents import Contents, inputs_of, outputs_of


class PredictionFacts(Answer):
    """One prediction, without what went in and came out. Times are milliseconds; `code` is an error's code, or empty.

    `key_id` is the id of the key or session that asked, `user` that of the person or service behind it.
    """

    id: str
    at: datetime
    request_id: str
    deployment: str
    version_id: str
    version: int
    key_id: str
    user: str
    dialect: str
    outcome: Outcome
    code: str
    status: int
    rows: int
    total_ms: float
    queue_ms: float
    run_ms: float
    content_type: str


class Side(Answer):
    """What went in or came out: `value` where it is JSON, `base64` where it is not, or not all; `note` is what policy left."""

    content_type: str
    value: Any = Field(default=None, description="The JSON, decoded.")
    base64: str | None = Field(
        default=None,
        description="The bytes of what is no JSON, such as a picture; of JSON with tensors as bytes behind it, all.",
    )
    note: str = Field(default="", description='"hashed", "dropped", "sampled out" or "too large: N bytes".')


class PredictionAnswer(PredictionFacts):
    """One prediction, whole. `inputs` and `outputs` are null where nothing was kept."""

    inputs: Side | None
    outputs: Side | None


def facts_of(record: RecordFound | PredictionRecord) -> PredictionFacts:
    """Return what a list says of a record."""
    return PredictionFacts(**_facts(record))


def answer_of(record: PredictionRecord) -> PredictionAnswer:
    """Return a record, whole."""
    return PredictionAnswer(**_facts(record), inputs=_side(inputs_of(record)), outputs=_side(outputs_of(record)))


def _facts(record: RecordFound | PredictionRecord) -> dict[str, Any]:
    named = {name: getattr(record, name) for name in PredictionFacts.model_fields}
    named["at"] = datetime.fromtimestamp(record.at, UTC)
    return named


def _side(side: Contents | None) -> Side | None:
    if side is None:
        return None
    data = None if side.data is None else base64.b64encode(side.data).decode()
    return Side(content_type=side.content_type, value=side.value, base64=data, note=side.note)
