"""Where the time of one version's predictions went, in sums: what statistics ask for, and histograms by deployment do not say.

A run adds to its version's sums once, however many requests shared it. Like all counters they are those of all servers. They
stand in a record of each version (`infra/tally.py`), whose number is bounded: where it is reached, a version that is served
takes the record of one that is not. `/metrics` has seconds and runs within its own bound.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from modelkeep.infra.tally import Family, Labels, Tallies, Tally

SECONDS: Final = Family(
    "modelkeep_version_seconds_total",
    "counter",
    "Seconds that predictions took, by deployment, version number and stage (total; of it queue, preprocess and inference; "
    "failed: until a refusal).",
    ("deployment", "version", "stage"),
    folded=("deployment", "version"),
)
RUNS: Final = Family(
    "modelkeep_version_runs_total",
    "counter",
    "Runs of the model (micro-batches), by deployment and version number.",
    ("deployment", "version"),
    folded=("deployment", "version"),
)
LAST_RUN: Final = Family(
    "modelkeep_last_run_timestamp_seconds",
    "gauge",
    "Unix time at which the version that answers last ran, by deployment and version number; absent until it does.",
    ("deployment", "version"),
    folded=("deployment", "version"),
    rule="max",
)
_STAGES: Final = ("total", "queue", "preprocess", "inference", "failed")


class Sum(msgspec.Struct, frozen=True):
    """What one version has done so far: requests, rows, runs, seconds, and the Unix time of the last run (0 for none).

    `hits` are the answers that were not run (`rows` are of the others), `misses` the requests that were looked for in vain;
    `hit_s` and `miss_s` are what these took of the cache, keeping what the model then said included.
    """

    answered: float = 0.0
    failed: float = 0.0
    rows: float = 0.0
    runs: float = 0.0
    total_s: float = 0.0
    queue_s: float = 0.0
    preprocess_s: float = 0.0
    run_s: float = 0.0
    failed_s: float = 0.0
    hits: float = 0.0
    hit_s: float = 0.0
    misses: float = 0.0
    miss_s: float = 0.0
    last: float = 0.0


_ANSWERED, _FAILED, _ROWS, _RUNS, _TOTAL, _QUEUE, _PREPROCESS, _RUN, _FAILED_S = range(9)
_HITS, _HIT_S, _MISSES, _MISS_S, _LAST = range(9, len(Sum.__struct_fields__))
VERSIONS: Final = Family(
    "version_sums",
    "record",
    "What a version has done.",
    ("deployment", "version"),
    folded=("deployment", "version"),
    parts=Sum.__struct_fields__,
    most=2048,
)


class VersionSums:
    """Sums up what one version does. Its record and its series begin with the first thing it counts."""

    __slots__ = ("_at", "_first", "_statistics", "_tally", "whose")

    def __init__(self, statistics: "Statistics", tally: Tally, deployment: str, version: str) -> None:
        self._statistics = statistics
        self._tally = tally
        self.whose = (deployment, version)
        self._at: tuple[int, ...] = ()
        self._first = -1

    def ran(self, done: Sum, runs: float = 1.0) -> None:
        """Count one run: its answers, their rows, the seconds of all together and of their stages, and when it ended.

        `runs` is 0 for answers that were found in the cache.
        """
        every, total, queue, preprocess, run, _failed = self._at or self._open()
        cells = self._tally.cells
        cells[every] += runs
        cells[total] += done.total_s
        cells[queue] += done.queue_s
        cells[preprocess] += done.preprocess_s
        cells[run] += done.run_s
        at = self._first if self._first >= 0 else self._record()
        cells[at + _ANSWERED] += done.answered
        cells[at + _ROWS] += done.rows
        cells[at + _RUNS] += runs
        cells[at + _TOTAL] += done.total_s
        cells[at + _QUEUE] += done.queue_s
        cells[at + _PREPROCESS] += done.preprocess_s
        cells[at + _RUN] += done.run_s
        cells[at + _HITS] += done.hits
        cells[at + _HIT_S] += done.hit_s
        cells[at + _LAST] = done.last

    def failed(self, seconds: float) -> None:
        """Count a prediction that was refused or given up, and the seconds until then."""
        cells = self._tally.cells
        cells[(self._at or self._open())[-1]] += seconds
        at = self._first if self._first >= 0 else self._record()
        cells[at + _FAILED] += 1.0
        cells[at + _FAILED_S] += seconds

    def missed(self, requests: float, seconds: float) -> None:
        """Count requests that the cache had no answer to, and the seconds that this took, to look up or to keep one."""
        cells = self._tally.cells
        at = self._first if self._first >= 0 else self._record()
        cells[at + _MISSES] += requests
        cells[at + _MISS_S] += seconds

    def lose(self) -> None:
        """Its record is another's from now on: what it counts next begins a new one."""
        self._first = -1

    def _open(self) -> tuple[int, ...]:
        series = self._tally.series
        self._at = (series(RUNS, self.whose), *(series(SECONDS, (*self.whose, stage)) for stage in _STAGES))
        return self._at

    def _record(self) -> int:
        self._first = self._statistics.record(self)
        return self._first


class Statistics:
    """The sums of all versions, on all servers. `served` says which of them answer now: those have records before others."""

    def __init__(self, tally: Tally, tallies: Tallies) -> None:
        self._tally = tally
        self._tallies = tallies
        self._holders: dict[Labels, VersionSums] = {}
        self.served: Callable[[], Iterable[Labels]] = tuple

    def sums(self, deployment: str, version: str) -> VersionSums:
        """Return what sums up this version of a deployment here."""
        return VersionSums(self, self._tally, deployment, version)

    def record(self, holder: VersionSums) -> int:
        """Return the first cell of the record that a version counts in."""
        first = -1
        if not self._tally.has_room(VERSIONS, holder.whose):
            served = set(self.served())
            old = next((whose for whose in self._tally.labels(VERSIONS) if whose not in served), None)
            if old is not None:
                first = self._tally.replace(VERSIONS, old, holder.whose)
                if first >= 0 and old in self._holders:
                    self._holders.pop(old).lose()
        self._holders[holder.whose] = holder
        return first if first >= 0 else self._tally.series(VERSIONS, holder.whose)

    def of(self, asked: Sequence[Labels]) -> list[Sum]:
        """Return what each of these versions has done, by deployment and number."""
        return [_together(found) for found in self._tallies.records(VERSIONS, asked)]


def _together(found: list[list[float]]) -> Sum:
    """Return one sum of those of several servers."""
    if not found:
        return Sum()
    columns = list(zip(*found, strict=True))
    numbers = [*map(sum, columns[:_LAST]), max(columns[_LAST])]
    return Sum(**dict(zip(Sum.__struct_fields__, numbers, strict=True)))
