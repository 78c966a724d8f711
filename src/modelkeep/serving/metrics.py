"""What serving counts, with the names that dashboards and alerts use. Documented in `docs/reference/metrics.md`.

The numbers are those of all servers of the installation, whichever of them is asked.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from modelkeep.contracts.confinement import Confinement, Level
from modelkeep.infra import storage_metrics
from modelkeep.infra.exposition import OPENMETRICS, TEXT, Exposition, wants_openmetrics
from modelkeep.infra.tally import BUDGET, DROPPED, Family, Followed, Gauges, Labels, Sums, Tallies, Tally, merged
from modelkeep.infra.tls import EXPIRES, REFUSED, Renewing
from modelkeep.serving.limits import LIMITED
from modelkeep.serving.meter import COUNTED, Meter
from modelkeep.serving.statistics import LAST_RUN, RUNS, SECONDS, VERSIONS, Statistics

if TYPE_CHECKING:  # a router's routes hold the meters that are made here
    from modelkeep.serving.keys import Keys
    from modelkeep.serving.router import Router

__all__ = ["CONTENT_TYPE", "FAMILIES", "OPENMETRICS", "Metrics", "wants_openmetrics"]

CONTENT_TYPE: Final = TEXT

log = structlog.get_logger(__name__)

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
_EXCHANGES: Final = Family(
    "modelkeep_limits_exchanges_total",
    "counter",
    "Times that a server asked Redis what it may let through, by outcome (ok, failed).",
    ("outcome",),
)
_SHARED: Final = Family(
    "modelkeep_limits_shared",
    "gauge",
    "1 while all servers keep rates together with other installations, 0 while Redis is away; only with `limits.redis_url`.",
    rule="min",
)

_CACHE_EVICTIONS: Final = Family(
    "modelkeep_cache_evictions_total",
    "counter",
    "Kept answers that were let go of, by reason (size: others needed the room; age; retired: no route answers with their "
    "version any more, or keeps answers).",
    ("reason",),
)
_CACHE_SHARED: Final = Family(
    "modelkeep_cache_shared_total",
    "counter",
    "Times that a server looked for an answer in Redis, by outcome (hit, miss, late: after 2 ms, failed, skipped: it is away "
    "or busy, refused: what lay there was no answer of ours); only with `serving.cache_redis_url`.",
    ("outcome",),
)
_CACHE_BYTES: Final = Family("modelkeep_cache_bytes", "gauge", "Memory that kept answers take, on all servers.")
_CACHE_ENTRIES: Final = Family("modelkeep_cache_entries", "gauge", "Answers that are kept in memory, on all servers.")
_SHADOWS: Final = Family(
    "modelkeep_shadow_requests_total",
    "counter",
    "Requests that shadows were chosen for, by deployment and result (agreed, differed, failed, dropped).",
    ("deployment", "result"),
    folded=("deployment",),
)

_COUNTED: Final = (
    *(_REQUESTS, _RPCS, *COUNTED, _SHADOWS),
    *(_INFLIGHT, _HISTORY, _HISTORY_LOST, RUNS, SECONDS, LIMITED, _EXCHANGES, _CACHE_EVICTIONS, _CACHE_SHARED),
)
_SEEN: Final = (
    *(_BUILD, _HISTORY_LAG, _HISTORY_UNREAD, _DEPTH, _READY, _REPLICAS, _BUSY, _MODEL, _LOAD, _MEMORY, _NUMBER, _AGE),
    *(_ASLEEP, _DIFFERS, _CONFINED, _ACCEPTED, LAST_RUN, EXPIRES, REFUSED, _SHARED, _CACHE_BYTES, _CACHE_ENTRIES),
)
FAMILIES: Final = (*_COUNTED, *_SEEN, DROPPED)


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
        self.certificate: Renewing | None = None
        self._sharing: Callable[[], bool | None] = lambda: None
        self.cache: Callable[[], tuple[int, int]] | None = None  # bytes and number of kept answers
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

    def shadowed(self, deployment: str, result: str) -> None:
        """Count one request that a shadow was chosen for, by what became of it."""
        self._cells[self._tally.series(_SHADOWS, (deployment, result))] += 1.0

    def limited(self, by: str) -> None:
        """Count one request that a rate refused, by whose it is."""
        self._cells[self._tally.series(LIMITED, (by,))] += 1.0

    def exchanged(self, answered: bool) -> None:  # noqa: FBT001 - as `infra/redis_rates.py` tells it
        """Count one time that Redis was asked what may be let through."""
        self._cells[self._tally.series(_EXCHANGES, ("ok" if answered else "failed",))] += 1.0

    def evicted(self, reason: str, count: int) -> None:
        """Count kept answers that were let go of."""
        self._cells[self._tally.series(_CACHE_EVICTIONS, (reason,))] += count

    def answers_shared(self, outcome: str) -> None:
        """Count one look into Redis for an answer."""
        self._cells[self._tally.series(_CACHE_SHARED, (outcome,))] += 1.0

    def watch_sharing(self, sharing: Callable[[], bool]) -> None:
        """Also show whether rates are shared with other installations."""
        self._sharing = sharing

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
        sharing = self._sharing()
        if sharing is not None:
            gauges.append((_SHARED.name, (), float(sharing)))
        confinement = self._confinement()
        if confinement is not None:
            gauges.append((_CONFINED.name, (), float(confinement.level)))
            gauges.append((_ACCEPTED.name, (), float(self._accepted() is not None)))
        if self.cache is not None:
            held, entries = self.cache()
            gauges += [(_CACHE_BYTES.name, (), float(held)), (_CACHE_ENTRIES.name, (), float(entries))]
        if self.certificate is not None:
            gauges += self.certificate.gauges()
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
