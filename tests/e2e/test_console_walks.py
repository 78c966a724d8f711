"""People in the console: who sets up, logs in, looks at models, and leaves; on desktops and phones, in both colours."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from fixtures import artifacts
from fixtures.chromium import opened
from fixtures.console import EMAIL, FACES, HOSTILE, PASSWORD, inhabited, is_well, log_in
from fixtures.installation import Installation, eventually
from modelkeep.client import Client, ModelkeepError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with an administrator who can log in, and two models: one that is ready, and one that was refused."""
    folder = tmp_path_factory.mktemp("place")
    with inhabited(folder / "data") as installation:
        with installation.client() as client:
            good, bad = folder / "scores.onnx", folder / "bad.onnx"
            good.write_bytes(artifacts.onnx_scores())
            bad.write_bytes(b"this is no model")
            client.push(good, "churn")
            client.describe("churn", HOSTILE)
            client.promote("churn", 1)
            with pytest.raises(ModelkeepError):
                client.push(bad, "churn", format="onnx")
        yield installation


def test_an_administrator_sets_up_gets_a_key_once_and_finds_an_empty_page_that_helps(
    chromium: Browser, tmp_path: Path, shots: Path
):
    installation = Installation(tmp_path / "data").start()
    try:
        token = installation.wait().data / "setup-token"
        eventually(token.exists, "a setup token")
        with opened(chromium, installation.url) as seen:
            page = seen.page
            page.goto("/models")
            expect(page.get_by_role("heading", level=1)).to_have_text("Set up this installation")
            is_well(seen)
            page.screenshot(path=shots / "setup.png")
            page.get_by_label("Token").fill(token.read_text())
            page.get_by_label("E-mail").fill(EMAIL)
            page.locator("input[name=password]").fill(PASSWORD)
            page.get_by_role("button", name="Set up").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("You are the administrator")
            key = page.locator("pre").inner_text()
            is_well(seen)
            page.get_by_role("button", name="Go on").click()
            expect(page.get_by_text("There is no model yet")).to_be_visible()
            expect(page).to_have_url(re.compile("/models$"))
            is_well(seen)
            page.screenshot(path=shots / "empty.png")
            page.goto("/setup")
            expect(page.get_by_role("heading", level=1)).to_have_text("Models")
        with Client(installation.url, key) as client:
            assert client.me().user.email == EMAIL
    finally:
        installation.stop()


def test_the_key_is_told_also_where_the_login_after_it_fails(chromium: Browser, tmp_path: Path):
    installation = Installation(tmp_path / "data").start()
    try:
        token = installation.wait().data / "setup-token"
        eventually(token.exists, "a setup token")
        with opened(chromium, installation.url) as seen:
            page = seen.page
            page.route("**/auth/browser/login", lambda route: route.abort())
            page.goto("/")
            page.get_by_label("Token").fill(token.read_text())
            page.get_by_label("E-mail").fill(EMAIL)
            page.locator("input[name=password]").fill(PASSWORD)
            page.get_by_role("button", name="Set up").click()
            with Client(installation.url, page.locator("pre").inner_text()) as client:
                assert client.me().user.email == EMAIL
            page.get_by_role("button", name="Go on").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    finally:
        installation.stop()


def test_a_wrong_password_is_said_and_what_was_typed_stays(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        page.goto("/models")
        page.get_by_label("E-mail").fill(EMAIL)
        page.locator("input[name=password]").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_label("E-mail")).to_have_value(EMAIL)
        assert seen.faults() == []


@pytest.mark.parametrize("face", FACES)
def test_a_reader_finds_a_model_its_versions_and_why_one_was_refused(
    chromium: Browser, place: Installation, shots: Path, face: str
):
    with opened(chromium, place.url, **FACES[face]) as seen:
        page = seen.page
        page.goto("/models/churn")
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        is_well(seen)
        page.screenshot(path=shots / f"login-{face}.png")
        log_in(page, "/models")
        expect(page.get_by_role("link", name="churn")).to_be_visible()
        expect(page.get_by_text(HOSTILE)).to_be_visible()
        is_well(seen)
        page.screenshot(path=shots / f"models-{face}.png")
        page.get_by_role("link", name="churn").click()
        expect(page.get_by_role("row").filter(has_text="promoted")).to_contain_text("Version 1")
        is_well(seen)
        page.screenshot(path=shots / f"model-{face}.png")
        page.get_by_role("link", name="Version 2").click()
        expect(page.get_by_role("alert")).to_contain_text("Rejected")
        is_well(seen)
        page.go_back()
        page.get_by_role("link", name="Version 1").click()
        expect(page.get_by_role("heading", name="Takes")).to_be_visible()
        is_well(seen)
        page.screenshot(path=shots / f"version-{face}.png")
        page.reload()
        expect(page.get_by_role("heading", name="Takes")).to_be_visible()


def test_an_address_is_kept_over_the_login_and_leads_nowhere_else(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        log_in(seen.page, "/models?shelf=archived")
        expect(seen.page).to_have_url(f"{place.url}/models?shelf=archived")
    for elsewhere in ("//example.org/", "/\\\\example.org", "https://example.org", "javascript:alert(1)"):
        with opened(chromium, place.url) as seen:
            seen.page.goto("/login")
            seen.page.evaluate("to => history.replaceState(null, '', '/login?to=' + encodeURIComponent(to))", elsewhere)
            seen.page.reload()
            log_in(seen.page, seen.page.url)
            expect(seen.page).to_have_url(re.compile(f"^{re.escape(place.url)}/models"))
            assert seen.elsewhere == []


def test_who_logs_out_leaves_nothing_behind(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/models")
        expect(page.get_by_role("link", name="churn")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        assert page.context.cookies() == []
        page.go_back()
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
        assert seen.complaints == []


def test_a_model_that_there_is_not_is_said(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        log_in(seen.page, "/models/nobody")
        expect(seen.page.get_by_role("alert")).to_contain_text("There is no")
        seen.page.goto("/models/churn/versions/x")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("There is no such page")


def test_who_works_by_keyboard_goes_to_a_model_by_its_name(chromium: Browser, place: Installation, shots: Path):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page)
        expect(page.get_by_role("link", name="churn")).to_be_visible()
        page.keyboard.press("Control+k")
        expect(page.get_by_placeholder("Go to a page or a model")).to_be_focused()
        page.keyboard.type("chu")
        expect(page.get_by_role("button", name="churn")).to_be_visible()
        is_well(seen)
        page.screenshot(path=shots / "palette.png")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("churn")
        expect(page).to_have_title("churn · Modelkeep")
        page.keyboard.press("Tab")
        assert page.evaluate("document.querySelector('main').contains(document.activeElement)"), "and goes on in it"


def test_who_looks_for_a_model_by_a_part_of_its_name_finds_it_and_the_address_says_so(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page)
        page.get_by_label("Search by name").fill("URN")
        expect(page).to_have_url(re.compile(r"\?search=URN$"))
        expect(page.get_by_role("link", name="churn")).to_be_visible()
        page.get_by_label("Search by name").fill("%")
        expect(page.get_by_text("No model is called so")).to_be_visible()
        is_well(seen)
        page.reload()
        expect(page.get_by_label("Search by name")).to_have_value("%")
        expect(page.get_by_text("No model is called so")).to_be_visible()


def test_what_an_address_says_beside_the_point_is_no_question_to_the_server(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        seen.page.goto("/?sign_on_error=access_denied")
        expect(seen.page.get_by_role("alert")).to_contain_text("access_denied")
        log_in(seen.page, "/models?shelf=lost&search=churn&other=1")
        expect(seen.page.get_by_role("link", name="churn")).to_be_visible()
        is_well(seen)
