"""What serving counts, with the names that dashboards and alerts use. Documented in `docs/reference/metrics.md`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from modelkeep.serving.keys import Keys
from modelkeep.serving.router import Router

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The counters of one server process."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter helps nobody
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "modelkeep_http_requests",
            "HTTP requests answered, by route, method and status code.",
            ("route", "method", "code"),
            registry=self.registry,
        )
        self.predictions = Counter(
            "modelkeep_predictions",
            "Prediction requests, by deployment, version number and outcome (ok, rejected, error).",
            ("deployment", "version", "outcome"),
            registry=self.registry,
        )
        self.rows = Counter(
            "modelkeep_prediction_rows",
            "Rows answered, by deployment and version number.",
            ("deployment", "version"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "modelkeep_prediction_duration_seconds",
            "Seconds a prediction took, by deployment and stage (total; inference: in the runner).",
            ("deployment", "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.inflight = Gauge("modelkeep_inflight_requests", "Requests being answered now.", registry=self.registry)
        build = Gauge("modelkeep_build_info", "1, with the version of this server.", ("version",), registry=self.registry)
        build.labels(version).set(1)

    def watch(self, router: Router, keys: Keys) -> None:
        """Also show the state of the router and the age of its news, read when scraped."""
        self.registry.register(_State(router, keys))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    """Gauges that are read off the router at each scrape."""

    def __init__(self, router: Router, keys: Keys) -> None:
        self._router = router
        self._keys = keys

    def describe(self) -> list[Metric]:
        """Nothing is collected at registration."""
        return []

    def collect(self) -> list[Metric]:
        """Read the gauges."""
        depth = GaugeMetricFamily("modelkeep_queue_depth", "Requests that wait for a run.", labels=["deployment"])
        ready = GaugeMetricFamily("modelkeep_deployment_ready", "1 when a warm runner answers, else 0.", labels=["deployment"])
        model = InfoMetricFamily("modelkeep_model", "What answers for each deployment.", labels=["deployment"])
        for name, served in self._router.routes().items():
            depth.add_metric([name], served.batcher.waiting)
            ready.add_metric([name], int(served.ready))
            about = {
                "version": str(served.version.number),
                "digest": served.version.spec.digest,
                "framework": served.version.framework,
            }
            model.add_metric([name], about)
        number = GaugeMetricFamily(
            "modelkeep_snapshot_number", "Number of the newest snapshot applied.", self._router.snapshot.number
        )
        age = GaugeMetricFamily(
            "modelkeep_snapshot_age_seconds", "Seconds since the control plane was last heard of.", self._keys.staleness_s
        )
        return [depth, ready, model, number, age]
