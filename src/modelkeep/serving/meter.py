"""What is counted of the predictions of one deployment and version.

A route keeps its `Meter`, so that counting an answer is a few additions in mapped memory (`infra/tally.py`) and no look-up.
"""

from bisect import bisect_left
from typing import Final, Literal

from modelkeep.infra.tally import Family, Tally
from modelkeep.serving.statistics import VersionSums

_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_SECONDS_SUM: Final = len(_SECONDS) + 1
_SIZES_SUM: Final = len(_SIZES) + 1

_PREDICTIONS: Final = Family(
    "modelkeep_predictions_total",
    "counter",
    "Prediction requests, by deployment, version number and outcome (ok, rejected, error).",
    ("deployment", "version", "outcome"),
    folded=("deployment", "version"),
)
_ROWS: Final = Family(
    "modelkeep_prediction_rows_total",
    "counter",
    "Rows answered, by deployment and version number.",
    ("deployment", "version"),
    folded=("deployment", "version"),
)
_DURATION: Final = Family(
    "modelkeep_prediction_duration_seconds",
    "histogram",
    "Seconds that an answered prediction took, by deployment and stage (total; queue: until its run began; preprocess: from "
    "picture to tensor, and a hook before the model; inference: the model, and a hook after it; postprocess: writing the "
    "answer).",
    ("deployment", "stage"),
    bounds=_SECONDS,
    folded=("deployment",),
)
_BATCH_SIZE: Final = Family(
    "modelkeep_batch_size",
    "histogram",
    "Rows in one run of a model (one micro-batch), by deployment.",
    ("deployment",),
    bounds=_SIZES,
    folded=("deployment",),
)
_BATCH_REQUESTS: Final = Family(
    "modelkeep_batch_requests",
    "histogram",
    "Requests that shared one run of a model, by deployment.",
    ("deployment",),
    bounds=_SIZES,
    folded=("deployment",),
)
_TURNED_AWAY: Final = Family(
    "modelkeep_queue_rejected_total",
    "counter",
    "Prediction requests that were turned away unrun, by deployment and reason (queue, deadline, limit, concurrency).",
    ("deployment", "reason"),
    folded=("deployment",),
)
_COLD: Final = Family(
    "modelkeep_cold_starts_total",
    "counter",
    "Times that a deployment without runners was asked and had to be loaded first.",
    ("deployment",),
    folded=("deployment",),
)
_GOLDEN: Final = Family(
    "modelkeep_golden_mismatches_total",
    "counter",
    "Times that a runner answered golden rows otherwise than at validation; it is ended, unless `golden` is warn.",
    ("deployment",),
    folded=("deployment",),
)

_CACHE: Final = Family(
    "modelkeep_cache_requests_total",
    "counter",
    "Prediction requests of deployments whose answers are kept, by deployment and result (hit: a kept answer; shared: that of "
    "an equal request that was under way; miss: the model was asked; bypassed: the request wanted it so).",
    ("deployment", "result"),
    folded=("deployment",),
)

COUNTED: Final = (_PREDICTIONS, _ROWS, _DURATION, _BATCH_SIZE, _BATCH_REQUESTS, _TURNED_AWAY, _COLD, _GOLDEN, _CACHE)


class Meter:
    """Counts what happens to the predictions of one deployment and version. Its series begin with the first thing it counts."""

    __slots__ = (
        "_cells",
        "_deployment",
        "_encode",
        "_error",
        "_ok",
        "_opened",
        "_preprocess",
        "_queue",
        "_rejected",
        "_requests",
        "_rows",
        "_run",
        "_size",
        "_tally",
        "_total",
        "_version",
        "sums",
    )

    def __init__(self, tally: Tally, deployment: str, version: str, sums: VersionSums) -> None:
        self._tally = tally
        self._cells = tally.cells
        self._deployment = deployment
        self._version = version
        self.sums = sums
        self._opened = False
        self._ok = self._rejected = self._error = self._rows = 0
        self._total = self._queue = self._run = 0
        self._encode = self._preprocess = -1
        self._size = self._requests = 0

    def answered(
        self, rows: int, total_s: float, queue_s: float, run_s: float, encode_s: float = 0.0, *, preprocess_s: float = 0.0
    ) -> None:
        """Count one answer: its rows, and the seconds of each of its stages; a stage of 0 s was none."""
        if not self._opened:
            self._open()
        cells = self._cells
        cells[self._ok] += 1.0
        cells[self._rows] += rows
        at = self._total
        cells[at + bisect_left(_SECONDS, total_s)] += 1.0
        cells[at + _SECONDS_SUM] += total_s
        at = self._queue
        cells[at + bisect_left(_SECONDS, queue_s)] += 1.0
        cells[at + _SECONDS_SUM] += queue_s
        at = self._run
        cells[at + bisect_left(_SECONDS, run_s)] += 1.0
        cells[at + _SECONDS_SUM] += run_s
        if encode_s:
            if self._encode < 0:
                self._encode = self._tally.series(_DURATION, (self._deployment, "postprocess"))
            at = self._encode
            cells[at + bisect_left(_SECONDS, encode_s)] += 1.0
            cells[at + _SECONDS_SUM] += encode_s
        if preprocess_s:
            if self._preprocess < 0:
                self._preprocess = self._tally.series(_DURATION, (self._deployment, "preprocess"))
            at = self._preprocess
            cells[at + bisect_left(_SECONDS, preprocess_s)] += 1.0
            cells[at + _SECONDS_SUM] += preprocess_s

    def refused(self, outcome: Literal["rejected", "error"]) -> None:
        """Count one prediction that was not answered: the request was at fault (rejected), or we were (error)."""
        if not self._opened:
            self._open()
        self._cells[self._rejected if outcome == "rejected" else self._error] += 1.0

    def ran(self, requests: int, rows: int) -> None:
        """Count one run of the model: the requests and the rows that shared it."""
        if not self._opened:
            self._open()
        cells = self._cells
        cells[self._size + bisect_left(_SIZES, rows)] += 1.0
        cells[self._size + _SIZES_SUM] += rows
        cells[self._requests + bisect_left(_SIZES, requests)] += 1.0
        cells[self._requests + _SIZES_SUM] += requests

    def turned_away(self, reason: str) -> None:
        """Count one request that was not run, by its reason: queue, deadline, limit or concurrency."""
        self._cells[self._tally.series(_TURNED_AWAY, (self._deployment, reason))] += 1.0

    def cached(self, result: str, took_s: float = 0.0) -> None:
        """Count one request of a deployment whose answers are kept, by its result: hit, shared, miss or bypassed.

        `took_s` are the seconds that the look-up took; those of hits are counted once they are answered.
        """
        self._cells[self._tally.series(_CACHE, (self._deployment, result))] += 1.0
        if result == "miss":
            self.sums.missed(1.0, took_s)

    def kept(self, took_s: float) -> None:
        """Count the seconds that keeping an answer took."""
        self.sums.missed(0.0, took_s)

    def cold_start(self) -> None:
        """Count one load that a request waits for."""
        self._cells[self._tally.series(_COLD, (self._deployment,))] += 1.0

    def golden_mismatch(self) -> None:
        """Count one runner that answers otherwise than at validation."""
        self._cells[self._tally.series(_GOLDEN, (self._deployment,))] += 1.0

    def _open(self) -> None:
        series, name, version = self._tally.series, self._deployment, self._version
        self._ok = series(_PREDICTIONS, (name, version, "ok"))
        self._rejected = series(_PREDICTIONS, (name, version, "rejected"))
        self._error = series(_PREDICTIONS, (name, version, "error"))
        self._rows = series(_ROWS, (name, version))
        self._total = series(_DURATION, (name, "total"))
        self._queue = series(_DURATION, (name, "queue"))
        self._run = series(_DURATION, (name, "inference"))
        self._size = series(_BATCH_SIZE, (name,))
        self._requests = series(_BATCH_REQUESTS, (name,))
        self._opened = True
