"""Alerts over HTTP: found, looked at and resolved, by those who may."""

from datetime import timedelta

import httpx
import pytest

from fixtures.control import TestClock
from fixtures.control_api import key_with
from fixtures.rollouts import Fleet, fleet_of
from fixtures.tenants import Tenants
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.traffic import Counted
from modelkeep.control.alerts.rules import Evidence, News, Severity
from modelkeep.infra.db import Database

ALERTS = "/api/v1/alerts"
BAD = Counted(30, 8, 570, 2)


@pytest.fixture
async def fleet(control: ControlPlane, clock: TestClock) -> Fleet:
    return await fleet_of(control, clock)


async def raised(control: ControlPlane, db: Database, model_id: str, name: str, severity: Severity = Severity.PAGE) -> str:
    """Raise an alert about a deployment and model of this name; its id."""
    labels = {"kind": "rollout.rolled_back", "deployment": name, "model": name, "version": "2"}
    news = News(severity, model_id, labels, "t", "x", Evidence(TestClock().now, "rol_1", "/link"))
    async with db.begin() as tx:
        return (await control.alerts.raise_in(tx, news)).id


async def test_an_alert_of_a_rollback_is_found_looked_at_and_resolved(client: httpx.AsyncClient, fleet: Fleet):
    rollout = await fleet.start()
    await fleet.served(BAD)
    assert await fleet.tick(rollout) == "rolled_back"
    (listed,) = (await client.get(ALERTS, params={"state": "firing", "severity": "page", "deployment": "iris"})).json()["items"]
    one = f"{ALERTS}/{listed['id']}"
    shown = (await client.get(one)).json()
    (seen,) = shown.pop("evidence")
    assert shown == listed
    assert (listed["kind"], listed["state"], listed["count"], listed["acknowledged_at"]) == (
        "rollout.rolled_back",
        "firing",
        1,
        None,
    )
    assert listed["labels"] == {"kind": "rollout.rolled_back", "deployment": "iris", "model": "iris", "version": "2"}
    assert (seen["signal"], seen["numbers"]["errors"]["bad"]) == ("errors", 8)
    assert (await client.get(seen["link"])).json()["rollout"] == rollout.id

    looked_at = (await client.post(f"{one}/acknowledge")).json()
    assert (looked_at["state"], looked_at["acknowledged_note"]) == ("acknowledged", "")
    assert looked_at["acknowledged_until"] == (fleet.clock() + timedelta(hours=4)).isoformat().replace("+00:00", "Z")
    again = (await client.post(f"{one}/acknowledge", json={"for_minutes": 5, "note": "logs"})).json()
    assert (again["acknowledged_note"], again["state"]) == ("logs", "acknowledged")
    fleet.clock.advance(minutes=5)
    assert (await client.get(one)).json()["state"] == "firing"

    over = (await client.post(f"{one}/resolve", json={"note": "clean rows"})).json()
    assert (over["state"], over["resolved_why"]) == ("resolved", "clean rows")
    for act, body in (("acknowledge", {}), ("resolve", {"note": "again"})):
        refused = await client.post(f"{one}/{act}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "alert_over")
    assert (await client.get(ALERTS, params={"state": "firing"})).json()["items"] == []
    assert len((await client.get(ALERTS, params={"state": "resolved"})).json()["items"]) == 1


@pytest.mark.parametrize(
    ("act", "body"),
    [
        ("acknowledge", {"for_minutes": 0}),
        ("acknowledge", {"for_minutes": 10081}),
        ("acknowledge", {"for_minutes": 1.5}),
        ("acknowledge", {"note": "x" * 1001}),
        ("acknowledge", {"until": "tomorrow"}),
        ("resolve", None),
        ("resolve", {}),
        ("resolve", {"note": ""}),
        ("resolve", {"note": "  "}),
        ("resolve", {"note": "x" * 1001}),
    ],
)
async def test_what_cannot_be_said_of_an_alert_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, fleet: Fleet, db: Database, act: str, body: object
):
    one = f"{ALERTS}/{await raised(fleet.control, db, (await fleet.deployment()).model_id, 'iris')}"
    before = (await client.get(one)).json()
    assert (await client.post(f"{one}/{act}", json=body)).status_code == 400
    assert (await client.get(one)).json() == before


async def test_lists_are_paged_and_bounded_by_what_is_asked_for(client: httpx.AsyncClient, fleet: Fleet, db: Database):
    model_id = (await fleet.deployment()).model_id
    severities = [Severity.PAGE, Severity.TICKET, Severity.PAGE]
    ids = [await raised(fleet.control, db, model_id, f"d{number}", one) for number, one in enumerate(severities)]
    first = (await client.get(ALERTS, params={"limit": 2})).json()
    assert [one["id"] for one in first["items"]] == ids[:0:-1]
    rest = (await client.get(ALERTS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == (ids[:1], None)
    for wanted, expected in (
        ({"severity": "ticket"}, [ids[1]]),
        ({"deployment": "d2"}, [ids[2]]),
        ({"model": "d0"}, [ids[0]]),
        ({"model": "d0", "severity": "ticket"}, []),
        ({"state": "acknowledged"}, []),
    ):
        assert [one["id"] for one in (await client.get(ALERTS, params=wanted)).json()["items"]] == expected
    assert (await client.get(ALERTS, params={"state": "purple"})).status_code == 400


async def test_who_may_see_and_answer_it(stranger: httpx.AsyncClient, tenants: Tenants, control: ControlPlane, db: Database):
    one = f"{ALERTS}/{await raised(control, db, tenants.places['red-model'].model, 'red-model')}"
    asked = [("GET", one, None), ("POST", f"{one}/acknowledge", {}), ("POST", f"{one}/resolve", {"note": "n"})]
    for name, role, place in (
        ("viewer", Role.VIEWER, "red"),
        ("elsewhere", Role.ADMIN, "blue"),
        ("releaser", Role.RELEASER, "red"),
    ):
        await tenants.person(name, role, tenants.places[place])

    async def answers(secret: str) -> tuple[list[int], int]:
        headers = {"X-API-Key": secret}
        told = [(await stranger.request(method, path, json=body, headers=headers)).status_code for method, path, body in asked]
        return told, len((await stranger.get(ALERTS, headers=headers)).json().get("items", []))

    assert await answers(await tenants.secret("viewer")) == ([200, 403, 403], 1)
    assert await answers(await tenants.secret("elsewhere")) == ([404, 404, 404], 0)
    assert await answers(await tenants.secret("releaser", Scope.MODELS_READ)) == ([200, 403, 403], 1)
    other = (tenants.places["blue-model"].model,)
    assert await answers(await tenants.secret("releaser", models=other)) == ([404, 404, 404], 0)
    assert await answers(await tenants.secret("releaser")) == ([200, 200, 200], 1)


ROUTES = [("GET", ALERTS), ("GET", f"{ALERTS}/x"), ("POST", f"{ALERTS}/x/acknowledge"), ("POST", f"{ALERTS}/x/resolve")]


async def test_without_a_key_nothing_is_told(stranger: httpx.AsyncClient):
    for method, path in ROUTES:
        assert (await stranger.request(method, path, json={"note": "n"})).status_code == 401


async def test_a_key_that_may_only_predict_may_not(client: httpx.AsyncClient, control: ControlPlane, admin_key: str):
    headers = {"X-API-Key": await key_with(control, admin_key, Scope.PREDICT)}
    for method, path in ROUTES:
        assert (await client.request(method, path, json={"note": "n"}, headers=headers)).status_code == 403


async def test_an_alert_that_there_is_not_is_not_found(client: httpx.AsyncClient):
    for method, path, body in (
        ("GET", f"{ALERTS}/alr_none", None),
        ("POST", f"{ALERTS}/alr_none/acknowledge", None),
        ("POST", f"{ALERTS}/alr_none/resolve", {"note": "n"}),
    ):
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "alert_not_found")
