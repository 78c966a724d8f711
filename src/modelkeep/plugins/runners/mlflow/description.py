"""Reads `MLmodel`, the file in which MLflow says what a folder holds: its flavours, the columns it takes, and an example."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Column
from modelkeep.contracts.signature import DATETIME, Dtype

NAME: Final = "MLmodel"
_EXAMPLE: Final = "saved_input_example_info"
LARGEST: Final = 1 << 20
DEEPEST: Final = 32
MOST_EVENTS: Final = 50_000
MOST_COLUMNS: Final = 10_000

_COLUMN_TYPES: Final = {
    "boolean": Dtype.BOOL,
    "integer": Dtype.INT32,
    "long": Dtype.INT64,
    "float": Dtype.FP32,
    "double": Dtype.FP64,
    "string": Dtype.BYTES,
    "datetime": Dtype.BYTES,
}
_TENSOR_TYPES: Final = {
    "bool": Dtype.BOOL,
    "uint8": Dtype.UINT8,
    "int8": Dtype.INT8,
    "int16": Dtype.INT16,
    "int32": Dtype.INT32,
    "int64": Dtype.INT64,
    "float16": Dtype.FP16,
    "float32": Dtype.FP32,
    "float64": Dtype.FP64,
}


class Description(msgspec.Struct, frozen=True):
    """What `MLmodel` says. `columns` is empty where none can be served, and `why` says what stands against it.

    `examples` are the files in which an input example may be, the best one first. `code` is the folder of the Python that was
    logged with the model ("" for none).
    """

    flavours: dict[str, dict[str, Any]]
    version: str = ""
    columns: tuple[Column, ...] = ()
    why: str = ""
    examples: tuple[str, ...] = ()
    code: str = ""


def read(data: bytes) -> Description:
    """Return what the file says; raises `CannotLoad`."""
    try:
        tree = _tree(data)
        flavours = tree.get("flavors")
        if not isinstance(flavours, dict) or not all(isinstance(one, dict) for one in flavours.values()):
            raise _unreadable("it names no flavours")
        columns, why = _columns(tree.get("signature"))
    except (RecursionError, ValueError) as error:
        raise _unreadable(" ".join(str(error).split())[:200]) from error
    named = {str(name): options for name, options in flavours.items()}
    code = named.get("python_function", {}).get("code")
    told = code if isinstance(code, str) else ""
    return Description(named, str(tree.get("mlflow_version", ""))[:40], columns, why, _examples(tree), told)


def _examples(tree: dict[str, Any]) -> tuple[str, ...]:
    told = tree.get(_EXAMPLE)
    if not isinstance(told, dict):
        return ()
    paths = (told.get("artifact_path"), told.get("serving_input_path"))
    return tuple(one for one in paths if isinstance(one, str))


def _unreadable(why: str) -> CannotLoad:
    return CannotLoad(Reason.LOAD_FAILED, f"The file {NAME} cannot be read: {why}.")


def _tree(data: bytes) -> dict[str, Any]:
    """The YAML as plain values. Aliases, by which little text becomes much, are refused; so is endless nesting."""
    import yaml

    if len(data) > LARGEST:
        raise _unreadable(f"it has {len(data)} bytes, and at most {LARGEST} are read")
    depth = 0
    try:
        text = data.decode()
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST or count > MOST_EVENTS:
                raise _unreadable("it has aliases, or is too large or nested too deeply")
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _unreadable(" ".join(str(error).split())[:200]) from error
    if not isinstance(tree, dict):
        raise _unreadable("it holds no names and values")
    return tree


def _columns(signature: Any) -> tuple[tuple[Column, ...], str]:  # noqa: ANN401 - whatever the YAML has
    """The columns of the inputs, or why there are none."""
    given = signature.get("inputs") if isinstance(signature, dict) else None
    if not isinstance(given, str):
        return (), ""
    inputs = msgspec.json.decode(given)  # MLflow keeps JSON in the YAML; what is wrong with it is a ValueError
    if not isinstance(inputs, list) or len(inputs) > MOST_COLUMNS or not all(isinstance(one, dict) for one in inputs):
        raise _unreadable("its signature is no list of columns")
    if len(inputs) == 1 and inputs[0].get("type") == "tensor":
        return _matrix(inputs[0].get("tensor-spec"))
    found = []
    for one in inputs:
        name, dtype = str(one.get("name", ""))[:1000], _COLUMN_TYPES.get(str(one.get("type")))
        if dtype is None:
            return (), f"its column {name[:100]!r} is of the type {str(one.get('type'))[:40]!r}, which is not served"
        nullable = one.get("required") is False or one.get("optional") is True
        found.append(Column(name, dtype, nullable, kind=DATETIME if one["type"] == DATETIME else ""))
    return tuple(found), ""


def _matrix(spec: Any) -> tuple[tuple[Column, ...], str]:  # noqa: ANN401 - whatever the JSON has
    """A tensor of rows as nameless columns."""
    if isinstance(spec, Mapping) and isinstance(shape := spec.get("shape"), list):
        dtype = _TENSOR_TYPES.get(str(spec.get("dtype")))
        if dtype and len(shape) == 2 and isinstance(shape[1], int) and 0 < shape[1] <= MOST_COLUMNS:  # noqa: PLR2004 - rows, columns
            return (Column("", dtype),) * shape[1], ""
    return (), "its tensor is no matrix of numbers"
