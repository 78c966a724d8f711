"""What `push` sends: a multipart body whose file part is read as it goes out, so that a model of any size fits."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from os import PathLike
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

from modelkeep.client.errors import Invalid
from modelkeep.client.estimators import as_joblib, as_skops
from modelkeep.client.folder import Packed, packed
from modelkeep.client.inputs import Picture, are_pictures, encode, first_rows, pictures_in
from modelkeep.client.progress import Progress
from modelkeep.client.steps import Part

CALIBRATION_ROWS = 1000  # as many as a server uses
SAMPLE_ROWS = 256  # a sample shows what rows look like; a whole training set shows no more


@dataclass
class Sent:
    """How much of a file has been read to be sent, and who wants to hear of it."""

    total: int
    on_progress: Progress | None = None
    done: int = 0
    told: int = -1

    def tell(self) -> None:
        """Report what has been read since the last time."""
        if self.on_progress is not None and self.done != self.told:
            self.told = self.done
            self.on_progress(self.done, self.total)


class CountingFile:
    """A binary file that counts how much of it has been read. It offers what httpx needs to know the length beforehand."""

    def __init__(self, file: IO[bytes], sent: Sent) -> None:
        self._file = file
        self._sent = sent

    def read(self, size: int = -1) -> bytes:
        """Read on, and count."""
        data = self._file.read(size)
        self._sent.done += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere in the file; httpx asks for the end, to learn the length, and returns."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(64 * 1024), b"")


@dataclass(frozen=True)
class Upload:
    """Everything of one upload but the open file, so that it can be sent twice."""

    source: Path | bytes | Packed
    filename: str
    fields: Mapping[str, str] = field(default_factory=dict)
    attachments: Sequence[Part] = ()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        if isinstance(self.source, bytes):
            return len(self.source)
        if isinstance(self.source, Packed):
            return self.source.size
        try:
            return self.source.stat().st_size
        except OSError as error:
            raise _unreadable(self.source, error) from error

    def close(self) -> None:
        """Let go of the file that a folder was packed into."""
        if isinstance(self.source, Packed):
            self.source.file.close()

    @contextmanager
    def parts(self, sent: Sent) -> Iterator[list[Part]]:
        """Open the file and yield the parts of the body: the small ones first, so that a refusal comes early."""
        small: list[Part] = [(name, (None, value, "text/plain")) for name, value in self.fields.items()]
        with self._open() as file:
            sent.done = 0
            artifact = CountingFile(file, sent)
            yield [*small, *self.attachments, ("file", (self.filename, artifact, "application/octet-stream"))]

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if isinstance(self.source, bytes):
            yield BytesIO(self.source)
            return
        if isinstance(self.source, Packed):
            self.source.file.seek(0)
            yield self.source.file
            return
        try:
            file = self.source.open("rb")
        except OSError as error:
            raise _unreadable(self.source, error) from error
        with file:
            yield file


def prepare(
    model: object,
    *,
    sample: object = None,
    labels: object = None,
    preprocess: object = None,
    description: str = "",
    format: str | None = None,  # noqa: A002 - the field's word, as in the API
    compile: str = "auto",  # noqa: A002 - the same
    optimise: str = "auto",
    calibration: object = None,
    accuracy_budget: float | str = 0,
    hooks: str | PathLike[str] | None = None,
    parent: int | str | None = None,
    training: Mapping[str, Any] | None = None,
    on_packing: Progress | None = None,
) -> Upload:
    """Return the upload for an estimator, a file or a folder and what goes with it; it is closed by who asked for it."""
    optional = {
        "preprocess": _preprocess(preprocess),
        "description": description,
        "compile": None if compile == "auto" else compile,
        "optimise": None if optimise == "auto" else optimise,
        "parent": None if parent is None else str(parent),
        "training": None if training is None else json.dumps(training),
        "accuracy_budget": None if accuracy_budget in {0, "", "0"} else str(accuracy_budget),
    }
    rows = _rows("calibration", calibration, CALIBRATION_ROWS)
    parts = (_hooks(hooks), _rows("sample", sample, SAMPLE_ROWS), _labels(labels), rows)
    attachments = [part for part in parts if part is not None]
    source, filename = _artifact(model, format, on_packing)
    optional["format"] = format or (source.format if isinstance(source, Packed) else None)
    return Upload(source, filename, {name: value for name, value in optional.items() if value}, attachments)


def _artifact(model: object, wanted: str | None, on_packing: Progress | None) -> tuple[Path | bytes | Packed, str]:
    if isinstance(model, (str, PathLike)):
        path = Path(model)
        if path.is_dir():
            return packed(path, on_packing), f"{path.resolve().name or 'model'}.zip"
        if not path.exists():
            raise Invalid(f"There is no file {path}.", code="file_missing")
        return path, path.name
    if not callable(getattr(model, "predict", None)):
        kind = type(model).__name__
        raise Invalid(f"A {kind} cannot be pushed: give a fitted estimator or the path of a file.", code="not_a_model")
    trusted = as_skops(model, needed=wanted == "skops") if wanted in {None, "", "skops"} else None
    return (as_joblib(model), "model.joblib") if trusted is None else (trusted, "model.skops")


def _rows(name: str, given: Any, most: int) -> Part | None:  # noqa: ANN401 - what `push` takes
    """Return rows as a part: files as they are, DataFrames as CSV, several pictures as a ZIP, everything else as JSON rows."""
    if given is None:
        return None
    if isinstance(given, (str, PathLike)):
        path = Path(given)
        return name, (path.name, _read(path), "application/octet-stream")
    pictures = pictures_in(given) if are_pictures(given) else []
    if len(pictures) == 1:
        return name, (pictures[0].name, pictures[0].data, "application/octet-stream")
    if pictures:
        return name, (f"{name}.zip", _zipped(pictures[:most]), "application/zip")
    if hasattr(given, "to_csv"):
        text = StringIO()
        given[:most].to_csv(text, index=False)
        return name, (f"{name}.csv", text.getvalue().encode(), "text/csv")
    return name, (f"{name}.json", encode(first_rows(given, most)), "application/json")


def _zipped(pictures: Sequence[Picture]) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as archive:  # stored: pictures are compressed already
        for number, picture in enumerate(pictures):
            suffix = Path(picture.name).suffix or ".jpg"  # the server looks at suffixes, and decodes by content
            archive.writestr(f"{number:04d}{suffix}", picture.data)
    return file.getvalue()


def _labels(labels: object) -> Part | None:
    if labels is None:
        return None
    if isinstance(labels, (str, PathLike)):
        data = _read(Path(labels))
    else:
        names = [str(label) for label in labels]  # type: ignore[attr-defined] # what is no list of names says so itself
        data = "".join(f"{name}\n" for name in names).encode()
    return "labels", ("labels.txt", data, "text/plain")


def _hooks(hooks: str | PathLike[str] | None) -> Part | None:
    return None if hooks is None else ("hooks", ("hooks.py", _read(Path(hooks)), "text/x-python"))


def _preprocess(preprocess: object) -> str | None:
    """Return the picture preprocessing as the API takes it: "imagenet", or JSON (given as such, as a dict or as a file)."""
    if preprocess is None:
        return None
    if isinstance(preprocess, Mapping):
        return json.dumps(preprocess)
    if isinstance(preprocess, str) and preprocess.lstrip().startswith("{"):
        return preprocess
    path = Path(str(preprocess))
    if path.suffix == ".json":
        return _read(path).decode(errors="replace")
    return str(preprocess)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> Invalid:
    return Invalid(f"{path} cannot be read: {error.strerror}.", code="file_unreadable")
