"""Aliases over HTTP."""

import httpx
import pytest

from fixtures.control import ADMIN, ready_version
from fixtures.control_api import key_with
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope

IRIS = "/api/v1/models/iris"
ALIASES = f"{IRIS}/aliases"


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model with two ready versions, of which the first is promoted."""
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")
    await ready_version(control, "iris", b"two")


async def test_an_alias_is_set_listed_moved_and_deleted(client: httpx.AsyncClient, iris: None):
    assert (await client.get(ALIASES)).json() == {"items": [], "next_cursor": None}
    made = await client.put(f"{ALIASES}/champion", json={"version": 1})
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    assert made.json().items() >= {"name": "champion", "version": 1, "revision": 1, "changed_by": "ada"}.items()
    again = await client.put(f"{ALIASES}/champion", json={"version": 1})
    assert (again.json(), again.headers["etag"]) == (made.json(), '"1"')
    moved = await client.put(f"{ALIASES}/champion", json={"version": 2}, headers={"If-Match": made.headers["etag"]})
    assert (moved.json()["version"], moved.headers["etag"]) == (2, '"2"')
    assert (await client.get(ALIASES)).json()["items"] == [moved.json()]
    assert (await client.get(IRIS)).json()["aliases"] == {"champion": 2}
    assert (await client.get("/api/v1/models")).json()["items"][0]["aliases"] == {"champion": 2}
    refused = await client.post(f"{IRIS}/versions/2/archive")
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use")
    assert "champion" in refused.json()["detail"]
    gone = await client.delete(f"{ALIASES}/champion")
    assert (gone.status_code, gone.content) == (204, b"")
    repeated = await client.delete(f"{ALIASES}/champion")
    assert (repeated.status_code, repeated.json()["code"]) == (404, "alias_not_found")


async def test_the_history_is_paged_newest_first_and_outlives_the_alias(client: httpx.AsyncClient, iris: None):
    for turn in range(5):
        await client.put(f"{ALIASES}/champion", json={"version": 1 + turn % 2})
    await client.delete(f"{ALIASES}/champion")
    found, query = [], {"limit": "4"}
    while True:
        page = (await client.get(f"{ALIASES}/champion/history", params=query)).json()
        found += page["items"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert [(one["revision"], one["from_version"], one["to_version"]) for one in found] == [
        (6, 1, None),
        (5, 2, 1),
        (4, 1, 2),
        (3, 2, 1),
        (2, 1, 2),
        (1, None, 1),
    ]
    assert {one["by"] for one in found} == {"ada"}
    missing = await client.get(f"{ALIASES}/canary/history")
    assert (missing.status_code, missing.json()["code"]) == (404, "alias_not_found")
    assert (await client.get(f"{ALIASES}/champion/history", params={"cursor": "!"})).status_code == 400


async def test_a_change_of_an_old_revision_is_stale_and_says_the_present_one(client: httpx.AsyncClient, iris: None):
    await client.put(f"{ALIASES}/champion", json={"version": 1}, headers={"If-Match": '"0"'})
    for method, body in (("PUT", {"version": 2}), ("DELETE", None)):
        stale = await client.request(method, f"{ALIASES}/champion", json=body, headers={"If-Match": '"0"'})
        assert (stale.status_code, stale.json()["code"]) == (409, "stale")
        assert "revision 1" in stale.json()["detail"]
    bad = await client.put(f"{ALIASES}/champion", json={"version": 2}, headers={"If-Match": "first"})
    assert bad.status_code == 400
    assert (await client.get(ALIASES)).json()["items"][0]["version"] == 1


@pytest.mark.parametrize("alias", ["3", "v3", "latest", "A", "x" * 64, "x" * 200, "%2e%2e", "a%2fb", "%00", "%F0%9F%98%80"])
async def test_what_cannot_be_an_alias_is_refused_and_not_repeated(client: httpx.AsyncClient, iris: None, alias: str):
    refused = await client.put(f"{ALIASES}/{alias}", json={"version": 1})
    assert refused.status_code in {400, 404}
    assert "x" * 64 not in refused.json()["detail"]
    assert (await client.get(ALIASES)).json()["items"] == []


@pytest.mark.parametrize("body", [{}, {"version": 0}, {"version": "one"}, {"version": None}, {"version": 2**40}, [], {"x": 1}])
async def test_a_body_that_names_no_version_is_refused(client: httpx.AsyncClient, iris: None, body: object):
    refused = await client.put(f"{ALIASES}/champion", json=body)
    assert refused.status_code == 400
    assert (await client.get(ALIASES)).json()["items"] == []


async def test_who_may_read_reads_and_who_may_write_moves(
    client: httpx.AsyncClient, control: ControlPlane, admin_key: str, iris: None
):
    await client.put(f"{ALIASES}/champion", json={"version": 1})
    client.headers["X-API-Key"] = await key_with(control, admin_key, Scope.MODELS_READ)
    assert (await client.get(ALIASES)).status_code == 200
    assert (await client.get(f"{ALIASES}/champion/history")).status_code == 200
    assert (await client.put(f"{ALIASES}/champion", json={"version": 2})).status_code == 403
    assert (await client.delete(f"{ALIASES}/champion")).status_code == 403
    client.headers["X-API-Key"] = await key_with(control, admin_key, Scope.PREDICT)
    assert (await client.get(ALIASES)).status_code == 403
