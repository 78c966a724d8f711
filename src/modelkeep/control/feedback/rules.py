"""Feedback as values: what is told of a prediction, what is refused, and which of several tellings holds.

A telling is the same as another where it says the same of the same moment. The last by the moment that it is about holds,
however late it came; of two of one moment "wrong" holds, so that the order of their arrival makes no difference.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any, Final, Literal

import msgspec

from modelkeep.contracts.prediction import RecordFound
from modelkeep.control.predictions.rules import made_at

MOST_ITEMS: Final = 1000
MOST_REVISIONS: Final = 10
"""So many tellings of one prediction are kept of one who tells; another's are not fewer for it."""
MOST_PARKED: Final = 100_000
MOST_PARKED_OF_ONE: Final = 10_000
"""So many tellings of predictions that are not in the history may wait, of all and of one who tells."""
PARKED_FOR: Final = timedelta(days=1)
"""After so long a prediction that is not in the history by now will not be."""

_LARGEST_TRUTH: Final = 4096
_DEEPEST_TRUTH: Final = 64  # what writes answers follows some hundred levels
_LONGEST_NOTE: Final = 1000
_AHEAD: Final = timedelta(minutes=5)  # so far the clocks of those who tell may be ahead
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 600.0
_DOUBLINGS: Final = 10
_ID: Final = 30
_FIELDS: Final = frozenset({"prediction", "verdict", "truth", "at", "note"})

Verdict = Literal["right", "wrong"]


class FeedbackStatus(StrEnum):
    """What became of an item. `parked`: the history does not have the prediction yet; it is looked for again for a day."""

    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"
    PARKED = "parked"
    REFUSED = "refused"


class Said(msgspec.Struct, frozen=True):
    """What is said of a prediction. `truth` is JSON, None where it is not told; `at` None is the moment it is told."""

    prediction_id: str
    verdict: Verdict
    truth: str | None = None
    at: datetime | None = None
    note: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one item, and why where it was refused."""

    prediction: str
    status: FeedbackStatus
    reason: str = ""


class Told(msgspec.Struct, frozen=True):
    """One telling, as it is kept: what, of which moment, by whom, and when it came. `digest` tells it from others."""

    prediction_id: str
    digest: str
    verdict: Verdict
    truth: str | None
    note: str
    at: datetime
    told_at: datetime
    by: str
    user: str

    @property
    def teller(self) -> tuple[str, str]:
        """The prediction, and whose telling this is."""
        return self.prediction_id, self.user or self.by

    @property
    def rank(self) -> tuple[datetime, str, str]:
        """Of several tellings the one with the highest rank holds."""
        return self.at, self.verdict, self.digest

    def says(self, said: Said) -> bool:
        """Whether this is what somebody says, of whatever moment."""
        return (self.verdict, self.truth, self.note) == (said.verdict, said.truth, said.note)


class Labelled(msgspec.Struct, frozen=True):
    """A prediction of which somebody has told: facts of its record, and what holds of it now."""

    deployment: str
    version_id: str
    version: int
    predicted_at: datetime
    trial: str
    unit: str
    now: Told


class Parked(msgspec.Struct, frozen=True):
    """Something said of a prediction that the history does not have yet. `asked_by` is the key or session that said it.

    It waits `since` it was told first. `told_at` is when it was told last: without a moment of its own it is about that one.
    """

    id: str
    said: Said
    asked_by: str
    by: str
    user: str
    since: datetime
    told_at: datetime
    tries: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others that the same key or session said: the prediction, and what is said of which moment."""
        return self.said.prediction_id, digest_of(self.said, self.said.at)


class Labels(msgspec.Struct, frozen=True):
    """Of so many predictions it was told how they were, and so many callers' were wrong."""

    labelled: int = 0
    wrong: int = 0


class Refused(msgspec.Struct, frozen=True):
    """Why an item is none."""

    reason: str


def read(raw: object, now: datetime) -> Said | Refused:
    """Return what an item says, or what is wrong with it."""
    if not isinstance(raw, dict):
        return Refused("An item is an object with prediction and verdict.")
    if not _FIELDS.issuperset(raw):
        return Refused(f"An item has no other fields than {', '.join(sorted(_FIELDS))}.")
    prediction_id, verdict, note = raw.get("prediction"), raw.get("verdict"), "" if raw.get("note") is None else raw["note"]
    if not isinstance(prediction_id, str) or not is_id(prediction_id):
        return Refused("prediction: the id of a prediction is needed, as X-Prediction-ID said.")
    if verdict not in ("right", "wrong"):
        return Refused("verdict: right or wrong.")
    if not isinstance(note, str) or len(note) > _LONGEST_NOTE or not _is_text(note):
        return Refused(f"note: a text of at most {_LONGEST_NOTE} characters.")
    at = _moment(raw.get("at"), now)
    if isinstance(at, Refused):
        return at
    try:
        truth = _written(raw["truth"]) if raw.get("truth") is not None else None
    except ValueError:
        bounds = f"{_LARGEST_TRUTH} bytes and {_DEEPEST_TRUTH} levels"
        return Refused(f"truth: JSON of at most {bounds}, without halves of characters.")
    return Said(prediction_id, verdict, truth, at, note)


def telling(said: Said, now: datetime, *, by: str, user: str) -> Told:
    """Return what is kept of something said now."""
    at = said.at or now
    facts = (said.prediction_id, digest_of(said, at), said.verdict, said.truth, said.note, at)
    return Told(*facts, told_at=now, by=by, user=user)


def digest_of(said: Said, at: datetime | None) -> str:
    """Return what tells this from other things that are said of the prediction."""
    moment = "" if at is None else at.astimezone(UTC).isoformat()
    return hashlib.sha256(msgspec.json.encode([moment, said.verdict, said.truth, said.note])).hexdigest()


def labelled(record: RecordFound, told: Told) -> Labelled:
    """Return a prediction of which this is told."""
    unit = "" if record.unit is None else f"{record.unit:016x}"
    made = datetime.fromtimestamp(record.at, UTC)
    return Labelled(record.deployment, record.version_id, record.version, made, record.trial, unit, told)


def winners(told: Iterable[Told]) -> dict[str, Told]:
    """Return which telling holds of each prediction."""
    found: dict[str, Told] = {}
    for one in told:
        other = found.get(one.prediction_id)
        if other is None or one.rank > other.rank:
            found[one.prediction_id] = one
    return found


def again_in(tries: int) -> timedelta:
    """Return after how long a prediction is looked for again that was not there so often: each time twice as long."""
    return timedelta(seconds=min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(tries, _DOUBLINGS)))


def is_id(text: str) -> bool:
    """Whether this may be the id of a prediction."""
    return len(text) == _ID and text.startswith("prd_") and made_at(text) is not None


def _is_text(text: str) -> bool:
    """Whether a database can keep it: no NUL, and no half of a character."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _moment(raw: object, now: datetime) -> datetime | Refused | None:
    if raw is None:
        return None
    try:
        at = msgspec.convert(raw, datetime) if isinstance(raw, str) else None
    except msgspec.ValidationError:
        at = None
    if at is None or at.tzinfo is None:
        return Refused("at: a date and a time with their zone, as RFC 3339 has them.")
    if not _EARLIEST <= at <= now + _AHEAD:
        return Refused("at: from the year 2000 on, and not ahead of now.")
    return at.astimezone(UTC)


def _written(truth: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the one text of a JSON value; raises `ValueError` where it is too large, too deep, or cannot be read again."""
    if _is_deep(truth):
        raise ValueError
    text = json.dumps(truth, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if len(text.encode()) > _LARGEST_TRUTH:  # half a character is a ValueError here
        raise ValueError
    return text


def _is_deep(truth: Any) -> bool:  # noqa: ANN401 - any JSON
    level = [truth]
    for _ in range(_DEEPEST_TRUTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not inner:
            return False
        level = list(chain.from_iterable(inner))
    return any(isinstance(one, dict | list) for one in level)
