"""Sample rows for a validation: read from what the uploader sent, or made up to fit a signature.

A sample is CSV with a header line, JSON (rows, records or columns), or for an image version one picture, or many in a ZIP. Its
columns tell a runner what the model takes where the artifact itself does not say.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.contracts.columns import ColumnsDiffer, places
from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.rejections import Reason, Rejection, reject
from modelkeep.contracts.runner import CannotLoad, Column
from modelkeep.contracts.signature import DATETIME, EXACT, FLOATS, WIDE, Dtype, Layout, Signature, TensorSpec
from modelkeep.sandbox import archive
from modelkeep.serving import coercion
from modelkeep.serving.codec import tensors_from

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

MOST_ROWS = 1000
"""How many rows of a sample are read; the rest is left alone."""

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
"""Suffixes of the pictures in a ZIP; whatever else is in it is left alone."""

_SEED = 20
_MOST_UNPACKED = 256 << 20
_DELIMITERS = ",;\t|"
_PICTURE = (320, 240)
_DATES = ("2026-05-17T08:30:00", "2025-12-31T23:59:59", "2024-02-29T00:00:00")
_WORDS = ("a sample text", "another text", "some words")


class RefusedError(Exception):
    """The version is refused: the sample, or what the model did with it, is the reason.

    `example`: rows that the artifact brings, to try it again with where no sample came.
    """

    def __init__(self, reason: Reason, detail: str = "", example: bytes = b"") -> None:
        self.rejection: Rejection = reject(reason, detail)
        self.example = example
        super().__init__(f"{reason}: {detail}")


class Sample(msgspec.Struct, frozen=True):
    """What the uploader sent, read but not yet fitted to a signature.

    `rows` are cells in the order of `columns`: texts as they stood in a CSV (`is_csv`), values as they stood in JSON. `nested`
    is JSON that is no table. `pictures` are encoded pictures.
    """

    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    nested: Any = None
    pictures: tuple[bytes, ...] = ()
    is_csv: bool = False


def read_sample(data: bytes, filename: str, *, picture: bool) -> Sample:
    """Read a sample; raises `RefusedError`."""
    if not data:
        raise RefusedError(Reason.SAMPLE_UNREADABLE, "The sample is empty.")
    if picture:
        return Sample(pictures=_pictures(data))
    if filename.lower().endswith(".json") or data.lstrip()[:1] in {b"[", b"{"}:
        return _read_json(data)
    return _read_csv(data)


def fit(sample: Sample, signature: Signature) -> "Arrays":
    """Return the sample as arrays for these inputs; raises `RefusedError` naming the columns or values that do not fit."""
    try:
        return tensors_from(_lenient(signature), _inputs(sample, signature))
    except InvalidInput as error:
        raise RefusedError(Reason.SAMPLE_MISMATCH, error.message) from error


def as_texts(sample: Sample) -> Sample:
    """Return the sample with its columns of dates as the texts they are; itself where it has none."""
    if not any(one.kind == DATETIME for one in sample.columns):
        return sample
    columns = tuple(msgspec.structs.replace(one, kind="") if one.kind == DATETIME else one for one in sample.columns)
    return msgspec.structs.replace(sample, columns=columns)


def make_up(signature: Signature, rows: int, length: int) -> "Arrays":
    """Return rows that fit the inputs, always the same ones; an open axis is `length` long."""
    import numpy as np

    random = np.random.default_rng(_SEED)
    if signature.image:
        return {signature.inputs[0].name: _objects([_picture(random) for _ in range(rows)])}
    return {spec.name: _made_up(spec, (rows, *_closed(spec, length)), random) for spec in signature.inputs}


# ---- reading


def _pictures(data: bytes) -> tuple[bytes, ...]:
    """One picture, or those of a ZIP in the order of their names; they are decoded in the runner alone."""
    if archive.kind(data) != "zip":
        return (data,)
    try:
        files = archive.contents(data, _MOST_UNPACKED)
    except CannotLoad as error:
        raise RefusedError(Reason.SAMPLE_UNREADABLE, f"The ZIP of pictures cannot be read: {error.detail}") from error
    names = sorted(name for name in files if PurePosixPath(name.lower()).suffix in PICTURES)
    if not names:
        raise RefusedError(Reason.SAMPLE_UNREADABLE, f"The ZIP holds no picture ({', '.join(sorted(PICTURES))}).")
    return tuple(bytes(files[name]) for name in names[:MOST_ROWS])


def _read_csv(data: bytes) -> Sample:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(Reason.SAMPLE_UNREADABLE, "The sample is not text in UTF-8.") from error
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if line]
    except csv.Error as error:
        raise RefusedError(Reason.SAMPLE_UNREADABLE, f"The sample is not CSV: {error}.") from error
    if len(lines) < 2:  # noqa: PLR2004 - a header and a row
        raise RefusedError(Reason.SAMPLE_UNREADABLE, "The sample has no rows below its header line.")
    header, cells = [name.strip() for name in lines[0]], lines[1 : 1 + MOST_ROWS]
    _check_header(header)
    for at, row in enumerate(cells, 2):
        if len(row) != len(header):
            raise RefusedError(Reason.SAMPLE_UNREADABLE, f"Line {at} has {len(row)} values; the header has {len(header)}.")
    columns = tuple(_text_column(name, [row[at] for row in cells]) for at, name in enumerate(header))
    return Sample(columns, tuple(map(tuple, cells)), is_csv=True)


def _check_header(header: Sequence[str]) -> None:
    if all(coercion.is_number(name) for name in header):
        raise RefusedError(Reason.SAMPLE_UNREADABLE, "The first line holds numbers. It must name the columns.")
    if "" in header:
        place = header.index("") + 1
        raise RefusedError(
            Reason.SAMPLE_UNREADABLE,
            f"Column {place} has no name. If it is the index of a table, save without it (index=False).",
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise RefusedError(Reason.SAMPLE_UNREADABLE, f"The header names {', '.join(twice)} more than once.")


def _text_column(name: str, raw: Sequence[str]) -> Column:
    """The type of a CSV column, from all its cells. Only in texts do the blanks around a cell say anything."""
    cells = [cell.strip() for cell in raw]
    filled = [cell for cell in cells if cell]
    if filled and all(map(coercion.is_boolean, filled)):
        return Column(name, Dtype.BOOL, nullable=len(filled) < len(cells))
    numbers = [cell for cell in cells if not coercion.is_missing(cell)]
    if numbers and all(coercion.is_number(cell) and not coercion.is_code(cell) for cell in numbers):
        whole = [int(cell) for cell in numbers if coercion.is_whole(cell)]
        return _number_column(name, whole if len(whole) == len(numbers) else [], nullable=len(numbers) < len(cells))
    dates = [cell for cell in cells if coercion.from_text(cell, Dtype.BYTES, DATETIME) is not None]
    if dates and all(map(coercion.is_date, dates)):
        return Column(name, Dtype.BYTES, nullable=len(dates) < len(cells), kind=DATETIME)
    return Column(name, Dtype.BYTES, nullable="" in raw)


def _read_json(data: bytes) -> Sample:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(Reason.SAMPLE_UNREADABLE, f"The sample is not JSON: {error}") from error
    if isinstance(value, dict) and set(value) == {"inputs"}:
        value = value["inputs"]
    return sample_of(value)


def sample_of(value: Any) -> Sample:  # noqa: ANN401 - JSON
    """Return rows that stood in JSON as a sample; raises `RefusedError`."""
    if not value or not isinstance(value, list | dict):
        raise RefusedError(Reason.SAMPLE_UNREADABLE, "The sample holds no rows.")
    names, rows = _as_table(value)
    if not names or not rows or not all(_is_plain(cell) for row in rows for cell in row):
        return Sample(_tensor_columns(value), nested=value)
    kept = rows[:MOST_ROWS]
    columns = tuple(_value_column(name, [row[at] for row in kept]) for at, name in enumerate(names))
    return Sample(columns, tuple(map(tuple, kept)), nested=value)


def _as_table(value: list[Any] | dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Names ("" for none) and rows, where the JSON is a table; nothing where it is not."""
    if isinstance(value, dict):
        columns = {name: list(one.values()) if isinstance(one, dict) else one for name, one in value.items()}
        lists = [one for one in columns.values() if isinstance(one, list)]
        if len(lists) == 1 == len(columns) and lists[0] and all(isinstance(row, list) for row in lists[0]):
            return _as_table(lists[0])
        if len(lists) < len(columns) or len({len(one) for one in lists}) != 1:
            return [], []
        return list(columns), [list(row) for row in zip(*lists, strict=True)]
    if all(isinstance(row, dict) for row in value):
        names = list(dict.fromkeys(name for row in value for name in row))
        return names, [[row.get(name) for name in names] for row in value]
    if all(isinstance(row, list) for row in value):
        width = len(value[0])
        return ([""] * width, value) if all(len(row) == width for row in value) else ([], [])
    return [""], [[cell] for cell in value]


def _tensor_columns(value: list[Any] | dict[str, Any]) -> tuple[Column, ...]:
    """The columns of nested lists, each with the shape of one row's value; none where they are no whole blocks."""
    if isinstance(value, dict):
        given = list(value.items())
    elif all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value):
        given = [(name, [row[name] for row in value]) for name in value[0]]
    else:
        given = [("", value)]
    columns = []
    for name, rows in given:
        shape = _block(rows)
        if not shape:
            return ()
        cells = rows[:MOST_ROWS]
        for _axis in shape[1:]:
            cells = [cell for one in cells for cell in one]
        columns.append(msgspec.structs.replace(_value_column(name, cells), shape=shape[1:]))
    return tuple(columns)


def _block(value: object) -> tuple[int, ...]:
    """The shape of nested lists; nothing where they are not of equal lengths, or hold anything but numbers or texts."""
    if not isinstance(value, list) or not value:
        return ()
    if not isinstance(value[0], list):
        return (len(value),) if all(map(_is_plain, value)) else ()
    inner = {_block(one) for one in value}
    shape = inner.pop()
    return (len(value), *shape) if shape and not inner else ()


def _is_plain(cell: object) -> bool:
    return cell is None or isinstance(cell, str | int | float)


def _value_column(name: str, cells: Sequence[object]) -> Column:
    """The type of a JSON column, from all its cells."""
    filled = [cell for cell in cells if cell is not None]
    nullable = len(filled) < len(cells)
    if not filled:
        return Column(name, Dtype.FP64, nullable=True)
    if all(isinstance(cell, bool) for cell in filled):
        return Column(name, Dtype.BOOL, nullable)
    if all(isinstance(cell, int | float) for cell in filled):
        whole = [cell for cell in filled if isinstance(cell, int)]
        return _number_column(name, whole if len(whole) == len(filled) else [], nullable=nullable)
    dates = all(isinstance(cell, str) and coercion.is_date(cell) for cell in filled)
    return Column(name, Dtype.BYTES, nullable, kind=DATETIME if dates else "")


def _number_column(name: str, whole: Sequence[int], *, nullable: bool) -> Column:
    """A column of numbers; `whole` are its values where all are whole, else none."""
    if not whole:
        return Column(name, Dtype.FP64, nullable)
    low, high = min(whole), max(whole)
    dtype = coercion.whole_dtype(low, high)
    wide = dtype is not Dtype.FP64 and max(-low, high) > EXACT
    return Column(name, dtype, nullable, kind=WIDE if wide else "")


# ---- fitting


def _inputs(sample: Sample, signature: Signature) -> object:
    """The sample in a form that `tensors_from` takes for this signature."""
    if signature.image:
        return list(sample.pictures)
    if signature.layout is Layout.TENSORS:
        if sample.nested is None:
            names = ", ".join(f"{one.name} {list(one.shape)}" for one in signature.inputs)
            raise RefusedError(Reason.SAMPLE_MISMATCH, f"The model takes {names}: send the sample as JSON.")
        return sample.nested
    if not sample.rows:
        return sample.nested
    wanted = _wanted(signature, len(sample.columns))
    order = _order(sample.columns, [name for name, _spec in wanted])
    rows = [[row[place] for place in order] for row in sample.rows]
    if not sample.is_csv:
        return rows
    return [
        [coercion.from_text(str(cell), spec.dtype, spec.kind) for cell, (_name, spec) in zip(row, wanted, strict=True)]
        for row in rows
    ]


def _wanted(signature: Signature, width: int) -> list[tuple[str, TensorSpec]]:
    """Name ("" for none) of each column that the inputs take, and the input that it is or belongs to.

    There are `width` of them where any number will do.
    """
    if signature.layout is Layout.TABLE:
        return [(one.name, one) for one in signature.inputs]
    spec = signature.inputs[0]
    return [(name, spec) for name in spec.columns or [""] * (width if spec.shape[1] == -1 else spec.shape[1])]


def _order(columns: Sequence[Column], wanted: Sequence[str]) -> list[int]:
    """Where in the sample each wanted column is; a single one may be called as it likes."""
    try:
        return places([one.name for one in columns], wanted, by_name=len(wanted) > 1)
    except ColumnsDiffer as error:
        raise RefusedError(Reason.SAMPLE_MISMATCH, str(error)) from error


def _lenient(signature: Signature) -> Signature:
    """The same inputs with missing values allowed: whether the model takes them is what the run will show."""
    inputs = tuple(
        msgspec.structs.replace(one, nullable=one.nullable or one.dtype in FLOATS or one.dtype is Dtype.BYTES)
        for one in signature.inputs
    )
    return msgspec.structs.replace(signature, inputs=inputs)


# ---- making up


def _closed(spec: TensorSpec, length: int) -> tuple[int, ...]:
    return tuple(length if axis == -1 else axis for axis in spec.shape[1:])


def _made_up(spec: TensorSpec, shape: tuple[int, ...], random: "np.random.Generator") -> "NDArray[np.generic]":
    if spec.dtype in FLOATS:
        return random.standard_normal(shape).astype(spec.dtype.numpy)
    if spec.kind == DATETIME:
        return _objects([_DATES[at % len(_DATES)] for at in range(math.prod(shape))]).reshape(shape)
    if spec.dtype is Dtype.BYTES:
        return _objects([_WORDS[at % len(_WORDS)] for at in range(math.prod(shape))]).reshape(shape)
    return random.integers(0, 2, shape).astype(spec.dtype.numpy)


def _objects(values: Sequence[object]) -> "NDArray[np.generic]":
    import numpy as np

    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _picture(random: "np.random.Generator") -> bytes:
    """A picture of soft colours, as PNG."""
    from PIL import Image

    coarse = random.integers(0, 256, (6, 8, 3)).astype("uint8")
    encoded = io.BytesIO()
    Image.fromarray(coarse).resize(_PICTURE, Image.Resampling.BICUBIC).save(encoded, "PNG")
    return encoded.getvalue()
