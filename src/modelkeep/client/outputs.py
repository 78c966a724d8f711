"""What a model answered, as numpy arrays and as tables of pandas, polars and Arrow, with every digit that came."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from modelkeep.client.errors import Invalid

EXACT = 2**53
"""Up to here every whole number is a float, too."""

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def array(values: list[Any]) -> Any:  # noqa: ANN401 - a numpy array, and numpy may not be installed
    """Return values, nested as they may be, as an array that holds each as it came.

    Whole numbers are int64, uint64 where they need it, and else objects. A missing number is NaN, where all others are floats
    or small enough to be. Texts with a NUL at their end, which numpy would cut off, and mixtures are objects. Rows of different
    length are lists.
    """
    import numpy as np

    try:
        found = np.asarray(values)
    except ValueError:  # rows of different length
        return _objects(values)
    except OverflowError:  # a whole number without end, beside floats
        found = np.array(values, dtype=object)
    kinds = set(map(type, _flat(values, found.ndim)))
    if kinds <= {float} or kinds == {bool} or (kinds == {int} and found.dtype.kind in "iu"):
        return found
    if kinds == {str}:
        cut = any(value.endswith("\0") for value in _flat(values, found.ndim))
        return np.array(values, dtype=object) if cut else found
    if kinds == {int, float} and found.dtype.kind == "f" and not (np.abs(found) >= EXACT).any():
        return found
    numbers = kinds & {int, float} and kinds <= {int, float, type(None)}
    return _numbers(np.array(values, dtype=object), kinds) if numbers else np.array(values, dtype=object)


def _objects(values: list[Any]) -> Any:  # noqa: ANN401 - a numpy array
    import numpy as np

    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def _numbers(found: Any, kinds: set[type]) -> Any:  # noqa: ANN401 - an array of numbers as objects; of a narrower type if it may
    if kinds == {int}:
        low, high = min(found.flat), max(found.flat)
        narrow = "i8" if low in _INT64 and high in _INT64 else "u8" if low in _UINT64 and high in _UINT64 else None
        return found if narrow is None else found.astype(narrow)
    wide = any(type(value) is int and abs(value) > EXACT for value in found.flat)
    return found if wide else found.astype(float)


def _flat(values: Sequence[Any], axes: int) -> Iterator[Any]:
    found: Iterator[Any] = iter(values)
    for _ in range(axes - 1):
        found = chain.from_iterable(found)
    return found


def columns(raw: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the columns of an answer, a value for each row: its outputs, or for labels alone row, label, index and score.

    The name of each row's class is `class`, where the version has labels and no output says the same. Raises `Invalid` where
    outputs differ in their number of rows, as those of a model that is no table's may.
    """
    outputs = raw.get("outputs")
    if not outputs:
        rows = [(row, one) for row, found in enumerate(raw.get("predictions") or []) for one in found]
        table: dict[str, list[Any]] = {"row": [row for row, _one in rows]}
        return table | {name: [one[name] for _row, one in rows] for name in ("label", "index", "score")}
    labels = raw.get("labels")
    named = {"class": list(labels)} if labels and labels != outputs.get("label") and "class" not in outputs else {}
    found = named | {name: list(values) if isinstance(values, list) else [values] for name, values in outputs.items()}
    if len({len(values) for values in found.values()}) > 1:
        raise Invalid("The outputs differ in their number of rows, so that they are no table.", code="no_table")
    return found


def pandas_frame(found: Mapping[str, list[Any]]) -> Any:  # noqa: ANN401 - a DataFrame
    """Return columns as a DataFrame of pandas: gaps are NA in Int64, UInt64 and boolean columns, NaN in floats."""
    import pandas as pd

    return pd.DataFrame({name: _pandas_series(values) for name, values in found.items()})


def _pandas_series(values: list[Any]) -> Any:  # noqa: ANN401 - a Series
    import pandas as pd

    kinds, gaps = _kinds(values), any(value is None for value in values)
    whole = _whole(values)
    if whole:
        return pd.Series(values, dtype={"int64": "Int64", "uint64": "UInt64"}[whole] if gaps else whole)
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean" if gaps else "bool")
    if kinds == {float} or (kinds == {int, float} and not _wide(values)):
        return pd.Series(values, dtype="float64")
    return pd.Series(values) if kinds == {str} else pd.Series(values, dtype=object)


def arrow_table(found: Mapping[str, list[Any]]) -> Any:  # noqa: ANN401 - a Table
    """Return columns as a Table of Arrow; raises `Invalid` where a column mixes what Arrow keeps apart."""
    import pyarrow as pa

    arrays = {}
    for name, values in found.items():
        width, depth = _digits(name, values, "Arrow")
        kind = pa.type_for_alias(width) if width else None
        for _ in range(depth if width else 0):
            kind = pa.list_(kind)
        try:
            arrays[name] = pa.array(values, type=kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise _mixed(name, "Arrow") from error
    return pa.table(arrays)


def polars_frame(found: Mapping[str, list[Any]]) -> Any:  # noqa: ANN401 - a DataFrame
    """Return columns as a DataFrame of polars; raises `Invalid` where a column mixes what polars keeps apart."""
    import polars as pl

    series = []
    for name, values in found.items():
        width, depth = _digits(name, values, "polars")
        kind: Any = {"int64": pl.Int64, "uint64": pl.UInt64}.get(width)
        for _ in range(depth if width else 0):
            kind = pl.List(kind)
        try:
            series.append(pl.Series(name, values, dtype=kind, strict=True))
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise _mixed(name, "polars") from error
    return pl.DataFrame(series)


def _kinds(values: Sequence[Any]) -> set[type]:
    return {type(value) for value in values} - {type(None)}


def _whole(values: Sequence[Any]) -> str:
    """Return the narrower of int64 and uint64 that holds a column of whole numbers, "" where there is none."""
    if _kinds(values) != {int}:
        return ""
    known = [value for value in values if value is not None]
    if all(value in _INT64 for value in known):
        return "int64"
    return "uint64" if all(value in _UINT64 for value in known) else ""


def _wide(values: Sequence[Any]) -> bool:
    return any(type(value) is int and abs(value) > EXACT for value in values)


def _digits(name: str, values: Sequence[Any], library: str) -> tuple[str, int]:
    """Return the width that whole numbers need ("" where there are others, too), and how deep in lists they lie.

    Raises `Invalid` for what a library would make floats of, and so cut digits off.
    """
    depth, flat = 0, list(values)
    while any(isinstance(value, list) for value in flat):
        flat = [one for value in flat for one in (value if isinstance(value, list) else [value])]
        depth += 1
    width = _whole(flat)
    if _wide(flat) and not width:
        raise _mixed(name, library)
    return width, depth


def _mixed(name: str, library: str) -> Invalid:
    return Invalid(f"The output {name} is of no one type that {library} has.", code="no_table")
