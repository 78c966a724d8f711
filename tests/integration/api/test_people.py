"""People and services over HTTP: added, changed, disabled, and let in."""

import httpx
import pytest

from fixtures.people import EMAIL, PASSWORD, People

OTHER = "staple of another kind"


@pytest.fixture
def admin(stranger: httpx.AsyncClient, people: People) -> httpx.AsyncClient:
    """A client with the first administrator's key."""
    stranger.headers["x-api-key"] = people.key
    return stranger


async def test_a_person_is_added_gets_a_password_logs_in_and_is_disabled(admin: httpx.AsyncClient):
    made = await admin.post("/api/v1/users", json={"name": "bob", "email": "Bob@example.org", "role": "developer"})
    assert made.status_code == 201
    bob = made.json()
    assert (bob["email"], bob["kind"], bob["status"]) == ("bob@example.org", "person", "active")
    link = await admin.post(f"/api/v1/users/{bob['id']}/reset-password")
    assert link.json().keys() == {"token", "expires_at"}
    body = {"token": link.json()["token"], "password": PASSWORD}
    assert (await admin.post("/api/v1/auth/reset-password", json=body)).status_code == 204
    again = await admin.post("/api/v1/auth/reset-password", json=body)
    assert (again.status_code, again.json()["code"]) == (401, "link_refused")
    tokens = (await admin.post("/api/v1/auth/login", json={"email": bob["email"], "password": PASSWORD})).json()
    mine = {"x-api-key": tokens["access_token"]}
    renamed = await admin.patch("/api/v1/me", json={"display_name": "Bob"}, headers=mine)
    assert renamed.json() == {**bob, "display_name": "Bob"}
    wrong = await admin.post("/api/v1/me/password", json={"old": OTHER, "new": OTHER}, headers=mine)
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_password")
    assert (await admin.post("/api/v1/me/password", json={"old": PASSWORD, "new": OTHER}, headers=mine)).status_code == 204
    assert (await admin.get("/api/v1/users", headers=mine)).status_code == 403
    given = {"subject_kind": "user", "subject": bob["id"], "role": "admin", "kind": "installation"}
    assert (await admin.post("/api/v1/grants", json=given)).status_code == 201
    assert (await admin.get("/api/v1/users", headers=mine)).status_code == 200
    disabled = await admin.post(f"/api/v1/users/{bob['id']}/disable")
    assert disabled.json()["status"] == "disabled"
    assert (await admin.get("/api/v1/me", headers=mine)).status_code == 401
    enabled = await admin.post(f"/api/v1/users/{bob['id']}/enable")
    assert enabled.json() == (await admin.get(f"/api/v1/users/{bob['id']}")).json()
    assert [one["name"] for one in (await admin.get("/api/v1/users")).json()["items"]] == ["bob", "ada"]


async def test_who_is_signed_out_may_log_in_again_and_keeps_keys(admin: httpx.AsyncClient, people: People):
    made = [(await people.login()).access for _ in range(2)]
    before = await admin.get("/api/v1/me", headers={"x-api-key": made[0]})
    assert before.json()["roles"] == [{"role": "admin", "kind": "installation", "on": "", "through": ""}]
    assert before.json()["session"].startswith("ses_")
    assert (await admin.delete("/api/v1/users/usr_none/sessions")).status_code == 404
    assert (await admin.delete(f"/api/v1/users/{before.json()['user']['id']}/sessions")).status_code == 204
    assert [(await admin.get("/api/v1/me", headers={"x-api-key": one})).status_code for one in made] == [401, 401]
    (entry,) = (await admin.get("/api/v1/audit", params={"action": "session.end_all"})).json()["items"]
    assert (entry["actor"], entry["target"]) == (people.admin.id, before.json()["user"]["id"])
    assert (await admin.get("/api/v1/me")).json()["key"]["id"] == people.admin.id
    assert (await admin.get("/api/v1/me", headers={"x-api-key": (await people.login()).access})).status_code == 200


async def test_a_service_has_keys_and_nothing_else(admin: httpx.AsyncClient):
    robot = (await admin.post("/api/v1/users", json={"name": "robot", "kind": "service", "role": "predictor"})).json()
    new = {"name": "nightly", "scopes": ["predict"], "service": robot["id"]}
    key = (await admin.post("/api/v1/keys", json=new)).json()
    me = (await admin.get("/api/v1/me", headers={"x-api-key": key["secret"]})).json()
    assert (me["user"]["name"], me["scopes"], me["key"]["name"]) == ("robot", ["predict"], "nightly")
    assert (await admin.post(f"/api/v1/users/{robot['id']}/reset-password")).status_code == 400


async def test_keys_share_their_persons_rate_and_more_is_given_by_administrators(admin: httpx.AsyncClient):
    bob = {"name": "bob", "email": "bob@example.org", "role": "developer"}
    added = (await admin.post("/api/v1/users", json=bob)).json()
    link = (await admin.post(f"/api/v1/users/{added['id']}/reset-password")).json()
    await admin.post("/api/v1/auth/reset-password", json={"token": link["token"], "password": PASSWORD})
    tokens = (await admin.post("/api/v1/auth/login", json={"email": bob["email"], "password": PASSWORD})).json()
    session, new = {"x-api-key": tokens["access_token"]}, {"name": "mine", "scopes": ["admin"]}
    made = (await admin.post("/api/v1/keys", json=new, headers=session)).json()
    assert made["rate"] == "user"
    for person in (session, {"x-api-key": made["secret"]}):
        for allowed in ({"rate": "user"}, {"rate": "100/min"}, {"rate": "50/min", "burst": 16}):
            answer = await admin.post("/api/v1/keys", json=new | allowed, headers=person)
            assert answer.status_code == 201, "a key that shares its person's rate has no bound that another could pass"
            await admin.delete(f"/api/v1/keys/{answer.json()['id']}")
        for more in ({"rate": "unlimited"}, {"rate": "101/min"}, {"rate": "50/min", "burst": 17}):
            refused = (await admin.post("/api/v1/keys", json=new | more, headers=person)).json()
            assert (refused["code"], "most 100/min with a burst of 16" in refused["detail"]) == ("forbidden", True)
            assert (await admin.post("/api/v1/keys", json=new | more)).status_code == 201
    came = [
        (await admin.post("/api/v1/keys", json=new | {"rate": rate}, headers=session)).status_code
        for rate in ("60/min", "41/min", "40/min", "1/min", "user")
    ]
    assert came == [201, 403, 201, 403, 201], "many small rates are a large one"


async def test_hashes_from_elsewhere_are_taken_when_they_are_good(admin: httpx.AsyncClient):
    bob = {"name": "bob", "email": "bob@example.org"}
    weak = await admin.post("/api/v1/users", json=bob | {"password_hash": "$2b$10$" + "a" * 53})
    assert (weak.status_code, weak.json()["code"]) == (400, "unknown_password_hash")
    made = await admin.post("/api/v1/users", json=bob | {"password_hash": "$2b$12$" + "a" * 53})
    assert made.status_code == 201
    assert "hash" not in made.text


async def test_who_was_invited_registers(admin: httpx.AsyncClient):
    invited = (await admin.post("/api/v1/invitations", json={"role": "releaser"})).json()
    listed = (await admin.get("/api/v1/invitations")).json()["items"]
    assert listed == [{name: value for name, value in invited.items() if name != "token"}]
    del admin.headers["x-api-key"]
    new = {"name": "bob", "email": "bob@example.org", "password": PASSWORD}
    closed = await admin.post("/api/v1/auth/register", json=new)
    assert (closed.status_code, closed.json()["code"]) == (403, "registration_closed")
    registered = await admin.post("/api/v1/auth/register", json=new | {"token": invited["token"]})
    assert registered.status_code == 201
    tokens = (await admin.post("/api/v1/auth/login", json={"email": new["email"], "password": PASSWORD})).json()
    asked = {"scope": "deployments:write"}
    mine = {"x-api-key": tokens["access_token"]}
    assert (await admin.get("/api/v1/authz/explain", params=asked, headers=mine)).json()["grant"]["role"] == "releaser"
    taken = await admin.post("/api/v1/auth/register", json=new | {"token": invited["token"]})
    assert taken.json()["code"] == "link_refused"


async def test_the_last_administrator_stays(admin: httpx.AsyncClient, people: People):
    path = f"/api/v1/users/{people.admin.user}"
    (given,) = (await admin.get("/api/v1/grants", params={"kind": "installation"})).json()["items"]
    for answer in (await admin.post(f"{path}/disable"), await admin.delete(f"/api/v1/grants/{given['id']}")):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    twice = await admin.post("/api/v1/users", json={"name": "eve", "email": EMAIL})
    assert (twice.status_code, twice.json()["code"]) == (409, "user_exists")
    assert (await admin.get("/api/v1/users/usr_none")).json()["code"] == "user_not_found"
    assert (await admin.delete("/api/v1/invitations/lnk_none")).json()["code"] == "invitation_not_found"


async def test_a_user_has_another_name_and_goes_on_as_before(admin: httpx.AsyncClient, people: People):
    robot = (await admin.post("/api/v1/users", json={"name": "robot", "kind": "service"})).json()
    issued = await admin.post("/api/v1/keys", json={"name": "k", "scopes": ["models:read"], "service": robot["id"]})
    key = {"x-api-key": issued.json()["secret"]}
    invited = (await admin.post("/api/v1/invitations", json={})).json()["token"]
    changed = await admin.patch(f"/api/v1/users/{robot['id']}", json={"name": "nightly"})
    assert changed.json() == {**robot, "name": "nightly"}, "what is left out stays"
    assert (await admin.get("/api/v1/me", headers=key)).json()["user"]["name"] == "nightly"
    (entry,) = (await admin.get("/api/v1/audit", params={"action": "user.rename"})).json()["items"]
    assert (entry["before"], entry["after"]) == ("robot", "nightly")
    for name, status, code in (("ada", 409, "user_exists"), ("a b", 400, "invalid_name"), ("", 400, "invalid_name")):
        refused = await admin.patch(f"/api/v1/users/{robot['id']}", json={"name": name})
        assert refused.status_code == status, refused.text
        assert refused.json()["code"] in {code, "invalid_request"}
    assert (await admin.post("/api/v1/users", json={"name": "robot", "kind": "service"})).status_code == 201, "it is free"
    new = {"token": invited, "name": "eve", "email": "eve@example.org", "password": PASSWORD}
    assert (await admin.patch(f"/api/v1/users/{people.admin.user}", json={"name": "ada.l"})).status_code == 200
    assert (await admin.post("/api/v1/auth/register", json=new)).json()["code"] == "link_refused"
    assert (await admin.patch(f"/api/v1/users/{people.admin.user}", json={"name": "ada"})).status_code == 200
    assert (await admin.post("/api/v1/auth/register", json=new)).status_code == 201, "the control"
