"""The one table of values: what each kind of value takes of JSON and of the texts of a CSV, what is missing, what is refused.

Every door goes through it: native JSON, the Open Inference Protocol, samples as JSON or CSV. `TABLE` is the same in words, with
examples that a test tries; `docs/reference/values.md` is made from it. Nothing is changed quietly: a text is no number, 1.5 is
no integer, nor is 9007199254740993.0, which floats have no place for; "yes" is no boolean.
"""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from types import NoneType
from typing import Any, NoReturn, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelkeep.contracts.errors import FieldError, InvalidInput
from modelkeep.contracts.signature import BOOLEAN, DATETIME, EXACT, FLOATS, Dtype, TensorSpec

Array = NDArray[np.generic]
Where = Callable[[int], str]

_MAX_FIELDS = 20
_EXACT_IN_BYTES = {2: 2**11, 4: 2**24, 8: EXACT}
_PIECE = 8192  # values, converted in half a millisecond
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_CODE = re.compile(r"[+-]?0\d+", re.ASCII)
_NO_NUMBER = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_NO_DATE = frozenset({"", "nat", "na", "n/a", "nan", "null", "none"})
_BOOLEANS = {"true": True, "false": False}
_ZERO_AND_ONE = {"0": False, "1": True}
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_FIRST, _LAST = "1677-09-22", "2262-04-10"
"""The days of which every moment, in whatever zone, has its place among 64 bits of nanoseconds."""

MOST_DIGITS = 4300
"""Whole numbers of more digits are no numbers here; Python refuses to read them, too."""


class EnoughError(Exception):
    """As many faults are known as one answer names."""


class Faults:
    """Collects fields at fault, up to the first 20."""

    def __init__(self) -> None:
        self._fields: list[FieldError] = []

    def add(self, path: str, code: str, message: str) -> None:
        """Note a fault; raises `EnoughError` when there are enough."""
        self._fields.append(FieldError(path, code, message))
        if len(self._fields) >= _MAX_FIELDS:
            raise EnoughError

    def stop(self, path: str, code: str, message: str) -> NoReturn:
        """Note a fault after which nothing further can be told."""
        self._fields.append(FieldError(path, code, message))
        raise EnoughError

    def settle(self) -> None:
        """Raise `InvalidInput` with what was found, if anything was."""
        if self._fields:
            first = self._fields[0]
            raise InvalidInput(f"{first.path}: {first.message}", fields=tuple(self._fields))


def array_of(spec: TensorSpec, values: Sequence[object], where: Where, faults: Faults, *, exact: int = EXACT) -> Array:
    """Return JSON values as a flat array of the datatype; `where(at)` is the path of each that does not fit.

    `exact`: the float from which on, and beyond, a whole number may have been another one before it was a float.
    """
    if spec.dtype is Dtype.BYTES:
        return _dates(spec, values, where, faults) if spec.kind == DATETIME else _texts(spec, values, where, faults)
    if spec.dtype is Dtype.BOOL:
        return _booleans(values, where, faults)
    if spec.kind == BOOLEAN:
        return _booleans_with_gaps(spec, values, where, faults)
    if spec.dtype in FLOATS:
        return _floats(spec, values, where, faults)
    return _integers(spec, values, where, faults, exact)


def exact_below(array: Array) -> int:
    """Return the float of an array's datatype from which on a whole number may have been another one, for `array_of`."""
    return _EXACT_IN_BYTES.get(array.dtype.itemsize, EXACT) if array.dtype.kind == "f" else EXACT


def from_text(text: str, dtype: Dtype, kind: str = "") -> object:
    """Return the JSON value that a CSV's text stands for in a column of this datatype; as it is where it stands for none.

    Blanks around a number, a date or a boolean say nothing; in a column of texts they are text.
    """
    if dtype is Dtype.BYTES and kind != DATETIME:
        return text or None
    text = text.strip()
    low = text.lower()
    if dtype is Dtype.BYTES:
        return None if low in _NO_DATE else text
    if dtype is Dtype.BOOL:
        return None if not text else _BOOLEANS.get(low, _ZERO_AND_ONE.get(text, text))
    if low in _NO_NUMBER:
        return None
    if low in _BOOLEANS:
        return int(_BOOLEANS[low])
    if _WHOLE.fullmatch(text):
        return int(text) if len(text) <= MOST_DIGITS else text
    return float(text) if is_number(text) else text


def is_missing(text: str) -> bool:
    """Whether a CSV's text is a gap in a column of numbers."""
    return text.lower() in _NO_NUMBER


def is_boolean(text: str) -> bool:
    """Whether a CSV's text is true or false."""
    return text.lower() in _BOOLEANS


def is_number(text: str) -> bool:
    """Whether a CSV's text is a number, as JSON or C would write one."""
    return _NUMBER.fullmatch(text) is not None


def is_code(text: str) -> bool:
    """Whether a CSV's text has digits with a zero before them (0100): a postal code or a number of an account, no quantity."""
    return _CODE.fullmatch(text) is not None


def is_whole(text: str) -> bool:
    """Whether a CSV's text is a whole number, without a fraction or an exponent."""
    return _WHOLE.fullmatch(text) is not None and len(text) <= MOST_DIGITS


def is_date(text: str) -> bool:
    """Whether a text is a date, or a date and time, that a column of dates takes."""
    return _fault_of(text) is None


def whole_dtype(low: int, high: int) -> Dtype:
    """Return the datatype for whole numbers from `low` to `high`: the wide ones keep their digits, beyond 64 bits none does."""
    for dtype in (Dtype.INT64, Dtype.UINT64):
        limits = np.iinfo(dtype.numpy)
        if limits.min <= low and high <= limits.max:
            return dtype
    return Dtype.FP64


# ---- what is taken, datatype by datatype


def _missing(where: str, faults: Faults) -> None:
    faults.add(where, "missing_value", "A value is missing, and the model takes none.")


def _all(values: Sequence[object], *kinds: type, nullable: bool = False) -> bool:
    """Whether all values are of these types, and of no type made from them; None too where it is taken."""
    return set(map(type, values)) <= {*kinds, NoneType} if nullable else set(map(type, values)) <= {*kinds}


def _floats(spec: TensorSpec, values: Sequence[object], where: Where, faults: Faults) -> Array:
    numbers = _numbers(spec, values, where, faults)
    _refuse_rounded(values, numbers, where, faults)
    with np.errstate(over="ignore"):
        array = numbers.astype(spec.dtype.numpy)
    for infinite in np.flatnonzero(np.isinf(array)).tolist():
        faults.add(where(infinite), "out_of_range", f"The number does not fit {spec.dtype}.")
    return array


def _numbers(spec: TensorSpec, values: Sequence[object], where: Where, faults: Faults) -> NDArray[np.float64]:
    if _all(values, float, int, nullable=spec.nullable):
        with suppress(OverflowError):
            return _pieced(values, np.dtype(np.float64))
    numbers = np.zeros(len(values), dtype=np.float64)
    for at, value in enumerate(values):
        if value is None:
            numbers[at] = math.nan
            if not spec.nullable:
                _missing(where(at), faults)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            hint = " Write 1 for true, 0 for false." if isinstance(value, bool) else ""
            faults.add(where(at), "not_a_number", f"A number is needed here.{hint}")
        else:
            try:
                numbers[at] = value
            except OverflowError:
                faults.add(where(at), "out_of_range", f"The number does not fit {spec.dtype}.")
    return numbers


def _pieced(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values as an array, made piece by piece: a long list is one step for Python, in which no other thread goes on."""
    array = np.empty(len(values), dtype)
    for at in range(0, len(values), _PIECE):
        array[at : at + _PIECE] = values[at : at + _PIECE]
    return array


def _refuse_rounded(values: Sequence[object], numbers: NDArray[np.float64], where: Where, faults: Faults) -> None:
    for at in np.flatnonzero(np.abs(numbers) >= EXACT).tolist():
        value = values[at]
        if isinstance(value, int) and int(numbers[at]) != value:
            faults.add(where(at), "not_exact", "No float is this whole number: beyond 2^53 not each of them is one.")


def _booleans_with_gaps(spec: TensorSpec, values: Sequence[object], where: Where, faults: Faults) -> Array:
    """Return 1, 0 and NaN, as floats: booleans themselves have no place for a gap."""
    array = np.zeros(len(values), dtype=spec.dtype.numpy)
    for at, value in enumerate(values):
        if value is None:
            array[at] = math.nan
            if not spec.nullable:
                _missing(where(at), faults)
        elif isinstance(value, int | float) and value in {0, 1}:
            array[at] = value
        else:
            faults.add(where(at), "not_a_boolean", "true or false is needed here.")
    return array


def _integers(spec: TensorSpec, values: Sequence[object], where: Where, faults: Faults, exact: int) -> Array:
    limits = np.iinfo(spec.dtype.numpy)
    if values and _all(values, int):
        whole = cast("Sequence[int]", values)
        if limits.min <= min(whole) and max(whole) <= limits.max:
            return _pieced(whole, np.dtype(spec.dtype.numpy))
    array = np.zeros(len(values), dtype=spec.dtype.numpy)
    for at, value in enumerate(values):
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        if number is None:
            _missing(where(at), faults)
        elif isinstance(number, bool) or not isinstance(number, int):
            faults.add(where(at), "not_an_integer", "A whole number is needed here.")
        elif not limits.min <= number <= limits.max:
            faults.add(where(at), "out_of_range", f"The number does not fit {spec.dtype}.")
        elif isinstance(value, float) and not -exact < number < exact:
            faults.add(where(at), "not_exact", "Written with a point or an exponent, so large a number loses digits.")
        else:
            array[at] = number
    return array


def _booleans(values: Sequence[object], where: Where, faults: Faults) -> Array:
    if _all(values, bool):
        return _pieced(values, np.dtype(bool))
    array = np.zeros(len(values), dtype=bool)
    for at, value in enumerate(values):
        if value is None:
            _missing(where(at), faults)
        elif isinstance(value, bool) or (isinstance(value, int) and value in {0, 1}):
            array[at] = bool(value)
        else:
            faults.add(where(at), "not_a_boolean", "true or false is needed here.")
    return array


def _texts(spec: TensorSpec, values: Sequence[object], where: Where, faults: Faults) -> Array:
    if _all(values, str, bytes, nullable=spec.nullable):
        return _pieced(values, np.dtype(object))
    array = np.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        if value is None:
            if not spec.nullable:
                _missing(where(at), faults)
        elif isinstance(value, str | bytes):
            array[at] = value
        else:
            faults.add(where(at), "not_a_text", "A text is needed here.")
    return array


def _dates(spec: TensorSpec, values: Sequence[object], where: Where, faults: Faults) -> Array:
    array = _texts(spec, values, where, faults)
    for at, value in enumerate(array.tolist()):
        fault = None if value is None else _fault_of(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
        if fault is not None:
            faults.add(where(at), *fault)
    return array


def _fault_of(text: str) -> tuple[str, str] | None:
    """The code and sentence of what is wrong with a date, if anything is."""
    found = _DATE.fullmatch(text)
    if found is None:
        return "not_a_date", "A date is needed here: 2026-05-17, or 2026-05-17T08:30:00Z, with nine digits of a second at most."
    day, minute, second, _fraction, zone = found.groups()
    try:
        datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{(zone or '').upper()}")
    except ValueError:
        return "not_a_date", "There is no such date or time."
    if not _FIRST <= day <= _LAST:
        return "out_of_range", f"Dates go from {_FIRST} to {_LAST}."
    return None


# ---- the same in words


class Taken(msgspec.Struct, frozen=True):
    """What one kind of value takes, and examples of it: JSON texts, and cells of a CSV; `not_` are those that are refused."""

    name: str
    dtypes: tuple[Dtype, ...]
    json: str
    csv: str
    missing: str
    refused: str
    good: tuple[str, ...]
    bad: tuple[str, ...]
    good_cells: tuple[str, ...]
    bad_cells: tuple[str, ...]
    kind: str = ""


_GAPS = "empty, `NA`, `N/A`, `NaN`, `null`, `None`, `?`"
TABLE: tuple[Taken, ...] = (
    Taken(
        "whole numbers",
        tuple(one for one in Dtype if one.numpy.lstrip("u").startswith("int")),
        json="a number without a fraction, in the datatype's range; `2.0` and `1e3` too, below 2^53",
        csv="the same; `true` and `false` as 1 and 0",
        missing="never taken",
        refused='`1.5`, `true`, `"1"`, what is out of range, `9007199254740993.0`',
        good=("1", "2.0", "1e1"),
        bad=("1.5", "true", '"1"', "1e30", "99999999999999999999", "null", "[1]"),
        good_cells=("1", "+2", "2.0", "True"),
        bad_cells=("1.5", "one", "1_0", "", "1e30"),
    ),
    Taken(
        "floats",
        (Dtype.FP16, Dtype.FP32, Dtype.FP64),
        json="a number: the nearest that the datatype has",
        csv="the same; `true` and `false` as 1 and 0",
        missing=f"`null`; in a CSV {_GAPS}. NaN for the model",
        refused='`true`, `"1.5"`, what is beyond the datatype, infinity, whole numbers that no float is: `9007199254740993`',
        good=("1", "1.5", "-2e3", "null"),
        bad=("true", '"1.5"', "1e400", '"NaN"', "[1]", "9007199254740993"),
        good_cells=("1", ".5", "-1e3", "NaN", "", "false"),
        bad_cells=("inf", "1,5", "0x10", "1_0", "one", "9007199254740993"),
    ),
    Taken(
        "booleans",
        (Dtype.BOOL,),
        json="`true`, `false`, `1`, `0`",
        csv="`true`, `false` in any case, `1`, `0`",
        missing="never taken",
        refused='every text (`"yes"`, `"true"`), `2`, `1.0`',
        good=("true", "false", "1", "0"),
        bad=("2", "1.0", '"yes"', '"true"', "null", "[]"),
        good_cells=("True", "FALSE", "0", "1"),
        bad_cells=("yes", "no", "2", ""),
    ),
    Taken(
        "booleans with gaps",
        (Dtype.FP64,),
        json="`true`, `false`, `1`, `0`: 1 and 0 for the protocol",
        csv="`true`, `false` in any case, `1`, `0`",
        missing=f"`null`; in a CSV {_GAPS}. For the model what it was fitted with: None, or NaN",
        refused='every text (`"yes"`, `"true"`), `2`',
        good=("true", "false", "1", "0", "null"),
        bad=("2", '"yes"', '"true"', "[]"),
        good_cells=("True", "FALSE", "0", "1", ""),
        bad_cells=("yes", "no", "2"),
        kind=BOOLEAN,
    ),
    Taken(
        "texts",
        (Dtype.BYTES,),
        json="a text, kept letter by letter",
        csv="any text, blanks and all",
        missing="`null`; in a CSV an empty one. For the model what it was fitted with: NaN, or None",
        refused="numbers, `true`, `false`",
        good=('"x"', '"007"', '""', "null"),
        bad=("7", "true", "[]", "{}"),
        good_cells=("x", "007", "NA", "true", ""),
        bad_cells=(),
    ),
    Taken(
        "dates",
        (Dtype.BYTES,),
        json="a text in ISO 8601, as RFC 3339 has it: `2026-05-17`, `2026-05-17T08:30`, `2026-05-17 08:30:00.123456789+02:00`",
        csv="the same",
        missing="`null`; in a CSV empty, `NaT`, `NA`, `NaN`, `null`, `None`. NaT for the model",
        refused=f"other forms, dates that do not exist, more than nanoseconds, before {_FIRST} or after {_LAST}, numbers",
        good=('"2026-05-17"', '"2026-05-17T08:30"', '"2026-05-17 08:30:00.123456789-11:00"', '"2024-02-29t23:59:59z"', "null"),
        bad=(
            '"2026-02-30"',
            '"17.5.2026"',
            '"2026-05-17T08:30:60Z"',
            '"2026-05-17T08:30:00.1234567890"',
            '"1500-01-01"',
            "1",
            '""',
        ),
        good_cells=("2026-05-17 08:30:00+02:00", "NaT", ""),
        bad_cells=("5/17/2026", "yesterday", "2026-05-17T25:00"),
        kind=DATETIME,
    ),
)
