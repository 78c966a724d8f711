"""Every route, asked by every role in two tenants: allowed is what the table of routes and the one decision say."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fixtures.access import for_oneself, on_the_installation, table
from fixtures.control import ADMIN
from fixtures.tenants import Tenants
from modelkeep.contracts.access import INSTALLATION, Place, Role, Scope, decide, sees
from modelkeep.contracts.actor import Actor
from modelkeep.control.access.rules import Subject

_BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/keys"): {"name": "k", "scopes": ["predict"]},
    ("POST", "/api/v1/keys/{key_id}/rotate"): {"keep_days": 1},
    ("PUT", "/api/v1/keys/{key_id}/certificate"): {"names": ["dns:scoring.example.org"]},
    ("PATCH", "/api/v1/me"): {"display_name": "d"},
    ("POST", "/api/v1/users"): {"name": "one two"},
    ("PATCH", "/api/v1/users/{user_id}"): {"display_name": "d"},
    ("POST", "/api/v1/invitations"): {},
    ("POST", "/api/v1/audit/erasures"): {"subject": "usr_none", "reason": "r"},
    ("POST", "/api/v1/workspaces"): {"name": "fresh"},
    ("POST", "/api/v1/groups"): {"name": "fresh"},
    ("POST", "/api/v1/models"): {"name": "fresh", "workspace": "red"},
    ("PATCH", "/api/v1/models/{name}"): {"description": "d"},
    ("POST", "/api/v1/models/{name}/versions/check"): {"filename": "m.onnx", "size": 1},
    ("PATCH", "/api/v1/models/{name}/versions/{number}"): {"description": "d"},
    ("PUT", "/api/v1/models/{name}/aliases/{alias}"): {"version": 1},
    **{
        (method, f"/api/v1/models/{{name}}{one}/{what}"): {"reason": reason}
        for one in ("", "/versions/{number}")
        for method, what, reason in (
            ("PUT", "deprecation", "r"),
            ("PUT", "hold", "r"),
            ("POST", "purge", " "),
        )  # no reason: no purge
    },
    ("PATCH", "/api/v1/deployments/{name}"): {"settings": {"concurrency": 2}},
    ("POST", "/api/v1/deployments"): {"name": "fresh", "model": "red-model"},
    ("POST", "/api/v1/deployments/{name}/promote"): {"version": 1},
    ("POST", "/api/v1/deployments/{name}/rollback"): {},
    ("POST", "/api/v1/deployments/{name}/plan"): {"version": 1},
    ("POST", "/api/v1/deployments/{name}/schedule"): {"version": 1, "at": "2026-01-03T00:00:00Z"},
    ("POST", "/api/v1/feedback"): {"items": [{"prediction": "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4", "verdict": "wrong"}]},
    ("POST", "/api/v1/models/{name}/versions/{number}/replays"): {"last": 1},
    ("PUT", "/api/v1/safety/code-formats"): {"allowed": True, "reason": "r"},
    ("PUT", "/api/v1/safety/sandbox"): {"accepted": None, "reason": "r"},
}
_ELSEWHERE = (
    "/api/v1/setup",
    "/v2/repository",
    "/api/v1/grants",
    "/api/v1/authz",
    "/api/v1/replays/",
    "/api/v1/rollouts",
    "/api/v1/alerts",
    "/api/v1/predict",
    "/api/v1/approvals/",
)
"""Asked by tests of their own: open to anyone, waiting for servers, about two places or such as a body names, or by an id."""
_OF_ANY_KEY = {("GET", path) for path in ("/api/v1/me", "/api/v1/keys", "/api/v1/workspaces", "/api/v1/approvals")}
_LISTS = (
    *("/api/v1/models", "/api/v1/deployments", "/api/v1/predictions", "/api/v1/predictions/export", "/api/v1/safety"),
    "/api/v1/feedback",
)
_OF_WHAT_IS_REACHED = {("GET", path) for path in _LISTS} | {("POST", "/api/v1/feedback")}


@dataclass(frozen=True)
class Caller:
    """Who asks: a name, what they may, and their key."""

    actor: Actor
    secret: str


def _routes() -> list[tuple[str, str, str]]:
    """Method, path and scope of the control plane's routes that need a key."""
    return [
        (method, path, who)
        for (method, path), who in table().items()
        if path.startswith("/api/v1/") and who is not None and not path.startswith(_ELSEWHERE) and not path.endswith("/move")
    ]


def _path(path: str, model: str) -> str:
    values = {"name": model, "number": "1", "alias": "champion", "user_id": "usr_none", "key_id": "key_none"}
    values["prediction_id"] = "prd_none"
    values |= {"invitation_id": "inv_none", "scheduled": "sch_none", "session_id": "ses_none"}
    if path.startswith("/api/v1/groups"):
        values["name"] = "none"
    if path.startswith("/api/v1/workspaces"):
        values["name"] = "blue"  # which cannot be removed: a model lies in it
    return path.format_map(values) + ("?t=2026-01-01" if path.endswith("/as-of") else "")


def _place(path: str, model: Place) -> Place:
    return model if "/models/{name}" in path or "/deployments" in path else INSTALLATION


def _expected(caller: Actor, method: str, path: str, scope: str, model: Place) -> int | None:
    """The status by which this is refused; None where it is not."""
    if not scope:
        return None if (method, path) in _OF_ANY_KEY or caller.standing.carries(Scope.ADMIN) else 403
    if not caller.standing.carries(Scope(scope)):
        return 403
    if (method, path) in for_oneself():
        return None if caller.standing.models is None else 403
    if (method, path) in _OF_WHAT_IS_REACHED:
        return None
    place = Place(model.workspace) if (method, path) == ("POST", "/api/v1/models") else _place(path, model)
    if decide(caller.standing, Scope(scope), place).allowed:
        return None
    hidden = place.model and not sees(caller.standing, place)
    return 404 if hidden or ((method, path) == ("POST", "/api/v1/models") and not sees(caller.standing, place)) else 403


@pytest.fixture
async def callers(tenants: Tenants) -> list[Caller]:
    """Somebody in each role on the installation, on the red workspace and on its model; a stranger, an owner, bounded keys."""
    found = []

    async def add(name: str, *scopes: Scope, models: tuple[str, ...] | None = None) -> None:
        secret = await tenants.secret(name, *scopes, models=models)
        found.append(Caller(await tenants.control.access.authenticate(secret), secret))

    for where, place in (("everywhere", INSTALLATION), ("red", tenants.places["red"]), ("model", tenants.places["red-model"])):
        for role in Role:
            await tenants.person(f"{role}-{where}", role, place)
            await add(f"{role}-{where}")
    await tenants.person("stranger")
    await add("stranger")
    await tenants.person("owner")
    await tenants.control.models.move(ADMIN, "red-model", owner_id=tenants.people["owner"])
    tenants.places["red-model"] = await tenants.control.models.place(ADMIN, "red-model")
    await add("owner")
    for scope in Scope:
        await add("admin-everywhere", scope)
    await add("admin-everywhere", models=(tenants.places["red-model"].model,))
    return found


@pytest.mark.parametrize("model", ["red-model", "blue-model"])
async def test_every_route_refuses_exactly_whom_the_table_and_the_decision_refuse(
    stranger: httpx.AsyncClient, tenants: Tenants, callers: list[Caller], model: str
):
    wrong, asked = [], 0
    place = tenants.places[model]
    for method, path, scope in _routes():
        for caller in callers:
            answer = await stranger.request(
                method, _path(path, model), json=_BODIES.get((method, path)), headers={"X-API-Key": caller.secret}
            )
            where = place if "{name}" in path else tenants.places["red-model" if path == "/api/v1/deployments" else "red"]
            refused = _expected(caller.actor, method, path, scope, where)
            kind = answer.headers.get("content-type", "")
            assert answer.content or not kind, (method, path, answer.status_code)
            code = answer.json().get("code", "") if kind.endswith(("/json", "+json")) else ""
            by_access = answer.status_code == 403 or code in {"model_not_found", "deployment_not_found", "workspace_not_found"}
            asked += 1
            if (answer.status_code if by_access else None) != refused or answer.status_code >= 500:
                wrong.append((method, path, caller.actor.name, caller.actor.standing.scopes, refused, answer.status_code, code))
    assert wrong == []
    assert asked > 1000


async def test_what_is_on_the_installation_is_refused_to_whom_has_a_role_below_it(tenants: Tenants, callers: list[Caller]):
    below = [one.actor for one in callers if one.actor.name == "admin-red"]
    assert below
    for method, path in on_the_installation():
        scope = table()[method, path]
        assert scope
        assert not any(one.may(Scope(scope)) for one in below)


@pytest.mark.parametrize("path", ["/api/v1/models/{}", "/api/v1/models/{}/versions", "/api/v1/deployments/{}"])
async def test_what_is_hidden_is_answered_as_what_is_not_there(
    stranger: httpx.AsyncClient, tenants: Tenants, callers: list[Caller], path: str
):
    nobody = next(one for one in callers if one.actor.name == "stranger")
    answers = [
        await stranger.get(path.format(name), headers={"X-API-Key": nobody.secret, "X-Request-ID": "r"})
        for name in ("red-model", "no-model-here")
    ]
    assert answers[0].status_code == 404
    assert answers[0].content.replace(b"red-model", b"X") == answers[1].content.replace(b"no-model-here", b"X")
    assert answers[0].headers.keys() == answers[1].headers.keys()
    assert tenants.places


async def test_names_of_groups_are_told_to_nobody_who_may_not_ask(stranger: httpx.AsyncClient, tenants: Tenants):
    await tenants.control.access.create_group(ADMIN, "secret-takeover")
    await tenants.person("eve")
    headers = {"X-API-Key": await tenants.secret("eve"), "X-Request-ID": "r"}
    for path in (
        "/api/v1/grants?subject_kind=group&subject={}",
        "/api/v1/authz/explain?scope=predict&subject_kind=group&subject={}",
    ):
        answers = [await stranger.get(path.format(name), headers=headers) for name in ("secret-takeover", "no-such-group")]
        assert [one.status_code for one in answers] == [403, 403]
        assert answers[0].content == answers[1].content


async def test_whether_there_is_a_grant_is_told_to_nobody_who_may_not_see_it(stranger: httpx.AsyncClient, tenants: Tenants):
    """Grants of the installation, of a workspace and of a model: to strangers, and to who may but look at the model."""
    await tenants.person("holder")
    await tenants.person("viewer", Role.VIEWER, tenants.places["red"])
    await tenants.person("elsewhere", Role.ADMIN, tenants.places["blue"])
    holder = Subject("user", tenants.people["holder"])
    places = (INSTALLATION, tenants.places["red"], tenants.places["red-model"])
    given = [(await tenants.control.access.give(ADMIN, holder, Role.PREDICTOR, place)).id for place in places]
    for who in ("holder", "viewer", "elsewhere"):
        headers = {"X-API-Key": await tenants.secret(who), "X-Request-ID": "r"}
        answers = [await stranger.delete(f"/api/v1/grants/{one}", headers=headers) for one in (*given, "grt_none")]
        assert {one.status_code for one in answers} == {404}, who
        assert len({one.content for one in answers}) == 1, who
    assert {one.id for one in await tenants.control.access.grants(ADMIN, limit=50, subject=holder)} == set(given)
