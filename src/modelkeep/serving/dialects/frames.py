"""Data frames of pandas as MLflow writes them into JSON: `dataframe_split` and `dataframe_records`.

    dataframe_split      {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}    an `index` beside it says nothing here
    dataframe_records    [{"a": 1, "b": 2}, {"a": 3, "b": 4}]

Columns may have any order. Where those of the model have no names, they are 0, 1, 2, ... as pandas numbers them.

Source: mlflow, `mlflow/utils/proto_json_utils.py`, `dataframe_from_parsed_json`.
"""

from collections import Counter
from typing import Any, Final

import msgspec

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Layout, Signature, TensorSpec
from modelkeep.serving.codec import Tensors, decoded
from modelkeep.serving.coercion import EnoughError, Faults
from modelkeep.serving.dialects.rows import inputs_from, instances_from
from modelkeep.serving.matrix import Matrix, plain_rows

RECORDS: Final = "dataframe_records"
SPLIT: Final = "dataframe_split"
_PARTS: Final = frozenset({"columns", "index", "data"})


def records_of(signature: Signature, raw: bytes | memoryview) -> Tensors:
    """Read the JSON of `dataframe_records`; raises `InvalidInput` that names each field at fault."""
    rows = decoded(raw, RECORDS)
    if not isinstance(rows, list):
        raise InvalidInput.at(RECORDS, "not_a_list", "A list is needed here, one object a row.")
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput.at(f"{RECORDS}[{at}]", "not_a_record", "Each row is an object by column name.")
    if _is_nameless(signature):
        rows = [[row[name] for name in _numbers(row)] if row.keys() == set(_numbers(row)) else row for row in rows]
    try:
        return instances_from(signature, rows)
    except InvalidInput as error:
        raise error.renamed("instances", RECORDS) from error


def split_of(signature: Signature, raw: bytes | memoryview, matrix: TensorSpec | None = None) -> Matrix | Tensors:
    """Read the JSON of `dataframe_split`; raises `InvalidInput`. With `matrix`, plain rows of floats go the short way."""
    parts = _parts(raw)
    names = _names(parts)
    if matrix is not None and names and names == list(matrix.columns):
        rows = plain_rows(matrix, parts["data"])
        if rows is not None:
            _check_index(parts, len(rows))
            return Matrix(signature, rows)
    data = decoded(parts["data"], f"{SPLIT}.data")
    if not isinstance(data, list):
        raise InvalidInput.at(f"{SPLIT}.data", "not_a_list", "A list of rows is needed here.")
    _check_index(parts, len(data))
    by_place = names is None or (_is_nameless(signature) and names == _numbers(names))
    if names is not None:
        _check_rows(data, len(names))
    try:
        if by_place:
            return inputs_from(signature, data)
        columns = zip(*data, strict=True) if data else ((),) * len(names or ())
        return inputs_from(signature, dict(zip(names or (), map(list, columns), strict=True)))
    except InvalidInput as error:
        raise error.renamed("inputs", f"{SPLIT}.data" if by_place else SPLIT) from error


def _parts(raw: bytes | memoryview) -> dict[str, msgspec.Raw]:
    try:
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise InvalidInput.at(
            SPLIT, "not_an_object", 'An object is needed here: {"columns": [...], "data": [[...], ...]}.'
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput.at(SPLIT, "invalid_json", "Not valid JSON.") from error
    for name in parts:
        if name not in _PARTS:
            raise InvalidInput.at(
                f"{SPLIT}.{name[:63]}", "unknown_field", "It has `columns`, `data` and perhaps `index`, nothing else."
            )
    if "data" not in parts:
        raise InvalidInput.at(f"{SPLIT}.data", "missing_field", "The rows are missing.")
    return parts


def _names(parts: dict[str, msgspec.Raw]) -> list[str] | None:
    """Return the columns' names; None where none are given."""
    path = f"{SPLIT}.columns"
    columns = decoded(parts["columns"], path) if "columns" in parts else None
    if columns is None:
        return None
    if not isinstance(columns, list) or not all(isinstance(name, str | int) for name in columns):
        raise InvalidInput.at(path, "not_names", "A list of names is needed here.")
    names = [str(name) for name in columns]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InvalidInput.at(f"{path}.{twice[0][:63]}", "duplicate_column", "This column is given more than once.")
    return names


def _check_index(parts: dict[str, msgspec.Raw], rows: int) -> None:
    path = f"{SPLIT}.index"
    index = decoded(parts["index"], path) if "index" in parts else None
    if index is not None and (not isinstance(index, list) or len(index) != rows):
        raise InvalidInput.at(
            path, "row_count", f"The index is a list with an entry for each of the {rows} rows, or is left out."
        )


def _check_rows(data: list[Any], width: int) -> None:
    faults = Faults()
    try:
        for at, row in enumerate(data):
            path = f"{SPLIT}.data[{at}]"
            if not isinstance(row, list):
                faults.stop(path, "not_a_row", "Each row is a list of values.")
            if len(row) != width:
                faults.add(path, "column_count", f"Has {len(row)} values; there are {width} columns.")
    except EnoughError:
        pass
    faults.settle()


def _is_nameless(signature: Signature) -> bool:
    return signature.layout is Layout.MATRIX and not signature.inputs[0].columns


def _numbers(names: Any) -> list[str]:  # noqa: ANN401 - anything with a length
    """Return the names that pandas gives to so many columns."""
    return [str(at) for at in range(len(names))]
