"""What is a model among the things that lie in a platform's folder."""

import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from modelkeep.app import model_folder
from modelkeep.app.model_folder import model_in, take_up
from modelkeep.infra.db import DatabaseUnavailable


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


@pytest.mark.parametrize("names", [[b"\xff.onnx"], [b"\xff.onnx", b"labels.txt"], [b"\xff/model.onnx"]])
async def test_a_name_that_is_no_text_is_told_and_ends_nothing(tmp_path: Path, names: list[bytes]) -> None:
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    nobody: Any = None  # it comes to nothing before anybody is asked
    with capture_logs() as logs:
        await take_up(tmp_path, "m", nobody)
    (told,) = [one for one in logs if one["log_level"] == "error"]
    assert "codec can't encode" in told["reason"]
    told["reason"].encode()


async def test_what_is_away_is_waited_for_and_what_is_broken_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happens = [DatabaseUnavailable(), DatabaseUnavailable(), DatabaseUnavailable(), ZeroDivisionError()]
    nobody: Any = None

    async def meets(*_asked: object) -> None:
        raise happens.pop(0)

    monkeypatch.setattr(model_folder, "_take_up", meets)
    monkeypatch.setattr(model_folder, "_AGAIN_S", 0.001)
    monkeypatch.setattr(model_folder, "_LONGEST_S", 0.003)
    with capture_logs() as logs:
        await take_up(tmp_path, "m", nobody)
    assert not happens
    assert [one["log_level"] for one in logs] == ["warning", "warning", "warning", "error"]
    assert [one["seconds"] for one in logs[:-1]] == [0.001, 0.002, 0.003]
    assert logs[-1]["exc_info"]
