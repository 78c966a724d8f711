"""Sessions of browsers: tokens in cookies that scripts cannot read, and pages of others that cannot use them."""

from http.cookies import SimpleCookie

import httpx
import pytest

from fixtures.control import TestClock
from fixtures.people import EMAIL, PASSWORD, People
from modelkeep.infra import cookies

LOGIN = "/api/v1/auth/browser/login"
REFRESH = "/api/v1/auth/browser/refresh"
SESSION = "/api/v1/auth/browser"
WRONG_PAGE = {"sec-fetch-site": "cross-site"}


class Browser:
    """Keeps cookies as browsers do, on a line that is taken for a secure one."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.jar: dict[str, str] = {}
        self.csrf = ""

    async def ask(self, method: str, path: str, **more: object) -> httpx.Response:
        sent = {
            name: value for name, value in self.jar.items() if name != cookies.REFRESH or path.startswith(cookies.REFRESH_PATH)
        }
        given = {"cookie": "; ".join(f"{name}={value}" for name, value in sent.items())} if sent else {}
        headers = {"x-csrf-token": self.csrf, "sec-fetch-site": "same-origin", **given, **more.pop("headers", {})}  # type: ignore[dict-item]
        answer = await self.client.request(method, path, headers=headers, **more)
        for line in answer.headers.get_list("set-cookie"):
            ((name, morsel),) = SimpleCookie(line).items()
            assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Strict")
            assert morsel["path"] == (cookies.REFRESH_PATH if name == cookies.REFRESH else "/")
            assert not morsel["domain"]
            if morsel["max-age"] == "0":
                self.jar.pop(name, None)
            else:
                self.jar[name] = morsel.value
        return answer

    async def log_in(self) -> dict:
        answer = await self.ask("POST", LOGIN, json={"email": EMAIL, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.csrf = answer.json()["csrf_token"]
        return answer.json()


@pytest.fixture
async def browser(stranger: httpx.AsyncClient, people: People) -> Browser:
    del people
    return Browser(stranger)


async def test_a_page_reads_and_changes_with_its_cookies(browser: Browser):
    made = await browser.log_in()
    assert "access_token" not in made
    assert set(browser.jar) == {cookies.ACCESS, cookies.REFRESH}
    assert not any(token in str(made) for token in browser.jar.values())
    me = (await browser.ask("GET", "/api/v1/me")).json()
    assert (me["user"]["email"], me["session"]) == (EMAIL, made["session"])
    assert (await browser.ask("POST", "/api/v1/models", json={"name": "iris"})).status_code == 201
    again = (await browser.ask("GET", SESSION)).json()
    assert (again["csrf_token"], again["session"]) == (browser.csrf, made["session"])


@pytest.mark.parametrize(
    "headers", [{"x-csrf-token": ""}, {"x-csrf-token": "x" * 43}, WRONG_PAGE, {"sec-fetch-site": "same-site"}], ids=str
)
async def test_what_another_page_has_a_browser_send_changes_nothing(browser: Browser, headers: dict[str, str]):
    await browser.log_in()
    for method, path, body in (
        ("POST", "/api/v1/models", {"name": "iris"}),
        ("PATCH", "/api/v1/me", {"display_name": "x"}),
        ("DELETE", "/api/v1/keys/key_1", None),
        ("POST", "/api/v1/auth/logout", None),
    ):
        refused = await browser.ask(method, path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf_refused"), path
    assert (await browser.ask("GET", "/api/v1/models")).json()["items"] == []


async def test_the_same_request_with_a_key_needs_no_token(client: httpx.AsyncClient):
    """The control: it is the cookie alone that browsers send by themselves."""
    assert (await client.post("/api/v1/models", json={"name": "iris"}, headers=WRONG_PAGE)).status_code == 201


async def test_a_token_of_another_session_does_not_do(browser: Browser, stranger: httpx.AsyncClient):
    other = Browser(stranger)
    await other.log_in()
    await browser.log_in()
    refused = await browser.ask("POST", "/api/v1/models", json={"name": "iris"}, headers={"x-csrf-token": other.csrf})
    assert refused.json()["code"] == "csrf_refused"


async def test_a_session_goes_on_and_ends_when_it_is_idle_or_old(browser: Browser, clock: TestClock):
    await browser.log_in()
    for _hour in range(11):
        clock.advance(minutes=59)
        answer = await browser.ask("POST", REFRESH)
        assert answer.status_code == 200
        browser.csrf = answer.json()["csrf_token"]
    assert (await browser.ask("GET", "/api/v1/me")).status_code == 200
    clock.advance(minutes=80)  # twelve hours are over
    assert (await browser.ask("POST", REFRESH)).status_code == 401
    assert (await browser.ask("GET", "/api/v1/me")).status_code == 401
    await browser.log_in()
    clock.advance(minutes=61)
    assert (await browser.ask("POST", REFRESH)).status_code == 401


async def test_no_other_page_logs_a_browser_in_or_goes_on(browser: Browser):
    refused = await browser.ask("POST", LOGIN, json={"email": EMAIL, "password": PASSWORD}, headers=WRONG_PAGE)
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_refused")
    assert browser.jar == {}
    await browser.log_in()
    assert (await browser.ask("POST", REFRESH, headers=WRONG_PAGE)).json()["code"] == "csrf_refused"


async def test_logging_out_forgets_the_cookies_and_ends_the_tokens(browser: Browser):
    await browser.log_in()
    kept = dict(browser.jar)
    assert (await browser.ask("POST", "/api/v1/auth/logout")).status_code == 204
    assert browser.jar == {}
    browser.jar = kept
    assert (await browser.ask("GET", "/api/v1/me")).status_code == 401
    assert (await browser.ask("POST", REFRESH)).status_code == 401


async def test_a_second_cookie_of_the_name_counts_as_none(browser: Browser):
    await browser.log_in()
    twice = f"{cookies.ACCESS}={browser.jar[cookies.ACCESS]}; {cookies.ACCESS}=other"
    assert (await browser.ask("GET", "/api/v1/me", headers={"cookie": twice})).status_code == 401
