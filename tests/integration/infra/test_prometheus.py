"""Prometheus itself reads what a server shows."""

import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.prometheus import program
from modelkeep.infra.exposition import OPENMETRICS, wants_openmetrics
from modelkeep.infra.storage_metrics import FAMILIES, StorageMeter, figures
from modelkeep.serving.metrics import CONTENT_TYPE, Metrics


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    """A server's numbers, with something in all that is counted, and awkward labels."""
    made = Metrics("1.2.3", tmp_path / "metrics", label_sets=30)
    for name in ("churn", 'quote"', "back\\slash", "line\nbreak", "żółć", "100 %s"):
        meter = made.meter(name, 3)
        meter.answered(4, 0.003, 0.0001, 0.002, 0.0004)
        meter.ran(2, 4)
        meter.refused("rejected")
        meter.turned_away("queue")
    for number in range(40):
        made.request(f"route-{number}", "POST", 200)
    made.inflight_changed(2)
    made.watch_history(lambda: 7, lambda: 1, lambda: (0.5, 2))
    meter = StorageMeter(tmp_path / "metrics" / "storage", 0)
    meter.done("put", "ok", 0.01, 100)
    meter.removed(100)
    meter.rotated(2)
    meter.rows_forgotten(3)
    meter.keeps({"artifact": 100, "unused": 0})
    meter.audit(entries=12, verified=1.7e9, lags={"file": 3})
    meter.rollout_decided("promoted")
    meter.alerts_firing({"page": 1, "ticket": 0, "info": 0})
    made.beside = figures(tmp_path / "metrics" / "storage", tmp_path)
    yield made
    meter.close()
    made.close()


@pytest.fixture
def address(metrics: Metrics) -> Iterator[str]:
    """HOST:PORT where these numbers are shown."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            openmetrics = wants_openmetrics((self.headers["accept"] or "").encode())
            self.send_response(200)
            self.send_header("content-type", (OPENMETRICS if openmetrics else CONTENT_TYPE).decode())
            self.end_headers()
            self.wfile.write(metrics.text(openmetrics=openmetrics))

        def log_message(self, *_arguments: object) -> None:
            """Keep quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_promtool_finds_no_fault(metrics: Metrics) -> None:
    checked = subprocess.run([program("promtool"), "check", "metrics"], input=metrics.text(), capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_page_has_every_metric_of_storage(metrics: Metrics) -> None:
    page = metrics.text(openmetrics=True).decode()
    assert [one.name for one in FAMILIES if f"\n{one.name}" not in page.replace("_bucket", "")] == []
    assert page.endswith("# EOF\n")


def test_a_real_prometheus_scrapes_and_answers_a_query(address: str, tmp_path: Path) -> None:
    prometheus = program("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "prometheus.yml"
    config.write_text(f"scrape_configs: [{{job_name: m, scrape_interval: 1s, static_configs: [{{targets: ['{address}']}}]}}]\n")
    started = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([*started, f"--web.listen-address=127.0.0.1:{port}"], stderr=log) as process,
    ):
        try:
            asked = _asker(client)
            assert asked("sum(modelkeep_predictions_total{outcome='ok'})") == 6
            assert (
                asked("histogram_quantile(0.9, sum by (le) (modelkeep_prediction_duration_seconds_bucket{stage='total'}))")
                < 0.005
            )
            assert asked("modelkeep_prediction_rows_total{deployment='żółć', version='3'}") == 4
            assert asked("sum(modelkeep_http_requests_total)") == 40
            assert asked("modelkeep_label_sets_dropped_total{metric='modelkeep_http_requests_total'}") == 10
            assert asked("up") == 1
        finally:
            process.terminate()


def _asker(client: httpx.Client) -> Callable[[str], float]:
    """Return what asks Prometheus, again and again until it has seen the first page."""

    def once(query: str) -> float | None:
        try:
            answer = client.get("/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return None
        found = answer.json()["data"]["result"] if answer.is_success else []
        return float(found[0]["value"][1]) if found else None

    def asked(query: str) -> float:
        deadline = time.monotonic() + 30
        while (number := once(query)) is None:
            assert time.monotonic() < deadline, f"no answer to {query}"
            time.sleep(0.1)
        return number

    return asked
