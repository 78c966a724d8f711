"""An upload, streamed: the model file goes from the socket to the blob store in pieces and is never whole in memory.

The parser runs inside the iterator that the store reads from, so a slow disk slows the sender, and the store keeps nothing
until the last boundary has come and every part has been understood: whoever disconnects, or errs, leaves nothing behind.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from starlette.requests import Request

from modelkeep.api.schemas.models import PlannedUpload
from modelkeep.api.services import Services
from modelkeep.api.settings import ApiSettings
from modelkeep.contracts.access import Place
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Invalid, TooLarge
from modelkeep.contracts.hooks import MOST_BYTES, Hooks
from modelkeep.contracts.report import Optimise
from modelkeep.contracts.signature import ImageSpec
from modelkeep.contracts.storage import BlobStore
from modelkeep.control.models.life import LARGEST_TRAINING, Training, read_training
from modelkeep.control.models.rules import (
    LONGEST_DESCRIPTION,
    Compile,
    Sample,
    Upload,
    check_description,
    check_goal,
    plain_filename,
    read_budget,
    read_compile,
    read_labels,
    read_optimise,
    read_preprocess,
)
from modelkeep.infra.multipart import MultipartReader, Take

_MIB: Final = 1024 * 1024
_PIECE: Final = _MIB
_EMPTY: Final = "The file is empty."
_SMALL: Final = {
    "format": 100,
    "compile": 100,
    "optimise": 100,
    "accuracy_budget": 100,
    "preprocess": 64 * 1024,
    "hooks": MOST_BYTES,
    "description": 4 * LONGEST_DESCRIPTION,
    "parent": 300,
    "training": LARGEST_TRAINING,
}
_SAMPLES: Final = {".csv", ".json", ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".zip"}
_ROWS: Final = {"sample": "sample", "calibration": "calibration file"}
_OVERHEAD: Final = 256 * 1024

OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "format": {
                            "type": "string",
                            "description": "The format, where the suffix does not tell. Before the file.",
                        },
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "The model. Its suffix tells the format.",
                        },
                        "sample": {"type": "string", "format": "binary", "description": "Rows as .csv or .json, or pictures."},
                        "labels": {"type": "string", "format": "binary", "description": "One label a line, in class order."},
                        "preprocess": {"type": "string", "description": "`imagenet`, or an image specification as JSON."},
                        "compile": {
                            "type": "string",
                            "enum": ["auto", "off"],
                            "description": "Whether a faster form of the model may serve, where one agrees with it.",
                        },
                        "optimise": {
                            "type": "string",
                            "enum": ["auto", "off", "openvino", "bf16", "int8", "threads"],
                            "description": "How it is made faster for the host: the best way, not at all, or this way or not "
                            "at all.",
                        },
                        "calibration": {
                            "type": "string",
                            "format": "binary",
                            "description": "At least 40 different rows as .csv or .json, or pictures in a .zip: half of them "
                            "calibrate 8-bit integers, the others measure what that costs.",
                        },
                        "accuracy_budget": {
                            "type": "string",
                            "description": "The share of answers that may change for speed: `0.01` or `1%`; 0 without it.",
                        },
                        "hooks": {
                            "type": "string",
                            "format": "binary",
                            "description": "A Python file with `preprocess(inputs)`, `postprocess(outputs)` or both, which go "
                            "around the model. With a preprocess, the sample is what callers send.",
                        },
                        "description": {"type": "string"},
                        "parent": {
                            "type": "string",
                            "description": "The version that it was made from: its number, `MODEL/NUMBER`, or its id.",
                        },
                        "training": {
                            "type": "string",
                            "description": "How it came to be, as JSON: texts `job`, `code`, `revision` and `by`, and `data`, "
                            "a list of objects with `name`, `uri` and `digest`.",
                        },
                    },
                }
            }
        },
    }
}


Choose = Callable[[str, str], tuple[str, str]]
"""Returns format and runner for a file name and a declared format ("" for none); raises for what the uploader may not bring."""


class Allowed(NamedTuple):
    """What an uploader may bring: which files, and whether hooks, which raises where not."""

    choose: Choose
    check_hooks: Callable[[], None]


class InvalidUpload(Invalid):
    """The upload is no readable multipart form."""

    code = "invalid_upload"


async def allowed(behind: Services, actor: Actor, place: Place) -> Allowed:
    """Return how a file's format is found, with what this uploader may bring to this place."""
    safety = await behind.switches.safety()

    def choose(filename: str, declared: str) -> tuple[str, str]:
        form, runner = behind.formats.choose(filename, declared)
        safety.check(actor, place, form)
        return form.name, runner

    return Allowed(choose, partial(safety.check_hooks, actor, place))


async def receive(request: Request, blobs: BlobStore, may: Allowed, settings: ApiSettings) -> Upload:
    """Read an upload from a request and store its files; raises before anything is stored when it cannot be accepted."""
    form = _Form(request.headers.get("content-type", "").encode("latin-1"), may, settings)
    limit = settings.max_upload_mb * _MIB
    rows = (2 * settings.max_sample_mb + settings.max_calibration_mb) * _MIB
    total = limit + rows + sum(_SMALL.values()) + _OVERHEAD
    if int(request.headers.get("content-length", 0)) > total:
        raise _too_large(settings)
    blob = await blobs.put(_file(request.stream(), form, total, settings), max_bytes=limit)
    return Upload(
        blob,
        form.filename,
        form.format,
        form.runner,
        form.description,
        form.labels,
        form.image,
        await _kept(form, "sample", blobs),
        form.compile,
        form.optimise,
        await _kept(form, "calibration", blobs),
        form.accuracy_budget,
        await _hooks(form, blobs),
        form.parent,
        form.training,
    )


async def _hooks(form: "_Form", blobs: BlobStore) -> Hooks | None:
    data = form.part("hooks")
    if not data:
        return None
    stored = await blobs.put(_once(data), max_bytes=MOST_BYTES)
    return Hooks(stored.digest, stored.size)


async def _kept(form: "_Form", part: str, blobs: BlobStore) -> Sample | None:
    data = form.part(part)
    if not data:
        return None
    stored = await blobs.put(_once(data), max_bytes=len(data))
    return Sample(stored.digest, form.filenames[part])


def check(planned: PlannedUpload, may: Allowed, settings: ApiSettings) -> None:
    """Raise what an upload of this file would be refused with for its name, format or size, or its hooks."""
    size = planned.size
    may.choose(plain_filename(planned.filename), planned.format)
    if planned.hooks:
        may.check_hooks()
    if not size:
        raise InvalidUpload(_EMPTY)
    if size > settings.max_upload_mb * _MIB:
        raise _too_large(settings)


def check_received(upload: Upload, may: Allowed) -> None:
    """Raise what an upload that has come in is refused with, where its uploader may not bring such files any more."""
    may.choose(upload.filename, upload.format)
    if upload.hooks is not None:
        may.check_hooks()


def disposition(filename: str) -> str:
    """Return the Content-Disposition of a download under this name, in RFC 6266's both spellings."""
    plain = "".join(letter if letter.isascii() and letter not in '"\\' else "_" for letter in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _too_large(settings: ApiSettings) -> TooLarge:
    return TooLarge(f"The file is larger than the {settings.max_upload_mb} MiB that may be uploaded here (api.max_upload_mb).")


async def _file(body: AsyncIterator[bytes], form: "_Form", total: int, settings: ApiSettings) -> AsyncIterator[bytes]:
    """Yield the bytes of the part `file`; ends only when the whole form has been read and understood."""
    received = 0
    async for chunk in body:
        received += len(chunk)
        if received > total:
            raise _too_large(settings)
        form.feed(chunk)
        if form.size > settings.max_upload_mb * _MIB:
            raise _too_large(settings)
        if len(form.waiting) >= _PIECE:
            yield form.take()
    form.finish()
    yield form.take()


async def _once(data: bytes | bytearray) -> AsyncIterator[bytes]:
    yield bytes(data)


class _Form:
    """The form as it arrives: `waiting` holds bytes of the model file; the other parts are small and are kept whole."""

    def __init__(self, content_type: bytes, may: Allowed, settings: ApiSettings) -> None:
        self.waiting = bytearray()
        self.filename = self.format = self.runner = self.description = self.parent = ""
        self.training: Training | None = None
        self.filenames: dict[str, str] = {}
        self.labels: tuple[str, ...] | None = None
        self.image: ImageSpec | None = None
        self.compile: Compile = "auto"
        self.optimise: Optimise = "auto"
        self.accuracy_budget = 0.0
        self.size = 0
        self._may = may
        self._limits = _SMALL | dict.fromkeys(("sample", "labels"), settings.max_sample_mb * _MIB)
        self._limits["calibration"] = settings.max_calibration_mb * _MIB
        self._parts: dict[str, bytearray] = {}
        self._reader = MultipartReader(content_type, self._begin)

    def part(self, part: str) -> bytearray:
        """Return the bytes of a part that is kept as it is: sample, calibration rows, hooks; empty for none."""
        return self._parts.get(part, bytearray())

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the body."""
        self._reader.feed(chunk)

    def take(self) -> bytes:
        """Return the file's bytes that have come so far, once."""
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken

    def finish(self) -> None:
        """Check that all has come, and make sense of the small parts."""
        self._reader.finish()
        if not self.filename:
            raise InvalidUpload("The upload has no part named `file`.")
        if not self.size:
            raise InvalidUpload(_EMPTY)
        self.format, self.runner = self._may.choose(self.filename, self._text("format"))
        self.description = check_description(self._text("description"))
        self.parent = self._text("parent").strip()
        self.training = read_training(self._text("training"))
        self.compile = read_compile(self._text("compile"))
        self.optimise = read_optimise(self._text("optimise"))
        self.accuracy_budget = read_budget(self._text("accuracy_budget"))
        for name in ("calibration", "hooks"):
            if name in self._parts and not self._parts[name]:
                raise InvalidUpload(f"The part `{name}` is empty.")
        check_goal(self.optimise, self.accuracy_budget, calibrated="calibration" in self._parts)
        if "preprocess" in self._parts:
            self.image = read_preprocess(self._text("preprocess"))
        if "labels" in self._parts:
            self.labels = read_labels(bytes(self._parts["labels"]))

    def _text(self, part: str) -> str:
        try:
            return self._parts.get(part, bytearray()).decode()
        except UnicodeDecodeError as error:
            raise InvalidUpload(f"The part `{part}` is not UTF-8 text.") from error

    def _begin(self, name: str, filename: str) -> Take:
        if name != "file" and name not in self._limits:
            raise InvalidUpload(f"The form takes no part named {name[:40]!r}: it has file, {', '.join(sorted(self._limits))}.")
        if name in self._parts:
            raise InvalidUpload(f"The part `{name}` came twice.")
        kept = self._parts[name] = bytearray()
        if name == "file":
            self.filename = plain_filename(filename)
            self._may.choose(self.filename, self._text("format"))  # refused here, before its first byte is kept
            return self._take_file
        if name == "hooks":
            self._may.check_hooks()
        if name in _ROWS:
            self.filenames[name] = plain_filename(filename)
            if PurePosixPath(self.filenames[name].lower()).suffix not in _SAMPLES:
                raise InvalidUpload(f"The {_ROWS[name]} is a .csv or .json file with rows, a picture, or a .zip of pictures.")
        return lambda data: self._take_small(name, kept, data)

    def _take_file(self, data: bytes) -> None:
        self.waiting += data
        self.size += len(data)

    def _take_small(self, name: str, kept: bytearray, data: bytes) -> None:
        if len(kept) + len(data) > self._limits[name]:
            raise TooLargePart(f"The part `{name}` is larger than {self._limits[name]} bytes.")
        kept += data


class TooLargePart(TooLarge):
    """A part of the form is larger than it may be."""
