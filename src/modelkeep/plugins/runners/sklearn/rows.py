"""How rows reach an estimator, which follows from how it was fitted: a matrix of numbers, a table of columns, or texts."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.contracts.columns import ColumnsDiffer, listed, places
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Column
from modelkeep.contracts.signature import BOOLEAN, DATETIME, WIDE, Dtype, Layout, Signature, TensorSpec
from modelkeep.plugins.runners.sklearn import dates
from modelkeep.plugins.runners.sklearn.anatomy import first_step, parts_of
from modelkeep.plugins.runners.sklearn.answers import answers
from modelkeep.plugins.runners.sklearn.features import Feature, features_of, sees_values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]

_MATRIX = "input"
_TEXT = "text"
_FIRST_STEPS = frozenset(
    {
        "ColumnTransformer",
        "FeatureUnion",
        "FunctionTransformer",
        "OneHotEncoder",
        "OrdinalEncoder",
        "SimpleImputer",
        "TargetEncoder",
    }
)
_BY_COLUMN = frozenset({"ColumnTransformer", "FeatureUnion", "FunctionTransformer"})


def inputs_of(estimator: Any, sample: Sequence[Column]) -> tuple[TensorSpec, ...]:  # noqa: ANN401 - any object
    """Return the inputs that an estimator takes, from what it says and the sample's columns; raises `CannotLoad`."""
    if _takes_texts(estimator):
        if len(sample) > 1:
            raise CannotLoad(
                Reason.SAMPLE_MISMATCH, f"The model takes one column of texts; the sample has {len(sample)} columns."
            )
        return (TensorSpec(sample[0].name or _TEXT if sample else _TEXT, Dtype.BYTES, (-1,)),)
    names = _names(estimator)
    count = getattr(estimator, "n_features_in_", None) or len(names) or None
    if not sample:
        return _inputs_unseen(estimator, names, count)
    columns = _matching(sample, names, count)
    features = features_of(estimator, names, len(columns), [one.dtype is Dtype.BYTES for one in columns])
    exact = sees_values(estimator)
    table = tuple(_column(one, at, features.get(at, Feature()), exact=exact) for at, one in enumerate(columns))
    if any(one.dtype is not Dtype.FP64 or one.kind for one in table):
        return table
    return (_matrix(len(columns), names, nullable=any(one.nullable for one in columns)),)


def _names(estimator: Any) -> tuple[str, ...]:  # noqa: ANN401 - any object
    """Return the names of the columns, where it was fitted with names. CatBoost has its own list, which outlives a pickle."""
    names = getattr(estimator, "feature_names_in_", None)
    return tuple(str(name) for name in (getattr(estimator, "feature_names_", None) or () if names is None else names))


def _inputs_unseen(estimator: Any, names: tuple[str, ...], count: int | None) -> tuple[TensorSpec, ...]:  # noqa: ANN401 - any object
    """The inputs without a sample: numbers, unless the first step may want something else and refuses numbers."""
    if count is None:
        raise CannotLoad(Reason.SAMPLE_NEEDED, f"{type(estimator).__name__} does not say how many columns it takes.")
    spec = _matrix(count, names, nullable=False)
    others = [at for at, one in features_of(estimator, names, count).items() if one.is_more_than_numbers]
    if others:
        which = listed([names[at] if names else f"at place {at}" for at in sorted(others)])
        raise CannotLoad(
            Reason.SAMPLE_NEEDED, f"The model takes more than plain numbers; columns with categories or dates: {which}."
        )
    if type(first_step(estimator)).__name__ in _FIRST_STEPS:
        import numpy as np

        try:
            answers(estimator)[2](estimator, feeder(estimator, Signature((spec,)))({_MATRIX: np.zeros((1, count))}))
        except (ValueError, TypeError, KeyError) as error:
            words = " ".join(str(error).split())[:200]
            raise CannotLoad(Reason.SAMPLE_NEEDED, f"The model does not take {count} plain numbers: {words}") from error
    return (spec,)


def _matrix(count: int, names: tuple[str, ...], *, nullable: bool) -> TensorSpec:
    return TensorSpec(_MATRIX, Dtype.FP64, (-1, count), nullable=nullable, columns=names)


def _column(column: Column, place: int, feature: Feature, *, exact: bool) -> TensorSpec:
    """One column of a table, from what the sample and the artifact tell of it; raises `CannotLoad`.

    Whole numbers are taken as floats: the next row may have a fraction. But not where floats would lose digits, or where code
    of the model's own may tell 1 from 1.0 (`exact`).
    """
    dtype, kind = _type(column, feature)
    whole = {Dtype.INT64, Dtype.UINT64}
    wide = column.kind == WIDE or feature.wide
    if dtype in whole and wide and column.nullable:
        raise CannotLoad(
            Reason.SAMPLE_MISMATCH,
            f"The column {column.name or place!r} has whole numbers beyond 2^53, and gaps: no datatype holds both. "
            "Fill the gaps, or train on texts.",
        )
    keeps = dtype is Dtype.BYTES or (
        not column.nullable and (dtype is Dtype.BOOL or (dtype in whole and (wide or (exact and feature.levels is None))))
    )
    return TensorSpec(
        column.name or f"column_{place}",
        dtype if keeps else Dtype.FP64,
        (-1,),
        nullable=column.nullable,
        kind=kind,
        categories=feature.categories,
    )


def _type(column: Column, feature: Feature) -> tuple[Dtype, str]:
    """The datatype and kind of a column: the artifact's word counts before the sample's."""
    if feature.is_text:
        return Dtype.BYTES, ""
    if feature.is_date:
        return Dtype.BYTES, DATETIME
    if column.dtype is Dtype.BOOL and column.nullable:
        return column.dtype, BOOLEAN
    return column.dtype, DATETIME if column.kind == DATETIME else ""


def _matching(sample: Sequence[Column], names: tuple[str, ...], count: int | None) -> list[Column]:
    """The sample's columns in the model's order, with its names; raises `CannotLoad` where they are not the model's."""
    wanted = names or ("",) * (len(sample) if count is None else count)
    try:
        order = places([one.name for one in sample], wanted)
    except ColumnsDiffer as error:
        raise CannotLoad(Reason.SAMPLE_MISMATCH, str(error)) from error
    matched = [sample[at] for at in order]
    return [msgspec.structs.replace(one, name=name) for name, one in zip(names, matched, strict=True)] if names else matched


def _takes_texts(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether the first step is a text vectoriser, which wants a list of documents and no table."""
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

    return isinstance(first_step(estimator), CountVectorizer | HashingVectorizer)


def feeder(estimator: Any, signature: Signature) -> "Callable[[Inputs], Any]":  # noqa: ANN401 - any object
    """Return what turns input arrays into the rows that the estimator was fitted on."""
    if signature.layout is Layout.MATRIX:
        name, names = signature.inputs[0].name, getattr(estimator, "feature_names_in_", None)
        if names is None or not _needs_names(estimator):
            return lambda inputs: inputs[name]
        told = features_of(estimator, _names(estimator), len(names), [False] * len(names))
        readers = [(at, one, _reader(signature.inputs[0], told.get(at, Feature()), one)) for at, one in enumerate(names)]
        return lambda inputs: _frame({column: read(inputs[name][:, at]) for at, column, read in readers})
    if _takes_texts(estimator):
        only = signature.inputs[0].name
        return lambda inputs: [_text(one) for one in inputs[only].tolist()]
    texts = [one.dtype is Dtype.BYTES for one in signature.inputs]
    features = features_of(estimator, _names(estimator), len(texts), texts)
    columns = {one.name: _reader(one, features.get(at, Feature()), one.name) for at, one in enumerate(signature.inputs)}
    if getattr(estimator, "feature_names_in_", None) is not None:
        return lambda inputs: _frame({name: read(inputs[name]) for name, read in columns.items()})
    if any(one.dtype is Dtype.BYTES for one in signature.inputs) or any(one.is_named for one in features.values()):
        return lambda inputs: _frame({name: read(inputs[name]) for name, read in columns.items()}).to_numpy(dtype=object)
    return lambda inputs: _stacked([_flat(inputs[name]) for name in columns])


def _needs_names(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether column names decide anything. Where they do not, an array saves the table's making on every run."""
    if not type(estimator).__module__.startswith("sklearn."):
        return True
    return any(
        type(step).__name__ in _BY_COLUMN or not type(step).__module__.startswith("sklearn.") for step in parts_of(estimator)
    )


def _frame(columns: Mapping[str, Any]) -> Any:  # noqa: ANN401 - pandas carries no types here
    import pandas as pd

    return pd.DataFrame(dict(columns), copy=False)


def _stacked(columns: "list[NDArray[np.generic]]") -> "NDArray[np.generic]":
    import numpy as np

    return np.column_stack(columns)


def _reader(spec: TensorSpec, feature: Feature, name: str) -> "Callable[[NDArray[np.generic]], Any]":
    """Return what turns one input into a column as the estimator was fitted on."""
    if feature.levels is not None:
        return feature.levels.reader(name)
    if spec.kind == DATETIME:
        return lambda array: dates.column(_flat(array))
    if spec.kind == BOOLEAN and feature.is_boolean:
        return partial(_booleans, None if feature.none else math.nan)
    if spec.dtype is Dtype.BYTES:
        return _texts_with_none if feature.none else _texts_with_nan
    return _flat


def _flat(array: "NDArray[np.generic]") -> "NDArray[np.generic]":
    return array.reshape(len(array)) if array.ndim > 1 else array


def _texts_with_nan(array: "NDArray[np.generic]") -> "NDArray[np.generic]":
    import numpy as np

    texts = np.empty(len(array), dtype=object)
    texts[:] = [np.nan if one is None else _text(one) for one in _flat(array).tolist()]
    return texts


def _texts_with_none(array: "NDArray[np.generic]") -> Any:  # noqa: ANN401 - pandas carries no types here
    import pandas as pd

    return pd.Series([_text(one) for one in _flat(array).tolist()], dtype=object)


def _booleans(gap: float | None, array: "NDArray[np.generic]") -> Any:  # noqa: ANN401 - pandas carries no types here
    """True, false and gaps as encoders were fitted on: objects, where no gap was among plain booleans."""
    import pandas as pd

    return pd.Series([gap if one != one else bool(one) for one in _flat(array).tolist()], dtype=object)  # noqa: PLR0124 - NaN


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value
