"""What a runner is handed: its artifact, and its hooks where it has some."""

import os
from pathlib import Path

import pytest

from modelkeep.app.runner_process import close, open_files
from modelkeep.contracts.hooks import Hooks
from modelkeep.contracts.snapshot import RunnerSpec

PLAIN = RunnerSpec("ver_1", "model", 1, "onnx", "onnx")
HOOKED = RunnerSpec("ver_1", "model", 1, "onnx", "onnx", hooks=Hooks("hooks", 1))


class Folder:
    """Opens files by name, and remembers what it opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[int] = []

    async def open(self, digest: str) -> int:
        fd = os.open(self.folder / digest, os.O_RDONLY)
        self.opened.append(fd)
        return fd


async def test_hooks_come_after_the_artifact(tmp_path: Path) -> None:
    for name in ("model", "hooks"):
        (tmp_path / name).write_text(name)
    folder = Folder(tmp_path)
    for spec, held in ((PLAIN, ["model"]), (HOOKED, ["model", "hooks"])):
        files = await open_files(folder.open, spec)
        assert [os.pread(fd, 9, 0).decode() for fd in files] == held
        close(*files, -1)


async def test_an_artifact_whose_hooks_are_gone_is_closed(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("model")
    folder = Folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        await open_files(folder.open, HOOKED)
    (artifact,) = folder.opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(artifact)
