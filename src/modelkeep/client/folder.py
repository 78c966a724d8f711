"""A model of several files goes out as one: its folder is packed into a ZIP that is the same whenever the files are.

What does not shrink, as weights do not, is stored as it is: the server then uses it where it lies.
"""

import ast
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Final

from modelkeep.client.errors import Invalid
from modelkeep.client.progress import Progress

MOST_FILES: Final = 10_000
LEFT_OUT: Final = frozenset({"__pycache__", ".git", ".DS_Store", ".ipynb_checkpoints"})
"""Files and folders of these names are no part of a model."""

_LARGE: Final = 64 << 20
_PIECE: Final = 1 << 20
_WORTHWHILE: Final = 0.7
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first day that a ZIP knows
_LEVEL: Final = 1
_MODULE: Final = "model.py"
_WEIGHTS: Final = frozenset({".pt", ".pth", ".bin", ".safetensors"})
_RUNS_CODE: Final = frozenset({".pkl", ".pickle", ".joblib", ".cloudpickle", ".pth", ".pt", ".pt2", ".py"})


@dataclass(frozen=True)
class Packed:
    """A folder as one file. `format` is what the names in it tell, "" where they do not."""

    file: IO[bytes]
    size: int
    format: str


def packed(folder: Path, on_packing: Progress | None = None) -> Packed:
    """Pack a folder; raises `Invalid` where there is something in it that is no plain file, or nothing at all.

    `on_packing(done, total)` hears of bytes. The file has no name, and goes when it is closed.
    """
    try:
        files = dict(sorted(_files(folder, folder)))
        total = sum(size for _path, size in files.values())
        file = TemporaryFile()  # noqa: SIM115 - it is closed when it has been sent
        with ExitStack() as stack:
            stack.enter_context(file)
            _write(file, files, lambda done: on_packing(done, total) if on_packing else None)
            stack.pop_all()
    except OSError as error:
        raise Invalid(f"{folder} cannot be packed: {error.strerror}.", code="file_unreadable") from error
    told = format_of(tuple(files))
    if told == "torch-state" and _predicts(folder / _MODULE):
        told = "python"
    return Packed(file, file.seek(0, SEEK_END), told)


def format_of(names: tuple[str, ...]) -> str:
    """Return the format that the names of a folder's files tell, or "". Whether it is so is for the server to find out."""
    suffixes = {PurePosixPath(name).suffix.lower() for name in names}
    if "MLmodel" in names:
        return "mlflow-code" if suffixes & _RUNS_CODE else "mlflow"
    if {_MODULE, "modelkeep.toml"} & set(names):
        return "torch-state" if suffixes & _WEIGHTS else "python"
    if any(PurePosixPath(name).name == "saved_model.pb" for name in names):
        return "tensorflow"  # which a server refuses with what to do
    if ".onnx" in suffixes:
        return "onnx-files"
    return "openvino" if {".xml", ".bin"} <= suffixes else ""


def _predicts(file: Path) -> bool:
    """Whether this file has a class with `predict` that is no network: then it is served as it is, weights and all."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return True  # what is wrong with it is for the server to say
    classes = (one for one in ast.walk(tree) if isinstance(one, ast.ClassDef))
    methods = ({part.name for part in one.body if isinstance(part, ast.FunctionDef)} for one in classes)
    return any("predict" in names and "forward" not in names for names in methods)


def _files(folder: Path, top: Path) -> Iterator[tuple[str, tuple[Path, int]]]:
    count = 0
    for path in folder.iterdir():
        if path.name in LEFT_OUT:
            continue
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            inside: Iterator[tuple[str, tuple[Path, int]]] = _files(path, top)
        elif stat.S_ISREG(status.st_mode):
            inside = iter([(path.relative_to(top).as_posix(), (path, status.st_size))])
        else:
            what = "a link" if stat.S_ISLNK(status.st_mode) else "no plain file"
            raise Invalid(
                f"{path} is {what}; only plain files are packed. `cp -rL` copies what links point to.", code="not_plain"
            )
        for one in inside:
            count += 1
            yield one
    if folder == top and not count:
        raise Invalid(f"{folder} holds no file.", code="folder_empty")
    if count > MOST_FILES:
        raise Invalid(f"{folder} holds more than {MOST_FILES} files.", code="too_many_files")


def _write(file: IO[bytes], files: dict[str, tuple[Path, int]], tell: Callable[[int], None]) -> None:
    done = 0
    with zipfile.ZipFile(file, "w") as archive:
        for name, (path, size) in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED if _shrinks(path, size) else zipfile.ZIP_STORED
            entry._compresslevel = _LEVEL  # type: ignore[attr-defined]  # noqa: SLF001 - public from Python 3.13 on
            entry.file_size = size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    done += len(piece)
                    tell(done)


def _shrinks(path: Path, size: int) -> bool:
    """Whether the beginning of a file of moderate size says that compressing it is worth the time."""
    if not 0 < size <= _LARGE:
        return False
    with path.open("rb") as file:
        beginning = file.read(_PIECE)
    return len(zlib.compress(beginning, _LEVEL)) < _WORTHWHILE * len(beginning)
