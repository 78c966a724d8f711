"""Sessions of browsers: tokens in cookies that scripts cannot read, and pages of others that cannot use them."""

from http.cookies import SimpleCookie

import httpx
import pytest

from fixtures.control import TestClock
from fixtures.people import EMAIL, PASSWORD, People
from modelkeep.infra import cookies

LOGIN = "/api/v1/auth/browser/login"
REFRESH = "/api/v1/auth/browser/refresh"
LOGOUT = "/api/v1/auth/browser/logout"
SESSION = "/api/v1/auth/browser"
WRONG_PAGE = {"sec-fetch-site": "cross-site"}


class Browser:
    """Keeps cookies as browsers do, on a line that is taken for a secure one."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.jar: dict[str, str] = {}
        self.csrf = ""

    async def ask(self, method: str, path: str, **more: object) -> httpx.Response:
        given = {"cookie": "; ".join(f"{name}={value}" for name, value in self.jar.items())} if self.jar else {}
        headers = {"x-csrf-token": self.csrf, "sec-fetch-site": "same-origin", **given, **more.pop("headers", {})}  # type: ignore[dict-item]
        answer = await self.client.request(method, path, headers=headers, **more)
        for line in answer.headers.get_list("set-cookie"):
            ((name, morsel),) = SimpleCookie(line).items()
            assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Strict")
            assert name.startswith("__Host-")  # so that a browser takes it with this path and without a domain alone
            assert (morsel["path"], morsel["domain"]) == ("/", "")
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
    assert (await browser.ask("GET", SESSION)).json() == made


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


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_what_another_page_has_a_browser_read_is_refused_and_stands_in_the_trail(
    browser: Browser, people: People, site: str
):
    made = await browser.log_in()
    theirs = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
    for path in ("/api/v1/me", "/api/v1/audit/export", "/api/v1/predictions/export"):
        assert (await browser.ask("GET", path, headers=theirs)).json()["code"] == "csrf_refused", path
    assert (await browser.ask("GET", "/docs", headers=theirs)).status_code == 200, "a page may be gone to"
    assert (await browser.ask("GET", "/docs", headers={"sec-fetch-site": site})).status_code == 403, "and not be fetched"
    noted = [one for one in await people.control.audit.entries(limit=50) if one.action == "access.forbidden"]
    assert {(one.actor, one.actor_name) for one in noted} == {(made["session"], "ada")}
    assert len(noted) == 4


@pytest.mark.parametrize(("origin", "status"), [("http://api", 201), ("https://api.evil", 403), ("null", 403)])
async def test_older_browsers_say_by_origin_whose_page_asks(browser: Browser, origin: str, status: int):
    await browser.log_in()
    given = {"cookie": "; ".join(f"{name}={value}" for name, value in browser.jar.items()), "x-csrf-token": browser.csrf}
    answer = await browser.client.post("/api/v1/models", json={"name": "iris"}, headers=given | {"origin": origin})
    assert answer.status_code == status
    login = {"email": EMAIL, "password": PASSWORD}
    answer = await browser.client.post(LOGIN, json=login, headers={"origin": origin})
    assert answer.status_code == (200 if status == 201 else 403)


async def test_a_refresh_token_goes_on_with_a_session_of_its_kind_alone(browser: Browser):
    login = {"email": EMAIL, "password": PASSWORD}
    program = (await browser.client.post("/api/v1/auth/login", json=login)).json()["refresh_token"]
    await browser.log_in()
    mine = browser.jar[cookies.REFRESH]
    assert (await browser.client.post("/api/v1/auth/refresh", json={"refresh_token": mine})).status_code == 401
    assert (await browser.client.post("/api/v1/auth/refresh", json={"refresh_token": program})).status_code == 200
    assert (await browser.ask("POST", REFRESH)).status_code == 200, "it was not used up"
    browser.jar[cookies.REFRESH] = program
    assert (await browser.ask("POST", REFRESH)).status_code == 401
    assert browser.jar == {}


async def test_nobody_gets_the_cookies_of_another_by_repeating_their_request(browser: Browser):
    await browser.log_in()
    repeated = {"idempotency-key": "1"}
    assert (await browser.ask("POST", REFRESH, headers=repeated)).status_code == 200
    for cookie in ({}, {"cookie": "a=1"}):
        answer = await browser.client.post(REFRESH, headers=repeated | cookie)
        assert answer.status_code == 401
        assert all("Max-Age=0" in line for line in answer.headers.get_list("set-cookie")), "what is there is forgotten at most"


async def test_cookies_are_kept_a_little_less_long_than_their_tokens_are_good(browser: Browser):
    answer = await browser.ask("POST", LOGIN, json={"email": EMAIL, "password": PASSWORD})
    lines = answer.headers.get_list("set-cookie")
    kept = {line.partition("=")[0]: int(line.partition("Max-Age=")[2].partition(";")[0]) for line in lines}
    assert kept == {cookies.ACCESS: 30 * 60 - 5, cookies.REFRESH: 60 * 60 - 5}


async def test_a_session_is_asked_for_with_its_cookie_alone(browser: Browser, people: People):
    await browser.log_in()
    login = {"email": EMAIL, "password": PASSWORD}
    other = (await browser.client.post("/api/v1/auth/login", json=login)).json()["access_token"]
    for key in (people.key, other):
        answer = await browser.ask("GET", SESSION, headers={"x-api-key": key})
        assert (answer.status_code, answer.json()["code"]) == (400, "no_session")


async def test_an_idle_session_is_not_listed(browser: Browser, people: People, clock: TestClock):
    await browser.log_in()
    mine = {"x-api-key": people.key}
    assert len((await browser.client.get("/api/v1/me/sessions", headers=mine)).json()["items"]) == 1
    clock.advance(minutes=60)
    assert (await browser.client.get("/api/v1/me/sessions", headers=mine)).json()["items"] == []


async def test_cookies_are_forgotten_with_their_session_however_it_ends(browser: Browser, clock: TestClock):
    await browser.log_in()
    assert (await browser.ask("POST", "/api/v1/auth/logout-all")).status_code == 204
    assert browser.jar == {}
    made = await browser.log_in()
    assert (await browser.ask("DELETE", f"/api/v1/me/sessions/{made['session']}")).status_code == 204
    assert browser.jar == {}
    await browser.log_in()
    refresh = browser.jar[cookies.REFRESH]
    clock.advance(minutes=31)
    del browser.jar[cookies.ACCESS]  # whose time was over
    assert (await browser.ask("POST", LOGOUT, headers=WRONG_PAGE)).json()["code"] == "csrf_refused"
    assert (await browser.ask("POST", LOGOUT)).status_code == 204
    assert browser.jar == {}
    browser.jar = {cookies.REFRESH: refresh}
    assert (await browser.ask("POST", LOGOUT)).status_code == 401
    assert browser.jar == {}


async def test_ending_what_has_ended_tells_no_server_anything(browser: Browser, people: People):
    mine = {"x-api-key": people.key}
    await browser.log_in()
    for ended in (1, 1):
        assert (await browser.client.post("/api/v1/auth/logout-all", headers=mine)).status_code == 204
        noted = [one for one in await people.control.audit.entries(limit=50) if one.action == "session.end_all"]
        assert len(noted) == ended


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
    mine = f"{cookies.ACCESS}={browser.jar[cookies.ACCESS]}"
    lines = [("cookie", f"{cookies.ACCESS}=other"), ("cookie", mine)]
    assert (await browser.client.get("/api/v1/me", headers=lines)).status_code == 401
    assert (await browser.client.get("/api/v1/me", headers=[("cookie", "a=1"), ("cookie", mine)])).status_code == 200
