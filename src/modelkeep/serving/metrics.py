"""What serving counts, with the names that dashboards and alerts use. Documented in `docs/reference/metrics.md`.

A route keeps its `Meter`, so that counting an answer is a few additions in mapped memory (`infra/tally.py`) and no look-up.
The numbers are those of all servers of the installation, whichever of them is asked.
"""

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import structlog

from modelkeep.contracts.confinement import Confinement, Level
from modelkeep.infra import storage_metrics
from modelkeep.infra.exposition import OPENMETRICS, TEXT, Exposition, wants_openmetrics
from modelkeep.infra.tally import BUDGET, DROPPED, Family, Followed, Gauges, Labels, Sums, Tallies, Tally, merged
from modelkeep.serving.limits import LIMITED
from modelkeep.serving.statistics import LAST_RUN, RUNS, SECONDS, VERSIONS, Statistics, VersionSums

if TYPE_CHECKING:  # a router's routes hold the meters that are made here
    from modelkeep.serving.keys import Keys
    from modelkeep.serving.router import Router

__all__ = ["CONTENT_TYPE", "FAMILIES", "OPENMETRICS", "Meter", "Metrics", "wants_openmetrics"]

CONTENT_TYPE: Final = TEXT

log = structlog.get_logger(__name__)

_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_SECONDS_SUM: Final = len(_SECONDS) + 1
_SIZES_SUM: Final = len(_SIZES) + 1
_MOST_ROUTES: Final = 4096

_REQUESTS: Final = Family(
    "modelkeep_http_requests_total",
    "counter",
    "HTTP requests answered, by route, method and status code.",
    ("route", "method", "code"),
    folded=("route",),
)
_RPCS: Final = Family(
    "modelkeep_grpc_requests_total", "counter", "gRPC requests answered, by method and status code.", ("method", "code")
)
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
_INFLIGHT: Final = Family("modelkeep_inflight_requests", "gauge", "Requests being answered now.")
_HISTORY: Final = Family(
    "modelkeep_prediction_log_records_total", "counter", "Predictions handed to the prediction history, up to a second late."
)
_HISTORY_LOST: Final = Family(
    "modelkeep_prediction_log_dropped_total",
    "counter",
    "Predictions that were answered and are not in the prediction history, because it was full.",
)
_HISTORY_LAG: Final = Family(
    "modelkeep_prediction_log_lag_seconds",
    "gauge",
    "Seconds by which the prediction history is behind what has been answered; it grows while nothing is loaded.",
    rule="max",
)
_HISTORY_UNREAD: Final = Family(
    "modelkeep_prediction_log_lost_total",
    "counter",
    "Predictions that were written down and then damaged, or retired before their time because the history was full.",
    rule="max",
)
_BUILD: Final = Family("modelkeep_build_info", "gauge", "1, with the version of this server.", ("version",), rule="max")
_DEPTH: Final = Family(
    "modelkeep_queue_depth", "gauge", "Requests that wait for a run.", ("deployment",), folded=("deployment",), rule="sum"
)
_READY: Final = Family(
    "modelkeep_deployment_ready",
    "gauge",
    "1 when a warm runner answers, in every server, else 0.",
    ("deployment",),
    folded=("deployment",),
    rule="min",
)
_REPLICAS: Final = Family(
    "modelkeep_replicas",
    "gauge",
    "Runners that answer, by deployment.",
    ("deployment",),
    folded=("deployment",),
    rule="max",  # the servers share them
)
_BUSY: Final = Family(
    "modelkeep_replicas_busy",
    "gauge",
    "Runs under way, by deployment; one runner takes one after the other.",
    ("deployment",),
    folded=("deployment",),
)
_ASLEEP: Final = Family(
    "modelkeep_model_asleep",
    "gauge",
    "1 while a deployment has no runners until it is asked, by deployment.",
    ("deployment",),
    folded=("deployment",),
    rule="max",
)
_OTHERWISE: Final = "1 while a deployment serves though it answers golden rows otherwise than at validation."
_DIFFERS: Final = Family("modelkeep_golden_differs", "gauge", _OTHERWISE, ("deployment",), folded=("deployment",), rule="max")
_MODEL: Final = Family(
    "modelkeep_model_info",
    "info",
    "What answers for each deployment.",
    ("deployment", "version", "digest", "framework"),
    folded=("deployment", "version", "digest", "framework"),
    rule="max",
)
_LOAD: Final = Family(
    "modelkeep_model_load_seconds",
    "gauge",
    "Seconds that the youngest runner took to load the model, by deployment.",
    ("deployment",),
    folded=("deployment",),
    rule="max",
)
_MEMORY: Final = Family(
    "modelkeep_model_memory_bytes",
    "gauge",
    "Resident memory of a deployment's runners; pages that they share count for each.",
    ("deployment",),
    folded=("deployment",),
    rule="max",  # the servers share them
)
_NUMBER: Final = Family(
    "modelkeep_snapshot_number",
    "gauge",
    "Number of the newest snapshot applied, in the server that is furthest behind.",
    rule="min",
)
_AGE: Final = Family(
    "modelkeep_snapshot_age_seconds",
    "gauge",
    "Seconds since the control plane was last heard of, in the server that has waited longest.",
    rule="max",
)
_CONFINED: Final = Family(
    "modelkeep_sandbox_level",
    "gauge",
    "How well runners are locked in on this machine: 3 and 2 for all models, 1 for data alone, 0 for none.",
    rule="min",
)
_ACCEPTED: Final = Family(
    "modelkeep_sandbox_accepted",
    "gauge",
    "1 while an administrator accepts that runners are locked in less well than their models need.",
    rule="max",
)

_COUNTED: Final = (
    *(_REQUESTS, _RPCS, _PREDICTIONS, _ROWS, _DURATION, _BATCH_SIZE, _BATCH_REQUESTS, _TURNED_AWAY, _COLD, _GOLDEN),
    *(_INFLIGHT, _HISTORY, _HISTORY_LOST, RUNS, SECONDS, LIMITED),
)
_SEEN: Final = (
    *(_BUILD, _HISTORY_LAG, _HISTORY_UNREAD, _DEPTH, _READY, _REPLICAS, _BUSY, _MODEL, _LOAD, _MEMORY, _NUMBER, _AGE),
    *(_ASLEEP, _DIFFERS, _CONFINED, _ACCEPTED, LAST_RUN),
)
FAMILIES: Final = (*_COUNTED, *_SEEN, DROPPED)


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


class Metrics:
    """The counters of one server process, and the page that shows those of all of them.

    `folder` holds the servers' files; `slot` is this server's place among them, which the process that replaces it takes over.
    `label_sets` is the most that one metric may have; what comes later is counted under "other".
    """

    def __init__(self, version: str, folder: Path, slot: int = 0, *, label_sets: int = BUDGET) -> None:
        self._version = version
        self._tally = Tally(folder, slot, (*_COUNTED, VERSIONS), budget=label_sets)
        if self._tally.trouble:
            log.warning("metrics are kept in memory alone", reason=self._tally.trouble, folder=str(folder))
        self._tallies = Tallies(folder, self._tally)
        self.statistics = Statistics(self._tally, self._tallies)
        self._exposition = Exposition()
        self._label_sets = label_sets
        self._cells = self._tally.cells
        self._inflight = self._tally.series(_INFLIGHT)
        self._meters: dict[tuple[str, int], Meter] = {}
        self._routes: dict[tuple[str, str, int], int] = {}
        self._overflow: dict[str, int] = {}
        self._state: Callable[[], Gauges] = list
        self._memory: Callable[[], Gauges] = list
        self._history: list[Followed] = []
        self._loading: Callable[[], tuple[float, int] | None] = lambda: None
        self._confinement: Callable[[], Confinement | None] = lambda: None
        self._accepted: Callable[[], Level | None] = lambda: None
        self.beside: Callable[[], Sums] = dict  # what the processes beside serving count (`infra/storage_metrics.py`)

    def meter(self, deployment: str, version: int) -> Meter:
        """Return the meter of this deployment's version, to be kept as long as it answers."""
        meter = self._meters.get((deployment, version))
        if meter is None:
            number = str(version)
            meter = Meter(self._tally, deployment, number, self.statistics.sums(deployment, number))
            self._meters[deployment, version] = meter
        return meter

    def request(self, route: str, method: str, status: int) -> None:
        """Count one HTTP request that was answered. `route` and `method` come from short lists, never from the address."""
        at = self._routes.get((route, method, status))
        if at is None:
            at = self._tally.series(_REQUESTS, (route, method, str(status)))
            if len(self._routes) < _MOST_ROUTES:
                self._routes[route, method, status] = at
        self._cells[at] += 1.0

    def rpc(self, method: str, code: str) -> None:
        """Count one gRPC request that was answered; `method` and `code` come from short lists."""
        self._cells[self._tally.series(_RPCS, (method, code))] += 1.0

    def limited(self, by: str) -> None:
        """Count one request that a rate refused, by whose it is."""
        self._cells[self._tally.series(LIMITED, (by,))] += 1.0

    def inflight_changed(self, by: int) -> None:
        """Add to the requests that are being answered now."""
        self._cells[self._inflight] += by

    def watch(self, router: "Router", keys: "Keys") -> None:
        """Also show the state of the router and the age of its news, read when it is published or scraped."""
        self._state = lambda: _state(router, keys)
        self._memory = lambda: _memory(router)
        self.statistics.served = lambda: (
            (name, str(one.version.number)) for name in router.routes() for one in router.serving(name)
        )

    def watch_history(
        self, appended: Callable[[], int], dropped: Callable[[], int], loading: Callable[[], tuple[float, int] | None]
    ) -> None:
        """Also count what goes to the prediction history since the start of this process, and show how its loading goes.

        `loading` returns by how many seconds it is behind, and how many predictions were lost on the way.
        """
        self._history = [Followed(self._tally, _HISTORY, appended), Followed(self._tally, _HISTORY_LOST, dropped)]
        self._loading = loading

    def watch_confinement(self, confinement: Callable[[], Confinement | None], accepted: Callable[[], Level | None]) -> None:
        """Also show how well runners are locked in, once that is known, and whether less is accepted."""
        self._confinement = confinement
        self._accepted = accepted

    def publish(self, *, alone: bool = False) -> None:
        """Let the other servers show this one's state, unless it is alone; to be called about once a second.

        A file is replaced for that, which can take tens of milliseconds while much else is written to the disk.
        """
        self._follow()
        if not alone:
            self._tally.publish(self._gauges())

    def text(self, *, openmetrics: bool = False) -> bytes:
        """Return the numbers of all servers in Prometheus' text format, or in OpenMetrics."""
        self._follow()
        seen = [*self._gauges(), *self._memory()]  # every server has the same runners: none tells the others of them
        sums, gauges = self._read(seen)
        shown = sums | self._within_budget(gauges) | self.beside()
        return self._exposition.page((*FAMILIES, *storage_metrics.FAMILIES), shown, openmetrics=openmetrics)

    def close(self) -> None:
        """Let go of the files; what they hold stays for the next process of this slot."""
        self._tallies.close()
        self._cells.release()
        self._tally.close()

    def _read(self, seen: Gauges) -> tuple[Sums, Sums]:
        sums, published = self._tallies.read()
        return sums, merged(_SEEN, [seen, *published])

    def _follow(self) -> None:
        for followed in self._history:
            followed.catch_up()

    def _gauges(self) -> Gauges:
        gauges: Gauges = [(_BUILD.name, (self._version,), 1.0), *self._state()]
        loading = self._loading()
        if loading is not None:
            lag_s, lost = loading
            gauges += [(_HISTORY_LAG.name, (), lag_s), (_HISTORY_UNREAD.name, (), float(lost))]
        confinement = self._confinement()
        if confinement is not None:
            gauges.append((_CONFINED.name, (), float(confinement.level)))
            gauges.append((_ACCEPTED.name, (), float(self._accepted() is not None)))
        return gauges

    def _within_budget(self, gauges: dict[Family, dict[Labels, list[float]]]) -> dict[Family, dict[Labels, list[float]]]:
        """Fold the label sets beyond the budget into one, as counters do, and count the sets once."""
        for family, series in gauges.items():
            beyond = list(series)[self._label_sets :] if family.folded else []
            if not beyond:
                continue
            folded = merged([family], [[(family.name, family.other(values), series.pop(values)[0]) for values in beyond]])
            series.update(folded[family])
            new = len(beyond) - self._overflow.get(family.name, 0)
            if new > 0:
                self._overflow[family.name] = len(beyond)
                self._cells[self._tally.series(DROPPED, (family.name,))] += new
        return gauges


def _state(router: "Router", keys: "Keys") -> Gauges:
    """Read the gauges off the router."""
    gauges: Gauges = [(_NUMBER.name, (), float(router.snapshot.number)), (_AGE.name, (), keys.staleness_s)]
    for name, served in router.routes().items():
        every = router.serving(name)
        gauges += [
            (_DEPTH.name, (name,), float(sum(one.batcher.waiting for one in every))),
            (_READY.name, (name,), float(served.ready)),
            (_ASLEEP.name, (name,), float(served.asleep)),
            (_DIFFERS.name, (name,), float(served.ready and bool(served.golden.differs))),
            (_REPLICAS.name, (name,), float(sum(one.batcher.replicas for one in every))),
            (_BUSY.name, (name,), float(sum(one.batcher.busy for one in every))),
        ]
        versions = (one.version for one in every)
        gauges += [(_MODEL.name, (name, str(one.number), one.spec.digest, one.framework), 1.0) for one in versions]
        gauges += [(LAST_RUN.name, (name, str(one.version.number)), one.last_run) for one in every if one.last_run]
        if served.processes:
            gauges.append((_LOAD.name, (name,), served.load_s))
    return gauges


def _memory(router: "Router") -> Gauges:
    """Read what the runners hold, which takes a file of the kernel's for each."""
    held = {name: [one.memory_bytes() for one in router.serving(name) if one.processes] for name in router.routes()}
    return [(_MEMORY.name, (name,), float(sum(each))) for name, each in held.items() if each]
