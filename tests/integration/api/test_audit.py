"""The audit trail over HTTP: who was refused, from where, exports that verify, erasures."""

from pathlib import Path

import httpx
import pytest

from fixtures.control_api import key_with
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.audit_chain import verify_file
from modelkeep.control.audit import cef
from modelkeep.control.audit.rules import Entry
from modelkeep.infra import secrets

HOSTILE = 'x|y=z\\ "q" <b>'


async def entries(client: httpx.AsyncClient, **params: str) -> list[dict]:
    return (await client.get("/api/v1/audit", params={"limit": 500, **params})).json()["items"]


async def test_a_change_tells_who_from_where_before_and_after(client: httpx.AsyncClient):
    made = (await client.post("/api/v1/models", json={"name": "iris", "description": "old"})).json()
    headers = {"x-modelkeep-address": "192.0.2.9", "x-request-id": "r-1"}
    await client.patch("/api/v1/models/iris", json={"description": "new"}, headers=headers)
    (entry, _created) = await entries(client, target=made["id"])
    assert (entry["before"], entry["after"], entry["address"]) == ("old", "new", "192.0.2.9")
    assert (entry["request_id"], entry["outcome"], entry["target_kind"], entry["actor_name"]) == ("r-1", "done", "model", "ada")


async def test_what_a_good_key_may_not_do_and_a_key_that_is_not_good_are_entries(
    client: httpx.AsyncClient, control: ControlPlane, admin_key: str
):
    reader = await key_with(control, admin_key, Scope.MODELS_READ)
    refused = {"x-modelkeep-address": "192.0.2.66"}
    assert (await client.get("/api/v1/audit", headers=refused | {"x-api-key": reader})).status_code == 403
    unknown = secrets.new_secret(secrets.KEY).reveal()
    assert (await client.get("/api/v1/keys", headers=refused | {"x-api-key": unknown})).status_code == 401
    stranger, known = await entries(client, outcome="refused")
    assert (known["action"], known["actor_name"], known["address"]) == ("access.forbidden", "ada", "192.0.2.66")
    assert known["details"] == {"method": "GET", "path": "/api/v1/audit"}
    assert (stranger["action"], stranger["actor"], stranger["address"]) == ("access.unauthenticated", "unknown", "192.0.2.66")
    assert unknown not in str(await entries(client))


async def test_a_revoked_key_is_told_by_its_id(client: httpx.AsyncClient, control: ControlPlane, admin_key: str):
    reader = await key_with(control, admin_key, Scope.MODELS_READ)
    key = (await client.get("/api/v1/keys")).json()["items"][0]["id"]
    await client.delete(f"/api/v1/keys/{key}")
    assert (await client.get("/api/v1/models", headers={"x-api-key": reader})).status_code == 401
    (entry,) = await entries(client, outcome="refused")
    assert (entry["actor"], entry["actor_name"]) == (key, "ada")


@pytest.mark.parametrize("key", ["", "mk_short", "guess"])
async def test_what_nobody_can_have_taken_for_a_key_is_no_entry(client: httpx.AsyncClient, key: str):
    assert (await client.get("/api/v1/keys", headers={"x-api-key": key})).status_code == 401
    assert await entries(client, outcome="refused") == []


async def test_an_export_verifies_and_one_that_was_cut_or_edited_does_not(
    client: httpx.AsyncClient, control: ControlPlane, tmp_path: Path
):
    for number in range(5):
        await client.post("/api/v1/models", json={"name": f"m{number}", "description": HOSTILE})
    await control.audit.checkpoint()
    answer = await client.get("/api/v1/audit/export")
    path = tmp_path / "trail.jsonl"
    path.write_bytes(answer.content)
    report = verify_file(path)
    assert (report.whole, report.entries, report.checkpoints) == (True, 9, 1)
    lines = answer.content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert [one.kind for one in verify_file(path).findings] == ["cut off"]
    path.write_bytes(answer.content.replace(b'"outcome":"done"', b'"outcome":"refused"', 1))
    assert [(one.kind, one.first) for one in verify_file(path).findings] == [("edited", 1)]
    selected = await client.get("/api/v1/audit/export", params={"action": "key.create"})
    path.write_bytes(selected.content)
    assert (verify_file(path).whole, verify_file(path).entries) == (True, 1)


async def test_pages_follow_each_other(client: httpx.AsyncClient):
    for number in range(5):
        await client.post("/api/v1/models", json={"name": f"m{number}"})
    first = (await client.get("/api/v1/audit", params={"limit": 4})).json()
    second = (await client.get("/api/v1/audit", params={"limit": 4, "cursor": first["next_cursor"]})).json()
    assert [one["seq"] for one in first["items"] + second["items"]] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert second["next_cursor"] is None


async def test_a_person_is_erased_with_all_their_keys_by_another(client: httpx.AsyncClient, tmp_path: Path):
    me = (await client.get("/api/v1/me")).json()
    mine = me["user"]["id"], me["key"]["id"]
    robot = (await client.post("/api/v1/users", json={"name": "robot", "kind": "service", "role": "admin"})).json()
    new = {"name": "other", "scopes": ["admin"], "service": robot["id"]}
    other = {"x-api-key": (await client.post("/api/v1/keys", json=new)).json()["secret"]}
    for subject in mine:
        own = await client.post("/api/v1/audit/erasures", json={"subject": subject, "reason": "none of yours"})
        assert (own.status_code, own.json()["code"]) == (403, "audit_own_tracks")
    named = {one["seq"] for one in await entries(client) if any(name in str(one) for name in mine)}
    answer = await client.post("/api/v1/audit/erasures", json={"subject": mine[0], "reason": "request 12"}, headers=other)
    assert (answer.status_code, answer.json()) == (200, {"entries": len(named)})
    assert {one["seq"] for one in await entries(client) if one["erased"]} == named
    path = tmp_path / "trail.jsonl"
    path.write_bytes((await client.get("/api/v1/audit/export")).content)
    assert (verify_file(path).whole, verify_file(path).erased) == (True, len(named))
    missing = await client.post("/api/v1/audit/erasures", json={"subject": "usr_ghost", "reason": "x"})
    assert (missing.status_code, missing.json()["code"]) == (404, "audit_subject_not_found")


async def test_an_export_is_an_entry_and_in_itself(client: httpx.AsyncClient):
    text = (await client.get("/api/v1/audit/export", params={"outcome": "done", "format": "cef"})).text
    (entry,) = await entries(client, action="audit.export")
    assert (entry["actor_name"], entry["details"]) == ("ada", {"format": "cef", "filter": "outcome=done"})
    assert "audit.export" in text


async def test_cef_is_a_line_an_entry_whatever_is_in_it(client: httpx.AsyncClient):
    description = 'a\nCEF:0|evil|x\r=\\|"\u2028\x1b[2J'
    await client.post("/api/v1/models", json={"name": "iris", "description": description})
    answer = await client.get("/api/v1/audit/export", params={"format": "cef", "action": "model.create"})
    (line,) = answer.text.splitlines()
    assert line.startswith("CEF:0|Modelkeep|Modelkeep|")
    assert 'cs4=a\\nCEF:0|evil|x\\r\\=\\\\|"\\\\u2028\\\\u001b[2J cs5Label=details' in line


def test_cef_names_addresses_of_both_kinds_and_escapes_its_head(clock):
    entry = Entry(id="aud_1", at=clock(), action="a|b\\c\n", target_kind="x", address="192.0.2.1")
    assert b"|a\\|b\\\\c\\\\u000a|" in cef.line(entry)
    assert b" src=192.0.2.1 " in cef.line(entry)
    assert b" c6a2=2001:db8::1 " in cef.line(Entry(id="a", at=clock(), action="a", target_kind="x", address="2001:db8::1"))
