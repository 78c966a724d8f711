"""A shadow that sleeps, crashes or answers otherwise: the report says so, and the promoted version's callers notice nothing."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures import python_models
from fixtures.installation import Installation, eventually, installed
from modelkeep.client import Client

pytestmark = pytest.mark.timeout(300)

MODEL = """
import os, time

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
ROWS = [{"x": 200.0}]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of these tests' own, where a run may take five seconds."""
    data = tmp_path_factory.mktemp("shadows") / "data"
    with installed(data, MODELKEEP_RUNNERS__RUN_TIMEOUT_S="5") as installation:
        yield installation


def push(client: Client, folder: Path, name: str, does: str) -> int:
    """Push a version that does this where x is above 100; returns its number."""
    file = folder / f"{name}.zip"
    file.write_bytes(python_models.archive(model=MODEL.format(does=does)))
    return client.push(file, name, format="python").number


def shadowed(client: Client, folder: Path, name: str, does: str) -> None:
    """Deploy a version that is well, and have one that does this shadow it for every request."""
    well = push(client, folder, name, "pass")
    number = push(client, folder, name, does)
    client.promote(name, well)
    client.set_traffic(name, {"shadow": {"version": number, "share": 100}})


def report(client: Client, name: str) -> dict[str, Any]:
    return dict(client.shadow(name).raw)


def test_one_that_answers_otherwise_is_told_of_by_row(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        shadowed(client, tmp_path, "otherwise", "x = x + 20 * (x > 100)")

        def told() -> bool:
            client.predict("otherwise", [{"x": 1.0}, {"x": 200.0}])
            try:
                return report(client, "otherwise")["differ"] > 3
            except LookupError:
                return False

        def heard() -> bool:
            client.predict("otherwise", [{"x": 1.0}, {"x": 200.0}])
            return bool(client.shadows("otherwise"))

        eventually(heard, "something was heard of the shadow", 60)
        eventually(told, "rows that differ", 60)
        found = report(client, "otherwise")
        assert found["rows"] == 2 * found["requests"] == 2 * found["differ"] > 0
        assert (found["version"], found["primary"], found["active"], found["failed"]) == (2, 1, True, {})
        assert found["worst"][0]["primary"] == {"y": 400.0}
        assert found["worst"][0]["shadow"] == {"y": 440.0}
        assert found["worst"][0]["inputs"] == {"x": 200.0}
        recorded = client.predictions(deployment="otherwise", limit=200)
        assert {one.version for one in recorded} == {1}, "what a shadow says is in no history"
    said = house.command("shadow", "show", "otherwise", cwd=tmp_path)
    assert "version 2 is asked beside version 1" in said
    assert "50 %" in said


@pytest.mark.parametrize("does", ["time.sleep(30)", "os._exit(3)", "os.abort()"])
def test_one_that_sleeps_or_crashes_fails_nobody(house: Installation, tmp_path: Path, does: str) -> None:
    name = "sleeps" if "sleep" in does else "exits" if "exit" in does else "aborts"
    with house.client() as client:
        shadowed(client, tmp_path, name, does)
        failures: list[BaseException] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    assert list(client.predict(name, ROWS).outputs["y"]) == [400.0]
                except BaseException as error:
                    failures.append(error)
                done.wait(0.01)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            eventually(lambda: client.shadows(name) and sum(report(client, name)["failed"].values()) >= 1, "a failure told", 90)
        finally:
            done.set()
            asking.join()
        assert not failures
        assert report(client, name)["requests"] == 0
        deployment = client.deployment(name)
        assert all(not one["failing"] for one in deployment.serving)
        assert list(client.predict(name, ROWS).outputs["y"]) == [400.0]


def test_its_runner_gets_the_processor_when_nothing_else_wants_it(house: Installation, tmp_path: Path) -> None:
    with house.client() as client:
        before = {one.pid for one in house.runners()}
        shadowed(client, tmp_path, "lowly", "pass")

        def nicenesses() -> set[tuple[int, int]]:
            client.predict("lowly", [{"x": 1.0}])
            fresh = [one for one in house.runners() if one.pid not in before]
            return {(one.nice(), _policy(one)) for one in fresh}

        eventually(lambda: any(policy == 5 for _nice, policy in nicenesses()), "a runner that is scheduled when idle", 60)
        assert any(policy == 0 for _nice, policy in nicenesses()), "the promoted version's is as ever"


def _policy(process: psutil.Process) -> int:
    """The scheduling policy of a process: 0 for the usual one, 5 for idle."""
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[38])
