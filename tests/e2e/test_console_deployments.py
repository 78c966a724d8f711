"""Who answers how much: seen, changed after its plan was read, and taken back, in the console."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from fixtures import artifacts
from fixtures.chromium import opened
from fixtures.console import FACES, inhabited, is_well, log_in
from fixtures.installation import Installation


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with a model of three versions, of which the second answers, and the first did before."""
    folder = tmp_path_factory.mktemp("place")
    with inhabited(folder / "data") as installation:
        with installation.client() as client:
            for width in (2, 3, 4):
                file = folder / f"scores-{width}.onnx"
                file.write_bytes(artifacts.onnx_scores(width=width))
                client.push(file, "churn")
            client.promote("churn", 1)
            client.promote("churn", 2)
        yield installation


@pytest.mark.parametrize("face", FACES)
def test_a_reader_sees_who_answers_and_what_was_before(chromium: Browser, place: Installation, shots: Path, face: str):
    with opened(chromium, place.url, **FACES[face]) as seen:
        page = seen.page
        log_in(page, "/deployments")
        expect(page.get_by_role("row").filter(has_text="churn")).to_contain_text("(promoted)")
        is_well(seen)
        page.screenshot(path=shots / f"deployments-{face}.png")
        page.get_by_role("link", name="churn").click()
        expect(page.get_by_role("heading", name="History")).to_be_visible()
        expect(page.get_by_text("a version promoted").first).to_be_visible()
        page.get_by_role("button", name="Change").click()
        expect(page.get_by_role("slider")).to_have_count(2)
        is_well(seen)
        page.screenshot(path=shots / f"deployment-{face}.png", full_page=True)


def test_shares_are_set_by_keyboard_after_the_plan_is_read_and_everything_is_taken_back(
    chromium: Browser, place: Installation, shots: Path
):
    def traffic() -> tuple[int, dict[str, float]]:
        with place.http() as http:
            said = http.get("/api/v1/deployments/churn").json()
            return said["version"], said["traffic"]["split"]

    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/deployments/churn")
        page.get_by_role("button", name="Change").click()
        page.get_by_role("slider", name="Version 3").focus()
        for _ in range(7):
            page.keyboard.press("ArrowRight")
        page.get_by_label("Why").fill("<i>7 %</i> for a day")
        page.get_by_role("button", name="See the plan").click()
        expect(page.get_by_role("row").filter(has_text="begins to answer")).to_contain_text("7 %")
        is_well(seen)
        page.screenshot(path=shots / "deployment-plan.png", full_page=True)
        assert traffic() == (2, {}), "a plan changes nothing"
        page.get_by_role("button", name="Do it").click()
        expect(page.get_by_text("<i>7 %</i> for a day")).to_be_visible()
        assert traffic() == (2, {"3": 7.0})

        page.get_by_role("button", name="Roll back", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("Then:")
        is_well(seen)
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        assert traffic() == (2, {"3": 7.0}), "nothing is done before it is confirmed"
        page.get_by_role("button", name="Go back to revision 1").click()
        expect(page.get_by_role("dialog")).to_contain_text("version 1 (promoted) 100 %")
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.get_by_text("gone back")).to_be_visible()
        assert traffic() == (1, {})
        page.get_by_role("button", name="Roll back", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.get_by_role("alert")).to_contain_text("name the revision to go back to")
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Go back to revision 2").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.get_by_text("gone back")).to_have_count(2)
        assert traffic()[0] == 2


def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/deployments/churn")
        page.get_by_role("button", name="Change").click()
        page.get_by_label("Version 3, percent").fill("20")
        page.get_by_role("button", name="See the plan").click()
        expect(page.get_by_role("button", name="Do it")).to_be_visible()
        with place.http() as http:
            http.patch("/api/v1/deployments/churn", json={"settings": {"deadline_s": 3}}).raise_for_status()
        page.get_by_role("button", name="Do it").click()
        expect(page.get_by_role("alert")).to_be_visible()
        with place.http() as http:
            assert http.get("/api/v1/deployments/churn").json()["traffic"]["split"].get("3") != 20
