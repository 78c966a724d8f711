"""A folder is pushed with one command, and answers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures import archives, mlflow_folders
from fixtures.installation import Installation
from modelkeep.client import Rejected


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_a_folder_is_pushed_and_answers(house: Installation, tmp_path: Path) -> None:
    folder = fill(tmp_path / "net", {name.removeprefix("net/"): data for name, data in archives.onnx_beside().items()})
    environment = {"PATH": os.environ["PATH"], "MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": house.key}
    command = [sys.executable, "-m", "modelkeep.app.cli", "push", str(folder), "--name", "beside"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)
    assert done.returncode == 0, done.stderr
    assert "answers predictions" in done.stdout
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    with house.client() as client:
        answer = client.predict("beside", rows)
        assert client.versions("beside")[0].raw["format"] == "onnx-files"
    np.testing.assert_allclose(np.array(answer.outputs["y"]), rows @ archives.WEIGHTS, rtol=1e-5)


def test_an_mlflow_folder_with_a_pickle_is_not_taken_for_data(house: Installation, tmp_path: Path) -> None:
    folder = fill(tmp_path / "model", mlflow_folders.folder("sklearn", mlflow_folders.COLUMNS))
    with house.client() as client:
        with pytest.raises(Rejected) as caught:
            client.push(folder, "pickled", format="mlflow")
        assert caught.value.code == "format_mismatch"
        assert client.push(folder, "pickled").state == "ready"  # by its names, as mlflow-code
