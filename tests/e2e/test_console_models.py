"""People who push models in the console: by a file or a drop, until they answer; and who read and compare their versions."""

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from fixtures import artifacts
from fixtures.chromium import Seen, opened
from fixtures.installation import Installation, eventually
from modelkeep.client import Client

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
FACES = {
    "desktop-light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
CARD = "# Churn\n\n*Who* leaves?\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<img src=x onerror=alert(1)> [x](javascript:alert(1))"
DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name));
  const place = document.querySelector('main h1');
  for (const kind of ['dragenter', 'dragover', 'drop']) {
    place.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that nobody has set up."""
    installation = Installation(tmp_path_factory.mktemp("place") / "data").start()
    try:
        token = installation.wait().data / "setup-token"
        eventually(token.exists, "a setup token")
        yield installation
    finally:
        installation.stop()


@pytest.fixture(scope="module")
def shots(request: pytest.FixtureRequest) -> Path:
    """Where pictures of pages are kept."""
    folder = Path(request.config.rootpath, ".cache/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_well(seen: Seen) -> None:
    """Nothing is wrong with what is shown: for the browser, a reader with a disability, and who watches the network."""
    assert (found := seen.faults()) == [], found
    assert (seen.complaints, seen.elsewhere) == ([], [])
    wide = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0, "the page itself does not scroll sideways"


def log_in(page: Page, to: str) -> None:
    page.goto(to)
    page.get_by_label("E-mail").fill(EMAIL)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_who_has_set_up_pushes_a_model_by_a_file_and_sees_it_become_ready(
    chromium: Browser, place: Installation, shots: Path, tmp_path: Path
):
    model = tmp_path / "Churn v1.onnx"
    model.write_bytes(artifacts.onnx_scores())
    with opened(chromium, place.url, **FACES["desktop-light"]) as seen:
        page = seen.page
        page.goto("/")
        page.get_by_label("Token").fill((place.data / "setup-token").read_text())
        page.get_by_label("E-mail").fill(EMAIL)
        page.locator("input[name=password]").fill(PASSWORD)
        page.get_by_role("button", name="Set up").click()
        place.key = page.locator("pre").inner_text()
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_text("There is no model yet")).to_be_visible()
        is_well(seen)
        page.screenshot(path=shots / "models-empty.png")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a file").press("Enter")
        chooser.value.set_files(model)
        expect(page.get_by_role("textbox", name="Name")).to_have_value("churn-v1")
        page.get_by_role("textbox", name="Name").fill("churn")
        page.get_by_role("button", name="Say more of it").click()
        page.get_by_role("textbox", name="Description").fill(CARD)
        is_well(seen)
        page.screenshot(path=shots / "push.png", full_page=True)
        page.get_by_role("button", name="Push", exact=True).click()
        expect(page).to_have_url(f"{place.url}/models/churn/versions/1")
        expect(page.get_by_role("status")).to_have_text("Ready, and answers predictions")
        for step in ("Stored", "Load", "Sample", "Answers", "Speed", "Memory", "Compiled"):
            told = page.get_by_role("listitem").filter(has_text=re.compile(rf"{step}.+"))  # more than its name
            expect(told.first).to_be_visible()
        is_well(seen)
        assert any(url.endswith("/versions/1/events") for url in seen.requests), "it was watched, not asked for again and again"


def test_a_file_that_is_dropped_on_the_list_becomes_the_next_version_and_is_promoted_when_asked(
    chromium: Browser, place: Installation, shots: Path
):
    with opened(chromium, place.url, **FACES["desktop-light"]) as seen:
        page = seen.page
        log_in(page, "/models")
        expect(page.get_by_role("link", name="churn")).to_be_visible()
        page.evaluate(DROP, ["churn.onnx", base64.b64encode(artifacts.onnx_scores(factor=2.0)).decode()])
        expect(page.get_by_role("textbox", name="Name")).to_have_value("churn")
        page.get_by_role("button", name="Push", exact=True).click()
        expect(page).to_have_url(f"{place.url}/models/churn/versions/2")
        expect(page.get_by_role("status")).to_have_text("Ready: it answers once it is promoted")
        is_well(seen)
        page.get_by_role("button", name="Promote").click()
        expect(page.get_by_role("dialog")).to_contain_text("no more those of version 1")
        is_well(seen)
        page.screenshot(path=shots / "promote.png")
        page.get_by_role("button", name="Promote version 2").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.get_by_role("status")).to_have_text("Ready, and answers predictions")
    with place.client() as client:
        assert client.deployment("churn").version == 2


def test_what_will_not_be_taken_is_refused_before_it_is_sent_and_said(chromium: Browser, place: Installation, tmp_path: Path):
    model = tmp_path / "churn.xyz"
    model.write_bytes(b"no model")
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/push?name=churn")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a file").click()
        chooser.value.set_files(model)
        page.get_by_role("button", name="Push", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text(".xyz")
        assert seen.faults() == []
        assert not any("/versions?" in url for url in seen.requests)
        expect(page.get_by_role("textbox", name="Name")).to_have_value("churn")


def test_a_file_that_is_no_model_is_taken_and_refused_with_advice(chromium: Browser, place: Installation, tmp_path: Path):
    model = tmp_path / "bad.onnx"
    model.write_bytes(b"no model")
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/push?name=bad")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a file").click()
        chooser.value.set_files(model)
        page.get_by_role("button", name="Push", exact=True).click()
        expect(page.get_by_role("status")).to_have_text("Refused: it will not serve")
        expect(page.get_by_role("alert")).to_contain_text("Rejected")
        expect(page.get_by_role("link", name="Push another version")).to_have_attribute("href", "/push?name=bad")
        is_well(seen)


def test_the_command_that_is_shown_pushes_with_a_key_of_its_own(chromium: Browser, place: Installation, tmp_path: Path):
    (tmp_path / "churn.joblib").write_bytes(artifacts.onnx_scores(factor=3.0))
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/push?name=shell")
        page.get_by_role("button", name="Show me the command").click()
        ours = page.get_by_role("region", name="the command", exact=True).inner_text()
        plain = page.get_by_role("region", name="the request", exact=True).inner_text()
        is_well(seen)
    assert re.match(r"modelkeep push churn\.joblib --name shell ", ours)
    key = re.findall(r"--key (\S+)", ours)[0]
    with Client(place.url, key) as client:
        assert client.me().user.email == EMAIL
    given = plain.replace("churn.joblib", "shell.onnx")
    (tmp_path / "churn.joblib").rename(tmp_path / "shell.onnx")
    subprocess.run(["/bin/sh", "-c", given], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    with place.client() as client:
        assert client.wait_ready("shell", 1).state == "ready"


@pytest.mark.parametrize("face", FACES)
def test_a_version_is_read_part_by_part_and_compared_with_another(
    chromium: Browser, place: Installation, shots: Path, face: str
):
    with opened(chromium, place.url, **FACES[face]) as seen:
        page = seen.page
        log_in(page, "/models/churn/versions/1")
        expect(page.get_by_role("heading", name="Takes")).to_be_visible()
        is_well(seen)
        page.screenshot(path=shots / f"version-overview-{face}.png", full_page=True)
        for tab, sees in (
            ("Lineage", "It stands alone"),
            ("Files", "Churn v1.onnx"),
            ("Changes", "Nothing has happened"),
        ):
            page.get_by_role("tab", name=tab).click()
            expect(page.get_by_role("tabpanel")).to_contain_text(sees)
            expect(page).to_have_url(f"{place.url}/models/churn/versions/1?tab={tab.lower()}")
            is_well(seen)
            page.screenshot(path=shots / f"version-{tab.lower()}-{face}.png")
        page.get_by_role("tab", name="Card").click()
        expect(page.get_by_role("tabpanel").get_by_role("heading", name="Churn")).to_be_visible()
        assert page.get_by_role("tabpanel").locator("img, script, a[href]").count() == 0
        is_well(seen)
        page.screenshot(path=shots / f"version-card-{face}.png")
        page.goto("/models/churn/compare?a=1&b=2")
        expect(page.get_by_role("heading", name="Measured")).to_be_visible()
        expect(page.get_by_role("row").filter(has_text="SHA-256")).to_contain_text("differs")
        is_well(seen)
        page.screenshot(path=shots / f"compare-{face}.png", full_page=True)


def test_the_uploaded_file_comes_back_and_a_card_is_written_anew(chromium: Browser, place: Installation):
    with opened(chromium, place.url) as seen:
        page = seen.page
        log_in(page, "/models/churn/versions/1?tab=files")
        with page.expect_download() as download:
            page.get_by_role("link", name="Churn v1.onnx").click()
        assert Path(download.value.path()).read_bytes() == artifacts.onnx_scores()
        assert download.value.suggested_filename == "Churn v1.onnx"
        page.get_by_role("tab", name="Card").click()
        page.get_by_role("button", name="Edit").click()
        page.get_by_label("Model card").fill("Written **anew**")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("strong")).to_have_text("anew")
        is_well(seen)
    with place.client() as client:
        assert client.version("churn", 1).description == "Written **anew**"
