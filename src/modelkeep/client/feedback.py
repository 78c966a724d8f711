"""Feedback: telling later whether predictions were right, and what was told."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from modelkeep.client.errors import Invalid
from modelkeep.client.results import Listing, Prediction, RecordedPrediction, _FromDocument
from modelkeep.client.server import Server, part
from modelkeep.client.steps import Steps

_AT_ONCE = 1000
_BYTES_AT_ONCE = 900_000
_EMPTY_IS_NONE = ("at", "note")


@dataclass(frozen=True, repr=False)
class FeedbackOutcome(_FromDocument):
    """What became of something said: accepted, unchanged, parked until its prediction comes, or refused for a `reason`."""

    SHOWN: ClassVar[tuple[str, ...]] = ("prediction", "status", "reason")

    prediction: str
    status: str = ""
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Feedback(_FromDocument):
    """What was told of a prediction: in a list what holds of it, else one of all tellings."""

    SHOWN: ClassVar[tuple[str, ...]] = ("prediction", "deployment", "version", "verdict", "truth", "at", "by")

    verdict: str
    prediction: str = ""
    deployment: str = ""
    version: int = 0
    version_id: str = ""
    predicted_at: str = ""
    truth: Any = None
    note: str = ""
    at: str = ""
    told_at: str = ""
    by: str = ""


def feedback(
    server: Server,
    prediction: str | Prediction | RecordedPrediction,
    verdict: str,
    *,
    truth: object = None,
    at: datetime | str | None = None,
    note: str = "",
) -> Steps[FeedbackOutcome]:
    """Tell that a prediction was "right" or "wrong", and what is true where that is known; raises `Invalid` where refused.

    `at` is the moment that this is about, now if not said: of several the last holds.
    """
    said = {"prediction": prediction, "verdict": verdict, "truth": truth, "at": at, "note": note}
    (outcome,) = yield from send_feedback(server, [said])
    if outcome.status == "refused":
        raise Invalid(outcome.reason, code="feedback_refused")
    return outcome


def send_feedback(server: Server, items: Iterable[Mapping[str, Any]]) -> Steps[list[FeedbackOutcome]]:
    """Tell of many predictions, in parts; return what became of each, in their order. What is refused keeps no other.

    Each is a mapping of `prediction`, `verdict` and, if known, `truth`, `at` and `note`, as for `feedback`.
    """
    outcomes: list[FeedbackOutcome] = []
    for several in _parts([_item(one) for one in items]):
        answer = yield from server.document("POST", "/feedback", {"items": several})
        outcomes += [FeedbackOutcome.read(one) for one in answer["items"]]
    return Listing(outcomes)


def list_feedback(
    server: Server,
    *,
    deployment: str | None = None,
    version: int | str | None = None,
    verdict: str | None = None,
    limit: int = 50,
) -> Steps[list[Feedback]]:
    """Return what holds of the last `limit` predictions of which was told; `version` is an id, or `deployment`'s number."""
    wanted = {"deployment": deployment, "version": version, "verdict": verdict}
    query = {name: str(said) for name, said in wanted.items() if said is not None}
    return Listing((yield from server.items("/feedback", Feedback.read, most=limit, **query)))


def prediction_feedback(server: Server, prediction_id: str) -> Steps[list[Feedback]]:
    """Return all that was told of a prediction, what holds first."""
    found = yield from server.get(f"/predictions/{part(prediction_id)}/feedback")
    return Listing(Feedback.read({**one, "prediction": found["prediction"]}) for one in found["items"])


def _item(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item as it is sent: without what is not said, and moments as text; a time without a zone is a local one."""
    item = {name: value for name, value in said.items() if value is not None and (value != "" or name not in _EMPTY_IS_NONE)}
    if isinstance(item.get("prediction"), Prediction | RecordedPrediction):
        item["prediction"] = item["prediction"].id
    if isinstance(item.get("at"), datetime):
        item["at"] = item["at"].astimezone(UTC).isoformat()
    return item


def _parts(items: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut what is sent into parts that one request may hold."""
    several: list[dict[str, Any]] = []
    held = 0
    for item in items:
        size = len(json.dumps(item))
        if several and (len(several) == _AT_ONCE or held + size > _BYTES_AT_ONCE):
            yield several
            several, held = [], 0
        several.append(item)
        held += size + 1
    if several:
        yield several
