"""The web console, as the real app serves it: who gets a page, what a browser may keep, and what a page may load."""

import gzip
import re
from pathlib import Path

import httpx
import pytest

from fixtures.access import table
from modelkeep.api import console as console_pages
from modelkeep.api.console import PROGRAMS, Built

PAGE = b'<!doctype html><meta property="csp-nonce" nonce="%nonce%"><script src="/assets/a-1.js" nonce="%nonce%"></script>'
SCRIPT = b"console.log(1);" * 50
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a build leaves."""
    made = tmp_path / "console"
    (made / "assets").mkdir(parents=True)
    (made / "index.html").write_bytes(PAGE)
    (made / "licenses.md").write_text("MIT")
    (made / "assets/a-1.js").write_bytes(SCRIPT)
    (made / "assets/a-1.js.gz").write_bytes(gzip.compress(SCRIPT))
    (made / "assets/b-2.css").write_text("a{}")
    (made / "assets/c-3.svg").write_text("<svg/>")
    (tmp_path / "secret.js").write_text("secret")
    return made


@pytest.fixture
def console(folder: Path) -> Built:
    return console_pages.read(folder)


@pytest.fixture
def browser(stranger: httpx.AsyncClient) -> httpx.AsyncClient:
    """A browser that goes to addresses; nothing here is in the OpenAPI document, so no answer is held to that."""
    stranger.event_hooks = {}
    stranger.headers.update(BROWSER)
    return stranger


@pytest.mark.parametrize("path", ["/", "/models/churn", "/nothing/here", "/api-keys"])
async def test_a_browser_gets_the_page_at_every_address_that_is_nothing_else(browser: httpx.AsyncClient, path: str):
    answer = await browser.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "etag" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]


async def test_each_page_has_a_word_of_its_own_that_its_policy_asks_for(browser: httpx.AsyncClient):
    pages = [await browser.get("/") for _ in range(2)]
    words = [re.findall('nonce="([^"]+)"', page.text) for page in pages]
    for page, (word, again) in zip(pages, words, strict=True):
        assert word == again
        assert len(word) >= 22
        assert f"style-src 'self' 'nonce-{word}';" in page.headers["content-security-policy"]
    assert words[0] != words[1]


async def test_a_page_may_load_what_comes_from_here_and_nothing_else(browser: httpx.AsyncClient):
    said = (await browser.get("/")).headers["content-security-policy"]
    policy = dict(one.split(" ", 1) for one in said.split("; "))
    assert policy.pop("style-src").startswith("'self' 'nonce-")
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data: blob:",
        "font-src": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "form-action": "'self'",
    }


@pytest.mark.parametrize("path", ["/api", "/api/v1/nothing", "/v2/nothing", "/docs", "/redoc/x", "/metrics/x", "/v1/x"])
async def test_what_is_for_programs_is_answered_as_ever(browser: httpx.AsyncClient, admin_key: str, path: str):
    answer = await browser.get(path)
    assert answer.status_code == 401
    assert answer.headers["content-type"] in {"application/problem+json", "application/json"}
    unknown = await browser.get(path, headers={"X-API-Key": admin_key})
    assert unknown.status_code == (200 if path == "/docs" else 404)
    assert "assets" not in unknown.text


def test_all_that_has_routes_is_for_programs():
    assert {path.split("/")[1] for _method, path in table()} <= PROGRAMS


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing/here"), ("POST", "/"), ("DELETE", "/assets/a-1.js")])
async def test_whoever_is_no_browser_is_told_that_there_is_nothing(stranger: httpx.AsyncClient, method: str, path: str):
    answer = await stranger.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("accepts", "packed"),
    [("gzip, deflate, br", True), ("br;q=1, gzip;q=0.5", True), ("gzip;q=0", False), ("br, GZIP ; q=0.0", False), ("", False)],
)
async def test_a_part_is_kept_for_ever_and_packed_for_whom_takes_it_so(browser: httpx.AsyncClient, accepts: str, packed: bool):
    answer = await browser.get("/assets/a-1.js", headers={"accept-encoding": accepts})
    assert answer.content == SCRIPT
    assert answer.headers.get("content-encoding", "") == ("gzip" if packed else "")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_parts_are_what_their_names_say(browser: httpx.AsyncClient):
    style, picture = await browser.get("/assets/b-2.css"), await browser.get("/assets/c-3.svg")
    assert (style.headers["content-type"], picture.headers["content-type"]) == ("text/css; charset=utf-8", "image/svg+xml")
    assert picture.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/gone-0.js",
        "/assets/a-1.js.gz",
        "/assets/..%2f..%2fsecret.js",
        "/assets/%2e%2e/index.html",
        "/assets//a-1.js",
        "/assets/a-1.js%00",
    ],
)
async def test_nothing_is_served_but_what_was_built(browser: httpx.AsyncClient, path: str):
    answer = await browser.send(browser.build_request("GET", httpx.URL("http://api").copy_with(raw_path=path.encode())))
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_route")


async def test_head_says_what_get_would(browser: httpx.AsyncClient):
    answer = await browser.head("/assets/b-2.css")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "3", b"")


class TestNotBuilt:
    """A checkout in which nobody has built the console."""

    @pytest.fixture
    def console(self, tmp_path: Path) -> Built:
        return console_pages.read(tmp_path / "nothing")

    @pytest.mark.parametrize("path", ["/", "/models/churn"])
    async def test_a_browser_is_told_that_there_is_no_console_and_what_to_do(self, browser: httpx.AsyncClient, path: str):
        answer = await browser.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "console_not_built")
        assert "make web" in answer.json()["detail"]

    async def test_all_else_works(self, browser: httpx.AsyncClient):
        assert (await browser.get("/api/v1/health")).json() == {"status": "ok"}
