"""What needs two people, over the REST API: asked, approved by another, repeated with the same key, and done once."""

import asyncio

import httpx
import pytest

from fixtures.control import ADMIN, FINDINGS, upload
from fixtures.tenants import Tenants
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Place, Role
from modelkeep.contracts.actor import SYSTEM
from modelkeep.infra.settings import AccessSettings

V1, M = "/api/v1", "red-model"
PROMOTE = f"{V1}/deployments/{M}/promote"
TWO = {"version": 2}


@pytest.fixture
def alone() -> AccessSettings:
    return AccessSettings(two_person="promotion,deletion,override")


@pytest.fixture
async def keys(tenants: Tenants, control: ControlPlane) -> dict[str, dict[str, str]]:
    """Two administrators' headers; version 1 of the model answers, and 2 is ready."""
    await control.deployments.promote(SYSTEM, M, 1)
    version = await control.models.receive(ADMIN, M, upload(b"two"))
    await control.models.begin_validation(version.id)
    await control.models.accept(version.id, FINDINGS, "job_none")
    for name in ("ada", "bob"):
        await tenants.person(name, Role.ADMIN, Place())
    return {name: {"x-api-key": await tenants.secret(name)} for name in ("ada", "bob")}


async def test_the_same_request_goes_through_once_it_is_approved(
    stranger: httpx.AsyncClient, keys: dict[str, dict[str, str]], control: ControlPlane
):
    """Also with an Idempotency-Key: it is not the refusal that is answered again, but afterwards the answer."""
    mine, theirs = keys["ada"] | {"idempotency-key": "k-1"}, keys["bob"]
    refused = await stranger.post(PROMOTE, json=TWO, headers=mine)
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_needed")
    wanted = refused.json()["approval"]
    again = await stranger.post(PROMOTE, json=TWO, headers=mine)
    assert (again.status_code, again.json()["approval"]) == (409, wanted)
    assert "idempotency-replayed" not in again.headers
    page = (await stranger.get(f"{V1}/approvals", params={"state": "pending"}, headers=theirs)).json()
    assert [one["id"] for one in page["items"]] == [wanted]
    own = await stranger.post(f"{V1}/approvals/{wanted}/approve", headers=keys["ada"])
    assert (own.status_code, own.json()["code"]) == (403, "second_person_needed")
    given = await stranger.post(f"{V1}/approvals/{wanted}/approve", headers=theirs)
    assert (given.json()["state"], [one["name"] for one in given.json()["approved_by"]]) == ("approved", ["bob"])
    done = await stranger.post(PROMOTE, json=TWO, headers=mine)
    assert (done.status_code, done.json()["version"]) == (200, 2)
    replayed = await stranger.post(PROMOTE, json=TWO, headers=mine)
    assert (replayed.headers["idempotency-replayed"], replayed.content) == ("true", done.content)
    shown = (await stranger.get(f"{V1}/approvals/{wanted}", headers=keys["ada"])).json()
    assert (shown["state"], shown["used_at"] is not None) == ("used", True)
    actions = [one.action for one in await control.audit.entries(limit=3)]
    assert set(actions) == {"approval.use", "deployment.promote", "approval.approve"}


async def test_of_repeats_at_once_with_keys_of_their_own_one_promotes(
    stranger: httpx.AsyncClient, keys: dict[str, dict[str, str]], control: ControlPlane
):
    refused = await stranger.post(PROMOTE, json=TWO, headers=keys["ada"])
    await stranger.post(f"{V1}/approvals/{refused.json()['approval']}/approve", headers=keys["bob"])
    answers = await asyncio.gather(
        *(stranger.post(PROMOTE, json=TWO, headers=keys["ada"] | {"idempotency-key": f"k-{n}"}) for n in range(4))
    )
    assert {(one.status_code, one.json()["revision"]) for one in answers} == {(200, 2)}
    actions = [one.action for one in await control.audit.entries(limit=50)]
    assert (actions.count("approval.use"), actions.count("deployment.promote")) == (1, 2)


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", PROMOTE, {"json": TWO}),
        ("PUT", f"{V1}/models/{M}/aliases/live", {"json": TWO}),
        ("POST", f"{V1}/models/{M}/archive", {}),
        ("POST", f"{V1}/models/{M}/versions/2/archive", {}),
        ("DELETE", f"{V1}/workspaces/empty", {}),
        ("PUT", f"{V1}/safety/code-formats", {"json": {"allowed": True, "reason": "ours"}}),
        ("PUT", f"{V1}/safety/sandbox", {"json": {"accepted": "L1", "reason": "an old kernel"}}),
        ("POST", f"/v2/repository/models/{M}/unload", {}),
    ],
)
async def test_no_door_goes_round_it(
    stranger: httpx.AsyncClient,
    keys: dict[str, dict[str, str]],
    control: ControlPlane,
    method: str,
    path: str,
    more: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(control.switches, "_acceptable", "L1")
    await control.access.create_workspace(ADMIN, "empty")
    before = await state(stranger, keys["ada"])
    refused = await stranger.request(method, path, headers=keys["ada"], **more)
    (asked,) = (await stranger.get(f"{V1}/approvals", headers=keys["bob"])).json()["items"]
    assert (refused.status_code, asked["asked_by_name"], asked["state"]) == (409, "ada", "pending")
    assert asked["id"] in refused.text
    assert await state(stranger, keys["ada"]) == before
    assert (await stranger.post(f"{V1}/approvals/{asked['id']}/approve", headers=keys["bob"])).status_code == 200
    assert await state(stranger, keys["ada"]) == before
    done = await stranger.request(method, path, headers=keys["ada"], **more)
    assert done.is_success, done.text
    assert await state(stranger, keys["ada"]) != before


async def state(client: httpx.AsyncClient, headers: dict[str, str]) -> list[object]:
    """What the acts above change."""
    paths = (f"deployments/{M}", f"models/{M}/aliases", f"models/{M}", f"models/{M}/versions/2", "workspaces", "safety")
    return [(await client.get(f"{V1}/{path}", headers=headers)).json() for path in paths]


async def test_what_was_asked_is_kept_although_the_request_was_refused_and_others_refuse_it(
    stranger: httpx.AsyncClient, keys: dict[str, dict[str, str]], control: ControlPlane, tenants: Tenants
):
    refusal = await stranger.post(PROMOTE, json=TWO, headers=keys["ada"] | {"idempotency-key": "k-2"})
    bob = await tenants.actor("bob")
    assert (await control.approvals.approval(bob, refusal.json()["approval"])).asked_by_name == "ada"
    refused = await stranger.post(
        f"{V1}/approvals/{refusal.json()['approval']}/refuse", json={"reason": "no"}, headers=keys["bob"]
    )
    assert (refused.json()["state"], refused.json()["reason"], refused.json()["refused_by"]["name"]) == ("refused", "no", "bob")
    over = await stranger.post(f"{V1}/approvals/{refusal.json()['approval']}/approve", headers=keys["bob"])
    assert (over.status_code, over.json()["code"]) == (409, "approval_over")


async def test_what_is_not_there_and_what_one_may_not_see_are_answered_alike(
    stranger: httpx.AsyncClient, keys: dict[str, dict[str, str]], tenants: Tenants
):
    wanted = (await stranger.post(PROMOTE, json=TWO, headers=keys["ada"])).json()["approval"]
    await tenants.person("eve", Role.RELEASER, tenants.places["blue"])
    headers = {"x-api-key": await tenants.secret("eve"), "x-request-id": "r"}
    for method, path in (("GET", "{}"), ("POST", "{}/approve"), ("POST", "{}/refuse")):
        answers = [
            await stranger.request(
                method,
                f"{V1}/approvals/{path.format(one)}",
                headers=headers,
                json={"reason": "r"} if "refuse" in path else None,
            )
            for one in (wanted, "apr_none")
        ]
        assert [one.status_code for one in answers] == [404, 404]
        assert answers[0].content == answers[1].content
    assert (await stranger.get(f"{V1}/approvals", headers=headers)).json()["items"] == []
