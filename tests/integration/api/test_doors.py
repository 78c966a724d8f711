"""Who gets in: every route of the real app, and every way to show a key."""

import base64
from collections.abc import Iterable, Iterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route

from fixtures.control_api import key_with
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.infra import secrets

OPEN = {
    *(("GET", "/api/v1/health"), ("HEAD", "/api/v1/health"), ("POST", "/api/v1/setup"), ("GET", "/api/v1/auth/jwks")),
    ("GET", "/api/v1/setup"),
    *(
        ("POST", f"/api/v1/auth/{way}")
        for way in ("login", "refresh", "register", "reset-password", "browser/login", "browser/refresh", "browser/logout")
    ),
}
OPEN |= {("GET", f"/api/v1/auth/oidc/{{provider}}/{what}") for what in ("login", "callback", "logout")}
OPEN |= {("GET", f"/api/v1/auth/{whom}/oidc/{{provider}}/login") for whom in ("browser", "terminal")}
OPEN |= {("POST", f"/api/v1/auth/{whom}ldap/{{provider}}/login") for whom in ("", "browser/")}
OPEN |= {("GET", "/api/v1/auth/providers"), ("POST", "/api/v1/auth/terminal/tokens")}


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return method and path of everything that the app could answer, mounted apps included."""
    return [*_below(app.routes, ""), ("GET", "/"), ("GET", "/nothing/here"), ("POST", "/docs")]


def _below(routes: Iterable[BaseRoute], prefix: str) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from (("GET", f"{prefix}{route.path}/{file}") for file in ("swagger-ui-bundle.js", "none"))
        elif isinstance(route, Route):
            path = route.path.replace("{number}", "1").replace("{name}", "m").replace("{key_id}", "key_1")
            yield from ((method, prefix + path) for method in sorted(route.methods or ()))
        else:  # a router that was included: FastAPI keeps it whole
            yield from _below(route.original_router.routes, prefix + route.include_context.prefix)


async def test_every_route_asks_for_a_key(api_app: FastAPI, stranger: httpx.AsyncClient):
    walked = routes(api_app)
    assert len(walked) > 25
    assert set(walked) >= {("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/api/v1/models/m/versions")}
    for method, path in walked:
        for credential in ({}, {"X-API-Key": secrets.new_secret(secrets.KEY).reveal()}, {"Authorization": "Bearer x"}):
            answer = await stranger.request(method, path, headers=credential)
            if (method, path) not in OPEN:
                assert answer.status_code == 401, (method, path, answer.status_code)
                assert "www-authenticate" in answer.headers
                if method != "HEAD":
                    said = answer.json()
                    assert said.keys() == {"error"} if path.startswith("/v2/") else said["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("method", "path", "body", "scope"),
    [
        ("POST", "/api/v1/models", {"name": "x"}, Scope.MODELS_WRITE),
        ("GET", "/api/v1/models", None, Scope.MODELS_READ),
        ("PATCH", "/api/v1/models/m", {"description": "x"}, Scope.MODELS_WRITE),
        ("POST", "/api/v1/models/m/archive", None, Scope.MODELS_WRITE),
        ("POST", "/api/v1/models/m/versions", None, Scope.MODELS_WRITE),
        ("POST", "/v2/repository/models/m/load", None, Scope.MODELS_WRITE),
        ("POST", "/v2/repository/models/m/unload", None, Scope.MODELS_WRITE),
        ("GET", "/api/v1/models/m/versions/1/artifact", None, Scope.MODELS_READ),
        ("GET", "/api/v1/models/m/versions/1/hooks", None, Scope.MODELS_READ),
        ("PATCH", "/api/v1/models/m/versions/1", {"description": "x"}, Scope.MODELS_WRITE),
        ("POST", "/api/v1/deployments/m/promote", {"version": 1}, Scope.DEPLOYMENTS_WRITE),
        ("GET", "/api/v1/deployments/m", None, Scope.MODELS_READ),
        ("GET", "/api/v1/safety", None, Scope.MODELS_READ),
        ("PUT", "/api/v1/safety/code-formats", {"allowed": True, "reason": "x"}, Scope.ADMIN),
        ("PUT", "/api/v1/safety/sandbox", {"accepted": None, "reason": "x"}, Scope.ADMIN),
        ("GET", "/api/v1/audit", None, Scope.AUDIT_READ),
    ],
)
async def test_a_route_opens_to_its_scope_and_to_no_other(
    method: str, path: str, body: object, scope: Scope, stranger: httpx.AsyncClient, control: ControlPlane, admin_key: str
):
    for held in Scope:
        stranger.headers["X-API-Key"] = await key_with(control, admin_key, held)
        answer = await stranger.request(method, path, json=body)
        if held in {scope, Scope.ADMIN}:
            assert answer.status_code not in {401, 403}, held
        else:
            assert (answer.status_code, answer.json().get("code", "forbidden")) == (403, "forbidden"), held
            assert scope.value in answer.text


async def test_a_key_does_the_same_by_either_header(stranger: httpx.AsyncClient, admin_key: str):
    for headers in (
        {"X-API-Key": admin_key},
        {"Authorization": f"Bearer {admin_key}"},
        {"authorization": f"bearer  {admin_key}"},
    ):
        answer = await stranger.get("/api/v1/me", headers=headers)
        assert answer.json()["user"]["name"] == "ada"


async def test_a_browser_may_show_the_key_as_a_password_for_the_documentation_alone(
    stranger: httpx.AsyncClient, admin_key: str
):
    basic = {"Authorization": "Basic " + base64.b64encode(f"anyone:{admin_key}".encode()).decode()}
    for path in ("/docs", "/redoc", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
        assert (await stranger.get(path)).headers["www-authenticate"].startswith("Basic ")
        assert (await stranger.get(path, headers=basic)).status_code == 200
    assert (await stranger.get("/api/v1/me", headers=basic)).status_code == 401
    assert (await stranger.post("/v2/repository/models/m/unload", headers=basic)).status_code == 401
    for broken in ("Basic", "Basic !!!", "Basic " + base64.b64encode(b"\xff").decode()):
        assert (await stranger.get("/docs", headers={"Authorization": broken})).status_code == 401


async def test_the_documentation_needs_no_outside_address(client: httpx.AsyncClient):
    for path in ("/docs", "/redoc"):
        page = (await client.get(path)).text
        assert "http://" not in page.replace("http://api", "")
        assert "https://" not in page


async def test_health_is_said_to_anyone(stranger: httpx.AsyncClient):
    answer = await stranger.get("/api/v1/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
