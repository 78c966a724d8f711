"""Settings of a deployment, from the command line and the client to what the server is told."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.dummy import DummyRegressor

from fixtures.installation import Installation, eventually
from modelkeep.app.cli import program
from modelkeep.app.cli.problems import Code
from modelkeep.client import Conflict, Invalid
from modelkeep.contracts.snapshot import ServedDeployment, decode_snapshot

Command = Callable[..., tuple[int, str, str]]


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


@pytest.fixture
def tuned(house: Installation, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A model that answers, of the test's own name."""
    name = f"tuned-{abs(hash(request.node.name)) % 10**8}"
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(DummyRegressor(strategy="constant", constant=1.0).fit([[0.0]], [0.0])))
    with house.client() as client:
        client.push(path, name)
    return name


def served(house: Installation, name: str) -> ServedDeployment:
    """The deployment as the newest snapshot has it."""
    snapshot = decode_snapshot((house.data / "serving" / "snapshot").read_bytes())
    return next(one for one in snapshot.deployments if one.name == name)


def test_a_deployment_is_listed_shown_and_set(command: Command, house: Installation, tuned: str):
    code, out, _err = command("deployments")
    assert code == 0
    assert any(line.startswith(f"{tuned}\t{tuned}\t1\t1\t") for line in out.splitlines())
    code, out, _err = command("deployments", "set", tuned, "batching.mode=off", "deadline_s=2", "recording.fields.value=hash")
    assert code == 0
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (shown["revision"], shown["batching.mode"], shown["deadline_s"]) == ("2", "off", "2.0")
    assert shown["recording.fields.value"] == "hash"
    assert (shown["batching.max_rows"], shown["batching.max_wait_ms"]) == ("0 (the installation's)", "-1.0 (by the cost)")
    again = dict(line.split(maxsplit=1) for line in command("deployments", "show", tuned)[1].splitlines())
    assert {**again, "cache": ""} == {**shown, "cache": ""}, "but for what servers have told of it meanwhile"
    document = json.loads(command("deployments", "show", tuned, "--json")[1])
    assert document["settings"]["batching"]["mode"] == "off"
    eventually(lambda: served(house, tuned).revision == 2, "the server is told")
    assert served(house, tuned).settings.batching.mode == "off"
    assert command("deployments", "set", tuned, "batching=default", "--revision", 2)[0] == 0


def test_a_slip_is_told_with_what_was_meant(command: Command, tuned: str):
    code, out, err = command("deployments", "set", tuned, "batchng.mode=off", "concurrency=many")
    assert (code, out) == (Code.INVALID, "")
    assert "settings.batchng" in err
    assert "Did you mean 'batching'?" in err
    code, _out, err = command("deployments", "set", tuned, "deadline_s=1", "--revision", 7)
    assert code != 0
    assert "revision 1" in err
    assert f"modelkeep deployments show {tuned}" in err
    code, _out, err = command("deployments", "show", tuned[:-1])
    assert code != 0
    assert f"Did you mean {tuned}" in err


def test_the_client_changes_settings(house: Installation, tuned: str):
    with house.client() as client:
        changed = client.configure(tuned, {"replicas": {"max": 2}}, revision=1)
        assert changed.settings["replicas"] == {"min": 1, "max": 2}
        with pytest.raises(Conflict):
            client.configure(tuned, {"replicas": None}, revision=1)
        with pytest.raises(Invalid) as wrong:
            client.configure(tuned, {"replicas": {"max": -1}})
        assert wrong.value.fields[0].path == "settings.replicas.max"
        assert client.deployment(tuned).revision == 2


def test_a_key_with_a_rate_is_made_and_listed(command: Command):
    code, out, _err = command("keys", "create", "slow-lane", "--rate", "100/min")
    assert (code, out[:3]) == (0, "mk_")
    assert any({"slow-lane", "100/min"} <= set(line.split()) for line in command("keys", "list")[1].splitlines())
    code, _out, err = command("keys", "create", "wrong", "--rate", "fast")
    assert code != 0
    assert "100/min" in err
