"""What a person types, against a real server."""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from fixtures.installation import Installation


def _modelkeep(house: Installation, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": house.key}
    command = [sys.executable, "-m", "modelkeep.app.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def unnamed(house: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that was fitted without column names."""
    path = tmp_path_factory.mktemp("unnamed") / "m.joblib"
    joblib.dump(LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1]), path)
    with house.client() as client:
        client.push(path, "unnamed")
    return "unnamed"


def test_a_table_with_names_is_answered_by_a_model_without_any(house: Installation, unnamed: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,1\n0,0\n")
    done = _modelkeep(house, "predict", unnamed, "--file", "rows.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == ["1", "0"]


def test_an_unknown_version_is_not_blamed_on_the_archive(house: Installation, unnamed: str, tmp_path: Path) -> None:
    done = _modelkeep(house, "promote", unnamed, "99", cwd=tmp_path)
    assert done.returncode == 3
    assert "archived" not in done.stderr
    assert f"modelkeep versions {unnamed}" in done.stderr
