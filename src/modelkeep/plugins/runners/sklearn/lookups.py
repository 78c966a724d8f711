"""Encoders as tables: each category, a missing value and an unknown one, with what the fitted encoder itself makes of it.

So nothing of an encoder is computed a second time: one-hot, ordinal or by targets, with rare categories put together or
columns dropped, the table holds what it answers. A value that it refuses has no place in the table, and to look that up fails.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.contracts.missing import marked
from modelkeep.contracts.onnx_nodes import TABLES, Nodes
from modelkeep.contracts.runner import CannotCompile
from modelkeep.contracts.signature import EXACT
from modelkeep.plugins.runners.sklearn.blocks import Block, Column, Matrix, single

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENCODERS = frozenset({"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"})
"""Those that treat each column by itself, by which of its `categories_` a value is."""

_DTYPES = {"float": "float64", "whole": "int64", "boolean": "bool"}
_MOST_ENTRIES = 1 << 20
"""How many numbers a table may have: 8 MB, read by rows."""


class _Table(msgspec.Struct, frozen=True):
    """The rows of a table [r, m], which row each known value has, and that of all others; at `r` there is no row."""

    rows: "NDArray[np.float64]"
    known: Mapping[Any, int]
    others: int


def encoded(nodes: Nodes, encoder: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    """Return what an encoder makes of these columns, one matrix a column; raises `CannotCompile`."""
    columns = single(nodes, block)
    asked = _Asked(encoder, columns)
    found = []
    for place, column in enumerate(columns):
        if column.kind in {"date", "wider"}:
            what = "dates" if column.kind == "date" else "whole numbers that may be beyond 2^63"
            raise CannotCompile(f"The column {column.label!r} has {what}, which {type(encoder).__name__} is not compiled for.")
        found.append(_looked_up(nodes, column, asked.table(place)))
    return found


class _Asked:
    """A fitted encoder, asked what it makes of single values."""

    def __init__(self, encoder: Any, columns: Sequence[Column]) -> None:  # noqa: ANN401 - any object
        self._encoder = encoder
        self._columns = columns
        self._widths = _widths(encoder, len(columns))
        self._usual = [_usual(one.tolist()) for one in encoder.categories_]

    def table(self, place: int) -> _Table:
        """Return the table of the column at `place`."""
        import numpy as np

        column = self._columns[place]
        keys = _keys(column, self._encoder.categories_[place].tolist())
        self._check_size(column, place, len(keys))
        answers = self._answers(place, [column.replaced.get(key, key) if column.kind == "text" else key for key in keys])
        rows = [] if answers is None else [answers]
        known = {key: at for at, key in enumerate(keys)}
        last = len(keys)
        seldom: list[tuple[Any, Any]] = [(_OTHER, _unheard_of(column, keys))]
        if column.kind in {"text", "float"} and None not in known:
            seldom.append((None, None if column.none else math.nan))
        refused = []
        for key, value in seldom:
            answer = self._answers(place, [value])
            if answer is None:
                refused.append(key)
            else:
                rows.append(answer)
                known[key] = last
                last += 1
        known |= dict.fromkeys(refused, last)
        others = known.pop(_OTHER)
        table = np.concatenate(rows) if rows else np.zeros((0, self._widths[place]))
        return _Table(table, known, others)

    def _check_size(self, column: Column, place: int, keys: int) -> None:
        if (keys + 2) * self._widths[place] > _MOST_ENTRIES:
            raise CannotCompile(f"The column {column.label!r} has {keys} categories, too many to be looked up.")

    def _answers(self, place: int, values: Sequence[object]) -> "NDArray[np.float64] | None":
        """What the encoder makes of these values in the column, or None where it refuses them; of none, nothing."""
        import numpy as np

        if not values:
            return None
        try:
            answer = self._encoder.transform(self._rows(place, values))
        except (ValueError, TypeError):
            return None
        dense = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer, dtype=np.float64)
        start = sum(self._widths[:place])
        return dense[:, start : start + self._widths[place]]

    def _rows(self, place: int, values: Sequence[object]) -> Any:  # noqa: ANN401 - a table of pandas, or an array
        """Rows with these values in one column, and a usual one in each other, as the encoder was fitted on."""
        import numpy as np
        import pandas as pd

        names = getattr(self._encoder, "feature_names_in_", range(len(self._columns)))
        columns: dict[Any, Any] = {}
        for at, (name, column) in enumerate(zip(names, self._columns, strict=True)):
            cells = np.empty(len(values), dtype=object)
            cells[:] = list(values) if at == place else [self._usual[at]] * len(values)
            if column.kind == "text":
                columns[name] = pd.Series(cells, dtype=object) if column.none else cells
            else:
                columns[name] = cells.astype(_DTYPES[column.kind])
        frame = pd.DataFrame(columns)
        if hasattr(self._encoder, "feature_names_in_"):
            return frame
        return frame.to_numpy(dtype=object) if any(one.kind == "text" for one in self._columns) else np.asarray(frame)


_OTHER = object()


def _keys(column: Column, categories: Sequence[object]) -> list[Any]:
    """The values of a column that are known: those of its kind among the categories, and those that are replaced."""
    if column.kind == "text":
        texts = [one for one in categories if isinstance(one, str) and one not in column.replaced]
        return [*texts, *column.replaced]
    numbers = [one for one in categories if isinstance(one, int | float) and one == one]  # noqa: PLR0124 - NaN is missing
    if column.kind == "float":
        if any(abs(one) > EXACT for one in numbers):
            raise CannotCompile(f"The column {column.label!r} has categories beyond 2^53, and floats lose their digits.")
        return [float(one) for one in numbers]
    return [int(one) for one in numbers if int(one) == one and -(1 << 63) <= one < 1 << 63]


def _usual(categories: Sequence[object]) -> object:
    """A category that is no gap, where there is one."""
    whole = [one for one in categories if one is not None and one == one]  # noqa: PLR0124 - NaN is missing
    return whole[0] if whole else categories[0]


def _unheard_of(column: Column, keys: Sequence[Any]) -> object:
    """A value of the column's kind that is not among the known ones."""
    if column.kind == "text":
        return "unheard of" + max((str(one) for one in keys), key=len, default="")
    return max(keys, default=0) // 1 + 1


def _widths(encoder: Any, count: int) -> list[int]:  # noqa: ANN401 - any object
    """How many columns the encoder makes of each."""
    if type(encoder).__name__ == "OneHotEncoder":
        return list(map(int, encoder._n_features_outs))  # noqa: SLF001 - no public name says it for one column
    if type(encoder).__name__ == "TargetEncoder" and encoder.target_type_ == "multiclass":
        return [len(encoder.classes_)] * count
    return [1] * count


def _looked_up(nodes: Nodes, column: Column, table: _Table) -> Matrix:
    import numpy as np
    from onnx import numpy_helper

    known, places = list(table.known), list(table.known.values())
    tensor = column.tensor
    if column.kind == "text":
        attributes: dict[str, Any] = {
            "keys_strings": [marked(one) for one in known],
            "values_int64s": places,
            "default_int64": table.others,
        }
    elif column.kind == "float":
        attributes = {
            "keys_tensor": numpy_helper.from_array(np.array([math.nan if one is None else one for one in known])),
            "values_tensor": numpy_helper.from_array(np.array(places, dtype=np.int64)),
            "default_tensor": numpy_helper.from_array(np.array([table.others], dtype=np.int64)),
        }
    else:
        tensor = nodes.cast(tensor, "INT64") if column.kind == "boolean" else tensor
        attributes = {"keys_int64s": known, "values_int64s": places, "default_int64": table.others}
    if not known:
        raise CannotCompile(f"No category of the column {column.label!r} is of its datatype.")
    place = nodes.add("LabelEncoder", tensor, domain=TABLES, **attributes)
    rows = nodes.add(
        "Gather", nodes.constant(table.rows), place, axis=0, name=f"a category of {column.label!r} that is not known {place}"
    )
    return Matrix(rows, (None,) * table.rows.shape[1], bool(np.isfinite(table.rows).all()))
