"""Metrics: Prometheus reads them, they count what happened, and their labels stay few."""

from functools import partial
from pathlib import Path

import psutil
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from modelkeep.serving.metrics import Metrics

NAMES = {
    "modelkeep_http_requests",
    "modelkeep_predictions",
    "modelkeep_prediction_rows",
    "modelkeep_prediction_duration_seconds",
    "modelkeep_batch_size",
    "modelkeep_batch_requests",
    "modelkeep_cache_bytes",
    "modelkeep_cache_entries",
    "modelkeep_inflight_requests",
    "modelkeep_build_info",
    "modelkeep_queue_depth",
    "modelkeep_model_asleep",
    "modelkeep_golden_differs",
    "modelkeep_deployment_ready",
    "modelkeep_replicas",
    "modelkeep_replicas_busy",
    "modelkeep_model_info",
    "modelkeep_model_load_seconds",
    "modelkeep_model_memory_bytes",
    "modelkeep_snapshot_number",
    "modelkeep_snapshot_age_seconds",
    "modelkeep_version_seconds",
    "modelkeep_version_runs",
    "modelkeep_last_run_timestamp_seconds",
}


async def scrape(house) -> dict[str, Metric]:
    answer = await house.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    return {name: family for name, family in families.items() if not name.endswith("_created")}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    found = [one for family in families.values() for one in family.samples if one.name == sample and one.labels == labels]
    return found[0].value if found else 0.0


async def test_the_names_are_those_that_dashboards_use(house) -> None:
    await house.serve("m")
    await house.client.post("/api/v1/predict/m", json={"inputs": [[1, 2]]})
    families = await scrape(house)
    assert families.keys() == NAMES
    assert all(family.documentation for family in families.values())
    assert value(families, "modelkeep_build_info", version="9.9") == 1


async def test_predictions_are_counted_by_outcome_and_rows(house, refuse: type[Exception]) -> None:
    def choosy(inputs: dict) -> dict:
        if inputs["input"][0, 0] < 0:
            raise refuse("model_failed", "stack")
        return {"sum": inputs["input"].sum(axis=1), "echo": inputs["input"]}

    await house.serve("m", compute=choosy, number=3)
    for inputs in ([[1, 2], [3, 4]], [[5, 6]], [[1, "x"]], [[-1, 0]]):
        await house.client.post("/api/v1/predict/m", json={"inputs": inputs})
    await house.client.post("/api/v1/predict/m", content=b"{")
    families = await scrape(house)
    outcomes = {
        outcome: value(families, "modelkeep_predictions_total", deployment="m", version="3", outcome=outcome)
        for outcome in ("ok", "rejected", "error")
    }
    assert outcomes == {"ok": 2, "rejected": 2, "error": 1}
    assert value(families, "modelkeep_prediction_rows_total", deployment="m", version="3") == 3
    for stage in ("total", "inference"):
        assert value(families, "modelkeep_prediction_duration_seconds_count", deployment="m", stage=stage) == 2
    assert value(families, "modelkeep_inflight_requests") == 1  # the scrape itself
    assert value(families, "modelkeep_deployment_ready", deployment="m") == 1
    assert value(families, "modelkeep_replicas", deployment="m") == 1
    assert value(families, "modelkeep_replicas_busy", deployment="m") == 0
    assert value(families, "modelkeep_model_info", deployment="m", version="3", digest="d" * 64, framework="fake") == 1
    assert value(families, "modelkeep_model_load_seconds", deployment="m") == 0.1
    memory = value(families, "modelkeep_model_memory_bytes", deployment="m")
    assert memory == pytest.approx(psutil.Process().memory_info().rss, rel=0.2), "the fake runner lives in this process"


async def test_requests_are_counted_by_route_even_when_they_are_refused(house) -> None:
    await house.serve("m")
    await house.client.post("/api/v1/predict/m", json={"inputs": [[1, 2]]})
    await house.client.post("/api/v1/predict/m", json={"inputs": [["x", 2]]})
    await house.client.post("/api/v1/predict/m", headers={"x-api-key": "nobody"})
    await house.client.get("/v2/models/none")
    await house.client.get("/healthz")
    await house.client.get("/anything/else")
    await house.client.request("BREW", "/anything/else")
    families = await scrape(house)
    counts = {
        (one.labels["route"], one.labels["method"], one.labels["code"]): one.value
        for one in families["modelkeep_http_requests"].samples
        if one.name.endswith("_total")
    }
    assert counts == {
        ("predict", "POST", "200"): 1,
        ("predict", "POST", "400"): 1,
        ("predict", "POST", "401"): 1,
        ("v2", "GET", "404"): 1,
        ("health", "GET", "200"): 1,
        ("control", "GET", "503"): 1,
        ("control", "OTHER", "503"): 1,
    }


async def test_made_up_names_and_addresses_make_no_new_series(house) -> None:
    await house.serve("m")
    before = len((await house.client.get("/metrics")).text.splitlines())
    for number in range(20):
        await house.client.post(f"/api/v1/predict/no-{number}", json={"inputs": [[1, 2]]})
        await house.client.post(f"/v2/models/no-{number}/infer", json={})
        await house.client.get(f"/no-{number}")
    assert len((await house.client.get("/metrics")).text.splitlines()) < before + 20


@pytest.mark.parametrize("name", ['quote"', "line\nbreak", "back\\slash", "żółć"])
async def test_labels_are_escaped(house, name: str) -> None:
    await house.serve(name)
    assert value(await scrape(house), "modelkeep_deployment_ready", deployment=name) == 1


def test_metrics_of_two_servers_in_one_process_do_not_clash(tmp_path: Path) -> None:
    assert Metrics("1", tmp_path / "one").text() != Metrics("2", tmp_path / "two").text()


def told(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}


def test_an_answer_is_counted_in_each_stage_it_had_and_in_no_other(tmp_path: Path) -> None:
    metrics = Metrics("1", tmp_path)
    meter = metrics.meter("m", 3)
    meter.answered(4, 0.011, 0.001, 0.009)
    meter.answered(2, 0.3, 0.0, 0.25, 0.002)
    meter.answered(1, 40.0, 0.0, 0.25, preprocess_s=0.004)
    families = told(metrics)
    duration = "modelkeep_prediction_duration_seconds"
    assert value(families, "modelkeep_predictions_total", deployment="m", version="3", outcome="ok") == 3
    assert value(families, "modelkeep_prediction_rows_total", deployment="m", version="3") == 7
    for stage, count, total in (
        ("total", 3, 40.311),
        ("queue", 3, 0.001),
        ("inference", 3, 0.509),
        ("postprocess", 1, 0.002),
        ("preprocess", 1, 0.004),
    ):
        assert value(families, f"{duration}_count", deployment="m", stage=stage) == count
        assert value(families, f"{duration}_sum", deployment="m", stage=stage) == pytest.approx(total)
    upto = [
        (bound, value(families, f"{duration}_bucket", deployment="m", stage="total", le=bound))
        for bound in ("0.01", "0.02", "0.5", "30.0", "+Inf")
    ]
    assert upto == [("0.01", 0), ("0.02", 1), ("0.5", 2), ("30.0", 2), ("+Inf", 3)]
    assert value(families, f"{duration}_bucket", deployment="m", stage="queue", le="0.001") == 3, "a bound is in its bucket"


def test_runs_and_those_turned_away_are_counted(tmp_path: Path) -> None:
    metrics = Metrics("1", tmp_path)
    meter = metrics.meter("m", 3)
    meter.ran(2, 64)
    meter.ran(1, 2000)
    for reason in ("queue", "queue", "deadline"):
        meter.turned_away(reason)
    families = told(metrics)
    assert value(families, "modelkeep_batch_size_sum", deployment="m") == 2064
    assert value(families, "modelkeep_batch_size_bucket", deployment="m", le="64.0") == 1
    assert value(families, "modelkeep_batch_requests_sum", deployment="m") == 3
    assert value(families, "modelkeep_batch_requests_count", deployment="m") == 2
    assert value(families, "modelkeep_queue_rejected_total", deployment="m", reason="queue") == 2
    assert value(families, "modelkeep_queue_rejected_total", deployment="m", reason="deadline") == 1


def test_a_deployment_that_was_never_asked_takes_no_series(tmp_path: Path) -> None:
    metrics = Metrics("1", tmp_path)
    before = metrics.text()
    for number in range(1000):
        metrics.meter(f"idle-{number}", 1)
    assert metrics.text() == before


def test_any_server_shows_the_numbers_of_all_and_the_one_that_replaces_a_killed_one_goes_on(tmp_path: Path) -> None:
    one, two = Metrics("1", tmp_path, 0), Metrics("1", tmp_path, 1)
    for server in (one, two):
        server.meter("m", 1).answered(1, 0.1, 0.0, 0.1)
        server.request("predict", "POST", 200)
        server.inflight_changed(1)
    assert one.text() == two.text()
    one.close()
    again = Metrics("1", tmp_path, 0)
    again.meter("m", 1).answered(1, 0.1, 0.0, 0.1)
    for server in (again, two):
        families = told(server)
        assert value(families, "modelkeep_predictions_total", deployment="m", version="1", outcome="ok") == 3
        assert value(families, "modelkeep_http_requests_total", route="predict", method="POST", code="200") == 2
        assert value(families, "modelkeep_inflight_requests") == 1


def test_the_history_is_followed_over_restarts(tmp_path: Path) -> None:
    for _ in range(2):
        counts = {"appended": 5, "dropped": 1}  # each process counts from its own start
        metrics = Metrics("1", tmp_path)
        metrics.watch_history(partial(counts.get, "appended", 0), partial(counts.get, "dropped", 0), lambda: None)
        metrics.publish()
        counts["appended"] += 2
        families = told(metrics)
        metrics.close()
    assert value(families, "modelkeep_prediction_log_records_total") == 14
    assert value(families, "modelkeep_prediction_log_dropped_total") == 2


def test_a_server_that_is_alone_writes_no_file_for_others(tmp_path: Path) -> None:
    metrics = Metrics("1", tmp_path)
    metrics.watch_history(lambda: 5, int, lambda: None)
    before = sorted(tmp_path.iterdir())
    metrics.publish(alone=True)
    assert sorted(tmp_path.iterdir()) == before
    assert value(told(Metrics("1", tmp_path, 1)), "modelkeep_prediction_log_records_total") == 5
    metrics.publish()
    assert sorted(tmp_path.iterdir()) != before


def test_how_the_history_is_loaded_is_shown_once_however_many_servers_see_it(tmp_path: Path) -> None:
    one, two = Metrics("1", tmp_path, 0), Metrics("1", tmp_path, 1)
    assert "modelkeep_prediction_log_lag_seconds" not in told(one)
    for server in (one, two):
        server.watch_history(int, int, lambda: (0.5, 2))
    two.publish()
    families = told(one)
    assert value(families, "modelkeep_prediction_log_lag_seconds") == 0.5
    assert value(families, "modelkeep_prediction_log_lost_total") == 2


async def test_a_servers_state_is_seen_through_another_while_it_lives(house, tmp_path: Path) -> None:
    await house.serve("m")
    folder = tmp_path / "shared"
    one, two = Metrics("1", folder, 0), Metrics("2", folder, 1)
    one.watch(house.router, house.keys)
    one.publish()
    families = told(two)
    assert value(families, "modelkeep_deployment_ready", deployment="m") == 1
    assert value(families, "modelkeep_snapshot_number") == house.router.snapshot.number
    assert (value(families, "modelkeep_build_info", version="1"), value(families, "modelkeep_build_info", version="2")) == (
        1,
        1,
    )
    one.close()
    assert "modelkeep_deployment_ready" not in told(two)


async def test_states_beyond_the_budget_are_folded_and_counted_once(house, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        await house.serve(name)
    metrics = Metrics("1", tmp_path / "few", label_sets=2)
    metrics.watch(house.router, house.keys)
    metrics.text()
    metrics.text()
    families = told(metrics)
    assert [one.labels["deployment"] for one in families["modelkeep_deployment_ready"].samples] == ["a", "b", "other"]
    assert value(families, "modelkeep_label_sets_dropped_total", metric="modelkeep_deployment_ready") == 2


async def test_who_asks_for_openmetrics_gets_it(house) -> None:
    answer = await house.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
