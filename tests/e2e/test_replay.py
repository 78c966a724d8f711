"""Recorded predictions are answered again by the uploaded file, and what differs is named."""

import time

import httpx
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from fixtures.installation import Installation

DATA = load_breast_cancer(as_frame=True)
ROWS = DATA.data


@pytest.fixture(scope="module")
def forest(house: Installation) -> str:
    """A forest that serves compiled, and has answered thirty rows in ten predictions."""
    model = RandomForestClassifier(30, random_state=0).fit(ROWS, DATA.target)
    with house.client() as client:
        version = client.push(model, "replayed", sample=ROWS.head())
        assert version.report is not None
        assert version.report["compiled"]["used"], version.report["compiled"]
        for at in range(0, 30, 3):
            client.predict("replayed", ROWS[at : at + 3])
        deadline = time.monotonic() + 10
        while len(client.predictions(deployment="replayed")) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return "replayed"


def ended(http: httpx.Client, answer: httpx.Response) -> dict[str, object]:
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + 60
    while True:
        replay = http.get(answer.headers["location"]).json()
        if replay["state"] in {"done", "failed"}:
            return dict(replay)
        assert time.monotonic() < deadline, replay
        time.sleep(0.1)


def test_the_newest_predictions_of_a_forest_are_answered_the_same(house: Installation, forest: str) -> None:
    with house.http() as http:
        asked = http.post(f"/api/v1/models/{forest}/versions/1/replays", json={"last": 100})
        replay = ended(http, asked)
    assert replay["failure"] is None, replay
    found = replay["summary"]
    assert (found["predictions"], found["replayed"], found["rows"], found["rows_equal"]) == (10, 10, 30, 30), replay
    assert (found["original"]["runner"], found["serving"]["runner"]) == ("sklearn", "onnx")
    assert found["original"]["digest"] != found["serving"]["digest"]
    assert found["largest_difference"] < 1e-12
    assert all(found[pair]["rows"] == 30 for pair in ("recorded_serving", "serving_original", "recorded_original"))
    assert replay["details"] == {"differing": [], "skipped": []}
