"""The command line, run in this process against the stand-in server."""

import json
from dataclasses import dataclass

import pytest

from fixtures.standin import KEY, no_server, other_program, running_standin, standin
from modelkeep.app.cli import program

__all__ = ["command", "no_server", "other_program", "running_standin", "standin"]


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self):
        return json.loads(self.out)

    @property
    def problem(self):
        return json.loads(self.err)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder of settings of one's own, where logins are kept."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def command(standin, monkeypatch, capsys):
    """Runs a command with the address and key of the stand-in in the environment."""
    monkeypatch.setenv("MODELKEEP_URL", standin.url)
    monkeypatch.setenv("MODELKEEP_API_KEY", KEY)

    def run(*arguments):
        capsys.readouterr()
        code = program.run([str(one) for one in arguments])
        said = capsys.readouterr()
        return Outcome(int(code), said.out, said.err)

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path
