"""A version on its way in a real installation: what is bad goes back by itself, what is good takes over."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import python_models
from fixtures.installation import Installation, installed
from modelkeep.client import Client

pytestmark = pytest.mark.timeout(300)

MODEL = """
import os

class Model:
    signature = [{{"name": "x", "datatype": "FP64", "shape": [-1]}}]

    def load(self, path):
        pass

    def predict(self, inputs):
        x = inputs["x"]
        if (x > 100).any():
            {does}
        return {{"y": x * 2.0}}
"""
MOST = 8000
PACE_S = 0.01
"""Between two questions, the machine has something to spare, which is all that a shadow has."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of these tests' own, where each question is run."""
    with installed(tmp_path_factory.mktemp("rollouts") / "data", MODELKEEP_SERVING__CACHE_MB="0") as installation:
        yield installation


def pushed(client: Client, folder: Path, name: str, does: str) -> None:
    """Push a model, and a second version that does this where x is above 100."""
    for number, what in enumerate(("pass", does), 1):
        file = folder / f"{name}-{number}.zip"
        file.write_bytes(python_models.archive(model=MODEL.format(does=what)))
        client.push(file, name, format="python", promote=False)
    client.promote(name, 1)
    client.wait_serving(name, 1)


def asked(house: Installation, client: Client, name: str, rollout_id: str, pace_s: float = 0.0) -> int:
    """Ask, a fifth of the time with what the second version may not bear, until the rollout is over; how often that was."""
    dice = random.Random(20261123)
    with house.http() as http:
        for count in range(1, MOST):
            x = 200.0 if dice.random() < 0.2 else 1.0
            http.post(f"/api/v1/predict/{name}", json={"inputs": [{"x": x}]})
            time.sleep(pace_s)
            if count % 10 == 0 and client.rollout(rollout_id).over:
                return count
    raise AssertionError(f"not over after {MOST}: {client.rollout(rollout_id).raw}")


def test_a_bad_version_is_taken_back_by_itself_and_the_evidence_stays(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        pushed(client, tmp_path, "bad", "raise RuntimeError(x)")
        rollout = client.start_rollout("bad", 2, steps=["10:10m"])
        count = asked(house, client, "bad", rollout.id)
        found = client.rollout(rollout.id)
        print(f"\nout after {count} requests, warm-up included: {found.reason}")
        assert (found.state, client.deployment("bad").version) == ("rolled_back", 1)
        assert client.deployment("bad").raw["traffic"]["split"] == {}
        assert client.rollout_evidence(rollout.id)["points"]
        (alert,) = client.alerts(state="firing", deployment="bad")
        assert (alert.kind, alert.severity, alert.count) == ("rollout.rolled_back", "page", 1)
        (seen,) = client.alert(alert.id).evidence
        assert (seen["rollout"], seen["signal"]) == (rollout.id, "errors")
        assert seen["numbers"]["errors"]["bad"] == found.numbers["errors"]["bad"]


def test_a_good_version_is_promoted_once_its_time_and_samples_are_there(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        pushed(client, tmp_path, "good", "pass")
        rollout = client.start_rollout("good", 2, steps=["50:1s"], least=30)
        asked(house, client, "good", rollout.id)
        assert (client.rollout(rollout.id).state, client.deployment("good").version) == ("promoted", 2)


@pytest.mark.parametrize(
    ("name", "does", "end"), [("green", "pass", "promoted"), ("red", "raise RuntimeError(x)", "rolled_back")]
)
def test_blue_and_green_change_places_and_back_where_it_is_bad(
    house: Installation, tmp_path: Path, name: str, does: str, end: str
) -> None:
    with house.client() as client:
        pushed(client, tmp_path, name, does)
        rollout = client.start_rollout(name, 2, mode="blue_green", bake_minutes=1 / 60, least=200)
        client.wait_serving(name, 2)
        asked(house, client, name, rollout.id, PACE_S)
        assert (client.rollout(rollout.id).state, client.deployment(name).version) == (end, 2 if end == "promoted" else 1)


def asked_beside(house: Installation, client: Client, name: str, rollout_id: str) -> int:
    """Ask, every other time with what the second version answers otherwise; every answer has to be the first version's."""
    dice = random.Random(20261123)
    with house.http() as http:
        for count in range(1, MOST):
            x = 200.0 if dice.random() < 0.5 else 1.0
            answer = http.post(f"/api/v1/predict/{name}", json={"inputs": [{"x": x}]})
            assert answer.status_code == 200, answer.text
            assert (answer.json()["outputs"], answer.json()["version"]) == ({"y": [2 * x]}, 1), answer.text
            time.sleep(PACE_S)
            if count % 10 == 0 and client.rollout(rollout_id).over:
                return count
    raise AssertionError(f"not over after {MOST}: {client.rollout(rollout_id).raw}")


@pytest.mark.parametrize(("name", "does"), [("differs", "x = x + 20 * (x > 100)"), ("fails", "raise RuntimeError(x)")])
def test_one_that_answers_otherwise_or_not_at_all_is_out_of_the_shadow_before_anybody_was_answered_by_it(
    house: Installation, tmp_path: Path, name: str, does: str
) -> None:
    with house.client() as client:
        pushed(client, tmp_path, name, does)
        rollout = client.start_rollout(name, 2, shadow="100:10m", steps=["50:1h"])
        assert rollout.shadow
        count = asked_beside(house, client, name, rollout.id)
        found = client.rollout(rollout.id)
        print(f"\nout of the shadow after {count} requests: {found.reason}")
        assert (found.state, found.step, client.deployment(name).version) == ("rolled_back", 1, 1)
        numbers = found.numbers or {}
        known = numbers["disagreement"]
        assert known["bad"] / known["requests"] > known["lower"] > known["bound"] == 0.1
        assert numbers["errors"]["bad"] == (name == "fails"), "equal requests are bad once"
        assert client.deployment(name).raw["traffic"]["shadow"] is None


def test_one_that_agrees_leaves_the_shadow_and_is_promoted(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        pushed(client, tmp_path, "agrees", "pass")
        rollout = client.start_rollout("agrees", 2, shadow="100:1s", steps=["50:1s"], least=30)
        assert client.deployment("agrees").raw["traffic"]["shadow"] == {"version": 2, "share": 100.0}
        asked(house, client, "agrees", rollout.id, PACE_S)
        found = client.rollout(rollout.id)
        assert (found.state, client.deployment("agrees").version) == ("promoted", 2)
        left = client.deployment("agrees").raw["traffic"]
        assert (left["shadow"], left["split"]) == (None, {})
        assert [one["shadow"] for one in found.raw["begun"]] == [True, False]
        known = (found.numbers or {})["disagreement"]
        assert (known["bad"], known["requests"] >= 30) == (0, True)
