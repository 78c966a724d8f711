"""`Idempotency-Key` on every write: done once, answered alike, whoever is asked, and refused where it is another request."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, SITE, Rings, TestClock, ready_version, upload
from fixtures.control_api import api_over, key_with
from fixtures.described import operations, resolved
from fixtures.people import PASSWORD
from modelkeep.api.settings import ApiSettings
from modelkeep.app.control_plane import ControlPlane, control_plane
from modelkeep.contracts.access import INSTALLATION, Place, Role, Scope
from modelkeep.contracts.errors import AnswerSealed
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.access.rules import Subject
from modelkeep.control.approvals import store as approvals
from modelkeep.control.approvals.rules import Act, Voice
from modelkeep.control.approvals.rules import ask as ask_for
from modelkeep.control.audit.tables import audit_entries
from modelkeep.control.deployments.planning import Change
from modelkeep.control.links import store as links
from modelkeep.control.links.rules import Link, Purpose
from modelkeep.control.models.life import Deprecation
from modelkeep.control.predictions.service import Predictions
from modelkeep.control.rollouts.asked import Asked as Rolling
from modelkeep.control.sessions import store as sessions
from modelkeep.control.sessions.rules import Session
from modelkeep.control.users import store as users
from modelkeep.control.users.rules import Key, User
from modelkeep.infra import secrets
from modelkeep.infra.db import Database
from modelkeep.infra.idempotency import Write, notes
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.plugins.storage.local import LocalStore

V1, IRIS = "/api/v1", "/api/v1/models/iris"
REASON = {"reason": "a test"}
AS_USUAL = Rolling()
INVITATION, RESET = (secrets.new_secret(secrets.LINK).reveal() for _ in range(2))
FORM = {"files": {"file": ("m.onnx", b"new")}}

Asked = tuple[str, str, dict[str, Any]]
House = dict[str, str]
WRITES: dict[str, Asked] = {
    "issueKey": ("POST", f"{V1}/keys", {"json": {"name": "k", "scopes": ["predict"]}}),
    "revokeKey": ("DELETE", f"{V1}/keys/KEY", {}),
    "createWorkspace": ("POST", f"{V1}/workspaces", {"json": {"name": "fraud"}}),
    "removeWorkspace": ("DELETE", f"{V1}/workspaces/empty", {}),
    "createGroup": ("POST", f"{V1}/groups", {"json": {"name": "analysts"}}),
    "removeGroup": ("DELETE", f"{V1}/groups/crew", {}),
    "addMember": ("PUT", f"{V1}/groups/crew/members/USER", {}),
    "removeMember": ("DELETE", f"{V1}/groups/staff/members/USER", {}),
    "giveRole": (
        "POST",
        f"{V1}/grants",
        {"json": {"subject_kind": "key", "subject": "KEY", "role": "viewer", "kind": "installation"}},
    ),
    "takeRole": ("DELETE", f"{V1}/grants/GRANT", {}),
    "moveModel": ("POST", f"{IRIS}/move", {"json": {"workspace": "empty"}}),
    "eraseFromAudit": ("POST", f"{V1}/audit/erasures", {"json": {"subject": "usr_bob", "reason": "request 12"}}),
    "rotateKey": ("POST", f"{V1}/keys/KEY/rotate", {"json": {"keep_days": 7}}),
    "bindKey": ("PUT", f"{V1}/keys/KEY/certificate", {"json": {"names": ["dns:scoring.example.org"]}}),
    "endPreviousSecret": ("DELETE", f"{V1}/keys/key_rotated/previous", {}),
    "createModel": ("POST", f"{V1}/models", {"json": {"name": "rose"}}),
    "describeModel": ("PATCH", IRIS, {"json": {"description": "petals"}}),
    "archiveModel": ("POST", f"{IRIS}/archive", {}),
    "restoreModel": ("POST", f"{V1}/models/old/restore", {}),
    "uploadVersion": ("POST", f"{IRIS}/versions", FORM),
    "describeVersion": ("PATCH", f"{IRIS}/versions/1", {"json": {"description": "first"}}),
    "archiveVersion": ("POST", f"{IRIS}/versions/1/archive", {}),
    "restoreVersion": ("POST", f"{IRIS}/versions/3/restore", {}),
    "trashModel": ("DELETE", f"{V1}/models/old", {}),
    "deprecateModel": ("PUT", f"{IRIS}/deprecation", {"json": REASON}),
    "reviveModel": ("DELETE", f"{V1}/models/worn/deprecation", {}),
    "holdModel": ("PUT", f"{IRIS}/hold", {"json": REASON}),
    "releaseModel": ("DELETE", f"{V1}/models/worn/hold", {}),
    "purgeModel": ("POST", f"{V1}/models/gone/purge", {"json": REASON}),
    "trashVersion": ("DELETE", f"{IRIS}/versions/1", {}),
    "deprecateVersion": ("PUT", f"{IRIS}/versions/1/deprecation", {"json": REASON}),
    "reviveVersion": ("DELETE", f"{V1}/models/worn/versions/1/deprecation", {}),
    "holdVersion": ("PUT", f"{IRIS}/versions/1/hold", {"json": REASON}),
    "releaseVersion": ("DELETE", f"{V1}/models/worn/versions/1/hold", {}),
    "purgeVersion": ("POST", f"{V1}/models/spare/versions/1/purge", {"json": REASON}),
    "setAlias": ("PUT", f"{IRIS}/aliases/canary", {"json": {"version": 1}}),
    "deleteAlias": ("DELETE", f"{IRIS}/aliases/stable", {}),
    "configureDeployment": (
        "PATCH",
        f"{V1}/deployments/iris",
        {"json": {"settings": {"recording": {"enabled": False}}}, "headers": {"if-match": '"2"'}},
    ),
    "promoteVersion": ("POST", f"{V1}/deployments/iris/promote", {"json": {"version": 1}, "headers": {"if-match": '"2"'}}),
    "rollBack": ("POST", f"{V1}/deployments/iris/rollback", {"json": {}}),
    "scheduleChange": (
        "POST",
        f"{V1}/deployments/iris/schedule",
        {"json": {"version": 1, "at": "2026-01-03T00:00:00Z", **REASON}},
    ),
    "cancelScheduledChange": ("DELETE", f"{V1}/deployments/iris/schedule/SCHEDULED", {}),
    "createDeployment": ("POST", f"{V1}/deployments", {"json": {"name": "iris-eu", "model": "iris", "version": 1}}),
    "deleteDeployment": ("DELETE", f"{V1}/deployments/iris-test", {}),
    "sendFeedback": (
        "POST",
        f"{V1}/feedback",
        {"json": {"items": [{"prediction": "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4", "verdict": "wrong"}]}},
    ),
    "askReplay": ("POST", f"{IRIS}/versions/2/replays", {"json": {"last": 5}}),
    "startRollout": ("POST", f"{V1}/rollouts", {"json": {"deployment": "iris", "version": 1}}),
    "pauseRollout": ("POST", f"{V1}/rollouts/RUNNING/pause", {}),
    "resumeRollout": ("POST", f"{V1}/rollouts/PAUSED/resume", {}),
    "advanceRollout": ("POST", f"{V1}/rollouts/RUNNING/advance", {}),
    "promoteRollout": ("POST", f"{V1}/rollouts/RUNNING/promote", {}),
    "rollBackRollout": ("POST", f"{V1}/rollouts/RUNNING/rollback", {"json": REASON}),
    "acknowledgeAlert": ("POST", f"{V1}/alerts/ALERT/acknowledge", {"json": {"for_minutes": 5}}),
    "resolveAlert": ("POST", f"{V1}/alerts/ALERT/resolve", {"json": {"note": "a test"}}),
    "allowCodeFormats": ("PUT", f"{V1}/safety/code-formats", {"json": {"allowed": True, **REASON}}),
    "acceptSandbox": ("PUT", f"{V1}/safety/sandbox", {"json": {"accepted": None, **REASON}}),
    "approve": ("POST", f"{V1}/approvals/apr_one/approve", {}),
    "refuse": ("POST", f"{V1}/approvals/apr_one/refuse", {"json": REASON}),
    "renameMe": ("PATCH", f"{V1}/me", {"json": {"display_name": "Ada"}}),
    "logoutAll": ("POST", f"{V1}/auth/logout-all", {}),
    "endSession": ("DELETE", f"{V1}/me/sessions/ses_old", {}),
    "rotateSigningKey": ("POST", f"{V1}/auth/signing-keys", {}),
    "addUser": ("POST", f"{V1}/users", {"json": {"name": "robot", "kind": "service"}}),
    "changeUser": ("PATCH", f"{V1}/users/usr_bob", {"json": {"display_name": "Bob"}}),
    "disableUser": ("POST", f"{V1}/users/usr_bob/disable", {}),
    "enableUser": ("POST", f"{V1}/users/usr_gone/enable", {}),
    "signOutUser": ("DELETE", f"{V1}/users/usr_bob/sessions", {}),
    "resetPassword": ("POST", f"{V1}/users/usr_bob/reset-password", {}),
    "setPassword": ("POST", f"{V1}/auth/reset-password", {"json": {"token": RESET, "password": PASSWORD}}),
    "register": (
        "POST",
        f"{V1}/auth/register",
        {"json": {"token": INVITATION, "name": "eve", "email": "eve@example.org", "password": PASSWORD}},
    ),
    "invite": ("POST", f"{V1}/invitations", {"json": {}}),
    "withdrawInvitation": ("DELETE", f"{V1}/invitations/lnk_invitation", {}),
}
"""A request that changes something, for each write that has a use for a key."""
IN_A_SESSION = {"logout", "changePassword"}
"""Writes of those who have logged in, of whom a logout leaves nobody to repeat it."""


@pytest.fixture
async def house(control: ControlPlane, client: httpx.AsyncClient, db: Database, clock: TestClock) -> House:
    """Models with versions, people, groups and roles; and a key, a person and a grant, whose ids are returned."""
    for name in ("iris", "old"):
        await control.models.create(ADMIN, name)
    for content in (b"one", b"two", b"three"):
        await ready_version(control, "iris", content)
    await control.deployments.promote(ADMIN, "iris", 2)
    await control.deployments.create(ADMIN, "iris-test", "iris")
    await control.lifecycle.archive(ADMIN, "iris", 3)
    await control.lifecycle.archive(ADMIN, "old")
    await control.models.set_alias(ADMIN, "iris", "stable", 2)
    await worn(control, clock())
    made = await client.post(f"{V1}/keys", json={"name": "old", "scopes": ["predict"]})
    ada = (await client.get(f"{V1}/me")).json()["user"]["id"]
    for group in ("crew", "staff"):
        await control.access.create_group(ADMIN, group)
    await control.access.add_member(ADMIN, "staff", ada)
    workspace = await control.access.create_workspace(ADMIN, "empty")
    given = await control.access.give(ADMIN, Subject("user", ada), Role.VIEWER, Place(workspace.id))
    await people(control, db, clock())
    running, paused = [await rollout(control, name) for name in ("running", "paused")]
    await control.rollouts.pause(ADMIN, paused)
    later = await control.schedules.schedule(ADMIN, "iris", clock() + timedelta(hours=1), Change(version=1))
    ids = {"RUNNING": running, "PAUSED": paused, "SCHEDULED": later.id, "ALERT": await alert(control)}
    return {"KEY": str(made.json()["id"]), "USER": ada, "GRANT": given.id, **ids}


async def rollout(control: ControlPlane, name: str, asked: Rolling = AS_USUAL) -> str:
    """A model of this name, and a rollout of its second version, whose id is returned."""
    await control.models.create(ADMIN, name)
    for content in (b"one", b"two"):
        await ready_version(control, name, content)
    return (await control.rollouts.start(ADMIN, name, 2, asked)).id


async def alert(control: ControlPlane) -> str:
    """The id of an alert, about a rollout that is held."""
    await control.rollouts.tick(await rollout(control, "held", Rolling(steps=("5:0s",), patience_minutes=0.0)))
    (found,) = await control.alerts.alerts(ADMIN, limit=5)
    return found.id


async def worn(control: ControlPlane, now: datetime) -> None:
    """A deprecated model on hold with a version that is both; a model in the trash, and another's version."""
    said = Deprecation(now)
    for name in ("worn", "gone", "spare"):
        await control.models.create(ADMIN, name)
    await ready_version(control, "worn", b"one")
    for content in (b"one", b"two"):
        await ready_version(control, "spare", content)
    await control.deployments.promote(ADMIN, "spare", 2)
    await control.lifecycle.trash(ADMIN, "spare", 1)
    await control.lifecycle.trash(ADMIN, "gone")
    for number in (None, 1):
        await control.lifecycle.deprecate(ADMIN, "worn", number, said, reason="a test")
        await control.lifecycle.hold(ADMIN, "worn", number, reason="a test")


def placed(asked: Asked, house: House) -> Asked:
    """A request with the ids that there are now."""
    text = json.dumps(asked[1:]) if "files" not in asked[2] else ""
    for name, value in house.items():
        text = text.replace(name, value)
    url, more = json.loads(text) if text else asked[1:]
    return asked[0], url, more


async def people(control: ControlPlane, db: Database, now: datetime) -> None:
    """Others, links for them, and of the one who asks a session and a key with two secrets."""
    (ada,) = await control.users.users(limit=2)
    for name in ("bob", "gone"):
        await control.users.add(ADMIN, User(f"usr_{name}", name, now, email=f"{name}@example.org"))
    await control.users.set_active(ADMIN, "usr_gone", active=False)
    ends = now + timedelta(days=1)
    act = Act("promotion", "deployment.promote", "dep_one", "Promote.", Scope.DEPLOYMENTS_WRITE, INSTALLATION, seen=None)
    async with db.begin() as tx:
        await approvals.add(tx, ask_for("apr_one", act, Voice("key_bob", "usr_bob", "bob", now), person=True, until=ends))
    for name, purpose, token, user in (
        ("invitation", Purpose.INVITATION, INVITATION, None),
        ("reset", Purpose.RESET, RESET, "usr_bob"),
    ):
        async with db.begin() as tx:
            await links.add(tx, Link(f"lnk_{name}", purpose, secrets.digest(token), now, "ada", ends, user))
    async with db.begin() as tx:
        await sessions.add(tx, Session("ses_old", ada.id, now, now, ends))
        rotated = Key(
            "key_rotated", ada.id, "rotated", b"new", (Scope.PREDICT,), now, previous_digest=b"old", previous_until=ends
        )
        await users.add_key(tx, rotated)


async def ask(client: httpx.AsyncClient, asked: Asked, key: str | None = "k-1") -> httpx.Response:
    method, url, more = asked
    given = {} if key is None else {"idempotency-key": key}
    return await client.request(method, url, **{**more, "headers": more.get("headers", {}) | given})


async def audited(db: Database) -> int:
    """How many changes there were."""
    async with db.read() as tx:
        return len(await tx.all(sa.select(audit_entries.c.id)))


async def rows(db: Database) -> list[sa.Row[Any]]:
    async with db.read() as tx:
        return await tx.all(sa.select(notes))


def same(first: httpx.Response, second: httpx.Response) -> None:
    """The second answer is the first again, and says so."""
    assert "idempotency-replayed" not in first.headers
    assert second.headers.get("idempotency-replayed") == "true", (first.status_code, second.status_code, second.text)
    assert (second.status_code, second.content) == (first.status_code, first.content)
    own = {"date", "x-request-id", "idempotency-replayed"}
    assert {name: value for name, value in second.headers.items() if name not in own} == {
        name: value for name, value in first.headers.items() if name not in own
    }


def test_every_write_takes_a_key_and_is_tried_here():
    taking = {
        operation["operationId"]
        for _method, _path, operation in operations()
        if "Idempotency-Key" in {resolved(one)["name"] for one in operation["parameters"]}
    }
    writing = {
        operation["operationId"]
        for method, path, operation in operations()
        if method != "GET" and path.startswith(V1) and not path.startswith(f"{V1}/predict")
    }
    without = {
        *("checkUpload", "login", "loginWithDirectory", "planChange", "refresh"),
        *("browserLogin", "loginBrowserWithDirectory", "browserRefresh", "browserLogout", "finishTerminalSignOn"),
    }
    assert taking == WRITES.keys() | {"setUp"} | IN_A_SESSION == writing - without


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_that_comes_again_is_answered_alike_and_not_done_again(
    name: str, client: httpx.AsyncClient, house: House, db: Database
):
    asked = placed(WRITES[name], house)
    before = await audited(db)
    first = await ask(client, asked)
    assert first.is_success, first.text
    done = await audited(db)
    assert done > before
    same(first, await ask(client, asked))
    assert await audited(db) == done
    assert len(await rows(db)) == 1


OTHERS: dict[str, Asked] = {
    "body": ("PATCH", IRIS, {"json": {"description": "other"}}),
    "path": ("PATCH", f"{IRIS}/versions/1", {"json": {"description": "petals"}}),
    "method": ("POST", f"{IRIS}/archive", {"json": {"reason": "petals"}}),
    "query": ("PATCH", f"{IRIS}?really=true", {"json": {"description": "petals"}}),
    "condition": ("PATCH", IRIS, {"json": {"description": "petals"}, "headers": {"if-match": '"1"'}}),
    "upload": ("POST", f"{IRIS}/versions", FORM),
}


@pytest.mark.parametrize("other", OTHERS)
async def test_another_request_with_the_same_key_is_refused(other: str, client: httpx.AsyncClient, house: House, db: Database):
    assert (await ask(client, WRITES["describeModel"])).status_code == 200
    done = await audited(db)
    refused = await ask(client, OTHERS[other])
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    assert await audited(db) == done
    same(await ask(client, OTHERS[other], "k-2"), await ask(client, OTHERS[other], "k-2"))


async def test_an_upload_is_known_by_what_was_received(client: httpx.AsyncClient, house: House, control: ControlPlane):
    """Each form has a boundary of its own; what it holds is the same."""
    first = await ask(client, WRITES["uploadVersion"])
    same(first, await ask(client, WRITES["uploadVersion"]))
    for other in (
        {"files": {"file": ("m.onnx", b"other")}},
        {"files": {"file": ("n.onnx", b"new")}},
        FORM | {"data": {"description": "x"}},
    ):
        refused = await ask(client, ("POST", f"{IRIS}/versions", other))
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
    assert (await control.models.model(ADMIN, "iris")).latest_version == 4


async def test_what_was_refused_did_nothing_and_its_key_may_be_used_again(client: httpx.AsyncClient, db: Database):
    missing = await ask(client, WRITES["describeModel"])
    assert missing.status_code == 404
    invalid = await ask(client, ("POST", f"{V1}/models", {"json": {"name": "No Name"}}))
    assert invalid.status_code == 400
    assert await rows(db) == []
    assert (await ask(client, ("POST", f"{V1}/models", {"json": {"name": "iris"}}))).status_code == 201
    taken = await ask(client, ("POST", f"{V1}/models", {"json": {"name": "iris"}}), "k-2")
    assert (taken.status_code, taken.json()["code"]) == (409, "model_exists")


async def test_what_only_looks_leaves_no_note(client: httpx.AsyncClient, house: House, db: Database):
    planned = {"json": {"filename": "m.onnx", "format": "", "size": 1}}
    assert (await ask(client, ("POST", f"{IRIS}/versions/check", planned))).status_code == 204
    assert (await ask(client, ("GET", IRIS, {}))).status_code == 200
    assert await rows(db) == []


async def test_each_caller_has_keys_of_its_own(client: httpx.AsyncClient, control: ControlPlane, admin_key: str, house: House):
    other = {"x-api-key": await key_with(control, admin_key, Scope.ADMIN)}
    method, url, more = WRITES["issueKey"]
    first = await ask(client, WRITES["issueKey"])
    theirs = await ask(client, (method, url, more | {"headers": other}))
    assert "idempotency-replayed" not in theirs.headers
    assert theirs.json()["id"] != first.json()["id"]
    same(first, await ask(client, WRITES["issueKey"]))


async def test_a_secret_is_answered_again_and_not_in_the_database(client: httpx.AsyncClient, db: Database, admin_key: str):
    first = await ask(client, WRITES["issueKey"])
    secret = first.json()["secret"]
    same(first, await ask(client, WRITES["issueKey"]))
    (row,) = await rows(db)
    assert secret.encode() not in row.answer
    assert first.json()["id"].encode() not in row.answer
    write = Write(row.caller, row.key, admin_key.encode())
    with pytest.raises(AnswerSealed):  # it is not the same request
        write.open(row.answer)


async def test_keys_are_forgotten_after_a_day(client: httpx.AsyncClient, db: Database, clock: TestClock):
    for number in range(3):
        assert (await ask(client, WRITES["issueKey"], f"k-{number}")).status_code == 201
    clock.advance(hours=24)
    again = await ask(client, WRITES["issueKey"], "k-0")
    assert again.headers["idempotency-replayed"] == "true"
    clock.advance(seconds=1)
    fresh = await ask(client, WRITES["createModel"], "k-0")
    assert (fresh.status_code, fresh.headers.get("idempotency-replayed")) == (201, None)
    assert [row.key for row in await rows(db)] == ["k-0"]
    same(fresh, await ask(client, WRITES["createModel"], "k-0"))


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "sch\u00f6n"])
async def test_a_key_that_is_none_is_refused(key: str, client: httpx.AsyncClient, db: Database):
    refused = await client.post(f"{V1}/models", json={"name": "m"}, headers=[("idempotency-key", key.encode())])
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_idempotency_key")
    assert await audited(db) == 3  # what the set-up did


async def test_two_keys_in_one_request_are_refused(client: httpx.AsyncClient):
    two = [("idempotency-key", "a"), ("idempotency-key", "b")]
    refused = await client.post(f"{V1}/models", json={"name": "m"}, headers=two)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_idempotency_key")


async def test_keys_of_all_lengths_and_signs_are_taken(client: httpx.AsyncClient):
    for number, key in enumerate(("x", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a b")):
        asked = ("POST", f"{V1}/models", {"json": {"name": f"m{number}"}})
        same(await ask(client, asked, key), await ask(client, asked, key))


# ---- at once, and by several processes


@pytest.fixture
async def processes(
    db: Database, control: ControlPlane, clock: TestClock, admin_key: str, tmp_path: Path
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of several APIs over one database, each with connections of its own."""

    @asynccontextmanager
    async def process() -> AsyncIterator[httpx.AsyncClient]:
        own = Database(DatabaseSettings(url=db.url.render_as_string(hide_password=False)))
        rings = Rings()
        nouns = control_plane(
            own, ring_worker=rings.ring_worker, ring_courier=rings.ring_courier, limits=Limits(), site=SITE, clock=clock
        )
        app = api_over(nouns, Predictions(own, clock), own, LocalStore(tmp_path / "blobs"), ApiSettings())
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://api", headers={"x-api-key": admin_key}
        ) as client:
            yield client
        await own.close()

    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(process()) for _ in range(3)]


async def until_answered(ask_once: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    while True:
        answer = await ask_once()
        if answer.status_code != 409:
            return answer
        assert (answer.json()["code"], answer.headers["retry-after"]) == ("idempotency_key_in_use", "1")


async def test_of_many_requests_at_once_with_one_key_one_is_done(
    processes: list[httpx.AsyncClient], db: Database, control: ControlPlane
):
    answers = await asyncio.gather(
        *[until_answered(lambda client=processes[n % 3]: ask(client, WRITES["issueKey"])) for n in range(20)]
    )
    assert Counter(answer.status_code for answer in answers) == {201: 20}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {None: 1, "true": 19}
    assert [key.name for key in await control.users.keys(ADMIN, limit=10)].count("k") == 1


async def test_uploads_at_once_with_one_key_are_one_version(
    processes: list[httpx.AsyncClient], control: ControlPlane, house: House
):
    answers = await asyncio.gather(
        *[until_answered(lambda client=processes[n % 3]: ask(client, WRITES["uploadVersion"])) for n in range(6)]
    )
    assert {(answer.status_code, answer.json()["number"]) for answer in answers} == {(202, 4)}
    assert (await control.models.model(ADMIN, "iris")).latest_version == 4


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
async def test_a_request_that_is_still_under_way_is_not_waited_for(
    client: httpx.AsyncClient, db: Database, control: ControlPlane, admin_key: str
):
    """Writers of SQLite wait for each other in any case, and the second finds the answer."""
    caller = (await control.access.authenticate(admin_key)).id
    async with db.begin() as tx:  # as one that has begun, and does not end
        await tx.execute(sa.select(sa.func.pg_try_advisory_xact_lock(Write(caller, "k-1", b"").lock)))
        refused = await ask(client, WRITES["issueKey"])
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_in_use")
        assert refused.headers["retry-after"] == "1"
        assert (await ask(client, WRITES["issueKey"], "k-2")).status_code == 201
    made = await ask(client, WRITES["issueKey"])
    assert (made.status_code, made.headers.get("idempotency-replayed")) == (201, None)


async def test_another_process_knows_the_answer(processes: list[httpx.AsyncClient]):
    same(await ask(processes[0], WRITES["createModel"]), await ask(processes[1], WRITES["createModel"]))


async def test_bells_ring_once_and_after_the_commit(client: httpx.AsyncClient, house: House, rings: Rings):
    before = rings.worker
    await ask(client, WRITES["uploadVersion"])
    await ask(client, WRITES["uploadVersion"])
    assert rings.worker == before + 1


async def test_an_upload_of_a_model_that_was_archived_since_is_refused(client: httpx.AsyncClient, control: ControlPlane):
    """Whether an upload is taken is said before its content is read, and so before it can be known again."""
    await control.models.create(ADMIN, "iris")
    await control.models.receive(ADMIN, "iris", upload())
    assert (await ask(client, WRITES["uploadVersion"])).status_code == 202
    await control.lifecycle.archive(ADMIN, "iris")
    assert (await ask(client, WRITES["uploadVersion"])).json()["code"] == "model_archived"
