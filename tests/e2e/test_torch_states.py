"""A state dict from a folder to its answers, as the how-to says."""

import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures import networks
from fixtures.installation import Installation

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "state-dicts.md"

NO_NAMESPACES = "unshare,mount"

pytestmark = pytest.mark.timeout(300)
_BY_NUMBER = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are refused by their x86-64 numbers")


@pytest.fixture(params=["", pytest.param(NO_NAMESPACES, marks=_BY_NUMBER)])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """Where runners have their folders in memory, and where they are lent them."""
    house = Installation(tmp_path / "data")
    house.without_calls = request.param
    house.start()
    try:
        yield house.wait(90).set_up()
    finally:
        house.stop()


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The files of the how-to, where it says that they are, and weights as it says."""
    found = re.findall(r"`([\w/]+\.\w+)`[^\n]*\n(?:[^\n`]+\n)?\n```\w+\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    assert {name for name, _content in found} == {"digits/model.py", "digits/model.json", "rows.json"}
    for name, content in found:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    (tmp_path / "digits" / "weights.pt").write_bytes(networks.saved(_made().state_dict()))
    return tmp_path


def _made() -> torch.nn.Module:
    torch.manual_seed(5)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 3))
    return torch.nn.ModuleDict({"layers": layers}).eval()


def modelkeep(house: Installation, *arguments: str, cwd: Path) -> str:
    environment = {"PATH": "/usr/bin:/bin", "MODELKEEP_URL": house.url, "MODELKEEP_API_KEY": house.key}
    command = [sys.executable, "-m", "modelkeep.app.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_how_tos_folder_answers_what_the_network_answers_here(house: Installation, example: Path) -> None:
    modelkeep(house, "push", "digits", "--name", "digits", "--sample", "rows.json", cwd=example)
    said = modelkeep(house, "predict", "digits", "--file", "rows.json", cwd=example)
    assert len(said.splitlines()) == 3
    rows = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    with house.client() as client:
        answer = client.predict("digits", rows.tolist())
    with torch.inference_mode():
        expected = _made()["layers"](torch.from_numpy(rows)).numpy()  # type: ignore[index]
    np.testing.assert_array_equal(np.asarray(answer.outputs["output"], np.float32), expected)
