"""Where the time of one version's predictions went, in sums: what statistics ask for, and histograms by deployment do not say.

A run adds to its version's sums once, however many requests shared it. Like all counters they are those of all servers.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from modelkeep.infra.tally import Family, Labels, Sums, Tally

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
_PREDICTIONS: Final = "modelkeep_predictions_total"
_ROWS: Final = "modelkeep_prediction_rows_total"


class Spent:
    """Sums up the time of one version's predictions. Its series begin with the first thing it counts."""

    __slots__ = ("_at", "_tally", "_whose")

    def __init__(self, tally: Tally, deployment: str, version: str) -> None:
        self._tally = tally
        self._whose = (deployment, version)
        self._at: tuple[int, ...] = ()

    def ran(self, total_s: float, queue_s: float, preprocess_s: float, run_s: float) -> None:
        """Count one run: the seconds of all its answers together, and of their stages."""
        runs, total, queue, preprocess, run, _failed = self._at or self._open()
        cells = self._tally.cells
        cells[runs] += 1.0
        cells[total] += total_s
        cells[queue] += queue_s
        cells[preprocess] += preprocess_s
        cells[run] += run_s

    def failed(self, seconds: float) -> None:
        """Count the seconds until a prediction was refused, or given up."""
        self._tally.cells[(self._at or self._open())[-1]] += seconds

    def _open(self) -> tuple[int, ...]:
        series = self._tally.series
        self._at = (series(RUNS, self._whose), *(series(SECONDS, (*self._whose, stage)) for stage in _STAGES))
        return self._at


class Sum(msgspec.Struct, frozen=True):
    """What one version has done so far: requests, rows, runs, seconds, and the Unix time of the last run (0 for none)."""

    answered: float = 0.0
    failed: float = 0.0
    rows: float = 0.0
    runs: float = 0.0
    total_s: float = 0.0
    queue_s: float = 0.0
    preprocess_s: float = 0.0
    run_s: float = 0.0
    failed_s: float = 0.0
    last: float = 0.0


class Statistics:
    """The sums of all versions, as all servers had counted them at one moment."""

    def __init__(self, counted: Sums) -> None:
        self._series: dict[str, Mapping[Labels, list[float]]] = {family.name: found for family, found in counted.items()}

    def of(self, deployment: str, version: str) -> Sum:
        """Return what this version has done under this deployment."""
        whose = (deployment, version)
        total, queue, preprocess, run, failed = (self._one(SECONDS.name, *whose, stage) for stage in _STAGES)
        return Sum(
            answered=self._one(_PREDICTIONS, *whose, "ok"),
            failed=self._one(_PREDICTIONS, *whose, "rejected") + self._one(_PREDICTIONS, *whose, "error"),
            rows=self._one(_ROWS, *whose),
            runs=self._one(RUNS.name, *whose),
            total_s=total,
            queue_s=queue,
            preprocess_s=preprocess,
            run_s=run,
            failed_s=failed,
            last=self._one(LAST_RUN.name, *whose),
        )

    def _one(self, name: str, *labels: str) -> float:
        found = self._series.get(name, {}).get(labels)
        return found[0] if found else 0.0
