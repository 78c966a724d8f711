"""What people have to look at, or to agree to, in the console."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from fixtures import artifacts
from fixtures.chromium import opened
from fixtures.console import FACES, PASSWORD, inhabited, is_well, log_in
from fixtures.installation import Installation, eventually


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation where two people remove models, with a rollout that cannot go on and so has opened an alert."""
    folder = tmp_path_factory.mktemp("place")
    with inhabited(folder / "data", MODELKEEP_ACCESS__TWO_PERSON="deletion") as installation:
        with installation.client() as client, installation.http() as admin:
            for width in (2, 3):
                file = folder / f"scores-{width}.onnx"
                file.write_bytes(artifacts.onnx_scores(width=width))
                client.push(file, "churn")
            client.push(file, "spare")
            client.promote("churn", 1)
            wanted = {"deployment": "churn", "version": 2, "steps": ["10:0s"], "patience_minutes": 0}
            admin.post("/api/v1/rollouts", json=wanted).raise_for_status()
            eventually(lambda: admin.get("/api/v1/alerts").raise_for_status().json()["items"], "the rollout is held")
        yield installation


def test_nothing_to_look_at_is_said_and_why(chromium: Browser, place: Installation, shots: Path):
    with opened(chromium, place.url) as seen:
        log_in(seen.page, "/alerts?state=resolved&severity=info")
        expect(seen.page.get_by_text("No alert is like that")).to_be_visible()
        is_well(seen)
        seen.page.goto("/approvals?state=expired")
        expect(seen.page.get_by_text("Nothing waits for a second person")).to_be_visible()
        is_well(seen)


@pytest.mark.parametrize("face", FACES)
def test_a_person_looks_at_an_alert_what_was_seen_and_says_so(chromium: Browser, place: Installation, shots: Path, face: str):
    with opened(chromium, place.url, **FACES[face]) as seen:
        page = seen.page
        log_in(page, "/alerts")
        row = page.get_by_role("row").filter(has_text="deployment churn").first
        expect(row).to_be_visible()
        is_well(seen)
        page.screenshot(path=shots / f"alerts-{face}.png")
        row.get_by_role("link").click()
        expect(page.get_by_role("heading", name="What was seen")).to_be_visible()
        is_well(seen)
        page.get_by_role("button", name="I look at it").click()
        page.get_by_label("Note").fill(f"<b>I</b> look, on a {face}")
        is_well(seen)
        page.get_by_role("dialog").get_by_role("button", name="I look at it").click()
        expect(page.get_by_text(f"<b>I</b> look, on a {face}")).to_be_visible()
        expect(page.get_by_role("dialog")).to_be_hidden()
        is_well(seen)
        page.screenshot(path=shots / f"alert-{face}.png")


def test_who_says_that_it_is_over_says_why(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/alerts")
        page.get_by_role("row").filter(has_text="deployment churn").first.get_by_role("link").click()
        page.get_by_role("button", name="It is over").click()
        page.get_by_role("dialog").get_by_role("button", name="It is over").click()
        assert page.get_by_label("Why").evaluate("one => one.validity.valueMissing"), "not without a reason"
        page.get_by_label("Why").fill("Version 4 is trained on clean rows.")
        page.get_by_role("dialog").get_by_role("button", name="It is over").click()
        expect(page.get_by_text("Version 4 is trained on clean rows.")).to_be_visible()
        expect(page.get_by_role("button", name="It is over")).to_be_hidden()
    with place.http() as admin:
        assert {one["resolved_why"] for one in admin.get("/api/v1/alerts").json()["items"]} == {
            "Version 4 is trained on clean rows."
        }


def test_a_second_person_approves_one_thing_and_refuses_another(chromium: Browser, place: Installation, shots: Path):
    with place.http() as admin:
        made = admin.post("/api/v1/users", json={"name": "bob", "email": "bob@example.org", "role": "admin"}).raise_for_status()
        link = admin.post(f"/api/v1/users/{made.json()['id']}/reset-password").raise_for_status().json()
        admin.post("/api/v1/auth/reset-password", json={"token": link["token"], "password": PASSWORD}).raise_for_status()
        given = admin.post("/api/v1/auth/login", json={"email": "bob@example.org", "password": PASSWORD}).raise_for_status()
    with httpx.Client(base_url=place.url, headers={"Authorization": f"Bearer {given.json()['access_token']}"}) as bob:
        asked = [bob.post(f"/api/v1/models/{name}/archive").json() for name in ("churn", "spare")]
        with opened(chromium, place.url) as seen:
            page = seen.page
            log_in(page, "/approvals?state=pending")
            expect(page.get_by_role("button", name=re.compile("^Approve: "))).to_have_count(2)
            is_well(seen)
            page.screenshot(path=shots / "approvals.png")
            page.get_by_role("button", name=re.compile("^Approve: .*churn")).click()
            expect(page.get_by_role("dialog")).to_contain_text("bob may then do this once")
            is_well(seen)
            page.get_by_role("dialog").get_by_role("button", name="Approve").click()
            expect(page.get_by_role("button", name=re.compile("^Approve: "))).to_have_count(1)
            page.get_by_role("button", name=re.compile("^Refuse: ")).click()
            page.get_by_label("Why").fill("Not today.")
            page.get_by_role("dialog").get_by_role("button", name="Refuse").click()
            expect(page.get_by_text("Nothing waits for a second person")).to_be_visible()
        states = [bob.get(f"/api/v1/approvals/{one['approval']}").json()["state"] for one in asked]
    assert states == ["approved", "refused"]
