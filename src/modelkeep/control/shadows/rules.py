"""What servers have seen of a shadow, as values: put together, and told in numbers that people compare by."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import msgspec

from modelkeep.contracts.shadow import (
    DISTANCES,
    MOST_PAIRS,
    MOST_WORST,
    SECONDS,
    ClassPair,
    Compared,
    Kind,
    OutputSeen,
    ShadowSeen,
    SliceSeen,
    WorstRow,
)
from modelkeep.stats.counts import added, quantile, share_bounds

KEPT_DAYS: Final = 90
"""For how long a report is kept after the last it was told."""

MOST_SLICES: Final = 20
MOST_CONFUSED: Final = 20
LEAST_ROWS: Final = 10
"""A slice of fewer rows says nothing, and might say who they were."""

_PARTS: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Quantiles(msgspec.Struct, frozen=True):
    """Bounds that half, nine in ten, and all but one in a hundred are within; None where nothing bounds them."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class OutputReport(msgspec.Struct, frozen=True):
    """How one output compares; `confused` are the commonest pairs of classes that differ."""

    name: str
    kind: Kind
    rows: int
    differ: int
    absolute: Quantiles
    relative: Quantiles
    largest: float
    histogram: tuple[tuple[float, int], ...]
    confused: tuple[ClassPair, ...]


class SliceReport(msgspec.Struct, frozen=True):
    """Rows of a kind: of so many so many differ; the share that does is surely (three standard deviations) at least `least`."""

    column: str
    says: str
    rows: int
    differ: int
    least: float


class Facts(msgspec.Struct, frozen=True):
    """A shadow of a deployment in a few numbers; `primary` is the version it was compared with. Times are Unix seconds."""

    primary_id: str
    version_id: str
    since: float
    at: float
    asked: int
    requests: int
    requests_differ: int
    rows: int
    differ: int
    primary: int | None = None
    version: int | None = None
    active: bool = False

    @property
    def agreement(self) -> float | None:
        """The share of rows in which both agree, None where there are none."""
        return 1 - self.differ / self.rows if self.rows else None


class Report(msgspec.Struct, frozen=True):
    """All that was seen of a shadow of a deployment: `facts`, and the rest from all servers together.

    Between `disagreement` the share of rows that differ is, but for what is beyond three standard deviations.
    """

    facts: Facts
    share: float
    servers: int
    dropped: dict[str, int]
    failed: dict[str, int]
    disagreement: tuple[float, float]
    primary_ms: Quantiles
    shadow_ms: Quantiles
    outputs: tuple[OutputReport, ...]
    slices: tuple[SliceReport, ...]
    worst: tuple[WorstRow, ...]


def report(facts: Facts, seen: Sequence[ShadowSeen]) -> Report:
    """Put together what several servers have seen of one shadow."""
    compared = together([one.compared for one in seen])
    newest = max(seen, key=lambda one: one.at)
    return Report(
        facts=facts,
        share=newest.share,
        servers=len({one.server for one in seen}),
        dropped=dict(sum((Counter(one.dropped) for one in seen), Counter())),
        failed=dict(sum((Counter(one.failed) for one in seen), Counter())),
        disagreement=share_bounds(compared.differ, compared.rows),
        primary_ms=_milliseconds(one.primary_s for one in seen),
        shadow_ms=_milliseconds(one.shadow_s for one in seen),
        **told(compared),
    )


def told(compared: Compared) -> dict[str, Any]:
    """Return outputs, worst slices and worst rows of a comparison as reports have them."""
    return {
        "outputs": tuple(_output(one) for one in compared.outputs),
        "slices": worst_slices(compared.slices),
        "worst": compared.worst,
    }


def together(parts: Sequence[Compared]) -> Compared:
    """Add comparisons up; slices that were cut elsewhere stay apart."""
    return Compared(
        requests=sum(one.requests for one in parts),
        requests_differ=sum(one.requests_differ for one in parts),
        rows=sum(one.rows for one in parts),
        differ=sum(one.differ for one in parts),
        outputs=_outputs(output for one in parts for output in one.outputs),
        slices=_slices(slice_ for one in parts for slice_ in one.slices),
        worst=worst_first(row for one in parts for row in one.worst),
    )


def worst_first(rows: Iterable[WorstRow]) -> tuple[WorstRow, ...]:
    """Return the rows that are farthest apart, those that differ before all others."""
    known = sorted(rows, key=lambda one: (one.differs, math.inf if one.distance is None else one.distance), reverse=True)
    return tuple(known[:MOST_WORST])


def worst_slices(slices: Iterable[SliceSeen]) -> tuple[SliceReport, ...]:
    """Return the slices with the largest share of rows that surely differ, as far as there are enough rows to tell."""
    found = [_slice(one) for one in slices if one.rows >= LEAST_ROWS]
    return tuple(sorted(found, key=lambda one: (-one.least, -one.differ, one.column, one.says))[:MOST_SLICES])


def without(seen: ShadowSeen, gone: Collection[str]) -> ShadowSeen:
    """Return a report that shows nothing of these predictions."""
    staying = tuple(one for one in seen.compared.worst if one.prediction not in gone)
    if len(staying) == len(seen.compared.worst):
        return seen
    return msgspec.structs.replace(seen, compared=msgspec.structs.replace(seen.compared, worst=staying))


def _outputs(outputs: Iterable[OutputSeen]) -> tuple[OutputSeen, ...]:
    found: dict[tuple[str, str], OutputSeen] = {}
    for one in outputs:
        before = found.get((one.name, one.kind))
        found[one.name, one.kind] = one if before is None else _both(before, one)
    return tuple(found.values())


def _both(one: OutputSeen, other: OutputSeen) -> OutputSeen:
    pairs: Counter[tuple[str, str]] = Counter()
    for pair in (*one.pairs, *other.pairs):
        pairs[pair.primary, pair.shadow] += pair.rows
    kept = pairs.most_common(MOST_PAIRS)
    return OutputSeen(
        one.name,
        one.kind,
        one.rows + other.rows,
        one.differ + other.differ,
        added(one.absolute, other.absolute),
        added(one.relative, other.relative),
        max(one.largest, other.largest),
        tuple(ClassPair(*pair, rows) for pair, rows in kept),
        one.unpaired + other.unpaired + pairs.total() - sum(rows for _pair, rows in kept),
    )


def _slices(slices: Iterable[SliceSeen]) -> tuple[SliceSeen, ...]:
    found: dict[SliceSeen, tuple[int, int]] = {}
    for one in slices:
        key = msgspec.structs.replace(one, rows=0, differ=0)
        rows, differ = found.get(key, (0, 0))
        found[key] = rows + one.rows, differ + one.differ
    return tuple(msgspec.structs.replace(key, rows=rows, differ=differ) for key, (rows, differ) in found.items())


def _output(seen: OutputSeen) -> OutputReport:
    counts = zip((*DISTANCES, math.inf), seen.relative, strict=False)
    return OutputReport(
        name=seen.name,
        kind=seen.kind,
        rows=seen.rows,
        differ=seen.differ,
        absolute=quantiles(DISTANCES, seen.absolute),
        relative=quantiles(DISTANCES, seen.relative),
        largest=seen.largest,
        histogram=tuple((-1.0 if math.isinf(bound) else bound, count) for bound, count in counts if count),
        confused=tuple(one for one in seen.pairs if one.primary != one.shadow)[:MOST_CONFUSED],
    )


def _slice(seen: SliceSeen) -> SliceReport:
    least, _most = share_bounds(seen.differ, seen.rows)
    return SliceReport(seen.column, _says(seen), seen.rows, seen.differ, least)


def _says(seen: SliceSeen) -> str:
    if seen.missing:
        return "missing"
    if seen.others:
        return "any other"
    if seen.low is None and seen.high is None:
        return f"= {seen.category}" if seen.category else "any"
    if seen.low is None:
        return f"< {seen.high:g}"
    return f">= {seen.low:g}" if seen.high is None else f"{seen.low:g} to {seen.high:g}"


def quantiles(bounds: Sequence[float], counts: Sequence[int]) -> Quantiles:
    """Return the quantiles of a histogram."""
    found = {name: quantile(bounds, counts, part) for name, part in _PARTS.items()}
    return Quantiles(**{name: None if one is None or math.isinf(one) else one for name, one in found.items()})


def _milliseconds(counts: Iterable[tuple[int, ...]]) -> Quantiles:
    summed: tuple[int, ...] = ()
    for one in counts:
        summed = added(summed, one)
    return quantiles([bound * 1000 for bound in SECONDS], summed)
