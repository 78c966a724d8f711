"""Models, versions and deployments, over HTTP."""

import asyncio
import hashlib
import json
from pathlib import Path

import httpx
import pytest

from fixtures.control import ADMIN, FINDINGS, ready_version
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.rejections import Reason, reject
from modelkeep.infra import telemetry
from modelkeep.infra.settings import LogSettings


async def push(client: httpx.AsyncClient, content: bytes = b"model", **data: str) -> dict[str, object]:
    answer = await client.post("/api/v1/models/iris/versions", files={"file": ("m.onnx", content)}, data=data)
    assert answer.status_code == 202, answer.text
    return answer.json()


@pytest.fixture
async def iris(client: httpx.AsyncClient) -> dict[str, object]:
    return (await client.post("/api/v1/models", json={"name": "iris", "description": "flowers"})).json()


async def test_a_model_is_made_read_described_archived_and_restored(client: httpx.AsyncClient):
    made = await client.post("/api/v1/models", json={"name": "iris"})
    assert (made.status_code, made.headers["location"]) == (201, "/api/v1/models/iris")
    assert made.json()["created_at"] == "2026-01-02T03:04:05Z"
    assert (await client.get(made.headers["location"])).json() == made.json()
    assert (await client.patch("/api/v1/models/iris", json={"description": "new"})).json()["description"] == "new"
    assert (await client.post("/api/v1/models/iris/archive")).json()["archived_at"] is not None
    assert (await client.get("/api/v1/models")).json()["items"] == []
    assert len((await client.get("/api/v1/models", params={"archived": True})).json()["items"]) == 1
    assert (await client.post("/api/v1/models/iris/restore")).json()["archived_at"] is None
    again = await client.post("/api/v1/models", json={"name": "iris"})
    assert (again.status_code, again.json()["code"]) == (409, "model_exists")


async def test_a_version_tells_all_that_is_known_of_it(
    client: httpx.AsyncClient, control: ControlPlane, iris: dict[str, object]
):
    version = await push(client, b"abc", description="first")
    assert (version["number"], version["state"], version["filename"], version["size"]) == (1, "received", "m.onnx", 3)
    assert version["digest"] == hashlib.sha256(b"abc").hexdigest()
    await control.models.accept(str(version["id"]), FINDINGS, "job_x")
    ready = (await client.get("/api/v1/models/iris/versions/1")).json()
    assert ready["state"] == "ready"
    assert ready["signature"]["inputs"] == [
        {
            "name": "x",
            "dtype": "FP32",
            "shape": [-1, 4],
            "nullable": False,
            "columns": [],
            "classes": [],
            "kind": "",
            "categories": [],
        }
    ]
    assert ready["report"]["latency_ms"] == {"1": 0.1}
    second = await push(client, b"def")
    await control.models.reject(str(second["id"]), reject(Reason.CORRUPT, "bits"), "job_x")
    rejected = (await client.get("/api/v1/models/iris/versions/2")).json()
    assert rejected["rejection"] == {"code": "artifact_corrupt", "advice": reject(Reason.CORRUPT).advice, "detail": "bits"}
    listed = (await client.get("/api/v1/models/iris/versions")).json()["items"]
    assert [one["number"] for one in listed] == [2, 1]
    assert (await client.patch("/api/v1/models/iris/versions/2", json={"description": "bad"})).json()["description"] == "bad"
    model = (await client.get("/api/v1/models/iris")).json()
    assert (model["latest_version"], model["serving_version"]) == (2, 1)


async def test_a_version_in_use_is_not_archived(client: httpx.AsyncClient, control: ControlPlane, iris: dict[str, object]):
    await ready_version(control, "iris")
    refused = await client.post("/api/v1/models/iris/versions/1/archive")
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use")
    await push(client)
    assert (await client.post("/api/v1/models/iris/versions/2/archive")).json()["archived_at"] is not None
    assert (await client.post("/api/v1/models/iris/versions/2/restore")).json()["archived_at"] is None


async def test_a_deployment_is_promoted_and_the_revision_guards_it(
    client: httpx.AsyncClient, control: ControlPlane, iris: dict[str, object]
):
    await ready_version(control, "iris")
    await ready_version(control, "iris", b"two")
    seen = await client.get("/api/v1/deployments/iris")
    assert (seen.headers["etag"], seen.json()["version"]) == ('"1"', 1)
    promoted = await client.post(
        "/api/v1/deployments/iris/promote", json={"version": 2}, headers={"If-Match": seen.headers["etag"]}
    )
    assert promoted.status_code == 200
    assert promoted.headers["etag"] == '"2"'
    body = promoted.json()
    assert (body["version"], body["previous_version"], body["revision"], body["updated_by"]) == (2, 1, 2, "ada")
    stale = await client.post("/api/v1/deployments/iris/promote", json={"version": 1}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "stale")
    assert "revision 2" in stale.json()["detail"]
    for unguarded in ({}, {"If-Match": "*"}, {"If-Match": 'W/"2"'}):
        assert (
            await client.post("/api/v1/deployments/iris/promote", json={"version": 2}, headers=unguarded)
        ).status_code == 200
    nonsense = await client.post("/api/v1/deployments/iris/promote", json={"version": 1}, headers={"If-Match": "x"})
    assert nonsense.status_code == 400
    await push(client, b"three")
    unready = await client.post("/api/v1/deployments/iris/promote", json={"version": 3})
    assert (unready.status_code, unready.json()["code"]) == (409, "version_not_ready")


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient, iris: dict[str, object]):
    for path, code in (
        ("/api/v1/models/rose", "model_not_found"),
        ("/api/v1/models/rose/versions", "model_not_found"),
        ("/api/v1/models/rose/versions/1", "model_not_found"),
        ("/api/v1/models/iris/versions/1", "version_not_found"),
        ("/api/v1/models/iris/versions/1/artifact", "version_not_found"),
        ("/api/v1/models/iris/versions/1/hooks", "version_not_found"),
        ("/api/v1/models/iris/versions/1/events", "version_not_found"),
        ("/api/v1/deployments/rose", "deployment_not_found"),
        ("/api/v1/nothing", "no_such_route"),
        ("/nothing", "no_such_route"),
    ):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, code), path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "code"),
    [
        ("POST", "/api/v1/models", {"name": "x", "extra": 1}, "extra", "extra_forbidden"),
        ("POST", "/api/v1/models", {}, "name", "missing"),
        ("POST", "/api/v1/models", [], "", "model_attributes_type"),
        ("POST", "/api/v1/keys", {"name": "x", "scopes": ["predict", "all"]}, "scopes[1]", "enum"),
        (
            "POST",
            "/api/v1/keys",
            {"name": "x", "scopes": ["predict"], "expires_in_days": 0},
            "expires_in_days",
            "greater_than_equal",
        ),
        ("POST", "/api/v1/deployments/m/promote", {"version": 2**31}, "version", "less_than_equal"),
        ("GET", "/api/v1/models/m/versions/0", None, "number", "greater_than_equal"),
        ("GET", "/api/v1/models/m/versions/x", None, "number", "int_parsing"),
        ("GET", f"/api/v1/models/m/versions/{2**31}", None, "number", "less_than_equal"),
    ],
)
async def test_a_wrong_field_is_named_and_its_value_is_not_repeated(
    client: httpx.AsyncClient, method: str, path: str, body: object, field: str, code: str
):
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["path"], error["code"]) == (field, code)


async def test_a_body_that_is_no_json_is_refused_without_an_echo(client: httpx.AsyncClient):
    answer = await client.post("/api/v1/models", content=b'{"name": sesame}', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "sesame" not in answer.text


async def test_characters_that_no_database_holds_are_the_callers_fault(client: httpx.AsyncClient, iris: dict[str, object]):
    answers = [
        await client.get("/api/v1/models/a%00b"),
        await client.get("/api/v1/models", params={"cursor": "AGE"}),
        await client.post("/api/v1/models", json={"name": "x", "description": "a\0b"}),
        await client.post("/api/v1/keys", json={"name": "a\0b", "scopes": ["predict"]}),
    ]
    assert all(400 <= answer.status_code < 500 or answer.is_success for answer in answers), [one.status_code for one in answers]


async def test_a_method_that_an_address_does_not_take_is_said_so(client: httpx.AsyncClient):
    answer = await client.put("/api/v1/models", json={})
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]


async def test_a_request_id_is_taken_if_it_is_one_and_made_otherwise(client: httpx.AsyncClient):
    assert (await client.get("/api/v1/me", headers={"X-Request-ID": "abc-1.2:3"})).headers["x-request-id"] == "abc-1.2:3"
    for bad in ("", "x" * 129, "a b", "<script>"):
        answer = await client.get("/api/v1/nothing", headers={"X-Request-ID": bad})
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_fault_of_ours_is_answered_without_its_reason_and_logged_with_it(
    client: httpx.AsyncClient, control: ControlPlane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    async def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("the secret reason")

    monkeypatch.setattr(control.models, "models", broken)
    telemetry.configure(LogSettings(level="error"), role="api")
    answer = await client.get("/api/v1/models", headers={"X-Request-ID": "r1"})
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "internal", "r1")
    assert "secret reason" not in answer.text
    assert "secret reason" in "".join(capsys.readouterr())
    assert (await client.get("/api/v1/me")).status_code == 200


async def test_the_artifact_comes_back_whole_in_part_or_not_at_all(client: httpx.AsyncClient, iris: dict[str, object]):
    content = bytes(range(256)) * 5000
    await push(client, content)
    path = "/api/v1/models/iris/versions/1/artifact"
    whole = await client.get(path)
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, content, etag)
    assert whole.headers["content-disposition"] == "attachment; filename=\"m.onnx\"; filename*=UTF-8''m.onnx"
    part = await client.get(path, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, content[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(content)}"
    beyond = await client.get(path, headers={"Range": f"bytes={len(content)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    assert (await client.get(path, headers={"If-None-Match": etag})).status_code == 304
    assert (await client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})).content == content
    assert (await client.get(path, headers={"Range": "bytes=0-1", "If-Range": etag})).content == content[:2]


async def test_an_artifact_that_is_lost_is_an_error_and_not_half_an_answer(
    client: httpx.AsyncClient, iris: dict[str, object], tmp_path: Path
):
    version = await push(client)
    digest = str(version["digest"])
    (tmp_path / "blobs" / digest[:2] / digest).unlink()
    answer = await client.get("/api/v1/models/iris/versions/1/artifact")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_events_tell_each_state_and_end(client: httpx.AsyncClient, control: ControlPlane, iris: dict[str, object]):
    version = await push(client)
    states: list[str] = []
    async with client.stream("GET", "/api/v1/models/iris/versions/1/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        event = ""
        async for line in stream.aiter_lines():
            kind, _colon, rest = line.partition(": ")
            if kind == "event":
                event = rest
            if kind == "data":
                assert event == "state"
                told = json.loads(rest)
                states.append(told["state"])
                if told["state"] == "received":
                    await control.models.begin_validation(str(version["id"]))
                if told["state"] == "validating":
                    await control.models.accept(str(version["id"]), FINDINGS, "job_x")
    assert states == ["received", "validating", "ready"]
    answer = await asyncio.wait_for(client.get("/api/v1/models/iris/versions/1/events"), 5)
    assert answer.text.count("event: state") == 1


async def test_a_models_actor_is_who_asked(client: httpx.AsyncClient, control: ControlPlane, iris: dict[str, object]):
    assert iris["created_by"] == "ada"
    assert (await push(client))["created_by"] == "ada"
    assert ADMIN.name == "ada"
