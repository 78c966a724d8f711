"""Replays through the API."""

import json

import httpx
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from fixtures.control import ADMIN, FINDINGS, TestClock, ready_version, upload
from fixtures.control_api import key_with
from fixtures.history import record
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.ids import new_id
from modelkeep.control.replays.errors import TooManyReplays
from modelkeep.control.replays.rules import MOST_LISTED, MOST_OPEN, MOST_OPEN_OF_ONE, Asked, Failure
from modelkeep.control.replays.tables import replays

URL = "/api/v1/models/iris/versions/1/replays"


@pytest.fixture
async def version(control: ControlPlane) -> str:
    await control.models.create(ADMIN, "iris")
    return (await ready_version(control, "iris")).id


async def test_a_replay_is_asked_for_found_and_listed(client: httpx.AsyncClient, control: ControlPlane, version: str) -> None:
    asked = await client.post(URL, json={"last": 5})
    assert asked.status_code == 202
    found = (await client.get(asked.headers["location"])).json()
    assert found == asked.json()
    assert (found["model"], found["version"], found["version_id"], found["state"]) == ("iris", 1, version, "waiting")
    assert found["asked"] == {"predictions": [], "last": 5, "rows": False, "days": 0, "candidate": 0}
    assert (found["created_by"], found["summary"], found["failure"], found["details"]) == ("ada", None, None, None)
    entries = (await client.get("/api/v1/audit", params={"target": found["id"]})).json()["items"]
    assert [(one["action"], one["details"]["version"]) for one in entries] == [("replay.ask", version)]


async def test_pages_are_newest_first(client: httpx.AsyncClient, control: ControlPlane, version: str) -> None:
    ids = []
    for number in range(7):
        ids.append((await client.post(URL, json={"last": number + 1})).json()["id"])
        await control.replays.fail(ids[-1], Failure("x", "y"), "job_none")
    seen, cursor = [], None
    while True:
        page = (await client.get(URL, params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [one["id"] for one in page["items"]]
        assert all("details" not in one for one in page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"last": 0},
        {"last": 1001},
        {"last": "many"},
        {"predictions": []},
        {"predictions": ["prd_' OR 1=1 --"]},
        {"predictions": ["x" * 300]},
        {"predictions": [record().id] * 1001},
        {"last": 5, "rows": [[1]]},
        {"rows": None},
        {"first": 3},
        [],
    ],
)
async def test_what_cannot_be_asked_for_is_refused(client: httpx.AsyncClient, version: str, body: object) -> None:
    answer = await client.post(URL, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] in {"invalid_replay", "invalid_request"}
    assert "OR 1=1" not in answer.text
    assert (await client.get(URL)).json()["items"] == []


async def test_a_body_of_no_characters_is_refused(client: httpx.AsyncClient, version: str) -> None:
    headers = {"content-type": "application/json"}
    for raw in (b'{"rows": ["\\ud800"]}', b'{"rows": ' + b"[" * 200_000, b"{", b'{"rows": [' + b"9" * 5000 + b"]}"):
        answer = await client.post(URL, content=raw, headers=headers)
        assert answer.status_code == 400, answer.text
    large = await client.post(URL, json={"rows": ["x" * 1_100_000]})
    assert large.status_code == 413


async def test_what_there_is_not_is_not_found(client: httpx.AsyncClient, version: str) -> None:
    for url, code in (
        (URL.replace("iris", "rose"), "model_not_found"),
        (URL.replace("/1/", "/9/"), "version_not_found"),
    ):
        assert (await client.post(url, json={"last": 1})).json()["code"] == code
        assert (await client.post(url, json={"rows": [[1]]})).json()["code"] == code
        assert (await client.get(url)).json()["code"] == code
    for unknown in (new_id("rpl"), "rpl_' OR 1=1", "x"):
        answer = await client.get(f"/api/v1/replays/{unknown}")
        assert (answer.status_code, answer.json()["code"]) == (404, "replay_not_found")


async def test_versions_that_may_not_answer_are_not_replayed(
    client: httpx.AsyncClient, control: ControlPlane, version: str
) -> None:
    await control.models.receive(ADMIN, "iris", upload(b"new"))
    received = await client.post(URL.replace("/1/", "/2/"), json={"last": 1})
    assert (received.status_code, received.json()["code"]) == (409, "version_not_ready")
    second = await control.models.version(ADMIN, "iris", 2)
    await control.models.begin_validation(second.id)
    await control.models.accept(second.id, FINDINGS, "job_none")
    await control.lifecycle.archive(ADMIN, "iris", 2)
    assert (await client.post(URL.replace("/1/", "/2/"), json={"last": 1})).json()["code"] == "version_archived"
    await control.lifecycle.archive(ADMIN, "iris")
    archived = await client.post(URL, json={"last": 1})
    assert (archived.status_code, archived.json()["code"]) == (409, "model_archived")


async def test_who_may_read_predictions_may_ask_and_rows_of_ones_own_need_more(
    stranger: httpx.AsyncClient, control: ControlPlane, admin_key: str, version: str
) -> None:
    assert (await stranger.post(URL, json={"last": 1})).status_code == 401
    stranger.headers["X-API-Key"] = await key_with(control, admin_key, Scope.PREDICT, Scope.MODELS_READ)
    for answer in (
        await stranger.post(URL, json={"last": 1}),
        await stranger.get(URL),
        await stranger.get("/api/v1/replays/rpl_x"),
    ):
        assert answer.status_code == 403
    stranger.headers["X-API-Key"] = await key_with(control, admin_key, Scope.MODELS_READ, Scope.PREDICTIONS_READ)
    assert (await stranger.post(URL, json={"last": 1})).status_code == 202
    refused = await stranger.post(URL, json={"rows": [[1, 2, 3, 4]]})
    assert refused.status_code == 403
    assert "predict" in refused.json()["detail"]
    stranger.headers["X-API-Key"] = await key_with(control, admin_key, Scope.MODELS_READ, Scope.PREDICTIONS_READ, Scope.PREDICT)
    assert (await stranger.post(URL, json={"rows": [[1, 2, 3, 4]]})).status_code == 202


async def test_rows_do_not_wait_where_policy_keeps_no_inputs(client: httpx.AsyncClient, version: str) -> None:
    await client.patch("/api/v1/deployments/iris", json={"settings": {"recording": {"inputs": "hash"}}})
    refused = await client.post(URL, json={"rows": [[1, 2, 3, 4]]})
    assert (refused.status_code, refused.json()["code"]) == (409, "rows_not_kept")
    assert (await client.post(URL, json={"last": 1})).status_code == 202


async def test_no_more_wait_than_may(client: httpx.AsyncClient, control: ControlPlane, clock: TestClock, version: str) -> None:
    ids = [(await client.post(URL, json={"last": 1})).json()["id"] for _ in range(MOST_OPEN_OF_ONE)]
    refused = await client.post(URL, json={"last": 1})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_replays")
    assert int(refused.headers["retry-after"]) > 0
    await control.replays.fail(ids[0], Failure("x", "y"), "job_none")
    assert (await client.post(URL, json={"last": 1})).status_code == 202
    for number in range(MOST_OPEN - MOST_OPEN_OF_ONE):
        other = replace(ADMIN, name=f"other {number // MOST_OPEN_OF_ONE}")
        await control.replays.ask(other, "iris", 1, Asked(last=1))
    with pytest.raises(TooManyReplays):
        await control.replays.ask(replace(ADMIN, name="one more"), "iris", 1, Asked(last=1))
    clock.advance(days=31)
    assert (await client.get(URL)).json()["items"] == []
    assert json.loads((await client.get(f"/api/v1/replays/{ids[0]}")).text)["code"] == "replay_not_found"
    await control.replays.ask(ADMIN, "iris", 1, Asked(last=1))


async def test_lists_name_a_few_of_the_ids_and_one_replay_all(client: httpx.AsyncClient, version: str) -> None:
    ids = [new_id("prd") for _ in range(1000)]
    asked = (await client.post(URL, json={"predictions": ids})).json()
    assert asked["asked"]["predictions"] == ids
    assert (await client.get(f"/api/v1/replays/{asked['id']}")).json()["asked"]["predictions"] == ids
    (listed,) = (await client.get(URL)).json()["items"]
    assert listed["asked"]["predictions"] == ids[:MOST_LISTED]


async def test_what_a_replay_shows_is_gone_from_the_database_when_its_time_is_over(
    control: ControlPlane, clock: TestClock, version: str
) -> None:
    replay = await control.replays.ask(ADMIN, "iris", 1, Asked(last=1))
    clock.advance(days=31)
    await control.replays.forget()
    async with control.replays._db.read() as tx:
        assert await tx.all(sa.select(replays.c.id).where(replays.c.id == replay.id)) == []
