"""The core of CatBoost's binary files: a FlatBuffer, of which only what compares and sums is read here.

The core is that of a model which CatBoost has loaded and written again, so its tables are those of the installed version.
Places of fields are those of `model.fbs` and `features.fbs` among CatBoost's sources.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.plugins.runners.trees.catboost_file import CORE_BEGINS

if TYPE_CHECKING:
    import numpy as np
    from flatbuffers.table import Table
    from numpy.typing import NDArray

_MODEL_TREES = 1
_DIMENSION, _SPLITS, _SIZES = 0, 1, 2
_FLOATS, _LEAVES = 5, 8
_STEPS, _STEP_LEAVES = 10, 11
_FLAT_PLACE, _BORDERS, _MISSING = 2, 3, 5
_MISSING_IS_ABOVE = 2


class Core(msgspec.Struct, frozen=True):
    """What is compared, and what is summed.

    `splits` are places in the lists of borders, one list for all columns in turn: what each compares with is in `columns`,
    `borders`, and `missing_is_above`. `sizes` are the numbers of nodes of each tree in `splits`. Most trees compare
    the same on a whole level, one node each. Others have `steps`: how far behind a node its next are, below the border and
    above, 0 where it is the leaf itself; and `step_leaves`: where its numbers begin in `leaves`.
    """

    dimension: int
    columns: "NDArray[np.int64]"
    borders: "NDArray[np.float32]"
    missing_is_above: "NDArray[np.bool_]"
    splits: "NDArray[np.int32]"
    sizes: "NDArray[np.int32]"
    leaves: "NDArray[np.float64]"
    steps: "NDArray[np.uint16]"
    step_leaves: "NDArray[np.uint32]"


def read(data: bytes) -> Core:
    """Return the core of a file that CatBoost wrote."""
    import numpy as np
    from flatbuffers import number_types
    from flatbuffers.encode import Get
    from flatbuffers.packer import uoffset
    from flatbuffers.table import Table

    buffer = memoryview(data)[CORE_BEGINS:]
    root = Table(buffer, Get(uoffset, buffer, 0))
    trees = _inner(root, _MODEL_TREES)
    columns, borders, missing = [], [], []
    for column in _tables(trees, _FLOATS):
        of = _numbers(column, _BORDERS, number_types.Float32Flags)
        borders.append(of)
        columns.append(np.full(len(of), _number(column, _FLAT_PLACE, number_types.Int32Flags, -1), dtype=np.int64))
        above = _number(column, _MISSING, number_types.Int8Flags, 0) == _MISSING_IS_ABOVE
        missing.append(np.full(len(of), above))
    return Core(
        dimension=_number(trees, _DIMENSION, number_types.Int32Flags, 0),
        columns=np.concatenate(columns),
        borders=np.concatenate(borders),
        missing_is_above=np.concatenate(missing),
        splits=_numbers(trees, _SPLITS, number_types.Int32Flags),
        sizes=_numbers(trees, _SIZES, number_types.Int32Flags),
        leaves=_numbers(trees, _LEAVES, number_types.Float64Flags),
        steps=_numbers(trees, _STEPS, number_types.Uint32Flags).view(np.uint16).reshape(-1, 2),
        step_leaves=_numbers(trees, _STEP_LEAVES, number_types.Uint32Flags),
    )


def _offset(table: "Table", field: int) -> int:
    """Where a field is, seen from its table; 0 where the table does not have it."""
    return int(table.Offset(4 + 2 * field))


def _inner(table: "Table", field: int) -> "Table":
    from flatbuffers.table import Table

    return Table(table.Bytes, table.Indirect(table.Pos + _offset(table, field)))


def _number(table: "Table", field: int, kind: type, otherwise: int) -> int:
    at = _offset(table, field)
    return int(table.Get(kind, table.Pos + at)) if at else otherwise


def _numbers(table: "Table", field: int, kind: type) -> "NDArray[Any]":
    import numpy as np
    from flatbuffers.number_types import to_numpy_type

    at = _offset(table, field)
    return table.GetVectorAsNumpy(kind, at) if at else np.zeros(0, dtype=to_numpy_type(kind))


def _tables(table: "Table", field: int) -> "Iterator[Table]":
    from flatbuffers.table import Table

    at = _offset(table, field)
    for place in range(table.VectorLen(at) if at else 0):
        yield Table(table.Bytes, table.Indirect(table.Vector(at) + 4 * place))
