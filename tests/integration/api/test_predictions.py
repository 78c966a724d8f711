"""The history through the API."""

import base64
import json
from io import BytesIO

import httpx
import pyarrow.parquet as pq
import pytest

from fixtures.control_api import key_with
from fixtures.history import NOON, Loader, record
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.control.predictions.service import Predictions

URL = "/api/v1/predictions"


@pytest.fixture
def load(predictions: Predictions) -> Loader:
    return Loader(predictions)


async def test_a_prediction_is_found_by_its_id_with_what_went_in_and_came_out(client: httpx.AsyncClient, load: Loader) -> None:
    sought = record(total_ms=1.5, version=3, version_id="ver_X", inputs=b'{"inputs": [[1, null]]}', outputs=b'{"outputs": [0]}')
    await load([record(), sought, record()])
    found = (await client.get(f"{URL}/{sought.id}")).json()
    assert found["id"] == sought.id
    assert found["at"] == "2026-01-02T12:00:00Z"
    assert (found["deployment"], found["version"], found["version_id"], found["total_ms"]) == ("forest", 3, "ver_X", 1.5)
    assert found["inputs"] == {"content_type": "application/json", "value": {"inputs": [[1, None]]}, "base64": None, "note": ""}
    assert found["outputs"]["value"] == {"outputs": [0]}


async def test_a_picture_comes_back_as_base64_with_its_type(client: httpx.AsyncClient, load: Loader) -> None:
    picture = record(content_type="image/png", inputs=b"\x89PNG\xff")
    await load([picture])
    found = (await client.get(f"{URL}/{picture.id}")).json()["inputs"]
    assert found["content_type"] == "image/png"
    assert base64.b64decode(found["base64"]) == b"\x89PNG\xff"
    assert found["value"] is None


async def test_what_was_not_kept_says_why(client: httpx.AsyncClient, load: Loader) -> None:
    dropped = record(inputs=None, input_note="dropped", outputs=None)
    await load([dropped])
    found = (await client.get(f"{URL}/{dropped.id}")).json()
    assert found["inputs"]["note"] == "dropped"
    assert found["outputs"] is None


@pytest.mark.parametrize("unknown", ["prd_00000000000000000000000000", "prd_ZZZZZZZZZZZZZZZZZZZZZZZZZZ", "x", "prd_' OR 1=1"])
async def test_an_unknown_prediction_is_not_found(client: httpx.AsyncClient, load: Loader, unknown: str) -> None:
    await load([record()])
    answer = await client.get(f"{URL}/{unknown}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "prediction_not_found"


async def test_pages_are_newest_first_and_stay_so_while_new_ones_arrive(client: httpx.AsyncClient, load: Loader) -> None:
    first = [record(NOON + number) for number in range(25)]
    await load(first[:15])
    await load(first[15:])
    seen, cursor = [], None
    while True:
        query = {"limit": 10} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(URL, params=query)).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await load([record(NOON + 100)])
    assert seen == [one.id for one in reversed(first)]


async def test_every_filter_keeps_what_it_names(client: httpx.AsyncClient, load: Loader) -> None:
    plain = record()
    others = {
        "request_id": record(request_id="trace-7"),
        "deployment": record(deployment="other"),
        "version": record(version_id="ver_B", version=2),
        "key": record(key_id="key_B"),
        "user": record(key_id="ses_B", user="usr_B"),
        "outcome": record(outcome="error", code="model_failed", status=500),
        "since": record(NOON + 10),
        "until": record(NOON - 10),
    }
    await load([plain, *others.values()])
    asked = {
        "request_id": ["trace-7"],
        "deployment": ["other"],
        "version": ["2", "ver_B"],
        "key": ["key_B"],
        "user": ["usr_B"],
        "outcome": ["error"],
        "since": ["2026-01-02T12:00:05Z", "2026-01-02T12:00:05"],
        "until": ["2026-01-02T11:59:55Z"],
    }
    for name, values in asked.items():
        for value in values:
            answer = (await client.get(URL, params={name: value})).json()
            assert [one["id"] for one in answer["items"]] == [others[name].id], (name, value)
    assert [one["id"] for one in (await client.get(URL, params={"id": plain.id})).json()["items"]] == [plain.id]


async def test_a_wrong_filter_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get(URL, params={"outcome": "great"})).status_code == 400
    assert (await client.get(URL, params={"cursor": "%%%"})).json()["code"] == "invalid_cursor"


async def test_a_key_needs_a_scope_of_its_own_to_read_predictions(
    stranger: httpx.AsyncClient, control: ControlPlane, admin_key: str
) -> None:
    assert (await stranger.get(URL)).status_code == 401
    stranger.headers["X-API-Key"] = await key_with(control, admin_key, Scope.PREDICT, Scope.MODELS_READ)
    for path in (URL, f"{URL}/prd_x", f"{URL}/export"):
        assert (await stranger.get(path)).status_code == 403
    stranger.headers["X-API-Key"] = await key_with(control, admin_key, Scope.PREDICTIONS_READ)
    assert (await stranger.get(URL)).status_code == 200


async def test_an_export_as_json_lines_holds_every_wanted_prediction_once(client: httpx.AsyncClient, load: Loader) -> None:
    wanted = [record(NOON + number) for number in range(5000)]
    await load([*wanted, *(record(deployment="other") for _ in range(50))])
    answer = await client.get(f"{URL}/export", params={"deployment": "forest"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["id"] for line in lines] == [one.id for one in reversed(wanted)]
    assert lines[-1]["inputs"]["value"] == json.loads(wanted[0].inputs or b"")
    assert "attachment" in answer.headers["content-disposition"]


async def test_an_export_as_parquet_has_typed_columns(client: httpx.AsyncClient, load: Loader) -> None:
    picture = record(NOON + 9000, content_type="image/png", inputs=b"\x89PNG", version=7, total_ms=2.5)
    wanted = [record(NOON + number) for number in range(4500)]
    await load([*wanted, picture])
    answer = await client.get(f"{URL}/export", params={"format": "parquet"})
    file = pq.ParquetFile(BytesIO(answer.content))
    table = file.read()
    assert file.metadata.num_row_groups >= 3
    assert table.num_rows == 4501
    newest, oldest = table.slice(0, 1).to_pylist()[0], table.slice(4500).to_pylist()[0]
    assert (newest["version"], newest["total_ms"], newest["inputs"], newest["inputs_data"]) == (7, 2.5, None, b"\x89PNG")
    assert oldest["inputs"] == (wanted[0].inputs or b"").decode()
    assert oldest["at"].isoformat() == "2026-01-02T12:00:00+00:00"


async def test_who_was_shown_contents_is_in_the_audit_trail(client: httpx.AsyncClient, load: Loader) -> None:
    one = record()
    await load([one])
    await client.get(f"{URL}/{one.id}")
    await client.get(URL)  # facts alone
    await client.get(f"{URL}/export", params={"deployment": "iris"})
    found = (await client.get("/api/v1/audit")).json()["items"]
    said = [(entry["action"], entry["target"], entry["details"]) for entry in found]
    assert said[:2] == [
        ("prediction.export", "", {"format": "jsonl", "filter": "deployment=iris"}),
        ("prediction.read", one.id, {}),
    ]
    assert [entry["action"].partition(".")[0] for entry in found].count("prediction") == 2


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
async def test_an_export_of_nothing_is_a_whole_file(client: httpx.AsyncClient, form: str) -> None:
    answer = await client.get(f"{URL}/export", params={"format": form})
    assert answer.status_code == 200
    rows = pq.read_table(BytesIO(answer.content)).num_rows if form == "parquet" else len(answer.text)
    assert rows == 0
