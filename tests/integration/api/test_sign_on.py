"""Logging in through real OpenID providers, and what an attacker would try: each attack beside the login that works."""

import hashlib
import json
import re
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from fixtures.browsing import kept, sent, session_of
from fixtures.control import TestClock
from fixtures.control_api import IdentityProviders
from fixtures.openid import CLIENT, SECRET, OpenId
from fixtures.people import People
from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.auth import OidcSettings
from modelkeep.control.links.tables import one_time_links
from modelkeep.control.users.rules import Kind
from modelkeep.infra import cookies
from modelkeep.infra.clock import utc_now
from modelkeep.infra.db import Database
from modelkeep.infra.settings import LimitSettings
from modelkeep.plugins.auth.oidc import OpenIdProvider

LOGIN, CALLBACK = "/api/v1/auth/oidc/corp/login", "/api/v1/auth/oidc/corp/callback"
PAGE, PAGES_LOGIN = "/models?sort=name", "/api/v1/auth/browser/oidc/corp/login"
FROM_A_PAGE = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
AUDIENCE = "urn:modelkeep:predictions"


@pytest.fixture
def policy() -> dict[str, Any]:
    """What a module's tests change of the provider `corp`."""
    return {"people": "all"}


@pytest.fixture
def identity_providers(openid: OpenId, other_openid: OpenId, policy: dict[str, Any], tmp_path: Path) -> IdentityProviders:
    secret = tmp_path / "client-secret"
    secret.write_text(SECRET)
    common: dict[str, Any] = {
        "client_id": CLIENT,
        "client_secret_file": str(secret),
        "scopes": ("openid", "email", "profile", "groups"),
        "logout_uri": "http://127.0.0.1:9/bye",
    }
    corp = OidcSettings(name="corp", issuer=openid.issuer, redirect_uri=openid.redirect_uri, **common | policy)
    other = OidcSettings(
        name="other",
        issuer=other_openid.issuer,
        redirect_uri=other_openid.redirect_uri,
        **common | {"people": "all", "userinfo": True, "client_auth": "client_secret_basic"},
    )
    pinned = {f"{one}_endpoint": f"{openid.issuer}/{one}" for one in ("authorization", "token")} | {"jwks_uri": openid.issuer}
    safe = OidcSettings(
        name="safe",
        issuer="https://safe.test",
        redirect_uri="https://here.test/api/v1/auth/oidc/safe/callback",
        **common | pinned,
    )
    return {"code": [OpenIdProvider(corp, utc_now), OpenIdProvider(other, utc_now), OpenIdProvider(safe, utc_now)]}


async def begun(stranger: httpx.AsyncClient, path: str = LOGIN) -> str:
    answer = await stranger.get(path)
    assert answer.status_code == 303
    return answer.headers["location"]


def carried(stranger: httpx.AsyncClient) -> dict[str, str]:
    """What the browser would send along, taken from it."""
    value = stranger.cookies["modelkeep-sign-on-corp"]
    stranger.cookies.clear()
    return cookie(value)


def cookie(value: str) -> dict[str, str]:
    return {"cookie": f"modelkeep-sign-on-corp={value}"}


async def signed_on(stranger: httpx.AsyncClient, openid: OpenId, login: str, path: str = LOGIN) -> httpx.Response:
    back = openid.came_back(await begun(stranger, path), login)
    return await stranger.get(path.replace("login", "callback"), params=back)


async def me(stranger: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
    return (await stranger.get("/api/v1/me", headers=headers)).json()["user"]


async def allowed(stranger: httpx.AsyncClient, answer: httpx.Response, scope: Scope) -> bool:
    headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
    return (await stranger.get("/api/v1/authz/explain", params={"scope": scope}, headers=headers)).json()["allowed"]


async def test_people_come_in_by_a_provider_and_are_the_same_the_next_time(
    stranger: httpx.AsyncClient, openid: OpenId, people: People
):
    listed = (await stranger.get("/api/v1/auth/providers")).json()["items"]
    assert [(one["name"], one["login"]) for one in listed][:2] == [("corp", LOGIN), ("other", LOGIN.replace("corp", "other"))]
    first = await signed_on(stranger, openid, "ada")
    assert first.headers["cache-control"] == "no-store"
    user = await me(stranger, first)
    assert (user["name"], user["email"], user["display_name"]) == ("ada.l", "ada@corp.test", "Ada")
    assert not await allowed(stranger, first, Scope.MODELS_READ), "coming in gives nothing by itself"
    assert (await me(stranger, await signed_on(stranger, openid, "ada")))["id"] == user["id"]
    entries = [one.action for one in await people.control.audit.entries(limit=20, target=user["id"])]
    assert entries == ["user.create"]


async def test_what_a_provider_tells_at_its_userinfo_endpoint_alone_counts(
    stranger: httpx.AsyncClient, other_openid: OpenId, people: People
):
    path = LOGIN.replace("corp", "other")
    assert (await me(stranger, await signed_on(stranger, other_openid, "bob", path)))["email"] == "bob@corp.test"


async def test_a_browser_keeps_a_login_for_this_provider_alone(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    answer = await stranger.get(LOGIN, params={"next": "https://evil.test", "redirect_uri": "https://evil.test"})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("modelkeep-sign-on-corp=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    to = httpx.URL(answer.headers["location"])
    assert str(to).startswith(openid.issuer)
    assert "evil" not in str(to)
    asked = to.params
    assert (asked["redirect_uri"], asked["code_challenge_method"], asked["response_type"]) == (
        openid.redirect_uri,
        "S256",
        "code",
    )
    again = httpx.URL(await begun(stranger)).params
    assert all(asked[one] != again[one] for one in ("state", "nonce", "code_challenge"))


async def test_a_code_is_good_once(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    address = await begun(stranger)
    kept = carried(stranger)
    back = openid.came_back(address, "bob")
    assert (await stranger.get(CALLBACK, params=back, headers=kept)).status_code == 200
    replayed = await stranger.get(CALLBACK, params=back, headers=kept)
    assert (replayed.status_code, replayed.json()["code"]) == (401, "identity_refused")


async def test_a_login_that_another_browser_began_is_refused(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    back = openid.came_back(await begun(stranger), "bob")
    good = carried(stranger)
    for wrong in ({}, cookie(""), cookie("AAAA"), cookie(good["cookie"].partition("=")[2][:-8] + "AAAAAAA=")):
        answer = await stranger.get(CALLBACK, params=back, headers=wrong)
        assert (answer.status_code, answer.json()["code"]) == (401, "sign_on_lost")
    other = await stranger.get(CALLBACK, params={**back, "state": back["state"][:-1]}, headers=good)
    assert other.json()["code"] == "sign_on_lost"
    assert (await stranger.get(CALLBACK, params=back, headers=good)).status_code == 200


async def test_a_code_of_another_login_is_refused(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    """Whoever smuggles their code into somebody's browser has neither its verifier nor its nonce."""
    stolen = openid.came_back(await begun(stranger), "bob")["code"]
    carried(stranger)
    back = openid.came_back(await begun(stranger), "ada")
    answer = await stranger.get(CALLBACK, params={**back, "code": stolen})
    assert (answer.status_code, answer.json()["code"]) == (401, "identity_refused")
    assert (await stranger.get(CALLBACK, params=back)).status_code == 200


async def test_an_old_login_is_refused(stranger: httpx.AsyncClient, openid: OpenId, people: People, clock: TestClock):
    back = openid.came_back(await begun(stranger), "bob")
    kept = carried(stranger)
    clock.advance(minutes=10)
    assert (await stranger.get(CALLBACK, params=back, headers=kept)).json()["code"] == "sign_on_lost"
    clock.advance(seconds=-1)
    assert (await stranger.get(CALLBACK, params=back, headers=kept)).status_code == 200


async def test_providers_are_not_mixed_up(stranger: httpx.AsyncClient, openid: OpenId, other_openid: OpenId, people: People):
    back = openid.came_back(await begun(stranger), "bob")
    kept = carried(stranger)
    assert back["iss"] == openid.issuer
    elsewhere = await stranger.get(CALLBACK.replace("corp", "other"), params=back, headers=kept)
    assert elsewhere.json()["code"] == "sign_on_lost"
    another = await stranger.get(CALLBACK, params={**back, "iss": other_openid.issuer}, headers=kept)
    assert another.json()["code"] == "identity_refused"
    silent = {name: value for name, value in back.items() if name != "iss"}
    assert (await stranger.get(CALLBACK, params=silent, headers=kept)).json()["code"] == "identity_refused"
    assert (await stranger.get(CALLBACK, params=back, headers=kept)).status_code == 200


async def test_a_refusal_of_the_provider_is_one_here(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    state = httpx.URL(await begun(stranger)).params["state"]
    answer = await stranger.get(CALLBACK, params={"error": "access_denied", "state": state, "iss": openid.issuer})
    assert (answer.status_code, answer.json()["code"]) == (401, "identity_refused")
    (entry, *_others) = [one for one in await people.control.audit.entries(limit=5) if one.action == "login.refuse"]
    assert (entry.details["provider"], entry.details["why"]) == ("corp", "not_proven")


async def test_people_log_out_of_the_provider(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    answer = await stranger.get("/api/v1/auth/oidc/corp/logout")
    to = httpx.URL(answer.headers["location"])
    assert answer.status_code == 303
    assert str(to).startswith(openid.issuer)
    assert dict(to.params) == {"client_id": CLIENT, "post_logout_redirect_uri": "http://127.0.0.1:9/bye"}
    assert (await stranger.get("/api/v1/auth/oidc/nobody/logout")).json()["code"] == "identity_provider_not_found"


@pytest.mark.parametrize("policy", [{"people": "all"}])
async def test_an_address_that_is_not_verified_is_nobodys(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    answer = await signed_on(stranger, openid, "eve")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_admitted")
    assert (await signed_on(stranger, openid, "bob")).status_code == 200


@pytest.mark.parametrize(
    "policy", [{"people": "all", "link_by_email": True, "trust_emails": True}, {"people": "all", "trust_emails": True}]
)
async def test_who_is_here_already_is_linked_only_where_that_was_said(
    stranger: httpx.AsyncClient, openid: OpenId, people: People, policy: dict[str, Any]
):
    answer = await signed_on(stranger, openid, "eve")
    if policy.get("link_by_email"):
        assert (await me(stranger, answer))["name"] == "ada"
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "not_admitted")


@pytest.mark.parametrize(
    ("policy", "who"),
    [
        ({"people": "known"}, set()),
        ({"people": "all"}, {"ada", "bob", "zoe"}),
        ({"people": "all", "domains": ("corp.test",)}, {"ada", "bob"}),
        ({"people": "all", "groups": ("chess",)}, {"bob"}),
    ],
)
async def test_who_may_come_in_stands_in_the_settings(
    stranger: httpx.AsyncClient, openid: OpenId, people: People, who: set[str]
):
    came = {one: (await signed_on(stranger, openid, one)).status_code for one in ("ada", "bob", "zoe")}
    assert came == {one: 200 if one in who else 403 for one in came}


@pytest.mark.parametrize("policy", [{"people": "invited"}])
async def test_who_was_invited_comes_in_with_the_role_of_the_invitation(
    stranger: httpx.AsyncClient, openid: OpenId, people: People
):
    assert (await signed_on(stranger, openid, "bob")).status_code == 403
    invited = {"email": "bob@corp.test", "role": "developer"}
    assert (await stranger.post("/api/v1/invitations", json=invited, headers={"x-api-key": people.key})).status_code == 201
    assert await allowed(stranger, await signed_on(stranger, openid, "bob"), Scope.MODELS_WRITE)
    assert (await stranger.get("/api/v1/invitations", headers={"x-api-key": people.key})).json()["items"] == []


@pytest.mark.parametrize(
    "policy",
    [{"people": "all", "group_map": {"ml-admins": "admins", "ml": "writers", "chess": "chess"}, "default_role": "viewer"}],
)
async def test_groups_there_are_groups_here_at_each_login(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    headers = {"x-api-key": people.key}
    await people.group("admins", Role.ADMIN)
    await people.group("writers", Role.DEVELOPER)
    assert await allowed(stranger, await signed_on(stranger, openid, "ada"), Scope.ADMIN)
    answer = await signed_on(stranger, openid, "bob")
    bob = (await me(stranger, answer))["id"]
    given = [(scope, await allowed(stranger, answer, scope)) for scope in (Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.ADMIN)]
    assert given == [(Scope.MODELS_READ, True), (Scope.MODELS_WRITE, True), (Scope.ADMIN, False)]
    await people.group("auditors", Role.AUDITOR)
    for name in ("admins", "auditors"):
        assert (await stranger.put(f"/api/v1/groups/{name}/members/{bob}", headers=headers)).status_code == 204
    await stranger.delete(f"/api/v1/groups/writers/members/{bob}", headers=headers)
    answer = await signed_on(stranger, openid, "bob")
    asked = (Scope.MODELS_WRITE, Scope.AUDIT_READ, Scope.ADMIN)
    assert [await allowed(stranger, answer, scope) for scope in asked] == [True, True, False], "the map's groups, and no others"
    await stranger.post(f"/api/v1/users/{bob}/disable", headers=headers)
    assert (await signed_on(stranger, openid, "bob")).json()["code"] == "not_admitted"


@pytest.mark.parametrize("policy", [{"service_audience": AUDIENCE, "services": {"robot": "pipeline", "stranger": "ada"}}])
async def test_a_providers_access_token_stands_for_a_service(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    new = {"name": "pipeline", "kind": Kind.SERVICE, "role": Role.DEVELOPER}
    made = await stranger.post("/api/v1/users", json=new, headers={"x-api-key": people.key})

    async def asked(token: str) -> int:
        answer = await stranger.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
        return answer.status_code

    token = openid.access_token(AUDIENCE)
    assert await asked(token) == 200
    written = await stranger.post(
        "/api/v1/models", json={"name": "m"}, headers={"authorization": f"Bearer {token}", "idempotency-key": "1"}
    )
    assert written.status_code == 201
    assert await asked(openid.access_token("urn:modelkeep:elsewhere")) == 401
    assert await asked(openid.access_token(AUDIENCE, "stranger")) == 401  # it would stand for a person
    (entry, *_others) = await people.control.audit.entries(limit=1)
    assert (entry.action, entry.outcome, entry.target) == ("token.refuse", "refused", people.admin.user)
    head, body, signature = token.split(".")
    assert await asked(f"{head}.{body}.{signature[:-6]}AAAAAA") == 401
    await stranger.post(f"/api/v1/users/{made.json()['id']}/disable", headers={"x-api-key": people.key})
    assert await asked(token) == 401


async def test_without_an_audience_no_access_token_stands_for_anybody(
    stranger: httpx.AsyncClient, openid: OpenId, people: People
):
    headers = {"authorization": f"Bearer {openid.access_token(AUDIENCE)}"}
    assert (await stranger.get("/api/v1/me", headers=headers)).status_code == 401


async def test_the_settings_print_no_secret(identity_providers: IdentityProviders):
    assert all(SECRET not in repr(vars(one) | {"_secret": ""}) for one in identity_providers["code"])
    assert SECRET not in json.dumps([one.settings.client_secret_file for one in identity_providers["code"]])


# ---- for pages


async def begun_for(stranger: httpx.AsyncClient, page: str = PAGE) -> str:
    """Where the browser of a page is sent."""
    answer = await stranger.get(PAGES_LOGIN, params={"page": page}, headers=FROM_A_PAGE)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def test_what_was_begun_for_a_page_ends_there_in_a_session_of_its_browser(
    stranger: httpx.AsyncClient, openid: OpenId, people: People, db: Database
):
    back = openid.came_back(await begun_for(stranger), "ada")
    answer = await stranger.get(CALLBACK, params=back | {"page": "//evil.test", "next": "https://evil.test"})
    assert (answer.status_code, answer.headers["location"], answer.content) == (303, PAGE, b"")
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    jar = kept(answer)
    assert jar.keys() == {cookies.ACCESS, cookies.REFRESH}
    assert "modelkeep-sign-on-corp" not in stranger.cookies, "it is good for one login"
    told = (await stranger.get("/api/v1/auth/browser", headers=sent(jar))).json()
    me = (await stranger.get("/api/v1/me", headers=sent(jar))).json()
    assert (me["user"]["email"], me["session"]) == ("ada@corp.test", told["session"])
    change = {"display_name": "Countess"}
    refused = await stranger.patch("/api/v1/me", json=change, headers=sent(jar))
    assert refused.json()["code"] == "csrf_refused"
    assert (await stranger.patch("/api/v1/me", json=change, headers=sent(jar, told["csrf_token"]))).status_code == 200
    row = await session_of(db, told["session"])
    assert (row.provider, row.browser, row.idle_s, (row.expires_at - row.created_at).total_seconds()) == (
        "corp",
        True,
        60 * 60,
        12 * 60 * 60,
    )
    elsewhere = await stranger.post("/api/v1/auth/refresh", json={"refresh_token": jar[cookies.REFRESH]})
    assert elsewhere.json()["code"] == "refresh_refused"
    assert (await stranger.post("/api/v1/auth/browser/refresh", headers=sent(jar))).status_code == 200


async def test_programs_get_tokens_and_no_cookie(stranger: httpx.AsyncClient, openid: OpenId, people: People, db: Database):
    answer = await signed_on(stranger, openid, "ada")
    assert kept(answer) == {}
    assert not (await session_of(db, answer.json()["session"])).browser


@pytest.mark.parametrize(
    "page",
    [
        "https://evil.test/",
        "//evil.test",
        "///evil.test",
        "/\\evil.test",
        "\\/evil.test",
        "/models//evil.test",
        "/%2fevil.test",
        "/%5cevil.test",
        "/%252fevil.test",
        "/\t/evil.test",
        "/%09/evil.test",
        "/%0d%0aset-cookie:x=y",
        "/\r\nlocation:https://evil.test",
        "javascript:alert(1)",
        "models",
        "",
        "@evil.test",
        ".evil.test",
        " /models",
        "/models\x00",
        "/modèles",
        "/" + "a" * 1000,
    ],
)
async def test_nobody_is_sent_on_to_another_host(stranger: httpx.AsyncClient, people: People, openid: OpenId, page: str):
    answer = await stranger.get(PAGES_LOGIN, params={"page": page}, headers=FROM_A_PAGE)
    if page:
        assert answer.status_code == 400, answer.headers.get("location")
        assert answer.json()["code"] in {"invalid_page", "invalid_request"}
        assert "set-cookie" not in answer.headers
    else:
        assert answer.status_code == 303, "no page is the first one"


@pytest.mark.parametrize("page", ["/", "/models/iris", "/models?q=a%20b&of=http://x.test", "/#/models/iris", "/a/../b:c@d"])
async def test_pages_of_this_host_are_gone_to_as_they_were_named(
    stranger: httpx.AsyncClient, people: People, openid: OpenId, page: str
):
    """The control."""
    back = openid.came_back(await begun_for(stranger, page), "bob")
    answer = await stranger.get(CALLBACK, params=back)
    assert answer.headers["location"] == page
    assert httpx.URL("https://here.test/api/v1/auth/oidc/corp/callback").join(page).host == "here.test"


async def test_a_page_is_told_why_nobody_was_logged_in(
    stranger: httpx.AsyncClient, openid: OpenId, people: People, clock: TestClock
):
    async def ended(answer: httpx.Response) -> str:
        assert (answer.status_code, kept(answer), answer.content) == (303, {}, b"")
        return answer.headers["location"]

    eve = openid.came_back(await begun_for(stranger), "eve")
    assert await ended(await stranger.get(CALLBACK, params=eve)) == f"{PAGE}&sign_on_error=not_admitted"
    state = httpx.URL(await begun_for(stranger, "/#/login")).params["state"]
    theirs = {"error": "server_error", "error_description": "<b>come to evil.test</b>", "state": state, "iss": openid.issuer}
    assert await ended(await stranger.get(CALLBACK, params=theirs)) == "/?sign_on_error=identity_refused#/login"
    back = openid.came_back(await begun_for(stranger, "/m?sign_on_error=a_lie"), "bob")
    wrong = await stranger.get(CALLBACK, params=back | {"state": "another"})
    assert await ended(wrong) == "/m?sign_on_error=sign_on_lost"
    clock.advance(minutes=10)
    assert await ended(await stranger.get(CALLBACK, params=back)) == "/m?sign_on_error=sign_on_lost"
    clock.advance(seconds=-1)
    assert (await stranger.get(CALLBACK, params=back)).headers["location"] == "/m?sign_on_error=a_lie", "as it was named"
    there_is_none = PAGES_LOGIN.replace("corp", "nobody")
    answer = await stranger.get(there_is_none, params={"page": PAGE}, headers=FROM_A_PAGE)
    assert await ended(answer) == f"{PAGE}&sign_on_error=identity_provider_not_found"


async def test_no_page_of_another_host_begins_a_login(stranger: httpx.AsyncClient, people: People, openid: OpenId):
    for site in ("cross-site", "same-site"):
        answer = await stranger.get(PAGES_LOGIN, headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"})
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf_refused")
        assert "set-cookie" not in answer.headers
    for headers in (FROM_A_PAGE, FROM_A_PAGE | {"sec-fetch-site": "none"}, {}):
        assert (await stranger.get(PAGES_LOGIN, headers=headers)).status_code == 303


async def test_over_tls_no_neighbour_can_have_a_browser_keep_a_login(
    stranger: httpx.AsyncClient, people: People, openid: OpenId
):
    """Who plants theirs would have somebody come in as they themselves."""
    answer = await stranger.get(PAGES_LOGIN.replace("corp", "safe"), params={"page": PAGE}, headers=FROM_A_PAGE)
    ((name, morsel),) = SimpleCookie(answer.headers["set-cookie"]).items()
    assert name == "__Host-modelkeep-sign-on-safe"
    assert (morsel["secure"], morsel["path"], morsel["domain"]) == (True, "/", "")
    params, callback = {"state": httpx.URL(answer.headers["location"]).params["state"]}, CALLBACK.replace("corp", "safe")
    for planted in (f"modelkeep-sign-on-safe={morsel.value}", f"{name}=x; {name}={morsel.value}"):
        answer = await stranger.get(callback, params=params, headers={"cookie": planted})
        assert answer.json()["code"] == "sign_on_lost"
    answer = await stranger.get(callback, params=params, headers={"cookie": f"a=b; {name}={morsel.value}"})
    assert answer.headers["location"] == f"{PAGE}&sign_on_error=identity_refused", "the control: there was no code"


class TestTooMany:
    """Who fails at a page's login fails at an address, though the answer sends them back."""

    @pytest.fixture
    def api_rates(self) -> LimitSettings:
        return LimitSettings(api_rate="100/min:100", failure_rate="1/min:3", classes="batch=6000/min")

    async def test_refusals_that_go_back_to_a_page_count(self, stranger: httpx.AsyncClient, openid: OpenId, people: People):
        here = {"x-modelkeep-address": "192.0.2.1"}
        for _ in range(4):  # the control: who comes in has not failed
            back = openid.came_back(await begun_for(stranger), "ada")
            assert (await stranger.get(CALLBACK, params=back, headers=here)).status_code == 303
        came = []
        for _ in range(4):
            await begun_for(stranger)
            came.append((await stranger.get(CALLBACK, params={"state": "wrong"}, headers=here)).status_code)
        assert came == [303, 303, 303, 429]


# ---- for terminals

TERMINALS_LOGIN, EXCHANGE = "/api/v1/auth/terminal/oidc/corp/login", "/api/v1/auth/terminal/tokens"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # of it, as RFC 7636 has them


async def ended_for(stranger: httpx.AsyncClient, openid: OpenId, login: str = "ada", **asked: Any) -> httpx.Response:
    """What the browser shows at the end of a login that a terminal began."""
    answer = await stranger.get(TERMINALS_LOGIN, params={"challenge": CHALLENGE, **asked})
    assert answer.status_code == 303, answer.text
    return await stranger.get(CALLBACK, params=openid.came_back(answer.headers["location"], login))


def code_of(page: httpx.Response) -> str:
    assert page.status_code == 200, page.text
    assert page.headers["content-type"].startswith("text/html")
    return re.search(r"mkl_\w{46}", page.text)[0]


async def exchanged(stranger: httpx.AsyncClient, code: str, verifier: str = VERIFIER) -> httpx.Response:
    return await stranger.post(EXCHANGE, json={"code": code, "verifier": verifier}, headers={"user-agent": "a terminal"})


async def test_a_terminal_gets_what_its_browser_was_given_and_nothing_goes_on_by_itself(
    stranger: httpx.AsyncClient, openid: OpenId, people: People, db: Database
):
    page = await ended_for(stranger, openid, port=4711, state="s-1")
    code = code_of(page)
    assert f'href="http://127.0.0.1:4711/?state=s-1&amp;code={code}"' in page.text
    assert "ada@corp.test" in page.text, "it says as whom"
    assert "refresh" not in page.headers
    assert not any(word in page.text for word in ("<script", "http-equiv", "onload"))
    assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"], "nobody has it clicked unseen"
    assert kept(page) == {}
    answer = await exchanged(stranger, code)
    assert (await me(stranger, answer))["email"] == "ada@corp.test"
    row = await session_of(db, answer.json()["session"])
    assert (row.provider, row.browser, row.program) == ("corp", False, "a terminal")
    noted = [one.action for one in await people.control.audit.entries(limit=3)]
    assert noted[:2] == ["session.begin", "login.hand_over"]


async def test_a_code_is_good_once_soon_and_for_the_program_that_began(
    stranger: httpx.AsyncClient, openid: OpenId, people: People, clock: TestClock, db: Database
):
    code = code_of(await ended_for(stranger, openid))
    async with db.read() as tx:
        (row,) = await tx.all(sa.select(one_time_links))
    assert code.encode() not in row.digest
    assert hashlib.sha256(code.encode()).digest() != row.digest, "who reads it off a screen has too little to look for"
    for wrong in ((code, "x" * 43), (code[:-1] + "0", VERIFIER), (CHALLENGE, VERIFIER)):
        refused = await exchanged(stranger, *wrong)
        assert (refused.status_code, refused.json()["code"]) == (401, "sign_on_code_refused")
    clock.advance(minutes=4, seconds=59)
    assert (await exchanged(stranger, code)).status_code == 200
    assert (await exchanged(stranger, code)).json()["code"] == "sign_on_code_refused"
    late = code_of(await ended_for(stranger, openid))
    clock.advance(minutes=5)
    assert (await exchanged(stranger, late)).json()["code"] == "sign_on_code_refused"
    await ended_for(stranger, openid)
    async with db.read() as tx:
        assert len(await tx.all(sa.select(one_time_links))) == 1, "those that are over are forgotten"


async def test_who_is_let_in_no_more_has_nothing_of_a_code(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    code = code_of(await ended_for(stranger, openid))
    (ada, *_others) = await people.control.users.users(limit=10)
    for action, status in (("disable", 401), ("enable", 200)):
        await stranger.post(f"/api/v1/users/{ada.id}/{action}", headers={"x-api-key": people.key})
        assert (await exchanged(stranger, code)).status_code == status


async def test_a_code_is_no_password_token_and_no_invitation(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    code = code_of(await ended_for(stranger, openid))
    new = {"name": "eve", "email": "eve@example.org", "password": "correct horse battery"}
    for path, body in (("reset-password", {"password": new["password"]}), ("register", new)):
        answer = await stranger.post(f"/api/v1/auth/{path}", json={"token": code, **body})
        assert answer.json()["code"] == "link_refused"
    assert (await exchanged(stranger, code)).status_code == 200


async def test_a_terminal_is_told_why_nobody_was_logged_in(stranger: httpx.AsyncClient, openid: OpenId, people: People):
    gone = await ended_for(stranger, openid, "eve", port=4711, state="s-1")
    assert (gone.status_code, gone.headers["location"]) == (303, "http://127.0.0.1:4711/?state=s-1&error=not_admitted")
    shown = await ended_for(stranger, openid, "eve")
    assert (shown.status_code, "<code>not_admitted</code>" in shown.text) == (200, True)
    asked = {"params": {"challenge": CHALLENGE}}
    missing = await stranger.get(TERMINALS_LOGIN.replace("corp", "nobody"), **asked)
    assert missing.json()["code"] == "identity_provider_not_found"


@pytest.mark.parametrize(
    "asked",
    [
        {"challenge": ""},
        {"challenge": "x" * 42},
        {"challenge": "<" * 43},
        {"port": "@evil.test"},
        {"port": 65536},
        {"port": -1},
        {"state": "a&code=b"},
        {"state": "x" * 65},
        {"state": '"><script>'},
    ],
)
async def test_a_terminals_login_begins_with_what_it_is_made_of_alone(
    stranger: httpx.AsyncClient, openid: OpenId, people: People, asked: dict[str, Any]
):
    answer = await stranger.get(TERMINALS_LOGIN, params={"challenge": CHALLENGE, "port": 4711, "state": "s", **asked})
    assert (answer.status_code, "set-cookie" in answer.headers) == (400, False)
    good = await stranger.get(TERMINALS_LOGIN, params={"challenge": CHALLENGE, "port": 4711, "state": "s"})
    assert good.status_code == 303
