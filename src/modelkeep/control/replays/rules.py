"""Replays as values: what is to be answered again, and how three answers to a row compare.

    recorded   what was answered then, as the history has it
    serving    what the file that serves (it may be a compiled form) answers now
    original   what the uploaded file answers now

Where recorded and serving differ, the machine or its packages have changed; where serving and original do, the compiled form
is at fault.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from modelkeep.contracts.errors import FieldError
from modelkeep.contracts.runner import Precision
from modelkeep.contracts.shadow import WorstRow
from modelkeep.contracts.snapshot import Recording
from modelkeep.control.predictions.rules import day_of, made_at
from modelkeep.control.replays.errors import InvalidReplay, RowsNotKept
from modelkeep.control.shadows.rules import OutputReport, Quantiles, SliceReport

MOST: Final = 1000
"""Most predictions of one replay."""

MOST_OF_DAYS: Final = 10_000
"""Most predictions of a replay of some days, newest first."""

MOST_DAYS: Final = 3650

MOST_SHOWN: Final = 20
"""Most differing rows that are shown."""

MOST_OPEN: Final = 10
"""Most replays that wait or run at once: the worker has other jobs."""

MOST_OPEN_OF_ONE: Final = 2
"""Most of them that one caller has asked for."""

MOST_LISTED: Final = 20
"""Most ids of a replay that a list of replays names."""

LONGEST_ID: Final = 200
_KEPT: Final = timedelta(days=30)
_AT_LEAST: Final = timedelta(hours=1)
_PREFIX: Final = "prd"


class State(StrEnum):
    """Where a replay stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self in {State.DONE, State.FAILED}


OPEN: Final = (State.WAITING, State.RUNNING)


class Skip(StrEnum):
    """Why a prediction is not answered again."""

    NOT_FOUND = "not_found"
    OTHER_VERSION = "other_version"
    NOT_ANSWERED = "not_answered"
    HASHED = "hashed"
    DROPPED = "dropped"
    SAMPLED_OUT = "sampled_out"
    TOO_LARGE = "too_large"
    NOT_KEPT = "not_kept"
    FIELDS_NOT_KEPT = "fields_not_kept"
    UNREADABLE = "unreadable"


class Pair(StrEnum):
    """Two of the three answers to a row."""

    RECORDED_SERVING = "recorded_serving"
    SERVING_ORIGINAL = "serving_original"
    RECORDED_ORIGINAL = "recorded_original"


class Compared(StrEnum):
    """What must be the same for two answers to agree.

    numbers          numbers, within a share of each of them
    numbers_by_row   numbers, within a share of the largest in the row's answer: another library made them
    classes          the best class of each row, and all that are no numbers: the serving form was accepted within the accuracy
                     budget of the version, so its numbers are others
    """

    NUMBERS = "numbers"
    NUMBERS_BY_ROW = "numbers_by_row"
    CLASSES = "classes"


class Asked(msgspec.Struct, frozen=True):
    """What is to be answered again: these predictions, the newest `last` ones, those of `days`, or rows of the caller's own.

    `candidate` is the number of a version that answers them beside the one that is replayed, 0 for none.
    """

    predictions: tuple[str, ...] = ()
    last: int = 0
    rows: bool = False
    days: int = 0
    candidate: int = 0

    @property
    def most(self) -> int:
        """How many predictions are answered at most, where they are not named."""
        return self.last or MOST_OF_DAYS


class File(msgspec.Struct, frozen=True):
    """The file that a side ran: its SHA-256, its format, the runner plugin that loaded it, and what that computed in."""

    digest: str
    format: str
    runner: str
    precision: Precision = "f32"


class Comparison(msgspec.Struct, frozen=True):
    """Two answers to each of `rows` rows: how many differ, and the largest finite difference between numbers."""

    rows: int = 0
    differ: int = 0
    largest_difference: float = 0.0


class Candidate(msgspec.Struct, frozen=True):
    """How another version answers, beside the one that is replayed: rows as of a shadow (`control/shadows/rules.py`).

    `replayed_ms` and `candidate_ms` are of the runs of the two.
    """

    version: int
    version_id: str
    rows: int
    differ: int
    disagreement: tuple[float, float]
    replayed_ms: Quantiles
    candidate_ms: Quantiles
    outputs: tuple[OutputReport, ...]
    slices: tuple[SliceReport, ...]


class Summary(msgspec.Struct, frozen=True):
    """How a replay came out.

    `predictions` were looked at: `replayed` of them were answered again, the others were `skipped`, by reason. `rows_refused`
    are rows that a file could not answer. Numbers may differ by `absolute_tolerance + relative_tolerance * |number|`, of the
    number itself or of the largest in its row, as `compared` says; there are no tolerances where classes are compared.
    """

    original: File
    serving: File
    predictions: int
    replayed: int
    skipped: dict[str, int]
    rows: int
    rows_equal: int
    rows_refused: int
    recorded_serving: Comparison
    serving_original: Comparison
    recorded_original: Comparison
    relative_tolerance: float | None
    absolute_tolerance: float | None
    compared: Compared = Compared.NUMBERS
    candidate: Candidate | None = None

    @property
    def largest_difference(self) -> float:
        """The largest finite difference between numbers of any two answers."""
        pairs = (self.recorded_serving, self.serving_original, self.recorded_original)
        return max(pair.largest_difference for pair in pairs)


class Side(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer to one row: values by output, or the code of the error that came instead. `note` says what is not there."""

    outputs: dict[str, Any] = {}
    error: str = ""
    note: str = ""


class DifferingRow(msgspec.Struct, frozen=True):
    """A row whose answers are not all the same. `prediction` is None for the caller's own rows; `row` counts from 0.

    `hidden` are outputs that policy keeps out of what is written down; they were compared all the same.
    """

    prediction: str | None
    row: int
    differs: tuple[Pair, ...]
    recorded: Side | None
    serving: Side
    original: Side
    hidden: tuple[str, ...] = ()


class SkippedPrediction(msgspec.Struct, frozen=True):
    """A prediction that was not answered again, and why."""

    id: str
    reason: Skip
    detail: str = ""


class Details(msgspec.Struct, frozen=True):
    """The first rows that differ, and the predictions that were skipped (the first thousand).

    `worst` are those where a candidate's answers are the farthest apart. `forgotten` counts rows that were shown until their
    predictions left the history.
    """

    differing: tuple[DifferingRow, ...] = ()
    skipped: tuple[SkippedPrediction, ...] = ()
    forgotten: int = 0
    worst: tuple[WorstRow, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """Why a replay came to nothing. `prediction` is the one that the message may quote ("": it quotes none)."""

    code: str
    message: str
    prediction: str = ""


class Replay(msgspec.Struct, frozen=True):
    """One replay. `progress` counts the predictions that have been answered again so far."""

    id: str
    model: str
    version_id: str
    version: int
    state: State
    asked: Asked
    created_at: datetime
    created_by: str
    expires_at: datetime
    progress: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    summary: Summary | None = None
    failure: Failure | None = None
    details: Details | None = None


def read_asked(
    predictions: Sequence[str] | None,
    last: int | None,
    rows: object,
    *,
    days: int | None = None,
    candidate: int | None = None,
) -> Asked:
    """Return what is asked for; raises `InvalidReplay` unless it is one thing, and names ids that can be none.

    An id that is given twice counts once. `last` bounds how many there may be of some `days`.
    """
    if candidate is not None:
        return msgspec.structs.replace(read_asked(predictions, last, rows, days=days), candidate=candidate)
    if days is not None:
        if predictions is not None or rows is not None:
            raise InvalidReplay
        return Asked(last=0 if last is None else read_asked(None, last, None).last, days=days)
    if sum(one is not None for one in (predictions, last, rows)) != 1:
        raise InvalidReplay
    if rows is not None:
        return Asked(rows=True)
    if last is not None:
        if not 1 <= last <= MOST:
            raise InvalidReplay(f"`last` is a whole number from 1 to {MOST}.")
        return Asked(last=last)
    ids = tuple(dict.fromkeys(predictions or ()))
    if not 1 <= len(ids) <= MOST:
        raise InvalidReplay(f"`predictions` has 1 to {MOST} ids.")
    text = "This is no id of a prediction: prd_ and 26 characters."
    wrong = [FieldError(f"predictions[{at}]", "not_an_id", text) for at, one in enumerate(predictions or ()) if not _is_id(one)]
    if wrong:
        raise InvalidReplay(f"{wrong[0].path}: {text}", fields=tuple(wrong[:20]))
    return Asked(predictions=ids)


def compared_as(original: File, serving: File) -> Compared:
    """Return by which rule the serving form was accepted: its answers can be held to no other."""
    if serving.precision != "f32":
        return Compared.CLASSES
    if serving.format == original.format and serving.runner != original.runner:
        return Compared.NUMBERS_BY_ROW
    return Compared.NUMBERS


def encode_rows(rows: object) -> str:
    """Return the caller's rows as JSON text; raises `InvalidReplay` for values that cannot be kept."""
    try:
        return msgspec.json.encode(rows).decode()
    except (UnicodeEncodeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise InvalidReplay("The rows hold numbers or characters that cannot be kept.") from error


def check_rows_may_wait(recording: Recording) -> None:
    """Refuse the caller's own rows where policy lets no inputs, or not all, touch a disk."""
    keeps = (recording.inputs, *recording.fields.values())
    if not recording.enabled or recording.sample < 1 or any(keep != "keep" for keep in keeps):
        raise RowsNotKept


def may_show(output: str, recording: Recording | None, *, recorded: bool = True) -> bool:
    """Whether answers of this output may be written down; of a deployment that is no more, none may.

    Rows that are not `recorded` have not been chosen by `sample`: where it leaves any out, their answers are not shown.
    """
    if recording is None or not recording.enabled or not (recorded or recording.sample >= 1):
        return False
    return recording.fields.get(output, recording.outputs) == "keep"


def may_quote(recording: Recording | None, *, recorded: bool) -> bool:
    """Whether what a model said over a row may be written down: its last words may hold any input or output."""
    keeps = () if recording is None else (recording.inputs, recording.outputs, *recording.fields.values())
    return may_show("", recording, recorded=recorded) and all(keep == "keep" for keep in keeps)


def first_expiry(created_at: datetime) -> datetime:
    """Return when a replay goes that shows nothing of the history."""
    return created_at + _KEPT


def expiry(now: datetime, created_at: datetime, shown: Iterable[tuple[float, int]]) -> datetime:
    """Return when a replay goes: with the first of the predictions that it shows.

    `shown` are their times (Unix seconds) and the days for which their deployments keep them.
    """
    gone = [datetime.combine(day_of(at) + timedelta(days=days), datetime.min.time(), UTC) for at, days in shown]
    return max(now + _AT_LEAST, min([first_expiry(created_at), *gone]))


class Shown(msgspec.Struct, frozen=True):
    """What a replay that has ended shows of predictions."""

    details: Details | None
    failure: Failure | None

    def of(self) -> set[str]:
        """Return the ids of the predictions."""
        rows = () if self.details is None else self.details.differing
        quoted = set() if self.failure is None else {self.failure.prediction}
        worst = () if self.details is None else self.details.worst
        shown = {one.prediction for one in rows if one.prediction is not None} | {one.prediction for one in worst}
        return (shown | quoted) - {""}

    def without(self, gone: Collection[str]) -> tuple["Shown", int]:
        """Return what is left to show when these predictions have left the history, and how many rows go with them."""
        details, failure, rows = self.details, self.failure, 0
        if details is not None:
            staying = tuple(one for one in details.differing if one.prediction is None or one.prediction not in gone)
            worst = tuple(one for one in details.worst if one.prediction not in gone)
            rows = len(details.differing) - len(staying) + len(details.worst) - len(worst)
            details = msgspec.structs.replace(details, differing=staying, worst=worst, forgotten=details.forgotten + rows)
        if failure is not None and failure.prediction in gone:
            failure, rows = Failure(failure.code, _UNQUOTED), rows + 1
        return Shown(details, failure), rows


_UNQUOTED: Final = "The prediction that this failed over has left the history, and what the model said of it has gone, too."


def counted(skipped: Iterable[SkippedPrediction]) -> Mapping[str, int]:
    """Return how many were skipped, by reason."""
    counts: dict[str, int] = {}
    for one in skipped:
        counts[one.reason.value] = counts.get(one.reason.value, 0) + 1
    return counts


def _is_id(text: str) -> bool:
    prefix, _mark, ulid = text.partition("_")
    return prefix == _PREFIX and "_" not in ulid and made_at(text) is not None
