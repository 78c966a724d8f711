"""One document for a whole installation: exported, compared, applied and pruned, by the commands and by the client."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation
from modelkeep.app.cli import program
from modelkeep.app.cli.yaml_text import dump, load
from modelkeep.client import Invalid, NotFound, Stale

Command = Callable[..., tuple[int, str, str]]
NAME = "wanted"


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


@pytest.fixture(scope="module")
def model(house: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with three versions."""
    file = tmp_path_factory.mktemp("wanted") / "same.onnx"
    with house.client() as client:
        for size in (1, 2, 3):
            file.write_bytes(onnx_identity(1) + b"" * size)
            client.push(file, NAME, description=f"version {size}")
    return NAME


def test_a_document_is_exported_changed_compared_applied_and_pruned(
    house: Installation, command: Command, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "keep.yaml"
    assert command("export", "-o", file)[0] == 0
    document = load(file.read_text())
    assert document["deployments"][NAME]["version"] == 1
    code, out, _err = command("apply", "-f", file)
    assert (code, out) == (0, "Nothing to change: everything is as the file says.\n")

    mine = {
        "modelkeep": 1,
        "models": {NAME: {"description": "What is wanted", "aliases": {"champion": 1, "next": 2}}},
        "deployments": {
            NAME: {
                "version": 2,
                "settings": {"deadline_s": 2.5, "batching": {"mode": "off"}},
                "traffic": {"split": {"3": 5}, "sticky": "key"},
            },
            f"{NAME}-eu": {"model": NAME, "version": 1},
        },
    }
    file.write_text(dump(mine))
    code, planned, _err = command("apply", "-f", file, "--plan", "--json")
    assert (code, json.loads(planned)["applied"]) == (0, 0)
    with house.client() as client:
        assert client.deployment(NAME).version == 1  # a plan changes nothing
    code, out, _err = command("apply", "-f", file, "--json")
    done = json.loads(out)
    assert (code, done["applied"], done["changes"]) == (0, len(done["changes"]), json.loads(planned)["changes"])
    with house.client() as client:
        found, other = client.deployment(NAME), client.deployment(f"{NAME}-eu")
        assert (found.version, found.settings["deadline_s"], found.settings["batching"]["mode"]) == (2, 2.5, "off")
        assert found.raw["traffic"]["split"] == {"3": 5.0}
        assert (other.model, other.version) == (NAME, 1)
        assert client.model(NAME).description == "What is wanted"
        assert dict(client.model(NAME).aliases) == {"champion": 1, "next": 2}
        revision = found.revision
        assert client.compare(mine) == []
        assert client.deployment(NAME).revision == revision

    del mine["deployments"][NAME]["settings"]["batching"], mine["models"][NAME]["aliases"]["next"]
    mine["deployments"][NAME]["traffic"] = {}
    del mine["deployments"][f"{NAME}-eu"]
    file.write_text(json.dumps(mine))  # JSON is YAML
    assert command("apply", "-f", file)[0] == 0
    with house.client() as client:
        found = client.deployment(NAME)
        assert (found.settings["deadline_s"], found.settings["batching"]["mode"]) == (2.5, "auto")
        assert found.raw["traffic"]["split"] == {}
        assert (client.model(NAME).aliases["next"], client.deployment(f"{NAME}-eu").version) == (2, 1)
        pruned = [(one.action, one.name) for one in client.compare(mine, prune=True) if NAME in one.name]
        assert pruned == [("delete", f"{NAME}-eu"), ("delete", f"{NAME} next")]
        for change in client.compare(mine, prune=True):
            if NAME in change.name:
                client.apply(change)
        assert "next" not in client.model(NAME).aliases
        with pytest.raises(NotFound):
            client.deployment(f"{NAME}-eu")


def test_what_somebody_else_has_changed_since_is_not_overwritten(house: Installation, model: str) -> None:
    with house.client() as client:
        document = client.export()
        document["deployments"][NAME]["settings"]["deadline_s"] = 7
        (change,) = [one for one in client.compare(document) if one.name == NAME]
        client.configure(NAME, {"deadline_s": 5})
        with pytest.raises(Stale):
            client.apply(change)
        assert client.deployment(NAME).settings["deadline_s"] == 5


def test_faults_name_their_places_and_change_nothing(house: Installation, command: Command, model: str, tmp_path: Path) -> None:
    file = tmp_path / "keep.yaml"
    with house.client() as client:
        before = client.deployment(NAME).revision
        wrong = {"modelkeep": 1, "deployments": {NAME: {"settings": {"deadlin_s": 2}}}}
        with pytest.raises(Invalid) as refused:
            client.compare(wrong)
        assert [one.path for one in refused.value.fields] == ["settings.deadlin_s"]
        for text, code, said in (
            ("modelkeep: 1\ndeployments: {x: {modl: y}}", 4, "deployments.x.modl"),
            ("modelkeep: 1\nmodels: {nobody-has: {description: x}}", 3, "model_not_found"),
            ("a: 1\na: 2", 2, "said twice at line 2"),
            (f"modelkeep: 1\ndeployments: {{{NAME}: {{model: other}}}}", 4, "stays one"),
        ):
            file.write_text(text)
            ended, _out, err = command("apply", "-f", file)
            assert ended == code, err
            assert said in err
        assert command("apply", "-f", tmp_path / "none.yaml")[0] == 2
        assert client.deployment(NAME).revision == before
