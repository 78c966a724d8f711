"""The rows that MLflow saves beside a model as its input example, as a sample in JSON: rows, records, or columns by name.

`input_example.json` has a table as `{"columns", "data"}`, an array as nested lists, anything else as it is. What MLflow would
be sent, `serving_input_example.json`, wraps the same in `inputs` or `dataframe_split`, with `params` beside it where the model
takes some. It is read where the first cannot be.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from modelkeep.plugins.runners.mlflow.description import Description

LARGEST: Final = 1 << 20
_WRAPPED: Final = {"inputs", "instances", "dataframe_split", "dataframe_records"}
_PARAMETERS: Final = "params"
_SPLIT: Final = {"columns", "data", "index"}


class UnusableError(ValueError):
    """The example cannot be used; the sentence says why."""


def sample(told: Description, files: "Mapping[str, memoryview | bytes]") -> tuple[bytes, str]:
    """Return the example as JSON, and why it is not used; either is empty, and both where there is none."""
    wanted = [path for path in told.examples if path in files]
    why = ""
    for path in wanted:
        try:
            return msgspec.json.encode(_rows(_read(bytes(files[path])))), ""
        except (ValueError, RecursionError, TypeError) as error:
            why = why or f"The example in {path[:100]} is not used: {str(error)[:200] or type(error).__name__}."
    return b"", why


def _read(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    if len(data) > LARGEST:
        raise UnusableError(f"it has {len(data)} bytes, and at most {LARGEST} are read")
    return json.loads(data)  # MLflow writes NaN, which is no JSON but is read by this


def _rows(example: Any) -> Any:  # noqa: ANN401 - as above
    wrapped = example.keys() - {_PARAMETERS} if isinstance(example, dict) else set()
    if len(wrapped) == 1 and wrapped <= _WRAPPED:
        return _rows(example[wrapped.pop()])
    if isinstance(example, dict) and "data" in example and example.keys() <= _SPLIT:
        return _table(example.get("columns"), example["data"])
    if isinstance(example, dict) and example and not any(isinstance(one, list | dict) for one in example.values()):
        return [example]
    if not isinstance(example, list | dict) or not example:
        raise UnusableError("it holds no rows")
    return example


def _table(columns: Any, data: Any) -> Any:  # noqa: ANN401 - as above
    """Records of a table in two lists; rows where its columns have no names."""
    if not isinstance(data, list) or not data or not all(isinstance(row, list) for row in data):
        raise UnusableError("its data is no list of rows")
    if columns is None:
        return data
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise UnusableError("its columns are no names")
    if len(set(columns)) != len(columns):
        raise UnusableError("two of its columns have one name")
    if any(len(row) != len(columns) for row in data):
        raise UnusableError("its rows are not as long as its columns are many")
    return [dict(zip(columns, row, strict=True)) for row in data]
