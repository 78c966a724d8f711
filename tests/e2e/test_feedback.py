"""Feedback in a real installation: a client says which answers were wrong, and the version that gave them goes back."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import python_models
from fixtures.installation import Installation, eventually, installed
from modelkeep.client import Client

pytestmark = pytest.mark.timeout(300)

MODEL = """
class Model:
    signature = [{{"name": "x", "datatype": "FP64", "shape": [-1]}}]

    def load(self, path):
        pass

    def predict(self, inputs):
        return {{"y": inputs["x"] * {factor}}}
"""
ROUNDS, AT_ONCE = 60, 50


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of these tests' own."""
    with installed(tmp_path_factory.mktemp("feedback") / "data") as installation:
        yield installation


def pushed(client: Client, folder: Path, name: str) -> None:
    """Push a model that doubles, and a second version that does not: nothing but its answers is wrong."""
    for number, factor in enumerate((2.0, 2.5), 1):
        file = folder / f"{name}-{number}.zip"
        file.write_bytes(python_models.archive(model=MODEL.format(factor=factor)))
        client.push(file, name, format="python", promote=False)
    client.promote(name, 1)
    client.wait_serving(name, 1)


def test_a_version_whose_answers_are_told_to_be_wrong_is_taken_back(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        pushed(client, tmp_path, "doubling")
        rollout = client.start_rollout("doubling", 2, steps=["30:10m"], signals=["errors", "feedback"])
        dice, waiting = random.Random(20261123), set[str]()
        for _ in range(ROUNDS):
            said = []
            for _ in range(AT_ONCE):
                x = dice.uniform(1.0, 9.0)
                answer = client.predict("doubling", [{"x": x}])
                right = abs(float(answer.outputs["y"][0]) - 2 * x) < 1e-9
                said.append({"prediction": answer.id, "verdict": "right" if right else "wrong", "truth": {"y": 2 * x}})
            outcomes = client.send_feedback(said)  # which overtakes the history now and then
            assert {one.status for one in outcomes} <= {"accepted", "parked"}
            waiting |= {one.prediction for one in outcomes if one.status == "parked"}
            if client.rollout(rollout.id).over:
                break
        found = client.watch_rollout(rollout.id, timeout=60)
        print(f"\n{len(waiting)} labels overtook their predictions; {found.reason}")
        assert (found.state, client.deployment("doubling").version) == ("rolled_back", 1)
        assert found.reason.startswith("feedback:")
        known = found.numbers["feedback"]
        assert known["bad"] == known["requests"] > 0
        assert known["others_bad"] == 0 < known["others"]
        assert found.numbers["errors"]["bad"] == 0
        wrong = client.list_feedback(deployment="doubling", verdict="wrong", limit=500)
        assert {one.version for one in wrong} == {2}
        (told,) = client.prediction_feedback(wrong[0].prediction)
        assert (told.verdict, set(told.truth)) == ("wrong", {"y"})


def test_what_overtook_its_prediction_is_joined_to_it(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        pushed(client, tmp_path, "overtaken")
        ids = []
        for _ in range(20):
            answer = client.predict("overtaken", [{"x": 1.0}])
            assert client.feedback(answer, "right").status in {"accepted", "parked"}
            ids.append(answer.id)
        joined = lambda: {one.prediction for one in client.list_feedback(deployment="overtaken")} == set(ids)  # noqa: E731
        eventually(joined, "all are joined")
        again = client.feedback(ids[0], "right", at="2026-01-01T00:00:00Z")
        assert (again.status, client.feedback(ids[0], "right", at="2026-01-01T00:00:00Z").status) == ("accepted", "unchanged")
        sending = ("send", ids[1], "wrong", "--truth", '{"y": 3}', "--note", "seen")
        assert "was wrong" in house.command("feedback", *sending, cwd=tmp_path)
        listed = json.loads(house.command("feedback", "list", "--verdict", "wrong", "--json", cwd=tmp_path))
        assert {"seen"} == {one["note"] for one in listed if one["deployment"] == "overtaken"}
