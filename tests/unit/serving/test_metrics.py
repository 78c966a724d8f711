"""Metrics: Prometheus reads them, they count what happened, and their labels stay few."""

from pathlib import Path

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
    "modelkeep_inflight_requests",
    "modelkeep_build_info",
    "modelkeep_queue_depth",
    "modelkeep_deployment_ready",
    "modelkeep_model_info",
    "modelkeep_snapshot_number",
    "modelkeep_snapshot_age_seconds",
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
    assert value(families, "modelkeep_model_info", deployment="m", version="3", digest="d" * 64, framework="fake") == 1


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
