"""Wire shapes of replays."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from modelkeep.api.schemas.shadows import OutputAnswer, QuantilesAnswer, SliceAnswer, WorstRowAnswer
from modelkeep.api.schemas.wire import Answer, Ask, Number
from modelkeep.control.replays.rules import LONGEST_ID, MOST, MOST_DAYS, Compared, Pair, Skip, State


class NewReplay(Ask):
    """Say what to answer again: one of `predictions`, `last` or `days`, and `rows`."""

    predictions: Annotated[
        list[Annotated[str, Field(max_length=LONGEST_ID)]] | None,
        Field(min_length=1, max_length=MOST, description="Ids of predictions of this version."),
    ] = None
    last: Annotated[
        int | None,
        Field(strict=True, ge=1, le=MOST, description="The newest so many predictions of it whose inputs are kept."),
    ] = None
    days: Annotated[
        int | None,
        Field(strict=True, ge=1, le=MOST_DAYS, description="Those of the last so many days, ten thousand or `last` at most."),
    ] = None
    candidate: Annotated[
        Number | None,
        Field(description="Another version, which answers the same; the report is like a shadow's. Without it: both files."),
    ] = None
    rows: Annotated[Any, Field(description="Rows of your own, in any form that `inputs` of a prediction has.")] = None


class AskedAnswer(Answer):
    """What was asked for. In lists the first twenty ids are named."""

    predictions: list[str]
    last: int
    rows: bool
    days: int = 0
    candidate: int = 0


class FileAnswer(Answer):
    """The file that a side ran."""

    digest: str
    format: str
    runner: str
    precision: str


class ComparisonAnswer(Answer):
    """Two answers to each of `rows` rows: how many differ, and the largest finite difference between numbers."""

    rows: int
    differ: int
    largest_difference: float


class BesideAnswer(Answer):
    """How another version answers the same rows, beside the one that is replayed; compared as a shadow's answers are.

    `disagreement` bounds the share of rows that differ (three standard deviations).
    """

    version: int
    version_id: str
    rows: int
    differ: int
    disagreement: tuple[float, float]
    replayed_ms: QuantilesAnswer
    candidate_ms: QuantilesAnswer
    outputs: list[OutputAnswer]
    slices: list[SliceAnswer]


class SummaryAnswer(Answer):
    """How it came out. `predictions` were looked at: `replayed` were answered again, the others `skipped`, by reason.

    `compared` says what must be the same: `numbers` within the tolerances, of each number or (`numbers_by_row`) of the largest
    of its row, or `classes` alone, where the form that serves was accepted within the version's accuracy budget.
    """

    original: FileAnswer
    serving: FileAnswer
    predictions: int
    replayed: int
    skipped: dict[str, int]
    rows: int
    rows_equal: int
    rows_refused: int
    recorded_serving: ComparisonAnswer
    serving_original: ComparisonAnswer
    recorded_original: ComparisonAnswer
    largest_difference: float
    relative_tolerance: float | None
    absolute_tolerance: float | None
    compared: Compared
    candidate: BesideAnswer | None = None


class FailureAnswer(Answer):
    """Why it came to nothing."""

    code: str
    message: str


class ReplayFacts(Answer):
    """A replay, without its rows. `progress` counts the predictions that have been answered again so far."""

    id: str
    model: str
    version: int
    version_id: str
    state: State
    asked: AskedAnswer
    created_at: datetime
    created_by: str
    expires_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: int
    summary: SummaryAnswer | None
    failure: FailureAnswer | None


class SideAnswer(Answer):
    """One answer to one row: values by output, or an error's code; `note` says what is not there."""

    outputs: dict[str, Any]
    error: str
    note: str


class DifferingRowAnswer(Answer):
    """A row whose answers are not all the same. `hidden` are outputs that the deployment's policy keeps out of sight."""

    prediction: str | None
    row: int
    differs: list[Pair]
    recorded: SideAnswer | None
    serving: SideAnswer
    original: SideAnswer
    hidden: list[str]


class SkippedAnswer(Answer):
    """A prediction that was not answered again, and why."""

    id: str
    reason: Skip
    detail: str


class DetailsAnswer(Answer):
    """The first twenty rows that differ, and the first thousand predictions that were skipped.

    `worst` are the rows in which a candidate's answers are the farthest apart. `forgotten` rows were shown until their
    predictions left the history.
    """

    differing: list[DifferingRowAnswer]
    skipped: list[SkippedAnswer]
    forgotten: int
    worst: list[WorstRowAnswer]


class ReplayAnswer(ReplayFacts):
    """A replay, whole."""

    details: DetailsAnswer | None
