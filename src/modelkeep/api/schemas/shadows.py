"""Wire shapes of shadows."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

import msgspec
from pydantic import Field

from modelkeep.api.schemas.wire import Answer
from modelkeep.contracts.shadow import Kind
from modelkeep.control.shadows.rules import Facts, Report


class QuantilesAnswer(Answer):
    """Bounds that half, nine in ten, and all but one in a hundred are within; null where none is known."""

    p50: float | None
    p90: float | None
    p99: float | None


class ConfusedAnswer(Answer):
    """In so many rows the promoted version says `primary`, and the other one says `shadow`."""

    primary: str
    shadow: str
    rows: int


class OutputAnswer(Answer):
    """How one output compares. `kind` says what must be the same: `numbers` within 1 %, the best of `classes`, or `labels`.

    `absolute` and `relative` are each row's largest distance; `histogram` counts rows by their relative distance: pairs of an
    upper bound (-1 for none) and rows.
    """

    name: str
    kind: Kind
    rows: int
    differ: int
    absolute: QuantilesAnswer
    relative: QuantilesAnswer
    largest: float
    histogram: list[tuple[float, int]]
    confused: list[ConfusedAnswer]


class SliceAnswer(Answer):
    """Rows of a kind, such as `age` "< 30"; at least a share of `least` of them differs (three standard deviations)."""

    column: str
    says: str
    rows: int
    differ: int
    least: float


class WorstRowAnswer(Answer):
    """A row whose answers are far apart; of what was said and asked, only what the deployment's recording keeps.

    `distance` is null where there is none: a number is missing on one side, or there are no numbers.
    """

    prediction: str
    row: int
    at: datetime
    differs: bool
    distance: float | None
    primary: dict[str, Any]
    shadow: dict[str, Any]
    inputs: dict[str, Any]


class ShadowFacts(Answer):
    """A shadow in a few numbers: how many requests and rows were compared, and how many differ."""

    version: int | None
    version_id: str
    primary: Annotated[int | None, Field(description="The promoted version that it was compared with.")]
    primary_id: str
    active: Annotated[bool, Field(description="Whether it is asked now.")]
    since: datetime
    at: Annotated[datetime, Field(description="When a server last told of it.")]
    asked: int
    requests: int
    requests_differ: int
    rows: int
    differ: int
    agreement: Annotated[float | None, Field(description="The share of rows in which both agree; null before any.")]

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """Write facts."""
        return cls.model_validate(_facts(facts))


class ShadowAnswer(ShadowFacts):
    """All that was seen of a shadow. `asked` requests were chosen: some were `dropped`, some `failed`, each by reason.

    `disagreement` bounds the share of rows that differ (three standard deviations); times of runs are milliseconds.
    """

    share: float
    servers: int
    dropped: dict[str, int]
    failed: dict[str, int]
    disagreement: tuple[float, float]
    primary_ms: QuantilesAnswer
    shadow_ms: QuantilesAnswer
    outputs: list[OutputAnswer]
    slices: list[SliceAnswer]
    worst: list[WorstRowAnswer]

    @classmethod
    def of(cls, report: Report) -> Self:  # type: ignore[override] # of a report, which holds the facts
        """Write a report."""
        rest = msgspec.structs.asdict(report)
        worst = [msgspec.structs.asdict(one) | {"at": _moment(one.at)} for one in report.worst]
        return cls.model_validate({**_facts(rest.pop("facts")), **rest, "worst": worst})


def _facts(facts: Facts) -> dict[str, Any]:
    times = {"since": _moment(facts.since), "at": _moment(facts.at)}
    return msgspec.structs.asdict(facts) | times | {"agreement": facts.agreement}


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
