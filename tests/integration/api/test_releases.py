"""Deployments, traffic, plans, rollbacks, revisions and what was when, over HTTP."""

import asyncio
from datetime import timedelta

import httpx
import pytest

from fixtures.control import ADMIN, TestClock, ready_version
from modelkeep.app.control_plane import ControlPlane

V1 = "/api/v1"
IRIS = f"{V1}/deployments/iris"
NOTHING = {"split": {}, "rules": [], "sticky": "", "shadow": None}
BETA = {"version": 3, "name": "beta", "callers": ["usr_1"], "header": "x-plan", "values": ["beta"], "percent": 50.0}


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model with three ready versions, of which the first promoted itself: revision 1."""
    await control.models.create(ADMIN, "iris")
    for content in (b"one", b"two", b"three"):
        await ready_version(control, "iris", content)


async def test_traffic_is_shown_and_changed_beside_settings(client: httpx.AsyncClient, iris: None, control: ControlPlane):
    assert (await client.get(IRIS)).json()["traffic"] == NOTHING
    await control.models.set_alias(ADMIN, "iris", "next", 2)
    wanted = {"split": {"next": 5}, "rules": [BETA], "sticky": "caller", "shadow": {"version": "3", "share": 20}}
    body = {"traffic": wanted, "settings": {"deadline_s": 2}, "reason": "5 % for a day"}
    changed = await client.patch(IRIS, json=body, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    shown = {"split": {"2": 5.0}, "rules": [BETA], "sticky": "caller", "shadow": {"version": 3, "share": 20.0}}
    assert changed.json()["traffic"] == shown
    assert changed.json()["settings"]["deadline_s"] == 2.0
    assert (await client.get(f"{V1}/deployments")).json()["items"][0]["traffic"] == shown
    back = await client.patch(IRIS, json={"traffic": {"split": None, "rules": None, "sticky": None, "shadow": None}})
    assert back.json()["traffic"] == NOTHING


async def test_faults_name_their_place_and_change_nothing(client: httpx.AsyncClient, iris: None):
    answer = await client.patch(IRIS, json={"traffic": {"splt": {}, "split": {"2": 101}}, "settings": {"concurrency": 2}})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_traffic")
    assert [one["path"] for one in answer.json()["errors"]] == ["traffic.split.2", "traffic.splt"]
    assert "Did you mean 'split'?" in answer.json()["errors"][1]["message"]
    for body in ({}, {"traffic": None}, {"reason": "r"}, {"traffic": 4}, {"trafic": {}}):
        assert (await client.patch(IRIS, json=body)).status_code == 400
    assert (await client.get(IRIS)).json()["revision"] == 1


async def test_a_stale_change_is_told_the_present_revision(client: httpx.AsyncClient, iris: None):
    changes = [client.patch(IRIS, json={"traffic": {"split": {"2": one}}}, headers={"If-Match": '"1"'}) for one in (1, 2, 3)]
    done = await asyncio.gather(*changes)
    assert sorted(one.status_code for one in done) == [200, 409, 409]
    refused = next(one for one in done if one.status_code == 409).json()
    assert (refused["code"], refused["revision"]) == ("stale", 2)
    for path, body in (("promote", {"version": 2}), ("rollback", {})):
        answer = await client.post(f"{IRIS}/{path}", json=body, headers={"If-Match": '"1"'})
        assert (answer.json()["code"], answer.json()["revision"]) == ("stale", 2)


async def test_a_deployment_is_made_listed_and_deleted_and_its_name_is_free_again_for_its_model(
    client: httpx.AsyncClient, iris: None
):
    wanted = {"name": "iris-eu", "model": "iris", "version": 2, "traffic": {"split": {"3": 10}}, "reason": "Europe"}
    made = await client.post(f"{V1}/deployments", json=wanted)
    assert (made.status_code, made.headers["location"], made.headers["etag"]) == (201, f"{V1}/deployments/iris-eu", '"0"')
    assert (made.json()["model"], made.json()["version"], made.json()["traffic"]["split"]) == ("iris", 2, {"3": 10.0})
    again = await client.post(f"{V1}/deployments", json=wanted)
    assert (again.status_code, again.json()["code"]) == (409, "deployment_exists")
    taken = await client.post(f"{V1}/models", json={"name": "iris-eu"})
    assert (taken.status_code, taken.json()["code"]) == (409, "deployment_exists")
    own = await client.delete(IRIS)
    assert (own.status_code, own.json()["code"]) == (409, "models_own_deployment")
    stale = await client.delete(f"{V1}/deployments/iris-eu", headers={"If-Match": '"7"'})
    assert stale.json()["revision"] == 0
    assert (await client.delete(f"{V1}/deployments/iris-eu", headers={"If-Match": '"0"'})).status_code == 204
    assert (await client.get(f"{V1}/deployments/iris-eu")).json()["code"] == "deployment_not_found"
    assert (await client.post(f"{V1}/models", json={"name": "iris-eu"})).json()["code"] == "deployment_exists"
    assert (await client.post(f"{V1}/deployments", json=wanted)).status_code == 201


async def test_a_plan_says_what_would_be_and_nothing_is_changed(client: httpx.AsyncClient, iris: None):
    plan = await client.post(f"{IRIS}/plan", json={"version": 2, "traffic": {"split": {"3": 10}}})
    assert plan.json() == {
        "revision": 1,
        "changes": [
            {"path": "traffic.split.3", "before": None, "after": 10.0},
            {"path": "version", "before": 1, "after": 2},
        ],
        "answering": [
            _part(1, 100.0, 0.0, stops=True),
            _part(2, 0.0, 90.0, begins=True),
            _part(3, 0.0, 10.0, begins=True),
        ],
        "needs_approval": False,
    }
    assert (await client.get(IRIS)).json()["revision"] == 1
    assert (await client.post(f"{IRIS}/plan", json={})).status_code == 400


def _part(version: int, before: float, after: float, *, begins: bool = False, stops: bool = False) -> dict[str, object]:
    shares = {"version": version, "share_before": before, "share_after": after, "rules_before": 0, "rules_after": 0}
    return shares | {"begins": begins, "stops": stops}


async def test_a_rollback_goes_back_and_revisions_tell_the_story(client: httpx.AsyncClient, iris: None):
    await client.patch(IRIS, json={"traffic": {"split": {"2": 10}}, "reason": "canary"})
    await client.post(f"{IRIS}/promote", json={"version": 2, "reason": "it does well"})
    back = await client.post(f"{IRIS}/rollback", json={"reason": "it does not"})
    assert (back.status_code, back.headers["etag"]) == (200, '"4"')
    assert (back.json()["version"], back.json()["traffic"]) == (1, NOTHING)
    first = (await client.get(f"{IRIS}/revisions", params={"limit": 3})).json()
    assert [(one["revision"], one["action"], one["reason"], one["restored"]) for one in first["items"]] == [
        (4, "rollback", "it does not", 1),
        (3, "promote", "it does well", None),
        (2, "route", "canary", None),
    ]
    rest = (await client.get(f"{IRIS}/revisions", params={"cursor": first["next_cursor"]})).json()
    assert ([one["revision"] for one in rest["items"]], rest["next_cursor"]) == ([1, 0], None)
    shown = (await client.get(f"{IRIS}/revisions/2")).json()
    assert (shown["version"], shown["traffic"]["split"], shown["by"]) == (1, {"2": 10.0}, first["items"][2]["by"])
    assert (await client.get(f"{IRIS}/revisions/9")).json()["code"] == "revision_not_found"
    there = await client.post(f"{IRIS}/rollback", json={"revision": 2})
    assert there.json()["traffic"]["split"] == {"2": 10.0}
    assert (await client.post(f"{IRIS}/rollback", json={"revision": 0})).json()["code"] == "nothing_to_roll_back"


async def test_what_was_at_a_moment_is_told_with_who_and_why(
    client: httpx.AsyncClient, iris: None, clock: TestClock, control: ControlPlane
):
    began = clock()
    clock.advance(minutes=5)
    await client.patch(IRIS, json={"traffic": {"split": {"2": 10}}, "reason": "canary"})
    await control.models.set_alias(ADMIN, "iris", "champion", 1)
    clock.advance(minutes=5)
    await client.post(f"{IRIS}/promote", json={"version": 2})
    await client.post(f"{V1}/deployments", json={"name": "eu", "model": "iris", "version": 3})
    path = f"{V1}/models/iris/as-of"
    then = (await client.get(path, params={"t": (began + timedelta(minutes=7)).isoformat()})).json()
    (one,) = then["deployments"]
    assert (one["revision"], one["version"], one["traffic"]["split"], one["reason"]) == (2, 1, {"2": 10.0}, "canary")
    assert (one["settings_revision"], then["aliases"]) == (0, {"champion": 1})
    now = (await client.get(path, params={"t": clock().isoformat()})).json()
    assert [(one["name"], one["version"]) for one in now["deployments"]] == [("eu", 3), ("iris", 2)]
    only = (await client.get(path, params={"t": clock().isoformat(), "deployment": "eu"})).json()
    assert [one["name"] for one in only["deployments"]] == ["eu"]
    before = (await client.get(path, params={"t": "2001-01-01T00:00:00Z"})).json()
    assert (before["deployments"], before["aliases"]) == ([], {})
    assert (await client.get(f"{V1}/models/rose/as-of", params={"t": "2001-01-01"})).json()["code"] == "model_not_found"
    assert (await client.get(path)).status_code == 400
