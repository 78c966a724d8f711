"""Rows as TensorFlow Serving's REST API writes them: `instances`, `inputs`, `{"b64": ...}`; and answers in the same forms.

    instances    [1.0, 2.0]    [[1, 2], [3, 4]]    [{"a": 1, "b": 2}]    [{"image": {"b64": "..."}}]      one item a row
    inputs       {"a": [1, 3], "b": [2, 4]}        [[1, 2], [3, 4]]      {"image": [{"b64": "..."}]}      one list an input
    answers      one output: its values, a row each; several: an object a row (rows), or a list each by name (columns)

An object whose only field is `b64` and holds a text is a byte string where the model takes texts, byte strings or pictures,
and an object like any other elsewhere. Answers write byte strings that are no text so, and all that an output whose name ends
in `_bytes` holds.

Source: github.com/tensorflow/serving, tensorflow_serving/g3doc/api_rest.md; MLflow, KServe V1 and Vertex AI took it over.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype, Layout, Signature, TensorSpec
from modelkeep.serving.calls import Call, Share
from modelkeep.serving.codec import Tensors, decoded, tensors_from
from modelkeep.serving.matrix import Matrix, plain_rows
from modelkeep.serving.pool import Served

_B64 = "b64"
_BYTES_SUFFIX = "_bytes"


# ---- reading


def instances_of(signature: Signature, raw: bytes | memoryview) -> Tensors:
    """Read the JSON of `instances`; raises `InvalidInput` that names each field at fault as the caller wrote it."""
    return instances_from(signature, decoded(raw, "instances"))


def inputs_of(signature: Signature, raw: bytes | memoryview) -> Tensors:
    """Read the JSON of `inputs`; raises `InvalidInput`."""
    return inputs_from(signature, decoded(raw, "inputs"))


def payload_of(served: Served, raw: bytes | memoryview, field: str) -> Matrix | Tensors:
    """Read `instances` or `inputs`, as `field` says, for a version that is asked now: plain rows of floats the short way."""
    if served.matrix is not None:
        rows = plain_rows(served.matrix, raw)
        if rows is not None:
            return Matrix(served.version.signature, rows)
    signature = served.version.signature
    return instances_of(signature, raw) if field == "instances" else inputs_of(signature, raw)


def instances_from(signature: Signature, instances: object, field: str = "instances") -> Tensors:
    """Return arrays by input name from one item a row; raises `InvalidInput` with paths that begin with `field`."""
    if not isinstance(instances, list):
        raise InvalidInput.at(field, "not_a_list", "A list is needed here, one item a row.")
    return _tensors(signature, _rows(signature, instances, field), field)


def inputs_from(signature: Signature, inputs: object) -> Tensors:
    """Return arrays by input name from one list an input, or that list alone; raises `InvalidInput`."""
    if isinstance(inputs, Mapping) and not is_b64(inputs):
        return _tensors(signature, _columns(signature, inputs), "inputs")
    if not isinstance(inputs, list):
        raise InvalidInput.at("inputs", "not_a_list", "A list is needed here, or an object with a list for each input.")
    return _tensors(signature, _rows(signature, inputs, "inputs"), "inputs")


def is_b64(value: object) -> bool:
    """Whether a JSON value stands for a byte string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(_B64), str)


def _rows(signature: Signature, rows: list[Any], field: str) -> list[Any]:
    """Return rows in the forms that the codec knows."""
    specs = signature.inputs
    if len(specs) > 1:
        return [_several(signature, row, f"{field}[{at}]") for at, row in enumerate(rows)]
    spec = specs[0]
    single = [row[spec.name] if _is_named(spec, row) else row for row in rows]
    if signature.layout is Layout.IMAGE:
        return single  # the codec knows `b64` of pictures
    if signature.layout is Layout.TENSORS:
        return list(_texts(spec, single, len(spec.shape) - 1, field))
    wide = len(spec.shape) > 1 and spec.shape[1] != 1
    return [_row(spec, row, f"{field}[{at}]", wide=wide) for at, row in enumerate(single)]


def _is_named(spec: TensorSpec, row: object) -> bool:
    """Whether a row of a model with one input is an object with that input's name, and no record of its columns."""
    return isinstance(row, dict) and len(row) == 1 and spec.name in row and spec.name not in spec.columns and not is_b64(row)


def _row(spec: TensorSpec, row: Any, path: str, *, wide: bool) -> Any:  # noqa: ANN401 - any JSON value
    """One row of a matrix, or of a table of one column. A value alone is a row where one value is all that a row has."""
    if isinstance(row, dict) and not is_b64(row):
        return {name: _text(spec, _single(value), path) for name, value in row.items()}
    if isinstance(row, list):
        return _texts(spec, row, 0, path) if spec.dtype is Dtype.BYTES else row
    return row if wide else [_text(spec, row, path)]


def _several(signature: Signature, row: Any, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """One row of a model with several inputs: an object by their names, or a list in their order."""
    table = signature.layout is Layout.TABLE
    if isinstance(row, dict):
        specs = {spec.name: spec for spec in signature.inputs}
        return {name: _cell(specs[name], value, path, table=table) if name in specs else value for name, value in row.items()}
    if table and isinstance(row, list) and len(row) == len(signature.inputs):
        return [_cell(spec, value, path, table=True) for spec, value in zip(signature.inputs, row, strict=True)]
    return row


def _cell(spec: TensorSpec, value: object, path: str, *, table: bool) -> object:
    """What one input has in one row; a table's value may come as a list of one, as a column of shape [n, 1] is written."""
    if table:
        return _text(spec, _single(value), path)
    return _bytes_in(value, len(spec.shape) - 1, path) if spec.dtype is Dtype.BYTES else value


def _columns(signature: Signature, columns: Mapping[str, Any]) -> object:
    """Return inputs by name in the forms that the codec knows."""
    if signature.layout is Layout.IMAGE:
        return columns
    specs = {spec.name: spec for spec in signature.inputs}
    if signature.layout is not Layout.MATRIX:
        return {
            name: _texts(specs[name], values, len(specs[name].shape), f"inputs.{name}") if name in specs else values
            for name, values in columns.items()
        }
    (spec,) = signature.inputs
    given = columns.get(spec.name)
    if len(columns) == 1 and isinstance(given, list) and (spec.name not in spec.columns or _are_lists(given)):
        path = f"inputs.{spec.name}"
        rows = [_row(spec, row, f"{path}[{at}]", wide=spec.shape[1] != 1) for at, row in enumerate(given)]
        return rows if spec.name in spec.columns else {spec.name: rows}
    return {name: _texts(spec, values, 1, f"inputs.{str(name)[:63]}") for name, values in columns.items()}


def _are_lists(values: Sequence[object]) -> bool:
    return bool(values) and isinstance(values[0], list)


def _single(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _text(spec: TensorSpec, value: object, path: str) -> object:
    return _bytes_in(value, 0, path) if spec.dtype is Dtype.BYTES else value


def _texts(spec: TensorSpec, values: Any, depth: int, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return nested lists with the byte strings in them; `depth` is how many lists may lie within `values`."""
    if spec.dtype is not Dtype.BYTES or not isinstance(values, list):
        return values
    return [_bytes_in(value, depth, f"{path}[{at}]") for at, value in enumerate(values)]


def _bytes_in(value: Any, depth: int, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value with byte strings for what stands for them, `depth` lists deep and no deeper."""
    if isinstance(value, list):
        return [_bytes_in(one, depth - 1, path) for one in value] if depth > 0 else value
    if not is_b64(value):
        return value
    try:
        return base64.b64decode(value[_B64], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput.at(path, "invalid_base64", "Not valid base64.") from error


def _tensors(signature: Signature, inputs: object, field: str) -> Tensors:
    try:
        return tensors_from(signature, inputs)
    except InvalidInput as error:
        raise error.renamed("inputs", field) from error


# ---- writing


def in_rows(call: Call, share: Share, names: Sequence[str] = ()) -> list[Any] | msgspec.Raw:
    """Return a call's outputs (all, or those named) a row each: bare values of one output, an object of several.

    Raises `AnswerNotFinite` where the deployment refuses NaN and infinity.
    """
    return share.json(by_row(_by_name(call, share, names)))


def by_row(columns: Mapping[str, list[Any]]) -> list[Any]:
    """Return lists by name as a list of rows: bare values where there is one name, an object each where there are several."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def in_columns(call: Call, share: Share, names: Sequence[str] = ()) -> Any:  # noqa: ANN401 - a list, or lists by name
    """Return a call's outputs (all, or those named): the list of one output alone, or a list each by name."""
    values = {name: share.json(column) for name, column in _by_name(call, share, names).items()}
    return next(iter(values.values())) if len(values) == 1 else values


def _by_name(call: Call, share: Share, names: Sequence[str]) -> dict[str, list[Any]]:
    not_finite = call.route.settings.not_finite
    return {
        name: _said(share.tensor(name).tolist(), name.endswith(_BYTES_SUFFIX))
        if share.tensor(name).dtype == object
        else share.values(name, not_finite)
        for name in names or share.names
    }


def _said(value: Any, always: bool) -> Any:  # noqa: ANN401, FBT001 - nested lists of the output's own depth
    """Return texts as they are and byte strings as `b64` objects; with `always`, texts too."""
    if isinstance(value, list):
        return [_said(one, always) for one in value]
    if isinstance(value, bytes) and not always:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    elif value is None or not always:
        return value
    raw = value if isinstance(value, bytes) else str(value).encode()
    return {_B64: base64.b64encode(raw).decode()}


# ---- answers that were written so, read again


def outputs_in_rows(signature: Signature, rows: list[Any]) -> dict[str, list[Any]]:
    """Return what `in_rows` wrote of all outputs as lists by name; raises `KeyError` or `TypeError` for anything else."""
    names = [spec.name for spec in signature.outputs]
    if len(names) == 1:
        return {names[0]: _read(rows)}
    return {name: [_read(row[name]) for row in rows] for name in names}


def outputs_in_columns(signature: Signature, columns: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - as it was written
    """Return what `in_columns` wrote of all outputs as lists by name; raises `KeyError` or `TypeError` for anything else."""
    names = [spec.name for spec in signature.outputs]
    values = {names[0]: columns} if len(names) == 1 else {name: columns[name] for name in names}
    if not all(isinstance(one, list) for one in values.values()):
        raise TypeError(columns)
    return {name: _read(one) for name, one in values.items()}


def _read(value: Any) -> Any:  # noqa: ANN401 - nested lists of the output's own depth
    """Return `b64` objects as `codec.values_of` tells byte strings: texts, or base64 where they are none."""
    if isinstance(value, list):
        return [_read(one) for one in value]
    if not is_b64(value):
        return value
    try:
        return base64.b64decode(value[_B64]).decode()
    except UnicodeDecodeError:
        return value[_B64]
