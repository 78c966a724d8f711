"""Tables with columns of every kind through a whole installation: each answer over HTTP is the one in process."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures import tables
from fixtures.installation import Installation
from modelkeep.client.inputs import encode, rows_in
from modelkeep.sandbox.agreement import ABSOLUTE, RELATIVE

pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = [
    "strings with None",
    "categories",
    "booleans",
    "integers as texts",
    "wide labels",
    "hour",
    "dates with gaps",
    "two labels",
]


def flat(values: object) -> list[Any]:
    return [one for value in values for one in flat(value)] if isinstance(values, list) else [values]


def near(values: object) -> object:
    """The same, as a compiled form may answer it: texts and labels exactly, numbers but for the last digits."""
    if isinstance(values, dict):
        return {key: near(value) for key, value in values.items()}
    if isinstance(values, list):
        return [near(value) for value in values]
    return pytest.approx(values, RELATIVE, ABSOLUTE) if isinstance(values, float) else values


def answered(http: httpx.Client, path: str, body: object) -> dict[str, Any]:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("place", range(len(MODELS)), ids=MODELS)
def test_a_table_is_answered_as_in_process(house: Installation, place: int, tmp_path: Path) -> None:
    model, name = tables.PIPELINES[MODELS[place]](), f"columns-{place}"
    frame = tables.asked(model)
    columns = json.loads(encode(rows_in(frame)))
    expected = {key: array.tolist() for key, array in tables.expected(model, frame).items()}
    sample = tmp_path / "sample.json"
    sample.write_bytes(encode(rows_in(frame)))
    with house.client() as client:
        version = client.push(model, name, sample=frame if place % 2 else sample)
    assert version.state == "ready", version.rejection
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with house.http() as http:
        for inputs in (columns, records):
            assert answered(http, f"/api/v1/predict/{name}", {"inputs": inputs})["outputs"] == near(expected)
        described = http.get(f"/v2/models/{name}").json()["inputs"]
        asked = [
            {"name": one["name"], "datatype": one["datatype"], "shape": [len(frame)], "data": columns[one["name"]]}
            for one in described
        ]
        outputs = answered(http, f"/v2/models/{name}/infer", {"inputs": asked})["outputs"]
        assert {one["name"]: one["data"] for one in outputs} == near({key: flat(value) for key, value in expected.items()})
        dates = [one["name"] for one in described if one.get("parameters", {}).get("content_type") == "datetime"]
        assert dates == [one for one in tables.DATES if one in frame]
        signature = http.get(f"/api/v1/models/{name}/versions/1").json()["signature"]["inputs"]
        assert [one["name"] for one in signature if one["kind"] == "datetime"] == dates
        for one in dates:
            wrong = http.post(f"/api/v1/predict/{name}", json={"inputs": [{**records[0], one: "2026-02-30"}]})
            assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, f"inputs[0].{one}"), wrong.text
