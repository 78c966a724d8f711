"""What is a model among the things that lie in a platform's folder."""

from pathlib import Path

from modelkeep.app.model_folder import model_in


def test_a_file_alone_is_the_model_and_several_are_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert model_in(folder) is None
    folder.mkdir()
    assert model_in(folder) is None
    (folder / ".DS_Store").write_bytes(b"x")
    assert model_in(folder) is None
    (folder / "churn").mkdir()
    assert model_in(folder) is None
    (folder / "churn" / "model.onnx").write_bytes(b"x")
    assert model_in(folder) == folder / "churn" / "model.onnx"
    assert model_in(folder / "churn" / "model.onnx") is None
    (folder / "churn" / "labels.txt").write_bytes(b"x")
    assert model_in(folder) == folder / "churn"
    (folder / "README").write_bytes(b"x")
    assert model_in(folder) == folder
