"""The set-up and keys, over HTTP."""

import httpx

from fixtures.control import TestClock
from modelkeep.app.control_plane import ControlPlane


async def test_a_token_becomes_a_key_once(stranger: httpx.AsyncClient, control: ControlPlane, clock: TestClock):
    token = await control.users.ensure_setup_token(clock())
    assert (await stranger.get("/api/v1/setup")).json() == {"needed": True}
    wrong = await stranger.post("/api/v1/setup", json={"token": "mks_x"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "setup_token_invalid")
    answer = await stranger.post("/api/v1/setup", json={"token": token.reveal()})
    assert answer.status_code == 201
    body = answer.json()
    assert body["user"]["name"] == "admin"
    assert body["key"]["scopes"] == ["admin"]
    me = await stranger.get("/api/v1/me", headers={"X-API-Key": body["key"]["secret"]})
    assert me.json() == {
        "key": {"id": body["key"]["id"], "name": "first key", "scopes": ["admin"], "expires_at": None},
        "session": None,
        "user": body["user"],
        "scopes": ["admin"],
        "roles": [{"role": "admin", "kind": "installation", "on": "", "through": ""}],
    }
    assert (await stranger.get("/api/v1/setup")).json() == {"needed": False}
    again = await stranger.post("/api/v1/setup", json={"token": token.reveal()})
    assert (again.status_code, again.json()["code"]) == (409, "already_set_up")


async def test_a_key_is_made_shown_once_listed_and_revoked(client: httpx.AsyncClient):
    made = await client.post("/api/v1/keys", json={"name": "ci", "scopes": ["predict", "models:read"], "expires_in_days": 7})
    assert made.status_code == 201
    key = made.json()
    assert key["secret"].startswith("mk_")
    assert key["expires_at"] == "2026-01-09T03:04:05Z"
    listed = (await client.get("/api/v1/keys")).json()
    assert [one["name"] for one in listed["items"]] == ["ci", "first key"]
    assert key["secret"] not in str(listed)
    revoked = await client.delete(f"/api/v1/keys/{key['id']}")
    assert (revoked.status_code, revoked.content) == (204, b"")
    assert (await client.get("/api/v1/me", headers={"X-API-Key": key["secret"]})).status_code == 401
    unknown = await client.delete("/api/v1/keys/key_none")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "key_not_found")
    last = await client.delete(f"/api/v1/keys/{listed['items'][1]['id']}")
    assert (last.status_code, last.json()["code"]) == (409, "last_admin")


async def test_lists_are_walked_by_their_cursors(client: httpx.AsyncClient):
    for number in range(5):
        await client.post("/api/v1/keys", json={"name": f"k{number}", "scopes": ["predict"]})
        await client.post("/api/v1/models", json={"name": f"m{number}"})
    for path, key, total in (
        ("/api/v1/keys", "id", 6),
        ("/api/v1/models", "name", 5),
        ("/api/v1/deployments", "name", 5),
        ("/api/v1/audit", "id", 13),
    ):
        seen: list[str] = []
        cursor = None
        while True:
            page = (await client.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            assert len(page["items"]) <= 2
            seen += [item[key] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == total, path
        for bad in ({"limit": 0}, {"limit": 501}, {"limit": "x"}, {"cursor": "!"}):
            answer = await client.get(path, params=bad)
            assert answer.status_code == 400, (path, bad)


async def test_the_audit_trail_is_filtered_by_target(client: httpx.AsyncClient):
    model = (await client.post("/api/v1/models", json={"name": "iris"}, headers={"X-Request-ID": "my-request"})).json()
    (entry,) = (await client.get("/api/v1/audit", params={"target": model["id"]})).json()["items"]
    assert (entry["action"], entry["request_id"], entry["actor_name"]) == ("model.create", "my-request", "ada")
