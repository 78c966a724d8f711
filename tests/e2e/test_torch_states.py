"""A state dict from a folder to its answers, as the how-to says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures import networks
from fixtures.installation import Installation

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "state-dicts.md"


pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def house(house_of_folders: Installation) -> Installation:
    return house_of_folders


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


def test_the_how_tos_folder_answers_what_the_network_answers_here(house: Installation, example: Path) -> None:
    house.command("push", "digits", "--name", "digits", "--sample", "rows.json", cwd=example)
    said = house.command("predict", "digits", "--file", "rows.json", cwd=example)
    assert len(said.splitlines()) == 3
    rows = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    with house.client() as client:
        answer = client.predict("digits", rows.tolist())
    with torch.inference_mode():
        expected = _made()["layers"](torch.from_numpy(rows)).numpy()  # type: ignore[index]
    np.testing.assert_array_equal(np.asarray(answer.outputs["output"], np.float32), expected)
