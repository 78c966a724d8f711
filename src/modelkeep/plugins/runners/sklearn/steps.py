"""The steps of a pipeline over a table, one by one, as nodes of a graph.

What chooses columns, encodes, fills and scales is written here, to compute in FP64 what scikit-learn does; a step that takes
only numbers is left to the converter of the package skl2onnx.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from modelkeep.contracts.onnx_nodes import Nodes
from modelkeep.contracts.runner import CannotCompile
from modelkeep.plugins.runners.sklearn.anatomy import chosen_places, refuses
from modelkeep.plugins.runners.sklearn.blocks import Block, Column, Matrix, Origin, chosen, matrix, single
from modelkeep.plugins.runners.sklearn.lookups import ENCODERS, encoded

OPSETS = {"": 18, "ai.onnx.ml": 3}

_BY_COLUMN = frozenset({"ColumnTransformer", "FeatureUnion"})
_ALIKE = frozenset({"FunctionTransformer", "MaxAbsScaler", "MinMaxScaler", "RobustScaler", "SimpleImputer", "StandardScaler"})


class NotConvertedError(Exception):
    """A converter does not know an estimator, or fails over it; the sentence names it."""

    def __init__(self, estimators: Sequence[object], error: Exception) -> None:
        names = ", ".join(dict.fromkeys(type(one).__name__ for one in estimators))
        words = " ".join(str(error).split())[:300]
        super().__init__(f"{names} cannot be converted to ONNX: {type(error).__name__}: {words}")


def file_of(model: Any) -> bytes:  # noqa: ANN401 - an ONNX model
    """Return the model's file; raises whatever ONNX Runtime does where it cannot load it."""
    import onnxruntime

    data: bytes = model.SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    return data


def sees_columns(step: Any) -> bool:  # noqa: ANN401 - any object
    """Whether a step treats columns apart, so that it needs a table or makes a matrix of one."""
    return type(step).__name__ in _BY_COLUMN | ENCODERS


def written_here(step: Any) -> bool:  # noqa: ANN401 - any object
    """Whether a step is written node by node here."""
    return sees_columns(step) or type(step).__name__ in _ALIKE


def passed(nodes: Nodes, step: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    """Return what a fitted transformer makes of a block; raises `CannotCompile` naming the step or the column."""
    if isinstance(step, str):
        return block
    inner = getattr(step, "best_estimator_", step)
    steps = getattr(inner, "steps", None)
    if isinstance(steps, list):
        for _name, one in steps:
            block = block if one is None else passed(nodes, one, block)
        return block
    if not type(inner).__module__.startswith("sklearn."):
        raise CannotCompile(f"{type(inner).__name__} is not of scikit-learn, and nothing here converts it.")
    name = type(inner).__name__
    if name in ENCODERS:
        return encoded(nodes, inner, block)
    return _WRITTEN.get(name, _converted)(nodes, inner, block)


def guarded(nodes: Nodes, step: Any, rows: Matrix) -> Matrix:  # noqa: ANN401 - any object
    """Return the rows, with those refused that the step refuses: with NaN, with infinity, or beyond FP32."""
    import numpy as np

    if rows.finite:
        return rows
    not_a_number = refuses(step, np.full((1, rows.width), np.nan))
    infinite, beyond = (refuses(step, np.full((1, rows.width), one)) for one in (np.inf, 1e39))
    if not (not_a_number or infinite or beyond):
        return rows
    seen = nodes.cast(rows.tensor, "FLOAT") if beyond else rows.tensor
    if not_a_number and infinite:
        wrong = nodes.add("IsNaN", nodes.add("Sub", seen, seen))
    else:
        wrong = nodes.add("IsNaN" if not_a_number else "IsInf", seen)
    any_wrong = nodes.add("ReduceMax", nodes.cast(wrong, "INT64"), keepdims=0)
    # No row is at 1, and to add -0.0 changes no number.
    nothing = nodes.add("Gather", nodes.constant(np.array([-0.0])), any_wrong, name=f"a number that is refused {any_wrong}")
    return msgspec.structs.replace(rows, tensor=nodes.add("Add", rows.tensor, nothing))


def _by_column(nodes: Nodes, step: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    width = sum(one.width for one in block)
    names = list(getattr(step, "feature_names_in_", ()))
    weights = step.transformer_weights or {}
    found: list[Column | Matrix] = []
    for name, part, wanted in step.transformers_:
        places = chosen_places(wanted, names, width)
        if places and not (isinstance(part, str) and part == "drop"):
            made = passed(nodes, part, chosen(nodes, block, places))
            found += _weighed(nodes, made, weights.get(name), part)
    return found


def _union(nodes: Nodes, step: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    weights = step.transformer_weights or {}
    found: list[Column | Matrix] = []
    for name, part in step.transformer_list:
        if not (isinstance(part, str) and part == "drop"):
            found += _weighed(nodes, passed(nodes, part, block), weights.get(name), part)
    return found


def _weighed(nodes: Nodes, block: Block, weight: float | None, part: object) -> Block:
    if weight is None:
        return block
    import numpy as np

    rows = matrix(nodes, block, part)
    return [Matrix(nodes.add("Mul", rows.tensor, nodes.constant(np.array(float(weight)))), (None,) * rows.width)]


def _unchanged(nodes: Nodes, step: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    del nodes
    if step.func is not None:
        raise CannotCompile("A FunctionTransformer runs code of its own, which cannot be converted.")
    return block


def _imputed(nodes: Nodes, step: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    import numpy as np

    texts = any(isinstance(one, Column) and one.kind in {"text", "date"} for one in block)
    if texts and step.add_indicator:
        raise CannotCompile("A SimpleImputer marks which texts are missing, which is not compiled.")
    kept = [True] * len(step.statistics_)
    if not step.keep_empty_features:
        kept = [one is not None and one == one for one in step.statistics_.tolist()]  # noqa: PLR0124 - NaN: there was none
    if texts:
        return [
            _filled_column(nodes, column, step, value)
            for column, value, stays in zip(single(nodes, block), step.statistics_.tolist(), kept, strict=True)
            if stays
        ]
    rows = matrix(nodes, block, step)
    if all(isinstance(one, Column) and one.kind in {"whole", "boolean"} for one in block) and all(kept):
        return block  # they cannot be missing, and may be wider than floats
    missing = _is_missing(nodes, step, rows.tensor)
    statistics = nodes.constant(np.array([step.statistics_], dtype=np.float64))
    whole = Matrix(nodes.add("Where", missing, statistics, rows.tensor), rows.origins, rows.finite)
    found = list(chosen(nodes, [whole], [at for at, stays in enumerate(kept) if stays]))
    if step.add_indicator:
        marks = nodes.add("Gather", missing, nodes.constant(np.array(step.indicator_.features_, dtype=np.int64)), axis=1)
        found.append(Matrix(nodes.cast(marks, "DOUBLE"), (None,) * len(step.indicator_.features_), finite=True))
    return found


def _is_missing(nodes: Nodes, step: Any, tensor: str) -> str:  # noqa: ANN401 - any object
    import numpy as np

    wanted = step.missing_values
    if isinstance(wanted, int | float) and wanted == wanted:  # noqa: PLR0124 - NaN is the usual gap
        return nodes.add("Equal", tensor, nodes.constant(np.array(float(wanted))))
    return nodes.add("IsNaN", tensor)


def _filled_column(nodes: Nodes, column: Column, step: Any, value: object) -> Column | Matrix:  # noqa: ANN401 - any object
    """One column of a table in which some are texts: what is missing in it is replaced by `value`."""
    wanted = step.missing_values
    if column.kind == "text":
        if isinstance(wanted, str):
            key: str | None = wanted
        elif (wanted is None) == column.none:
            key = None
        else:
            return column
        return msgspec.structs.replace(column, replaced={**column.replaced, key: value})
    if column.kind == "date":
        raise CannotCompile(f"The dates of the column {column.label!r} reach SimpleImputer, which is not compiled for dates.")
    if column.kind != "float":
        return column
    import numpy as np

    missing = _is_missing(nodes, step, column.tensor)
    filled = nodes.add("Where", missing, nodes.constant(np.array(value, dtype=np.float64)), column.tensor)
    return msgspec.structs.replace(column, tensor=filled)


# ---- scalers, by the operations that scikit-learn applies, in its order


def _standard(step: Any) -> Sequence[tuple[str, Any]]:  # noqa: ANN401 - any object
    return (("Sub", step.mean_ if step.with_mean else None), ("Div", step.scale_ if step.with_std else None))


def _between(step: Any) -> Sequence[tuple[str, Any]]:  # noqa: ANN401 - any object
    low, high = step.feature_range
    ends = (("Max", low), ("Min", high)) if step.clip else ()
    return (("Mul", step.scale_), ("Add", step.min_), *ends)


def _robust(step: Any) -> Sequence[tuple[str, Any]]:  # noqa: ANN401 - any object
    return (("Sub", step.center_ if step.with_centering else None), ("Div", step.scale_ if step.with_scaling else None))


def _largest(step: Any) -> Sequence[tuple[str, Any]]:  # noqa: ANN401 - any object
    ends = (("Max", -1.0), ("Min", 1.0)) if getattr(step, "clip", False) else ()
    return (("Div", step.scale_), *ends)


_SCALERS: Mapping[str, Callable[[Any], Sequence[tuple[str, Any]]]] = {
    "StandardScaler": _standard,
    "MinMaxScaler": _between,
    "RobustScaler": _robust,
    "MaxAbsScaler": _largest,
}


def _scaled(nodes: Nodes, step: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    import numpy as np

    rows = matrix(nodes, block, step)
    tensor = rows.tensor
    for operator, operand in _SCALERS[type(step).__name__](step):
        if operand is not None:
            tensor = nodes.add(operator, tensor, nodes.constant(np.asarray(operand, dtype=np.float64)))
    zero, one = step.transform(np.array([[0.0], [1.0]]) * np.ones(rows.width))
    origins = tuple(
        None if origin is None else Origin(origin.place, scale * origin.scale, scale * origin.shift + shift)
        for origin, scale, shift in zip(rows.origins, (one - zero).tolist(), zero.tolist(), strict=True)
    )
    return [Matrix(tensor, origins)]


# ---- what takes only numbers


def _converted(nodes: Nodes, step: Any, block: Block) -> Block:  # noqa: ANN401 - any object
    """Leave a transformer of numbers to its converter; raises `NotConvertedError`."""
    import numpy as np
    from onnx import TensorProto
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType

    rows = guarded(nodes, step, matrix(nodes, block, step))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width = step.transform(np.ones((1, rows.width))).shape[1]
            model = convert_sklearn(step, initial_types=[("rows", DoubleTensorType([None, rows.width]))], target_opset=OPSETS)
            file_of(model)
        (made,) = nodes.graft(model, {"rows": rows.tensor})
    except Exception as error:
        raise NotConvertedError([step], error) from error
    double = made.type.tensor_type.elem_type == TensorProto.DOUBLE
    return [Matrix(made.name if double else nodes.cast(made.name, "DOUBLE"), (None,) * width)]


_WRITTEN: Mapping[str, Callable[[Nodes, Any, Block], Block]] = {
    "ColumnTransformer": _by_column,
    "FeatureUnion": _union,
    "FunctionTransformer": _unchanged,
    "SimpleImputer": _imputed,
    **dict.fromkeys(_SCALERS, _scaled),
}
