"""Rows in any of the forms people send them, as arrays that fit a signature; and arrays as JSON values again.

Forms of `inputs`, by the signature's layout:

    matrix    [[1, 2], [3, 4]]     [{"a": 1, "b": 2}]     {"a": [1, 3], "b": [2, 4]}     {"input": [[1, 2], [3, 4]]}
    table     the same; a column keeps its own type
    tensors   {"ids": [[1, 2]], "mask": [[1, 1]]}     [{"ids": [1, 2], "mask": [1, 1]}]     one input: its nested list alone
    image     ["<base64>", ...]    {"image": ["<base64>", ...]}    bytes where the caller has them

What does not fit is refused with the path and a code for each value at fault (the first 20), and never changed quietly:
`serving/coercion.py` has the table of what is taken.
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np

from modelkeep.contracts.errors import FieldError, InvalidInput, ModelkeepError
from modelkeep.contracts.signature import EXACT, Layout, Signature, TensorSpec
from modelkeep.contracts.snapshot import NotFinite
from modelkeep.serving.coercion import Array, EnoughError, Faults, array_of

PIECE = 8192
"""Values of an answer that are made into JSON at once, in half a millisecond."""

Tensors = dict[str, Array]


def tensors_from_json(signature: Signature, raw: bytes | memoryview) -> Tensors:
    """Read the JSON of `inputs`."""
    return tensors_from(signature, decoded(raw, "inputs"))


def decoded(raw: bytes | memoryview, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return a part of a body that may still turn out to be no JSON; raises `InvalidInput`."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.at(path, "invalid_json", "Not valid JSON.") from error


def tensors_from(signature: Signature, inputs: object) -> Tensors:
    """Return arrays by input name, with one equal first axis; raises `InvalidInput` naming each field at fault."""
    faults = Faults()
    try:
        match signature.layout:
            case Layout.IMAGE:
                tensors = _images(signature, inputs, faults)
            case Layout.MATRIX:
                tensors = _matrix(signature, inputs, faults)
            case Layout.TABLE:
                tensors = _table(signature, inputs, faults)
            case Layout.TENSORS:
                tensors = _named(signature, inputs, faults)
    except EnoughError:
        tensors = {}
    faults.settle()
    check_rows(tensors)
    return tensors


def check_rows(tensors: Mapping[str, Array]) -> int:
    """Return how many rows the tensors hold; raises `InvalidInput` when there are none or they disagree."""
    counts = {name: array.shape[0] for name, array in tensors.items()}
    rows = next(iter(counts.values()), 0)
    if any(count != rows for count in counts.values()):
        fields = tuple(FieldError(f"inputs.{name}", "row_count", f"Has {count} rows.") for name, count in counts.items())
        raise InvalidInput("The inputs have different numbers of rows.", fields=fields)
    if rows == 0:
        raise InvalidInput("There are no rows.", fields=(FieldError("inputs", "no_rows", "At least one row is needed."),))
    return rows


def tensor_from_flat(spec: TensorSpec, data: object, shape: tuple[int, ...], path: str, *, exact: int = EXACT) -> Array:
    """Return an array of `shape` from nested or flat row-major lists, as the Open Inference Protocol allows both.

    `exact` is what it is to `coercion.array_of`.
    """
    faults = Faults()
    try:
        flat = _sequence(data, path, faults)
        nested = _shape_of(data)
        if nested == shape:
            values = _leaves(data, shape, path, faults)
        elif len(nested) == 1 and len(flat) == math.prod(shape):
            values = list(flat)
        else:
            faults.stop(path, "shape_mismatch", f"The data has shape {list(nested)}, not {list(shape)}; it may also be flat.")
        array = array_of(spec, values, lambda at: f"{path}[{at}]", faults, exact=exact)
    except EnoughError:
        array = np.empty(0)
    faults.settle()
    return array.reshape(shape)


def check_shape(spec: TensorSpec, shape: tuple[int, ...], path: str) -> None:
    """Raise `InvalidInput` where a tensor's shape does not fit its specification."""
    fits = len(shape) == len(spec.shape) and all(want in (-1, got) for want, got in zip(spec.shape, shape, strict=True))
    if not fits:
        message = f"Has shape {list(shape)}; the model takes {list(spec.shape)} (-1 is any length)."
        raise InvalidInput("An input has the wrong shape.", fields=(FieldError(path, "shape_mismatch", message),))


class AnswerNotFinite(ModelkeepError):
    """The model answered NaN or infinity, which its deployment is set to refuse: `not_finite`."""

    code = "answer_not_finite"


def refuse_not_finite(array: Array) -> None:
    """Raise `AnswerNotFinite` where an output holds NaN or infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise AnswerNotFinite


def values_of(array: Array, not_finite: NotFinite = "null") -> list[Any]:
    """Return an output as nested lists for JSON: byte strings as text, or base64 where they are not UTF-8.

    NaN and infinity stay as they are to become null, or become texts; raises `AnswerNotFinite` where they are refused.
    """
    if array.size > PIECE and len(array) > 1:
        return _in_pieces(array, not_finite)
    if array.dtype == object:
        return list(_text_values(array.tolist()))
    if not_finite == "refuse":
        refuse_not_finite(array)
    elif not_finite == "text" and array.dtype.kind == "f" and not np.isfinite(array).all():
        return list(_said(array.tolist()))
    return list(array.tolist())


def _in_pieces(array: Array, not_finite: NotFinite) -> list[Any]:
    """Return `values_of` a large output, of some rows at a time."""
    step = max(1, len(array) * PIECE // array.size)
    return [row for at in range(0, len(array), step) for row in values_of(array[at : at + step], not_finite)]


def _said(values: object) -> Any:  # noqa: ANN401 - nested lists of any depth
    if isinstance(values, list):
        return [_said(value) for value in values]
    if not isinstance(values, float) or math.isfinite(values):
        return values
    return "NaN" if math.isnan(values) else "Infinity" if values > 0 else "-Infinity"


def _text_values(values: object) -> Any:  # noqa: ANN401 - nested lists of any depth
    if isinstance(values, list):
        return [_text_values(value) for value in values]
    if isinstance(values, bytes):
        try:
            return values.decode()
        except UnicodeDecodeError:
            return base64.b64encode(values).decode()
    return values


# ---- matrix


def _matrix(signature: Signature, inputs: object, faults: Faults) -> Tensors:
    spec = signature.inputs[0]
    width = spec.shape[1]
    if isinstance(inputs, Mapping):
        if spec.name in inputs and spec.name not in spec.columns:
            _only(inputs, (spec.name,), faults)
            return {
                spec.name: _rows(
                    spec, _sequence(inputs[spec.name], f"inputs.{spec.name}", faults), f"inputs.{spec.name}", faults
                )
            }
        if not spec.columns:
            faults.stop(
                "inputs", "no_column_names", f"The model's columns have no names: send rows as lists, or as {spec.name!r}."
            )
        return {spec.name: _from_columns(spec, inputs, faults)}
    rows = _sequence(inputs, "inputs", faults)
    if rows and isinstance(rows[0], Mapping):
        if not spec.columns:
            faults.stop(
                "inputs[0]", "no_column_names", f"The model's columns have no names: send each row as a list of {width} values."
            )
        names = spec.columns
        rows = [_record(row, names, f"inputs[{at}]", faults) for at, row in enumerate(rows)]
        return {spec.name: _rows(spec, rows, "inputs", faults, lambda row, column: f"inputs[{row}].{names[column]}")}
    return {spec.name: _rows(spec, rows, "inputs", faults)}


def _from_columns(spec: TensorSpec, inputs: Mapping[object, object], faults: Faults) -> Array:
    _only(inputs, spec.columns, faults)
    columns = []
    for name in spec.columns:
        if name not in inputs:
            faults.add(f"inputs.{name}", "missing_column", "This column is missing.")
            continue
        path = f"inputs.{name}"
        values = _sequence(inputs[name], path, faults)
        columns.append(array_of(spec, values, partial(_place, path), faults))
    faults.settle()
    if len({len(column) for column in columns}) > 1:
        faults.stop("inputs", "row_count", "The columns have different lengths.")
    return np.stack(columns, axis=1)


def _rows(
    spec: TensorSpec, rows: Sequence[object], path: str, faults: Faults, where: Callable[[int, int], str] | None = None
) -> Array:
    width = spec.shape[1]
    values: list[object] = []
    for at, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            faults.stop(f"{path}[{at}]", "not_a_row", "Each row is a list of values: [[...], [...]].")
        if width == -1:
            width = len(row)
        if len(row) != width:
            faults.add(f"{path}[{at}]", "column_count", _miscounted(len(row), width))
        values.extend(row)
    faults.settle()
    spot = where or (lambda row, column: f"{path}[{row}][{column}]")
    return array_of(spec, values, lambda at: spot(at // width, at % width), faults).reshape(len(rows), max(width, 0))


# ---- table


def _table(signature: Signature, inputs: object, faults: Faults) -> Tensors:
    names = tuple(spec.name for spec in signature.inputs)
    if isinstance(inputs, Mapping):
        _only(inputs, names, faults)
        columns: dict[str, Sequence[object]] = {}
        for name in names:
            if name in inputs:
                columns[name] = [_single(value) for value in _sequence(inputs[name], f"inputs.{name}", faults)]
            else:
                faults.add(f"inputs.{name}", "missing_column", "This column is missing.")
        faults.settle()
        spots = {name: (partial(_place, f"inputs.{name}")) for name in names}
    else:
        rows = _sequence(inputs, "inputs", faults)
        records = bool(rows) and isinstance(rows[0], Mapping)
        table = [
            _record(row, names, f"inputs[{at}]", faults) if records else _row(row, len(names), f"inputs[{at}]", faults)
            for at, row in enumerate(rows)
        ]
        faults.settle()
        columns = {name: [row[place] for row in table] for place, name in enumerate(names)}
        spots = {name: partial(_cell, f".{name}" if records else f"[{place}]") for place, name in enumerate(names)}
    return {
        spec.name: array_of(spec, columns[spec.name], spots[spec.name], faults).reshape(-1, *(1 for _ in spec.shape[1:]))
        for spec in signature.inputs
    }


def _single(value: object) -> object:
    """A value given as a list of one (`[[1], [2]]`, as a column of shape [n, 1] is written) is that value."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


# ---- named tensors


def _named(signature: Signature, inputs: object, faults: Faults) -> Tensors:
    names = tuple(spec.name for spec in signature.inputs)
    if isinstance(inputs, Mapping):
        _only(inputs, names, faults)
        given = {}
        for name in names:
            if name in inputs:
                given[name] = (inputs[name], f"inputs.{name}")
            else:
                faults.add(f"inputs.{name}", "missing_input", "This input is missing.")
        faults.settle()
    else:
        rows = _sequence(inputs, "inputs", faults)
        if rows and isinstance(rows[0], Mapping):
            table = [_record(row, names, f"inputs[{at}]", faults) for at, row in enumerate(rows)]
            faults.settle()
            given = {name: ([row[place] for row in table], f"inputs.{name}") for place, name in enumerate(names)}
        elif len(names) == 1:
            given = {names[0]: (rows, "inputs")}
        else:
            faults.stop("inputs", "not_named", f"The model has several inputs: send an object with {', '.join(names)}.")
    tensors = {}
    for spec in signature.inputs:
        data, path = given[spec.name]
        shape = _shape_of(data)
        if len(shape) != len(spec.shape):
            faults.add(path, "shape_mismatch", f"Has {len(shape)} axes; the model takes {len(spec.shape)}, the batch first.")
            continue
        check_shape(spec, shape, path)
        values = _leaves(data, shape, path, faults)
        tensors[spec.name] = array_of(spec, values, partial(_value_of, path), faults).reshape(shape)
    return tensors


def _shape_of(data: object) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(data, list | tuple):
        shape.append(len(data))
        if not data:
            break
        data = data[0]
    return tuple(shape)


def _leaves(data: object, shape: tuple[int, ...], path: str, faults: Faults) -> list[object]:
    """Return the values of nested lists of exactly this shape, row-major. Level by level: deep nesting exhausts no stack."""
    level: list[object] = [data]
    for length in shape:
        below: list[object] = []
        for one in level:
            if not isinstance(one, list | tuple) or len(one) != length:
                faults.stop(path, "ragged", "The nested lists have different lengths.")
            below.extend(one)
        level = below
    return level


# ---- images


def _images(signature: Signature, inputs: object, faults: Faults) -> Tensors:
    spec = signature.inputs[0]
    path = "inputs"
    if isinstance(inputs, Mapping):
        _only(inputs, (spec.name,), faults)
        path = f"inputs.{spec.name}"
        if spec.name not in inputs:
            faults.stop(path, "missing_input", "This input is missing.")
        inputs = inputs[spec.name]
    pictures: list[bytes] = []
    for at, one in enumerate(_sequence(inputs, path, faults)):
        spot = f"{path}[{at}]"
        picture = one.get("b64") if isinstance(one, Mapping) else one
        if isinstance(picture, bytes):
            pictures.append(picture)
        elif isinstance(picture, str):
            pictures.append(_base64(picture, spot, faults))
        else:
            faults.add(spot, "not_a_picture", "A picture is a base64 text.")
    array = np.empty(len(pictures), dtype=object)
    array[:] = pictures
    return {spec.name: array}


def _base64(text: str, path: str, faults: Faults) -> bytes:
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        faults.add(path, "invalid_base64", "Not valid base64.")
        return b""


# ---- values


def _sequence(value: object, path: str, faults: Faults) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        faults.stop(path, "not_a_list", "A list is needed here.")
    return value


def _miscounted(count: int, width: int) -> str:
    return f"Has {count} value{'' if count == 1 else 's'}; the model takes {width}."


def _row(row: object, width: int, path: str, faults: Faults) -> Sequence[object]:
    if not isinstance(row, list | tuple):
        faults.stop(path, "not_a_row", "Each row is a list of values, or an object by column name.")
    if len(row) != width:
        faults.add(path, "column_count", _miscounted(len(row), width))
    return row


def _record(row: object, names: tuple[str, ...], path: str, faults: Faults) -> list[object]:
    if not isinstance(row, Mapping):
        faults.stop(path, "not_a_record", "The first row is an object, so each row must be one.")
    known = frozenset(names)
    for name in row:
        if name not in known:
            faults.add(f"{path}.{_shown(name)}", "unknown_column", "The model has no such column.")
    for name in names:
        if name not in row:
            faults.add(f"{path}.{name}", "missing_column", "This column is missing.")
    return [row.get(name) for name in names]


def _only(inputs: Mapping[Any, object], names: tuple[str, ...], faults: Faults) -> None:
    known = frozenset(names)
    for name in inputs:
        if name not in known:
            faults.add(f"inputs.{_shown(name)}", "unknown_column", "The model has no such input.")


def _place(path: str, at: int) -> str:
    return f"{path}[{at}]"


def _cell(column: str, row: int) -> str:
    return f"inputs[{row}]{column}"


def _value_of(path: str, at: int) -> str:
    return f"{path} (value {at})"


def _shown(name: object) -> str:
    """A name the caller sent, short enough to send back."""
    return str(name)[:63]
