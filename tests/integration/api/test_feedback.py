"""Feedback through the API: what may be sent, what becomes of it, and who is told."""

import httpx
import pytest

from fixtures.control_api import key_with
from fixtures.history import Loader, record
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.control.predictions.service import Predictions

URL = "/api/v1/feedback"
UNKNOWN = "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4"


@pytest.fixture
def load(predictions: Predictions) -> Loader:
    return Loader(predictions)


async def test_what_is_told_is_answered_item_by_item_and_found_again(client: httpx.AsyncClient, load: Loader) -> None:
    one, two = record(version=3), record()
    await load([one, two])
    said = {"prediction": one.id, "verdict": "wrong", "truth": {"label": "leaves"}, "at": "2026-01-02T02:00:00+01:00"}
    answer = await client.post(
        URL, json={"items": [said, {**said, "verdict": 7}, {"prediction": UNKNOWN, "verdict": "right"}, 1]}
    )
    assert answer.status_code == 200, answer.text
    taken = answer.json()
    assert [one["status"] for one in taken["items"]] == ["accepted", "refused", "parked", "refused"]
    assert (taken["accepted"], taken["unchanged"], taken["parked"], taken["refused"]) == (1, 0, 1, 2)
    assert taken["items"][1]["reason"] == "verdict: right or wrong."
    assert (await client.post(URL, json={"items": [said]})).json()["unchanged"] == 1
    (held,) = (await client.get(URL, params={"deployment": "forest", "version": "3"})).json()["items"]
    assert (held["prediction"], held["verdict"], held["truth"]) == (one.id, "wrong", {"label": "leaves"})
    assert (held["at"], held["deployment"], held["version"]) == ("2026-01-02T01:00:00Z", "forest", 3)
    told = (await client.get(f"/api/v1/predictions/{one.id}/feedback")).json()
    assert [(one["verdict"], one["by"]) for one in told["items"]] == [("wrong", "ada")]
    assert (await client.get(f"/api/v1/predictions/{two.id}/feedback")).json()["items"] == []
    gone = await client.get(f"/api/v1/predictions/{UNKNOWN}/feedback")
    assert (gone.status_code, gone.json()["code"]) == (404, "prediction_not_found")


@pytest.mark.parametrize("truth", ['"\\ud800"', '{"\\udc00": 1}', "[" * 300 + "]" * 300, '"\\u20ac\\u0000"', "1" * 4000])
async def test_no_truth_takes_the_list_away_from_its_readers(client: httpx.AsyncClient, load: Loader, truth: str) -> None:
    one, two = record(), record()
    await load([one, two])
    items = f'{{"prediction":"{one.id}","verdict":"wrong","truth":{truth}}},{{"prediction":"{two.id}","verdict":"right"}}'
    answer = await client.post(URL, content=f'{{"items":[{items}]}}', headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["items"][1]["status"]) == (200, "accepted"), answer.text
    found = await client.get(URL)
    assert found.status_code == 200, found.text
    assert {held["prediction"] for held in found.json()["items"]} >= {two.id}
    assert (await client.get(f"/api/v1/predictions/{one.id}/feedback")).status_code == 200


async def test_a_list_comes_page_by_page(client: httpx.AsyncClient, load: Loader) -> None:
    records = [record() for _ in range(5)]
    await load(records)
    await client.post(URL, json={"items": [{"prediction": one.id, "verdict": "right"} for one in records]})
    first = (await client.get(URL, params={"limit": 3})).json()
    rest = (await client.get(URL, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [one["prediction"] for one in first["items"] + rest["items"]] == [one.id for one in records][::-1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("items", [[], [{}] * 1001, "x", None])
async def test_too_little_and_too_much_is_refused_as_a_whole(client: httpx.AsyncClient, items: object) -> None:
    answer = await client.post(URL, json={"items": items})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("wanted", [{"version": "x"}, {"version": "3"}, {"verdict": "perhaps"}, {"cursor": "%"}])
async def test_a_list_of_what_cannot_be_is_refused(client: httpx.AsyncClient, wanted: dict[str, str]) -> None:
    assert (await client.get(URL, params=wanted)).status_code == 400


async def test_telling_takes_the_scope_to_predict_and_reading_that_to_read(
    client: httpx.AsyncClient, control: ControlPlane, admin_key: str
) -> None:
    items = {"items": [{"prediction": UNKNOWN, "verdict": "right"}]}
    telling = {"X-API-Key": await key_with(control, admin_key, Scope.PREDICT)}
    reading = {"X-API-Key": await key_with(control, admin_key, Scope.PREDICTIONS_READ)}
    assert (await client.post(URL, json=items, headers=telling)).status_code == 200
    assert (await client.get(URL, headers=telling)).status_code == 403
    assert (await client.post(URL, json=items, headers=reading)).status_code == 403
    assert (await client.get(URL, headers=reading)).status_code == 200


async def test_who_has_read_it_is_written_down(client: httpx.AsyncClient, control: ControlPlane, load: Loader) -> None:
    one = record()
    await load([one])
    await client.get(URL, params={"verdict": "wrong"})
    await client.get(f"/api/v1/predictions/{one.id}/feedback")
    entries = {entry.action: entry for entry in await control.audit.entries(limit=10)}
    assert entries["feedback.read"].target == one.id
    assert "feedback.list" in entries
