"""What callers predict on, as JSON values or pictures: lists, numpy arrays, DataFrames, dicts, files, PIL images.

Nothing is imported here: a numpy array is recognised by its methods, so the client works where numpy is not installed.
A missing value (None, NaN, NaT, pandas.NA) becomes null.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from io import BytesIO
from pathlib import Path
from typing import Any

from modelkeep.client.errors import Invalid


@dataclass(frozen=True)
class Picture:
    """An encoded picture and the name that it travels under."""

    name: str
    data: bytes


def pictures_in(given: object) -> list[Picture]:
    """Return the pictures that `given` is (a path, bytes, a PIL image, or a list of these); empty when it is rows."""
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    if isinstance(given, str):
        several = [Path(given)]
    if not several or not all(_is_picture(one) for one in several):
        return []
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


def _rows(given: object) -> Any:  # noqa: ANN401 - any JSON value
    if _is_frame(given):
        return _columns(given)
    if _is_series(given):
        return _series(given)
    if isinstance(given, Mapping):
        plain = {str(name): _plain(values) for name, values in given.items()}
        one_record = bool(plain) and not any(isinstance(values, (list, dict)) for values in plain.values())
        return [plain] if one_record else plain
    return _plain(given)


def _is_picture(value: object) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview, Path)) or type(value).__module__.partition(".")[0] == "PIL"


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


def _is_series(value: object) -> bool:
    return hasattr(value, "index") and hasattr(value, "iloc")


def _columns(frame: Any) -> dict[str, Any]:  # noqa: ANN401 - a pandas or polars DataFrame
    names = [str(name) for name in frame.columns]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise Invalid(f"The DataFrame has several columns named {', '.join(doubled)}.", code="invalid_input")
    return {str(name): _plain(frame[name].to_list()) for name in frame.columns}


def _series(series: Any) -> list[Any]:  # noqa: ANN401 - a pandas Series
    """Return one row of a DataFrame as a record, any other series as its values."""
    names, values = list(series.index), _plain(series.to_list())
    if all(isinstance(name, str) for name in names):
        return [dict(zip(names, values, strict=True))]
    return list(values)


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
    if hasattr(value, "tolist"):  # an array or a scalar of numpy
        return _plain(value.tolist())
    if _is_frame(value):
        return _columns(value)
    if isinstance(value, Iterable):
        return _list(value)
    raise Invalid(f"A value of type {type(value).__name__} cannot be sent; convert it first.", code="invalid_input")


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
