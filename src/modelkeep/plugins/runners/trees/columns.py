"""Columns as boosted trees take them: numbers, and categories that the model knows by their place in a list.

What a model says of its columns gives the inputs of its signature; what arrives becomes one matrix of numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from modelkeep.contracts.columns import ColumnsDiffer, places
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Column
from modelkeep.contracts.signature import Dtype, Layout, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]

MATRIX = "input"

Category = str | int | float | bool


class Feature(msgspec.Struct, frozen=True):
    """One column of a model: its name ("" for none), and its categories in the order of their codes (None for numbers)."""

    name: str = ""
    categories: tuple[Category, ...] | None = None

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.categories is not None and any(isinstance(one, str) for one in self.categories)


def inputs_of(features: Sequence[Feature], sample: Sequence[Column], dtype: Dtype) -> tuple[TensorSpec, ...]:
    """Return the inputs for these columns: one matrix of `dtype`, or a table where some hold texts; raises `CannotLoad`."""
    names = tuple(one.name for one in features)
    columns = matching(sample, names) if sample else [Column(name, dtype) for name in names]
    if not any(one.is_text for one in features):
        return (TensorSpec(MATRIX, dtype, (-1, len(features)), nullable=True, columns=names if all(names) else ()),)
    specs = []
    for at, (feature, column) in enumerate(zip(features, columns, strict=True)):
        kind = Dtype.BYTES if feature.is_text else Dtype.BOOL if _is_yes_or_no(column) else dtype
        specs.append(TensorSpec(name_of(feature, at), kind, (-1,), nullable=kind is not Dtype.BOOL))
    return tuple(specs)


def name_of(feature: Feature, place: int) -> str:
    """Return what the column is called in a table."""
    return feature.name or f"column_{place}"


def matching(sample: Sequence[Column], names: Sequence[str]) -> list[Column]:
    """Return the sample's columns in the model's order; raises `CannotLoad` where they are not the model's."""
    try:
        return [sample[at] for at in places([one.name for one in sample], names)]
    except ColumnsDiffer as error:
        raise CannotLoad(Reason.SAMPLE_MISMATCH, str(error)) from error


def feeder(
    features: Sequence[Feature], signature: Signature, dtype: Dtype, *, unknown_is_missing: bool
) -> "Callable[[Inputs], NDArray[np.generic]]":
    """Return what turns input arrays into one matrix [n, columns] of `dtype`, categories as their codes.

    A category that the model does not know is missing, or raises `ValueError`: what its framework does with one.
    """
    if signature.layout is Layout.MATRIX:
        only = signature.inputs[0].name
        coded = [(at, _codes(one, unknown_is_missing)) for at, one in enumerate(features) if one.categories is not None]
        return lambda inputs: _matrix(inputs[only], coded)
    codes = [None if one.categories is None else _codes(one, unknown_is_missing) for one in features]
    names = [one.name for one in signature.inputs]

    def feed(inputs: "Inputs") -> "NDArray[np.generic]":
        import numpy as np

        rows = len(inputs[names[0]])
        matrix = np.empty((rows, len(names)), dtype=dtype.numpy)
        for at, name in enumerate(names):
            column, code = inputs[name].reshape(rows), codes[at]
            matrix[:, at] = column if code is None else [code(one) for one in column.tolist()]
        return matrix

    return feed


def _matrix(rows: "NDArray[np.generic]", coded: "Sequence[tuple[int, Callable[[object], float]]]") -> "NDArray[np.generic]":
    if coded:
        rows = rows.copy()
        for at, code in coded:
            rows[:, at] = [code(one) for one in rows[:, at].tolist()]
    return rows


def _codes(feature: Feature, unknown_is_missing: bool) -> "Callable[[object], float]":  # noqa: FBT001 - named by its callers
    known: dict[object, float] = {value: float(place) for place, value in enumerate(feature.categories or ())}
    nothing = float("nan")

    def code(value: object) -> float:
        value = value.decode() if isinstance(value, bytes) else value
        if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
            return nothing
        found = known.get(value, nothing if unknown_is_missing else None)
        if found is None:
            of = f" of {feature.name!r}" if feature.name else ""
            raise ValueError(f"the category {value!r}{of} is not one of those that the model was trained with")
        return found

    return code


def _is_yes_or_no(column: Column) -> bool:
    return column.dtype is Dtype.BOOL and not column.nullable
