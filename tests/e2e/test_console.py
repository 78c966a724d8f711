"""The console in a real browser, from a real installation: no complaint, nothing asked of others, and a policy that holds."""

from collections.abc import Iterator
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, expect

from fixtures.chromium import opened
from fixtures.installation import Installation

SCHEMES = {"Light": ("light", "rgb(255, 255, 255)"), "Dark": ("dark", "rgb(36, 36, 36)")}


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """The console that is looked at."""
    assert (files("modelkeep") / "console/index.html").is_file(), "make web"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that nobody has set up."""
    installation = Installation(tmp_path_factory.mktemp("fresh") / "data").start()
    try:
        yield installation.wait()
    finally:
        installation.stop()


@pytest.mark.parametrize("name", SCHEMES)
def test_colours_are_chosen_and_kept(chromium: Browser, fresh: Installation, name: str):
    """They come from a style element, which the page's policy lets in for the word that this very page has."""
    scheme, background = SCHEMES[name]
    with opened(chromium, fresh.url, color_scheme="light" if scheme == "dark" else "dark") as seen:
        seen.page.goto("/")
        seen.page.get_by_role("radiogroup", name="Colours").get_by_text(name).click()
        for _again in range(2):
            expect(seen.page.locator("html")).to_have_attribute("data-mantine-color-scheme", scheme)
            expect(seen.page.locator("body")).to_have_css("background-color", background)
            seen.page.reload()
        assert seen.complaints == []


def test_colours_are_the_readers_own_unless_they_choose(chromium: Browser, fresh: Installation):
    with opened(chromium, fresh.url, color_scheme="dark") as seen:
        seen.page.goto("/")
        expect(seen.page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")


def test_an_address_that_is_no_page_leads_back_to_one(chromium: Browser, fresh: Installation):
    with opened(chromium, fresh.url) as seen:
        seen.page.goto("/no/such/page")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("There is no such page")
        seen.page.get_by_role("link", name="Go to the first page").click()
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Set up this installation")
        assert (seen.complaints, seen.elsewhere) == ([], [])


@pytest.mark.parametrize(
    ("attack", "directive"),
    [
        ("fetch('http://127.0.0.1:9/').catch(() => {})", "connect-src"),
        ("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/p.png'}))", "img-src"),
        ("document.head.append(Object.assign(document.createElement('script'), {textContent: 'alert(1)'}))", "script-src-elem"),
        ("document.head.append(Object.assign(document.createElement('style'), {textContent: 'a{}'}))", "style-src-elem"),
        ("document.body.setAttribute('style', 'color: red')", "style-src-attr"),
        ("document.body.setAttribute('onclick', 'alert(1)')", "script-src-attr"),
        ("document.head.append(Object.assign(document.createElement('base'), {href: 'http://127.0.0.1:9/'}))", "base-uri"),
    ],
)
def test_what_hostile_text_might_have_a_page_do_is_stopped(chromium: Browser, fresh: Installation, attack: str, directive: str):
    with opened(chromium, fresh.url) as seen:
        seen.page.goto("/")
        stopped = "addEventListener('securitypolicyviolation', event => done(event.effectiveDirective))"
        assert seen.page.evaluate(f"() => new Promise(done => {{ {stopped}; {attack}; }})") == directive
