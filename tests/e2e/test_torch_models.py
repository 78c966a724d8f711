"""PyTorch networks are pushed, checked and answer through a whole installation; what is no model is refused with what to do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures import networks
from fixtures.installation import Installation
from modelkeep.client import Invalid, ModelkeepError, Rejected

pytestmark = pytest.mark.timeout(240)

DENSE = networks.dense()
ROWS = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
FILES = {
    "traced.pt": networks.traced(DENSE, torch.ones(2, 4)),
    "scripted.pth": networks.scripted(DENSE),
    "program.pt2": networks.exported(DENSE, torch.ones(2, 4), shapes=({0: torch.export.Dim("batch")},)),
}


@pytest.mark.parametrize("filename", FILES)
def test_a_network_answers_what_it_answers_here(house: Installation, tmp_path: Path, filename: str) -> None:
    path = tmp_path / filename
    path.write_bytes(FILES[filename])
    sample = tmp_path / "sample.json"
    sample.write_text("[[0.5, 1.0, -1.0, 2.0], [1.5, 0.0, 1.0, -2.0]]")
    name = path.stem
    with house.client() as client:
        assert client.push(path, name, sample=sample if filename == "scripted.pth" else None).state == "ready"
        answer = client.predict(name, ROWS.tolist())
    with torch.inference_mode():
        expected = DENSE(torch.from_numpy(ROWS)).numpy()
    np.testing.assert_array_equal(np.asarray(answer.outputs["output"], np.float32), expected)


def test_weights_alone_are_refused_with_what_is_in_them(house: Installation, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(networks.saved(DENSE.state_dict()))
    with house.client() as client, pytest.raises(Rejected) as rejected:
        client.push(path, "weights")
    rejection = rejected.value.version.rejection
    assert rejection is not None
    assert rejection.code == "not_a_model"
    assert "4 tensors (0.weight, 0.bias, 2.weight, ...)" in rejection.detail


ELSEWHERE = {"m.keras": "tf2onnx", "m.pb": "tf2onnx", "m.h5": "tf2onnx", "m.safetensors": "torch.export"}


@pytest.mark.parametrize(("filename", "words"), ELSEWHERE.items())
def test_files_that_no_runner_takes_are_refused_with_what_to_do(
    house: Installation, tmp_path: Path, filename: str, words: str
) -> None:
    path = tmp_path / filename
    path.write_bytes(b"whatever")
    with house.client() as client, pytest.raises(Invalid, match=words):
        client.push(path, "elsewhere")


@pytest.mark.parametrize("filename", ["traced.pt", "program.pt2"])
def test_what_may_run_code_needs_an_administrators_word(own_house: Installation, tmp_path: Path, filename: str) -> None:
    (tmp_path / filename).write_bytes(FILES[filename])
    with own_house.client() as client:
        client.allow_code(allowed=False, reason="this test")
        with pytest.raises(ModelkeepError, match="allow-code"):
            client.push(tmp_path / filename, "m")
