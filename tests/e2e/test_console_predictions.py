"""A prediction that somebody asks about: found by the id of its request, opened, and taken along, in the console."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from fixtures import artifacts
from fixtures.chromium import opened
from fixtures.console import FACES, inhabited, is_well, log_in
from fixtures.installation import Installation, eventually

REQUESTS = ["order-4711", "order-4712", "order-4713"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation where some predictions were made, and one was refused."""
    folder = tmp_path_factory.mktemp("place")
    with inhabited(folder / "data") as installation:
        with installation.client() as client, installation.http() as http:
            file = folder / "scores.onnx"
            file.write_bytes(artifacts.onnx_scores())
            client.push(file, "churn")
            client.promote("churn", 1)
            for at, name in enumerate(REQUESTS):
                asked = {"inputs": [[0.25, 41, at, 3]]}
                http.post("/api/v1/predict/churn", json=asked, headers={"X-Request-ID": name}).raise_for_status()
            eventually(lambda: len(http.get("/api/v1/predictions").json()["items"]) == len(REQUESTS), "all are in the history")
        yield installation


@pytest.mark.parametrize("face", FACES)
def test_a_prediction_is_found_by_its_request_and_opened(chromium: Browser, place: Installation, shots: Path, face: str):
    with opened(chromium, place.url, **FACES[face]) as seen:
        page = seen.page
        log_in(page, "/predictions")
        expect(page.get_by_role("row")).to_have_count(1 + len(REQUESTS))
        is_well(seen)
        page.screenshot(path=shots / f"predictions-{face}.png")
        page.get_by_label("Request's id").fill("order-4712")
        page.get_by_label("From").fill("2020-01-01T00:00")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_role("row")).to_have_count(2)
        expect(page).to_have_url(re.compile("request_id=order-4712"))
        page.reload()
        expect(page.get_by_role("row")).to_have_count(2)
        expect(page.get_by_label("From")).to_have_value("2020-01-01T00:00")
        page.get_by_role("row").last.get_by_role("link").click()
        expect(page.get_by_role("region", name="What went in")).to_contain_text("41")
        expect(page.get_by_text("the model")).to_be_visible()
        is_well(seen)
        page.screenshot(path=shots / f"prediction-{face}.png", full_page=True)


def test_what_is_found_is_taken_along_and_nothing_else(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/predictions?request_id=order-4711")
        with page.expect_download() as download:
            page.get_by_role("link", name="JSON lines").click()
        lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
        assert [line["request_id"] for line in lines] == ["order-4711"]


def test_where_there_is_none_like_that_it_is_said(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/predictions?outcome=error&since=nonsense")
        expect(page.get_by_text("No prediction is like that")).to_be_visible()
        is_well(seen)
        page.get_by_role("button", name="All of them").click()
        expect(page.get_by_role("row")).to_have_count(1 + len(REQUESTS))
        seen.complaints.clear()
        page.goto("/predictions/prd_none")
        expect(page.get_by_role("alert")).to_be_visible()
