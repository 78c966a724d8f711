"""Rollouts over HTTP: started, seen and steered, by those who may."""

from collections.abc import Sequence

import httpx
import pytest

from fixtures.control import ADMIN, TestClock, ready_version
from fixtures.control_api import key_with
from fixtures.rollouts import Fleet, fleet_of
from fixtures.tenants import Tenants
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.traffic import Counted
from modelkeep.control.rollouts.asked import Asked

ROLLOUTS = "/api/v1/rollouts"
ACTS = ("pause", "resume", "advance", "promote", "rollback")


@pytest.fixture
async def fleet(control: ControlPlane, clock: TestClock) -> Fleet:
    return await fleet_of(control, clock)


async def started(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post(ROLLOUTS, json={"deployment": "iris", "version": 2, **body})


async def test_a_rollout_is_started_seen_and_steered(client: httpx.AsyncClient, fleet: Fleet):
    made = await started(client, steps=["5:10m", "50%:1.5h"])
    assert made.status_code == 201, made.text
    body = made.json()
    assert made.headers["location"] == f"{ROLLOUTS}/{body['id']}"
    assert (body["state"], body["mode"], body["step"], body["percent"], body["from_version"]) == (
        "running",
        "canary",
        1,
        5.0,
        1,
    )
    assert body["steps"] == [
        {"percent": 5.0, "minutes": 10.0, "shadow": False},
        {"percent": 50.0, "minutes": 90.0, "shadow": False},
    ]
    assert body["gate"]["signals"] == ["errors", "slow", "poor"]
    paused = await client.post(f"{made.headers['location']}/pause", headers={"if-match": '"1"'})
    assert (paused.json()["state"], paused.headers["etag"]) == ("paused", '"2"')
    stale = await client.post(f"{made.headers['location']}/advance", headers={"if-match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "stale")
    assert (await client.post(f"{made.headers['location']}/resume")).json()["state"] == "running"
    advanced = (await client.post(f"{made.headers['location']}/advance")).json()
    assert (advanced["step"], [one["decision"] for one in advanced["begun"]]) == (2, ["advanced", ""])
    back = (await client.post(f"{made.headers['location']}/rollback", json={"reason": "it smells"})).json()
    assert (back["state"], back["reason"]) == ("rolled_back", "it smells")
    assert [one["what"] for one in back["events"]] == ["start", "pause", "resume", "advance", "rolled_back"]
    assert (await client.get("/api/v1/deployments/iris")).json()["version"] == 1
    for act in ACTS:
        over = await client.post(f"{made.headers['location']}/{act}")
        assert (over.status_code, over.json()["code"]) == (409, "rollout_over")


async def test_its_numbers_and_its_evidence_are_told(client: httpx.AsyncClient, fleet: Fleet, control: ControlPlane):
    rollout = (await started(client)).json()["id"]
    await fleet.served(Counted(100, 0, 1900, 4))
    await control.rollouts.tick(rollout)
    known = (await client.get(f"{ROLLOUTS}/{rollout}")).json()["numbers"]["errors"]
    assert (known["requests"], known["others_bad"], known["worse"], known["good"]) == (100, 4, False, False)
    assert known["needs"] == pytest.approx(5.7038, abs=1e-4)
    evidence = (await client.get(f"{ROLLOUTS}/{rollout}/evidence")).json()
    assert evidence["needs"] == pytest.approx(5.7038, abs=1e-4)
    (point,) = evidence["points"]
    assert point["signals"]["errors"]["log_e"] == known["log_e"] < 0


async def test_one_that_begins_in_the_shadow_says_so_and_what_is_known_there(
    client: httpx.AsyncClient, fleet: Fleet, control: ControlPlane
):
    made = (await started(client, shadow="20:10m", bounds={"disagreement": 0.2})).json()
    assert (made["shadow"], made["percent"]) == (True, 20.0)
    assert [one["shadow"] for one in made["steps"]] == [True, False, False, False]
    assert made["gate"]["signals"] == ["errors", "slow", "poor", "disagreement"]
    assert (await client.get("/api/v1/deployments/iris")).json()["traffic"]["shadow"] == {"version": 2, "share": 20.0}
    await fleet.asked_beside(100, 10)
    await control.rollouts.tick(made["id"])
    known = (await client.get(f"{ROLLOUTS}/{made['id']}")).json()["numbers"]["disagreement"]
    assert (known["requests"], known["bad"], known["bound"]) == (100, 10, 0.2)
    assert (known["worse"], known["needs_local"]) == (False, None)
    assert known["needs"] == pytest.approx(6.3969, abs=1e-4)
    advanced = (await client.post(f"{ROLLOUTS}/{made['id']}/advance")).json()
    assert [one["shadow"] for one in advanced["begun"]] == [True, False]
    assert (advanced["shadow"], advanced["percent"]) == (False, 5.0)


async def test_lists_are_paged_and_of_a_deployment(client: httpx.AsyncClient, fleet: Fleet):
    ids = []
    for _ in range(3):
        ids.append((await started(client)).json()["id"])
        await client.post(f"{ROLLOUTS}/{ids[-1]}/rollback")
    first = (await client.get(ROLLOUTS, params={"limit": 2, "deployment": "iris"})).json()
    assert [one["id"] for one in first["items"]] == ids[:0:-1]
    rest = (await client.get(ROLLOUTS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == (ids[:1], None)
    assert (await client.get(ROLLOUTS, params={"deployment": "rose"})).json()["items"] == []


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"steps": ["0:1h"]}, "steps[0]"),
        ({"steps": ["100:1h"]}, "steps[0]"),
        ({"steps": ["5:1h", "5:1h"]}, "steps"),
        ({"steps": []}, "steps"),
        ({"steps": ["5:1y"]}, "steps[0]"),
        ({"signals": []}, "signals"),
        ({"signals": ["errors", "errors"]}, "signals"),
        ({"alpha": 0.0}, "alpha"),
        ({"margin": 1.0}, "margin"),
        ({"bounds": {"errors": 2.0}}, "bounds.errors"),
        ({"signals": ["errors"], "bounds": {"slow": 0.1}}, "bounds.slow"),
        ({"signals": ["errors", "disagreement"]}, "signals"),
        ({"bounds": {"disagreement": 0.1}}, "bounds.disagreement"),
        ({"shadow": "0:10m"}, "shadow"),
    ],
)
async def test_what_is_wrong_with_a_plan_is_said_by_its_place(
    client: httpx.AsyncClient, fleet: Fleet, wrong: dict[str, object], path: str
):
    answer = await started(client, **wrong)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_rollout"), answer.text
    assert [one["path"] for one in answer.json()["errors"]] == [path]
    assert (await client.get(ROLLOUTS)).json()["items"] == []


async def test_a_second_one_is_refused_and_so_is_one_of_what_was_changed(client: httpx.AsyncClient, fleet: Fleet):
    stale = await client.post(ROLLOUTS, json={"deployment": "iris", "version": 2}, headers={"if-match": '"7"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "stale")
    assert (await started(client)).status_code == 201
    second = await started(client)
    assert (second.status_code, second.json()["code"]) == (409, "rollout_under_way")
    assert (await started(client, version=9)).json()["code"] == "version_not_found"


async def asked(stranger: httpx.AsyncClient, secret: str, paths: Sequence[tuple[str, str]]) -> dict[str, int]:
    """What each is answered."""
    found = {}
    for method, path in paths:
        body = {"deployment": "red-model", "version": 9} if (method, path) == ("POST", ROLLOUTS) else None
        found[f"{method} {path}"] = (await stranger.request(method, path, json=body, headers={"X-API-Key": secret})).status_code
    return found


async def test_who_may_see_and_steer_it(stranger: httpx.AsyncClient, tenants: Tenants, control: ControlPlane):
    await ready_version(control, "red-model", b"another")
    found = await control.models.versions(ADMIN, "red-model", limit=5)
    rollout = await control.rollouts.start(ADMIN, "red-model", max(one.number for one in found), Asked())
    one = f"{ROLLOUTS}/{rollout.id}"
    reads = [("GET", one), ("GET", f"{one}/evidence")]
    writes = [("POST", ROLLOUTS), *(("POST", f"{one}/{act}") for act in ACTS[:-2])]
    for name, role, place in (
        ("viewer", Role.VIEWER, tenants.places["red"]),
        ("releaser", Role.RELEASER, tenants.places["red"]),
        ("elsewhere", Role.ADMIN, tenants.places["blue"]),
    ):
        await tenants.person(name, role, place)
    viewer = await asked(stranger, await tenants.secret("viewer"), reads + writes)
    assert set(list(viewer.values())[:2]) == {200}
    assert set(list(viewer.values())[2:]) == {403}
    releaser = await asked(stranger, await tenants.secret("releaser"), reads + writes)
    assert set(releaser.values()) == {200, 404}, "404 is the version that there is not"
    elsewhere = await asked(stranger, await tenants.secret("elsewhere"), reads + writes)
    assert set(elsewhere.values()) == {404}
    listed = await stranger.get(ROLLOUTS, headers={"X-API-Key": await tenants.secret("elsewhere")})
    assert listed.json()["items"] == []
    bounded = await tenants.secret("releaser", Scope.MODELS_READ)
    assert set((await asked(stranger, bounded, writes)).values()) == {403}


async def test_without_a_key_nothing_is_told(stranger: httpx.AsyncClient, fleet: Fleet):
    for method, path in (("GET", ROLLOUTS), ("POST", ROLLOUTS), *(("POST", f"{ROLLOUTS}/rol_none/{act}") for act in ACTS)):
        assert (await stranger.request(method, path)).status_code == 401


async def test_a_key_that_may_only_predict_may_not(
    client: httpx.AsyncClient, fleet: Fleet, control: ControlPlane, admin_key: str
):
    headers = {"X-API-Key": await key_with(control, admin_key, Scope.PREDICT)}
    assert (await client.get(ROLLOUTS, headers=headers)).status_code == 403
