"""Aliases in a real installation: asked from every door, moved under load, and kept through kill -9 of any process."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from fixtures.artifacts import constant, onnx_file, value
from fixtures.installation import Installation, eventually, runs
from modelkeep.app.cli import program
from modelkeep.client import Client, ModelkeepError, NotFound

Command = Callable[..., tuple[int, str, str]]
ROW = [[1.0, 2.0]]
MANY = 40_000  # rows, which are read and answered in threads
NAME = "named"


@pytest.fixture
def command(house: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command against the installation; returns its exit code, stdout and stderr."""
    monkeypatch.setenv("MODELKEEP_URL", house.url)
    monkeypatch.setenv("MODELKEEP_API_KEY", house.key)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = int(program.run([str(one) for one in arguments]))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def push(client: Client, folder: Path, name: str, factor: int) -> None:
    """Push a model that answers its row times `factor`."""
    shape = ["n", 2]
    file = folder / f"{factor}.onnx"
    file.write_bytes(
        onnx_file(
            [helper.make_node("Mul", ["x", "factor"], ["y"])],
            [value("x", TensorProto.FLOAT, shape)],
            [value("y", TensorProto.FLOAT, shape)],
            [constant("factor", np.array(factor, dtype=np.float32))],
        )
    )
    client.push(file, name)


def answered(client: Client, version: int | str | None = None, rows: int = 1) -> int:
    """The version that answered, which its answer shows."""
    found = client.predict(NAME, ROW * rows, version=version)
    assert np.asarray(found.outputs["y"]).tolist() == [[1.0 * found.version, 2.0 * found.version]] * rows
    return found.version


def test_versions_are_asked_by_alias_and_number_through_every_door(house: Installation, command: Command, tmp_path: Path):
    with house.client() as client, house.http() as http:
        push(client, tmp_path, NAME, 1)
        push(client, tmp_path, NAME, 2)
        with pytest.raises(NotFound) as refused:
            answered(client, 2)
        assert (refused.value.code, "alias" in str(refused.value)) == ("version_not_served", True)

        code, out, _err = command("alias", "set", NAME, "canary", 2, "--json")
        assert (code, json.loads(out)["revision"]) == (0, 1)
        assert command("alias", "set", NAME, "champion", 1)[0] == 0
        eventually(lambda: _sleeps(http), "the canary sleeps, for nobody has asked it yet")
        assert [answered(client, one) for one in ("canary", 2, "champion", 1, None)] == [2, 2, 1, 1, 1]
        assert not _sleeps(http)

        code, out, _err = command("predict", NAME, "--rows", json.dumps(ROW), "--version", "canary", "--json")
        document = json.loads(out)
        assert (code, document["version"], document["outputs"]["y"]) == (0, 2, [[2.0, 4.0]])
        body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
        v2 = http.post("/v2/models/named/versions/canary/infer", json=body)
        assert (v2.json()["model_version"], v2.json()["outputs"][0]["data"]) == ("2", [2.0, 4.0])
        assert v2.headers["x-model-version"] == "2"
        assert sorted(http.get("/v2/models/named").json()["versions"]) == ["1", "2"]

        asked = [document["id"], v2.headers["x-prediction-id"]]
        for one in asked:
            eventually(lambda one=one: _recorded(client, one), "a recorded prediction")
        assert [client.prediction(one).version for one in asked] == [2, 2]
        again = client.replay(NAME, 2, predictions=asked)
        assert again.agrees, again.raw
        assert again.summary is not None
        assert again.summary["rows"] == 2

        assert command("alias", "list", NAME)[1].splitlines()[1].split("\t")[:3] == ["canary", "2", "1"]
        code, _out, err = command("archive", NAME, 2)
        assert code != 0
        assert "canary" in err
        assert command("alias", "delete", NAME, "canary")[0] == 0
        eventually(lambda: http.get("/v2/models/named/versions/2").status_code == 404, "the deleted alias answers no more")
        code, out, _err = command("alias", "history", NAME, "canary", "--json")
        assert [(one["from_version"], one["to_version"]) for one in json.loads(out)] == [(2, None), (None, 2)]
        assert command("alias", "delete", NAME, "canary")[0] != 0
        assert command("archive", NAME, 2)[0] == 0


class Load:
    """Threads that ask by alias without a pause, one of them for very much, and what they were told."""

    def __init__(self, house: Installation) -> None:
        self._house = house
        self._stop = threading.Event()
        self.answers: list[int] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(rows,)) for rows in (1, 1, MANY)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, rows: int) -> None:
        with self._house.client() as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(answered(client, "live", rows))
                except (ModelkeepError, AssertionError) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    self._stop.wait(0.02)

    def more(self, version: int) -> None:
        """Wait until this version has answered again, and it alone."""
        seen = len(self.answers)
        eventually(lambda: len(self.answers) > seen + 6 and set(self.answers[-4:]) == {version}, f"version {version} answers")


@pytest.mark.timeout(300)
def test_an_alias_moves_under_load_without_a_lost_request_and_outlives_every_kill(own_house: Installation, tmp_path: Path):
    with own_house.client() as client:
        for factor in (1, 2, 3):
            push(client, tmp_path, NAME, factor)
        client.set_alias(NAME, "live", 2)
        client.wait_alias(NAME, "live", 2)
        answered(client, "live")
        moves = [2]
        with Load(own_house) as load:
            for turn in range(6):
                moves.append(3 - turn % 2)
                client.set_alias(NAME, "live", moves[-1])
                load.more(moves[-1])
            assert load.failures == [], "moving an alias loses nothing"
            _kill(own_house, "worker")
            client.promote(NAME, 3)
            moves.append(2)
            client.set_alias(NAME, "live", 2)
            load.more(2)
            assert load.failures == []
            _kill(own_house, "server")
            eventually(lambda: _moved(client, 3), "the alias moves while the server comes back")
            moves.append(3)
            load.more(3)
            load.failures.clear()
            moves.append(1)
            client.set_alias(NAME, "live", 1)
            load.more(1)
            assert load.failures == []
        moves = [after for before, after in zip([None, *moves], moves, strict=False) if before != after]
        own_house.kill()
        own_house.start().wait()
        assert [one.to_version for one in reversed(client.alias_history(NAME, "live"))] == moves
        assert (answered(client, "live"), answered(client)) == (1, 3)


def _kill(house: Installation, role: str) -> None:
    victim = house.role(role)
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    eventually(lambda: not runs(victim), f"the end of the {role}")


def _sleeps(http: httpx.Client) -> bool:
    """Whether the canary has no runner, for nobody has asked it."""
    return bool(http.get("/info", params={"model": NAME, "version": "canary"}).json()["asleep"])


def _recorded(client: Client, prediction_id: str) -> bool:
    try:
        return bool(client.prediction(prediction_id).id)
    except NotFound:
        return False


def _moved(client: Client, version: int) -> bool:
    try:
        client.set_alias(NAME, "live", version)
    except ModelkeepError:
        return False
    return True
