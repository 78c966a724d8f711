"""A model whose answers change is taken out: its runner is ended, and a fresh one answers as at validation."""

import json
from pathlib import Path

import pytest

from fixtures.installation import eventually, installed

LONG_ENOUGH = 400  # runs of a validation are fewer


@pytest.mark.timeout(120)
def test_a_runner_that_has_come_to_answer_otherwise_is_replaced(tmp_path: Path) -> None:
    with installed(tmp_path / "data", MODELKEEP_SERVING__GOLDEN_CHECK_S="1") as house, house.client() as client:
        (tmp_path / "m.echo").write_text(json.dumps({"echo": 1, "drifts_after": LONG_ENOUGH}))
        version = client.push(tmp_path / "m.echo", "m")
        assert version.state == "ready"
        with house.http() as http:

            def answer() -> float:
                found = http.post("/api/v1/predict/m", json={"inputs": [[1.0, 2.0]]})
                return found.json()["outputs"]["input"][0][0] if found.status_code == 200 else float("nan")

            assert answer() == 1.0
            before = {one.pid for one in house.runners()}
            for _ in range(LONG_ENOUGH):
                answer()
            eventually(lambda: not before & {one.pid for one in house.runners()}, "another runner")
            eventually(lambda: answer() == 1.0, "the answer of its validation")
            assert 'modelkeep_golden_mismatches_total{deployment="m"} 1' in http.get("/metrics").text
            assert "golden rows are answered otherwise" in house.log.read_text()


@pytest.mark.timeout(120)
def test_a_model_that_never_answers_the_same_twice_has_no_golden_rows(tmp_path: Path) -> None:
    with installed(tmp_path / "data", MODELKEEP_SERVING__GOLDEN_CHECK_S="1") as house, house.client() as client:
        (tmp_path / "m.echo").write_text(json.dumps({"echo": 1, "noise": 1.0}))
        client.push(tmp_path / "m.echo", "m")
        assert client.predict("m", [[1.0, 2.0]]).version == 1
        assert "golden rows" not in house.log.read_text()


@pytest.mark.timeout(180)
def test_a_model_whose_answers_change_is_held_back_until_it_is_said_that_they_may(tmp_path: Path) -> None:
    with installed(tmp_path / "data", MODELKEEP_SERVING__GOLDEN_CHECK_S="1") as house, house.client() as client:
        (tmp_path / "m.echo").write_text(json.dumps({"echo": 1, "drifts_after": LONG_ENOUGH}))
        client.push(tmp_path / "m.echo", "m")
        with house.http() as http:
            client.configure("m", {"golden": "warn"})
            before = {one.pid for one in house.runners()}
            for _ in range(LONG_ENOUGH + 1):
                http.post("/api/v1/predict/m", json={"inputs": [[1.0, 2.0]]})
            eventually(lambda: 'modelkeep_golden_differs{deployment="m"} 1' in http.get("/metrics").text, "it is shown")
            assert http.get("/health").json()["models"]["differing"] == 1
            assert http.post("/api/v1/predict/m", json={"inputs": [[1.0, 2.0]]}).json()["outputs"]["input"] == [[2.0, 4.0]]
            assert before == {one.pid for one in house.runners()}
            assert client.configure("m", {"golden": "enforce"}).settings["golden"] == "enforce"
            eventually(lambda: not before & {one.pid for one in house.runners()}, "another runner, now that it is enforced")
            eventually(lambda: "set golden=warn for the deployment" in house.log.read_text(), "it is said what to do")
