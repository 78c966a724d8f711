"""Recorded predictions are answered again by the uploaded file, and what differs is named."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import zstandard
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from fixtures import artifacts
from fixtures.installation import Installation, eventually
from modelkeep.contracts.prediction import PredictionRecord

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
    assert replay["details"] == {"differing": [], "skipped": [], "forgotten": 0, "worst": []}


def run(house: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": house.key}
    command = [sys.executable, "-m", "modelkeep.app.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)


def test_people_replay_predictions_and_rows_of_their_own(house: Installation, forest: str, tmp_path: Path) -> None:
    done = run(house, "replay", forest, "--last", "5")
    assert done.returncode == 0, done.stderr
    assert f"{forest} version 1: all 15 rows agree." in done.stdout
    assert "5 of 5" in done.stdout
    rows = tmp_path / "rows.csv"
    ROWS.head(7).to_csv(rows, index=False)
    own = run(house, "replay", f"{forest}@1", str(rows), "--json")
    assert own.returncode == 0, own.stderr
    document = json.loads(own.stdout)
    assert (document["summary"]["rows"], document["summary"]["predictions"]) == (7, 0)
    later = run(house, "replay", forest, "--no-wait")
    assert later.returncode == 0, later.stderr
    listed = run(house, "replays", forest)
    assert len(listed.stdout.splitlines()) >= 4
    shown = run(house, "replays", forest, document["id"])
    assert "all 7 rows agree" in shown.stdout
    with house.client() as client:
        ids = [one.id for one in client.predictions(deployment=forest, limit=2)]
        assert client.replay(forest, predictions=ids).agrees
        assert client.wait_replay(client.replays(forest, 1)[0].id).settled


def test_wrong_use_is_told_calmly(house: Installation, forest: str) -> None:
    for arguments, code, said in (
        (("replay", forest, "--last", "5", "--rows", "[[1]]"), 2, "Give one of"),
        (("replay", f"{forest}@x"), 2, "names no version"),
        (("replay", "nothing-like-it"), 3, "model_not_found"),
        (("replay", f"{forest}@99"), 3, "version_not_found"),
        (("replay", forest, "--prediction", "prd_' OR 1=1"), 4, "not_an_id"),
        (("replay", forest, "--prediction", "prd_00000000000000000000000000"), 3, ""),
        (("replays", forest, "rpl_none"), 3, "replay_not_found"),
    ):
        done = run(house, *arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert said in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_compiled_file_that_is_another_models_is_found_out(house: Installation, forest: str) -> None:
    """The control: the rows that differ are exactly those on which the two forests do."""
    models = {seed: RandomForestClassifier(30, random_state=seed).fit(ROWS, DATA.target) for seed in (1, 2)}
    asked = ROWS[40:60]
    with house.client() as client:
        for seed, model in models.items():
            client.push(model, f"exchanged-{seed}", sample=ROWS.head())
        with sqlite3.connect(house.data / "modelkeep.db", timeout=20) as db:
            of = "SELECT compiled FROM versions JOIN models ON models.id = model_id WHERE name = ?"
            to = "UPDATE versions SET compiled = ({}) WHERE model_id = (SELECT id FROM models WHERE name = ?)"
            db.execute(to.format(of), ("exchanged-2", "exchanged-1"))
        db.close()
        replay = client.replay("exchanged-1", 1, rows=asked)
    one, two = (models[seed].predict_proba(asked) for seed in (1, 2))
    apart = np.flatnonzero(~np.isclose(one, two, 1e-4, 1e-5).all(axis=1)).tolist()
    assert replay.summary is not None
    assert replay.details is not None
    assert 0 < len(apart) < len(asked)
    assert [row["row"] for row in replay.details["differing"]] == apart
    assert replay.summary["rows_equal"] == len(asked) - len(apart)
    assert replay.summary["largest_difference"] == pytest.approx(np.abs(one - two).max())
    first = replay.details["differing"][0]
    assert first["differs"] == ["serving_original"]
    assert first["original"]["outputs"]["probabilities"] == pytest.approx(one[apart[0]])
    assert first["serving"]["outputs"]["probabilities"] == pytest.approx(two[apart[0]])
    done = run(house, "replay", "exchanged-1", "--rows", asked.to_json(orient="records"))
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"{len(apart)} of 20 rows differ" in done.stdout


@contextmanager
def another_label_recorded(house: Installation, victim: str, row: int) -> Iterator[None]:
    """Within the block, the history has another label for one row of a prediction."""
    with closing(sqlite3.connect(house.data / "predictions.db", timeout=20, isolation_level=None)) as db:
        of_it = "first_id <= ? AND last_id >= ?"
        blocks = db.execute(f"SELECT id, payload FROM prediction_blocks WHERE {of_it}", (victim, victim)).fetchall()
        changed = 0
        for block, payload in blocks:
            records = msgspec.msgpack.decode(zstandard.decompress(payload), type=list[PredictionRecord])
            for at, record in enumerate(records):
                if record.id == victim:
                    answer = json.loads(record.outputs or b"")
                    answer["outputs"]["label"][row] = 1 - answer["outputs"]["label"][row]
                    records[at] = msgspec.structs.replace(record, outputs=json.dumps(answer).encode())
                    changed += 1
            fresh = zstandard.compress(msgspec.msgpack.encode(records))
            db.execute("UPDATE prediction_blocks SET payload = ? WHERE id = ?", (fresh, block))
        assert changed == 1
        yield
        for block, payload in blocks:
            db.execute("UPDATE prediction_blocks SET payload = ? WHERE id = ?", (payload, block))


def test_a_history_that_was_changed_is_found_out(house: Installation, forest: str) -> None:
    """The control: exactly the changed row is named, and it is what was recorded that differs from both."""
    with house.client() as client:
        victim = client.predictions(deployment=forest, limit=5)[4].id
        with another_label_recorded(house, victim, 1):
            replay = client.replay(forest, last=10)
        after = client.replay(forest, last=10)
    assert replay.summary is not None
    assert replay.details is not None
    assert (replay.summary["rows"], replay.summary["rows_equal"]) == (30, 29)
    (row,) = replay.details["differing"]
    assert (row["prediction"], row["row"]) == (victim, 1)
    assert row["differs"] == ["recorded_serving", "recorded_original"]
    labels = [row[side]["outputs"]["label"] for side in ("recorded", "serving", "original")]
    assert labels[0] == 1 - labels[1] == 1 - labels[2]
    assert after.agrees


def test_a_worker_that_is_killed_does_the_replay_again_and_ends_it_once(house: Installation, tmp_path: Path) -> None:
    slow = tmp_path / "slow.pkl"
    slow.write_bytes(artifacts.pickle_answering("time.sleep(0.1)\nreturn rows[:, 0]"))
    with house.client() as client:
        client.push(slow, "replayed-slowly", sample=[[1.0, 2.0], [3.0, 4.0]])
        for at in range(30):
            client.predict("replayed-slowly", [[at, 0.0]])
        eventually(lambda: len(client.predictions(deployment="replayed-slowly", limit=100)) == 30, "the history")
        asked = client.replay("replayed-slowly", last=30, wait=False)
        eventually(lambda: client.replay_result(asked.id).progress > 0, "some progress")
        worker = house.role("worker")
        assert worker is not None
        worker.kill()
        done = client.wait_replay(asked.id, timeout=60)
        assert done.agrees, done.raw
        assert len(client.replays("replayed-slowly", 1)) == 1
    db = sqlite3.connect(house.data / "modelkeep.db", timeout=20)
    (job,) = db.execute("SELECT state, attempts FROM jobs WHERE subject = ?", (asked.id,)).fetchall()
    db.close()
    assert job == ("done", 2)


@pytest.mark.parametrize("compiling", ["off", "auto"])
def test_a_table_of_texts_and_gaps_is_replayed_compiled_or_not(house: Installation, tmp_path: Path, compiling: str) -> None:
    name = f"people-{compiling}"
    file = tmp_path / "people.joblib"
    file.write_bytes(artifacts.as_joblib(artifacts.people_classifier()))
    with house.client() as client:
        client.push(file, name, sample=artifacts.PEOPLE, compile=compiling)
        client.predict(name, artifacts.PEOPLE)
        client.predict(name, artifacts.PEOPLE.head(2))
        eventually(lambda: len(client.predictions(deployment=name)) == 2, "the history")
        replay = client.replay(name)
        own = client.replay(name, rows=artifacts.PEOPLE)
    assert replay.agrees, replay.raw
    assert own.agrees, own.raw
    assert replay.summary is not None
    assert (replay.summary["rows"], replay.summary["replayed"]) == (8, 2)
    assert (replay.summary["serving"] == replay.summary["original"]) == (compiling == "off")
    assert replay.summary["recorded_original"]["rows"] == 8
    done = run(house, "replay", name)
    assert done.returncode == 0, done.stderr
    assert ("the same file" in done.stdout) == (compiling == "off")
