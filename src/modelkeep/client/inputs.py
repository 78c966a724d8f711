"""What callers predict on, as JSON values or pictures: lists, arrays, DataFrames, Arrow tables, dicts, files, PIL images.

No library is imported here: its objects are recognised by their methods, so the client works where it is not installed. Nothing
is changed quietly: whole numbers keep all their digits, dates their zone and their nanoseconds; a missing value (None, NaN,
NaT, pandas.NA) becomes null; what JSON cannot say (infinity, bytes, durations, decimals) is refused.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from io import BytesIO
from pathlib import Path
from typing import Any

from modelkeep.client.errors import Invalid
from modelkeep.client.instants import instants_in, numpy_instants

_DOUBLE = 8  # bytes
Cut = tuple[int, Callable[[int, int], object]]


@dataclass(frozen=True)
class Picture:
    """An encoded picture and the name that it travels under."""

    name: str
    data: bytes


def are_pictures(given: object) -> bool:
    """Whether `given` is a picture (a path, bytes, a PIL image) or a list of these, and no rows."""
    several = given if isinstance(given, (list, tuple)) else [given]
    return isinstance(given, str) or (bool(several) and all(_is_picture(one) for one in several))


def pictures_in(given: object) -> list[Picture]:
    """Return the pictures that `given` is, read and encoded; empty when it is rows."""
    if not are_pictures(given):
        return []
    several = [Path(given)] if isinstance(given, str) else given if isinstance(given, (list, tuple)) else [given]
    return [_picture(one, number) for number, one in enumerate(several)]


def encode(value: object) -> bytes:
    """Return `value` as JSON; raises `Invalid` for what JSON cannot say."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, UnicodeEncodeError) as error:
        raise Invalid(f"The inputs cannot be written as JSON: {error}.", code="invalid_input") from error


def rows_in(given: object) -> Any:  # noqa: ANN401 - any JSON value
    """Return `given` as the JSON value of `inputs`; raises `Invalid` where a value has no JSON form."""
    try:
        return _rows(given)
    except RecursionError as error:
        raise Invalid("The inputs are nested too deeply.", code="invalid_input") from error


def sliced(given: Any) -> Cut | None:  # noqa: ANN401 - what `predict_many` takes
    """Return how many rows `given` has and what takes a part of them; None for what is read one after the other."""
    if _is_table(given):
        return len(given), lambda start, end: given.slice(start, end - start)
    if hasattr(given, "toarray"):  # a sparse matrix of scipy
        return int(given.shape[0]), lambda start, end: given[start:end]
    if _is_frame(given) or (hasattr(given, "shape") and hasattr(given, "tolist")):
        return len(given), lambda start, end: given[start:end]
    if not isinstance(given, Mapping):
        return None
    if not all(isinstance(values, Iterable) and not isinstance(values, (str, bytes)) for values in given.values()):
        return 1, lambda _start, _end: given  # one record
    columns = {name: values if hasattr(values, "__getitem__") else list(values) for name, values in given.items()}
    counts = {len(values) for values in columns.values()}
    if len(counts) > 1:
        raise Invalid("The columns differ in length.", code="invalid_input")
    return max(counts, default=0), lambda start, end: {name: values[start:end] for name, values in columns.items()}


def first_rows(given: object, most: int) -> Any:  # noqa: ANN401 - any JSON value
    """Return the first rows of `given` as JSON values."""
    if isinstance(given, Mapping):
        rows = rows_in(given)
        same = isinstance(rows, dict) and all(isinstance(values, list) for values in rows.values())
        return {name: values[:most] for name, values in rows.items()} if same else rows
    cut = sliced(given)
    rows = rows_in(cut[1](0, min(cut[0], most)) if cut is not None else given)
    return rows[:most] if isinstance(rows, list) else rows


def _rows(given: object) -> Any:  # noqa: ANN401 - any JSON value
    if _is_frame(given) or _is_table(given):
        return _columns(given)
    if _is_structured(given):
        return {name: _plain(given[name]) for name in given.dtype.names}  # type: ignore[index, attr-defined]
    if _is_series(given):
        return _series(given)
    if isinstance(given, Mapping):
        plain = {str(name): _plain(values) for name, values in given.items()}
        one_record = bool(plain) and not any(isinstance(values, (list, dict)) for values in plain.values())
        return [plain] if one_record else plain
    return _plain(given)


def _is_picture(value: object) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview, Path)) or _library(value) == "PIL"


def _picture(value: Any, number: int) -> Picture:  # noqa: ANN401 - see `_is_picture`
    if isinstance(value, Path):
        try:
            return Picture(value.name, value.read_bytes())
        except OSError as error:
            raise Invalid(f"{value} cannot be read: {error.strerror}.", code="file_unreadable") from error
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Picture(f"picture-{number}", bytes(value))
    file = BytesIO()
    value.save(file, format="PNG")
    return Picture(f"picture-{number}.png", file.getvalue())


def _is_frame(value: object) -> bool:
    return hasattr(value, "columns") and (hasattr(value, "iloc") or hasattr(value, "to_dicts"))


def _is_table(value: object) -> bool:
    """Whether this is a Table or a RecordBatch of Arrow."""
    return _library(value) == "pyarrow" and hasattr(value, "column_names")


def _is_series(value: object) -> bool:
    return hasattr(value, "index") and hasattr(value, "iloc")


def _is_structured(value: object) -> bool:
    return _library(value) == "numpy" and bool(getattr(getattr(value, "dtype", None), "names", None))


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _columns(frame: Any) -> dict[str, Any]:  # noqa: ANN401 - a DataFrame of pandas or polars, or an Arrow table
    keys = list(frame.column_names if _is_table(frame) else frame.columns)
    names = [str(name) for name in keys]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise Invalid(f"The DataFrame has several columns named {', '.join(doubled)}.", code="invalid_input")
    columns = [frame.column(name) for name in keys] if _is_table(frame) else [frame[name] for name in keys]
    return {name: _column(column) for name, column in zip(names, columns, strict=True)}


def _column(column: Any) -> list[Any]:  # noqa: ANN401 - a Series of pandas or polars, or an array of Arrow
    instants = instants_in(column)
    if instants is not None:
        return instants
    return _list(column.to_pylist() if hasattr(column, "to_pylist") else column.to_list())


def _series(series: Any) -> list[Any]:  # noqa: ANN401 - a pandas Series
    """Return one row of a DataFrame as a record, any other series as its values."""
    names, values = list(series.index), _list(series.to_list())
    if names and all(isinstance(name, str) for name in names):
        return [dict(zip(names, values, strict=True))]
    return values


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value in, any JSON value out
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if _is_missing(value):
        return None
    return _converted(value)


def _converted(value: Any) -> Any:  # noqa: ANN401 - what is no JSON value yet
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise Invalid("Bytes are taken as pictures only, alone or in a flat list.", code="invalid_input")
    if hasattr(value, "toarray"):  # a sparse matrix of scipy
        value = value.toarray()
    if _library(value) == "numpy":
        return _numpy(value)
    if _is_frame(value) or _is_table(value):
        return _columns(value)
    if _library(value) in {"polars", "pyarrow"}:  # a column by itself
        return _column(value)
    if hasattr(value, "tolist"):  # an array of another library
        return _plain(value.tolist())
    if isinstance(value, Iterable):
        return _list(value)
    raise Invalid(f"A value of type {type(value).__name__} cannot be sent; convert it first.", code="invalid_input")


def _numpy(value: Any) -> Any:  # noqa: ANN401 - an array or a scalar of numpy; any JSON value out
    if value.dtype.kind == "M":
        return numpy_instants(value)
    if value.dtype.kind == "m":
        raise Invalid("A duration cannot be sent; convert it to a number first.", code="invalid_input")
    if value.dtype.kind == "f" and value.dtype.itemsize > _DOUBLE:
        narrow = value.astype("f8")
        if not ((narrow == value) | (value != value)).all():  # noqa: PLR0124 - what differs from itself is no number
            raise Invalid("A number has more digits than JSON's readers keep; round it first.", code="invalid_input")
        value = narrow
    return _plain(value.tolist())


def _list(values: Iterable[Any]) -> list[Any]:
    """Return the values in plain form; a list of finite floats, the common case, in one look at each."""
    found = values if isinstance(values, list) else list(values)
    if all(type(value) is float and math.isfinite(value) for value in found):
        return found
    return [_plain(value) for value in found]


def _number(value: float) -> float | None:
    if math.isinf(value):
        raise Invalid("The inputs hold an infinite number, which JSON cannot say.", code="invalid_input")
    return None if math.isnan(value) else float(value)


def _is_missing(value: object) -> bool:
    return type(value).__name__ in {"NAType", "NaTType"}
