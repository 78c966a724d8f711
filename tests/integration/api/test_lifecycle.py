"""The life of models and versions over HTTP: deprecation, trash, hold, purge, changes, erasures and lineage."""

from datetime import timedelta

import httpx
import pytest

from fixtures.control import ADMIN, TestClock, ready_version
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.snapshot import decode_snapshot
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.infra import broadcast
from modelkeep.infra.db import Database

IRIS = "/api/v1/models/iris"
V1, V2 = f"{IRIS}/versions/1", f"{IRIS}/versions/2"
WHY = {"reason": "a test"}


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model whose first version answers, with a second one."""
    await control.models.create(ADMIN, "iris")
    for content in (b"one", b"two"):
        await ready_version(control, "iris", content)


async def served(db: Database) -> dict[int, tuple[float | None, float | None, int]]:
    """What serving was told of the deprecation of each version."""
    async with db.read() as tx:
        news = await broadcast.latest(tx, SNAPSHOT, 0)
    assert news is not None
    return {one.number: (one.deprecated_at, one.sunset_at, one.successor) for one in decode_snapshot(news.payload).versions}


@pytest.mark.usefixtures("iris")
async def test_a_deprecation_is_told_shown_and_taken_back(client: httpx.AsyncClient, db: Database, clock: TestClock):
    end = clock.now + timedelta(days=90)
    body = {**WHY, "sunset": end.isoformat(), "note": "old", "successor": 2}
    answer = await client.put(f"{V1}/deprecation", json=body)
    assert answer.json()["life"] == "deprecated"
    assert answer.json()["deprecation"]["note"] == "old"
    assert await served(db) == {1: (clock.now.timestamp(), end.timestamp(), 2)}
    assert (await client.delete(f"{V1}/deprecation", params=WHY)).json()["deprecation"] is None
    assert await served(db) == {1: (None, None, 0)}
    changes = (await client.get(f"{V1}/changes")).json()["items"]
    assert [(one["change"], one["before"], one["after"], one["reason"]) for one in changes] == [
        ("revive", "deprecated", "active", "a test"),
        ("deprecate", "active", "deprecated", "a test"),
    ]
    assert {one["by"] for one in changes} != {""}


@pytest.mark.usefixtures("iris")
async def test_the_versions_of_a_deprecated_model_are_deprecated(client: httpx.AsyncClient, db: Database, clock: TestClock):
    assert (await client.put(f"{IRIS}/deprecation", json=WHY)).json()["life"] == "deprecated"
    assert await served(db) == {1: (clock.now.timestamp(), None, 0)}
    await client.delete(f"{IRIS}/deprecation")
    assert await served(db) == {1: (None, None, 0)}


@pytest.mark.usefixtures("iris")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sunset": "2001-01-01T00:00:00Z"}, "invalid_request"),
        ({"successor": 1}, "invalid_request"),
        ({"successor": 9}, "version_not_found"),
        ({"reason": " "}, "invalid_request"),
        ({"sunset": "2027-01-01T00:00:00"}, "invalid_request"),
    ],
)
async def test_a_deprecation_that_makes_no_sense_is_refused(client: httpx.AsyncClient, change: dict[str, object], code: str):
    refused = await client.put(f"{V1}/deprecation", json={**WHY, **change})
    assert refused.json()["code"] == code, refused.text
    assert (await client.get(V1)).json()["life"] == "active"


@pytest.mark.usefixtures("iris")
async def test_what_is_referred_to_stays_out_of_the_trash_and_the_refusal_says_by_what(client: httpx.AsyncClient):
    await client.put(f"{IRIS}/aliases/live", json={"version": 1})
    refused = await client.delete(V1)
    assert (refused.status_code, refused.json()["code"]) == (409, "version_in_use")
    assert "iris answers with it" in refused.json()["detail"]
    assert "the alias live points to it" in refused.json()["detail"]
    whole = await client.delete(IRIS)
    assert (whole.status_code, whole.json()["code"]) == (409, "model_in_use")


@pytest.mark.usefixtures("iris")
async def test_the_trash_is_listed_apart_and_given_back(client: httpx.AsyncClient):
    trashed = await client.delete(V2, params={"reason": "wrong file"})
    assert (trashed.status_code, trashed.json()["life"]) == (200, "trashed")

    async def listed(**query: object) -> list[int]:
        return [one["number"] for one in (await client.get(f"{IRIS}/versions", params=query)).json()["items"]]

    assert (await listed(), await listed(trashed=True)) == ([1], [2])
    assert (await client.post("/api/v1/deployments/iris/promote", json={"version": 2})).json()["code"] == "version_trashed"
    back = await client.post(f"{V2}/restore", json={"reason": "the right one"})
    assert (back.json()["life"], back.json()["trashed_at"]) == ("active", None)
    assert (await listed(), await listed(trashed=True)) == ([2, 1], [])


@pytest.mark.usefixtures("iris")
async def test_a_model_in_the_trash_answers_nothing_takes_nothing_and_keeps_its_name(client: httpx.AsyncClient, db: Database):
    await client.post(f"{IRIS}/archive", json=WHY)
    assert (await client.delete(IRIS)).json()["life"] == "trashed"
    assert await served(db) == {}
    assert (await client.get("/api/v1/models", params={"archived": True})).json()["items"] == []
    assert [one["name"] for one in (await client.get("/api/v1/models", params={"trashed": True})).json()["items"]] == ["iris"]
    assert (await client.post("/api/v1/models", json={"name": "iris"})).json()["code"] == "model_exists"
    planned = {"filename": "m.onnx", "size": 1}
    assert (await client.post(f"{IRIS}/versions/check", json=planned)).json()["code"] == "model_trashed"
    assert (await client.post("/v2/repository/models/iris/load")).status_code == 409
    await client.post(f"{IRIS}/restore")
    assert await served(db) == {1: (None, None, 0)}


@pytest.mark.usefixtures("iris")
async def test_a_purge_is_asked_recorded_and_asked_again(client: httpx.AsyncClient):
    assert (await client.post(f"{V2}/purge", json=WHY)).json()["code"] == "not_trashed"
    await client.delete(V2)
    await client.put(f"{V2}/hold", json={"reason": "case 7"})
    held = await client.post(f"{V2}/purge", json=WHY)
    assert (held.status_code, held.json()["code"]) == (409, "on_hold")
    await client.delete(f"{V2}/hold")
    asked = await client.post(f"{V2}/purge", json=WHY)
    assert asked.status_code == 202
    (record,) = asked.json()["items"]
    assert (record["version"], record["reason"], record["finished_at"]) == (2, "a test", None)
    assert (await client.post(f"{V2}/purge", json=WHY)).json() == asked.json()
    assert (await client.get("/api/v1/erasures")).json()["items"] == [record]
    assert (await client.get(V2)).json()["life"] == "purging"
    assert (await client.post(f"{V2}/restore")).json()["code"] == "purged"
    assert (await client.patch(V2, json={"description": "d"})).json()["code"] == "purged"


def form(content: bytes, **parts: str) -> dict[str, tuple[str | None, bytes]]:
    return {**{name: (None, text.encode()) for name, text in parts.items()}, "file": ("m.onnx", content)}


@pytest.mark.usefixtures("iris")
async def test_an_upload_says_where_it_came_from_and_its_lineage_is_told(client: httpx.AsyncClient):
    said = '{"job": "https://ci/7", "by": "ada", "data": [{"name": "rows", "digest": "sha256:0"}]}'
    made = await client.post(f"{IRIS}/versions", files=form(b"three", parent="2", training=said))
    assert made.status_code == 202, made.text
    parent = (await client.get(V2)).json()["id"]
    assert (made.json()["parent_id"], made.json()["training"]["job"]) == (parent, "https://ci/7")
    await client.post(f"{IRIS}/versions", files=form(b"four", parent="iris/3"))
    found = (await client.get(f"{IRIS}/versions/3/lineage")).json()
    assert [one["number"] for one in found["ancestors"]] == [2]
    assert [(one["number"], one["steps"]) for one in found["descendants"]] == [(4, 1)]
    assert found["version"]["training"]["data"] == [{"name": "rows", "uri": "", "digest": "sha256:0"}]
    assert found["complete"]
    short = (await client.get(f"{V2}/lineage", params={"depth": 1})).json()
    assert ([one["number"] for one in short["descendants"]], short["complete"]) == ([3], False)


@pytest.mark.usefixtures("iris")
@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"parent": "9"}, "invalid_parent"),
        ({"parent": "other/1"}, "invalid_parent"),
        ({"parent": "ver_none"}, "invalid_parent"),
        ({"training": "[]"}, "invalid_request"),
        ({"training": '{"who": "x"}'}, "invalid_request"),
    ],
)
async def test_a_parent_that_is_not_there_and_a_training_of_another_form_are_refused(
    client: httpx.AsyncClient, parts: dict[str, str], code: str
):
    refused = await client.post(f"{IRIS}/versions", files=form(b"three", **parts))
    assert (refused.status_code, refused.json()["code"]) == (400, code)
    assert (await client.get(IRIS)).json()["latest_version"] == 2
