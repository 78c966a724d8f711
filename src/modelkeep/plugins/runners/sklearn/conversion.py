"""From a fitted estimator to ONNX, as exactly as can be.

The graph takes FP64 as the estimator does. scikit-learn's trees compare in FP32, its histogram trees in FP64, everything else
computes in FP64: so does the graph, and only where that cannot be converted is the whole of it computed in FP32.
"""

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from modelkeep.contracts.edges import some_of
from modelkeep.contracts.missing import MARK, PROPERTY
from modelkeep.contracts.onnx_nodes import TABLES, Nodes
from modelkeep.contracts.runner import CannotCompile, Compiled
from modelkeep.contracts.signature import Dtype, Layout, Signature
from modelkeep.plugins.runners.sklearn import graph
from modelkeep.plugins.runners.sklearn.anatomy import fitted_parts
from modelkeep.plugins.runners.sklearn.blocks import Block, Column, Origin, block_of, matrix
from modelkeep.plugins.runners.sklearn.features import features_of
from modelkeep.plugins.runners.sklearn.remembered import AROUND_ZERO, remembered
from modelkeep.plugins.runners.sklearn.steps import (
    OPSETS,
    NotConvertedError,
    file_of,
    guarded,
    passed,
    sees_columns,
    written_here,
)
from modelkeep.plugins.runners.sklearn.votes import count_exactly, in_double, lead_missing

_RESULTS = "table/"
"""What the names of tensors begin with that are no inputs."""


def compiled(estimator: Any, signature: Signature) -> Compiled:  # noqa: ANN401 - any object
    """Return the estimator as ONNX with the names, datatypes and ranks of `signature`; raises `CannotCompile`."""
    if signature.layout not in {Layout.MATRIX, Layout.TABLE}:
        raise CannotCompile("Only models of one matrix of numbers or of a table are compiled.")
    if importlib.util.find_spec("skl2onnx") is None:
        raise CannotCompile("The package skl2onnx, which converts scikit-learn models, is not installed here.")
    steps = _steps(estimator)
    by_column = signature.layout is Layout.TABLE or any(map(sees_columns, steps))
    convert = partial(_table, estimator) if by_column else _matrix
    failed: NotConvertedError | None = None
    for exact in (True, False):
        try:
            model, edges = convert(steps, signature, exact=exact)
            return Compiled(_finished(model, steps, signature), "onnx", "onnx", edges)
        except CannotCompile:
            raise
        except NotConvertedError as error:
            failed = failed or error
    raise CannotCompile(str(failed)) from failed


def _steps(estimator: Any) -> list[Any]:  # noqa: ANN401 - any object
    """The estimators that rows pass through, one after the other."""
    inner = getattr(estimator, "best_estimator_", None)
    if inner is not None:
        return _steps(inner)
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list):
        return [one for _name, step in steps if step not in {None, "passthrough"} for one in _steps(step)]
    if not type(estimator).__module__.startswith("sklearn."):
        raise CannotCompile(f"{type(estimator).__name__} is not of scikit-learn, and nothing here converts it.")
    return [estimator]


Edges = tuple[tuple[float, ...], ...]


def _matrix(steps: list[Any], signature: Signature, *, exact: bool) -> tuple[Any, Edges]:
    """The model over one matrix, whose steps all take numbers."""
    source = signature.inputs[0]
    width = source.shape[1]
    origins = tuple(map(Origin, range(width))) if len(steps) == 1 else (None,) * width
    model = _of_numbers(steps, source.name, width, exact=exact)
    return model, _edges(steps, origins, width, remembered(steps[0], width))


def _table(estimator: Any, steps: list[Any], signature: Signature, *, exact: bool) -> tuple[Any, Edges]:  # noqa: ANN401 - any object
    """The model over columns: steps that see them node by node, and all that is behind them by its converter."""
    import numpy as np
    from onnx import helper

    _check_names(signature)
    nodes = Nodes(_RESULTS)
    names = [str(one) for one in getattr(estimator, "feature_names_in_", ())]
    texts = [one.dtype is Dtype.BYTES for one in signature.inputs] if signature.layout is Layout.TABLE else None
    block = block_of(signature, features_of(estimator, names, sum(one.width for one in block_of(signature, {})), texts))
    ahead = max((at for at, step in enumerate(steps) if written_here(step)), default=-1) + 1
    for step in steps[:ahead]:
        block = passed(nodes, step, block)
    behind = steps[ahead:]
    if behind:
        rows = guarded(nodes, behind[0], matrix(nodes, block, behind[0]))
        _check_precision(block, behind[-1])
        model = _of_numbers(behind, "rows", rows.width, exact=exact or _has_trees(behind[-1]))
        outputs = nodes.graft(model, {"rows": rows.tensor})
    else:
        rows = matrix(nodes, block, steps[-1])
        model = helper.make_model(helper.make_graph([], "table", [], []), ir_version=8)
        outputs = [
            helper.make_tensor_value_info(rows.tensor, helper.np_dtype_to_tensor_dtype(np.dtype(float)), [None, rows.width])
        ]
    whole = helper.make_graph(nodes.nodes, "table", list(map(graph.declared_input, signature.inputs)), outputs, nodes.constants)
    opsets = [helper.make_opsetid(domain, at) for domain, at in {**OPSETS, TABLES: 4}.items()]  # 4 looks up FP64
    made = helper.make_model(whole, opset_imports=opsets, ir_version=model.ir_version, producer_name="modelkeep")
    helper.set_model_props(made, {PROPERTY: MARK})
    return made, _edges(behind, rows.origins if len(behind) == 1 else (), max(len(signature.inputs), rows.width))


def _check_names(signature: Signature) -> None:
    outputs = {one.name for one in signature.outputs}
    for one in signature.inputs:
        if one.name in outputs or one.name.startswith(_RESULTS):
            raise CannotCompile(f"The column {one.name!r} is called as something in the graph is.")


def _check_precision(block: Block, last: Any) -> None:  # noqa: ANN401 - any object
    """Trees read whole numbers as FP32 at once, where a table without floats hands them over as they are."""
    if all(isinstance(one, Column) and one.kind in {"whole", "wider", "boolean"} for one in block) and _has_trees(last):
        wide = [one.label for one in block if isinstance(one, Column) and one.kind != "boolean"]
        if wide:
            raise CannotCompile(f"The whole numbers of the column {wide[0]!r} reach trees, which would read them otherwise.")


def _of_numbers(steps: list[Any], name: str, width: int, *, exact: bool) -> Any:  # noqa: ANN401 - an ONNX model
    """Steps over a matrix of FP64 as ONNX, in FP32 altogether unless `exact`; raises `NotConvertedError`."""
    import numpy as np
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.sklapi import CastTransformer
    from sklearn.base import is_classifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC  # the one classifier whose converter does not know zipmap

    last = steps[-1]
    narrow = [CastTransformer(dtype=np.float32)]
    if not exact:
        chain = [*narrow, *steps]
    elif _has_trees(last):
        chain = [*steps[:-1], *narrow, last]
    else:
        chain = steps
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = convert_sklearn(
                make_pipeline(*chain),
                initial_types=[(name, DoubleTensorType([None, width]))],
                options={id(last): {"raw_scores": True} if isinstance(last, LinearSVC) else {"zipmap": False}}
                if is_classifier(last)
                else None,
                target_opset=OPSETS,
            )
        if chain is steps and hasattr(last, "_predictors"):
            in_double(model, last)
        lead_missing(model, last)
        count_exactly(model, last)
    except CannotCompile:
        raise
    except Exception as error:
        raise NotConvertedError(steps, error) from error
    return model


def _finished(model: Any, steps: list[Any], signature: Signature) -> bytes:  # noqa: ANN401 - an ONNX model
    """The model's file with the declared outputs; raises `NotConvertedError` where ONNX Runtime cannot load it."""
    graph.declare_outputs(model.graph, signature.outputs)
    try:
        return file_of(model)
    except Exception as error:  # a graph that does not load is none
        raise NotConvertedError(steps[-1:], error) from error


def _has_trees(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether it holds trees that read rows as FP32."""
    return any(hasattr(one, "tree_") for one in fitted_parts(estimator))


def _edges(steps: list[Any], origins: Sequence[Origin | None], count: int, known: Edges = ()) -> Edges:
    """Thresholds of the last step by the input that they are compared with, evenly chosen.

    An input without any has the values that training left of it: those `known`, those that the last step remembers, or
    else what the step before it puts around zero.
    """
    found: list[list[float]] = [[] for _ in range(count)]
    if any(origins):
        for column, threshold in _thresholds(steps[-1]):
            _put(found, origins[column], (threshold,))
    without = {at for at, values in enumerate(found) if not values}
    for at in without & set(range(len(known))):
        found[at].extend(known[at])
    left = remembered(steps[-1], len(origins)) if any(origins) else ()
    for column, origin in enumerate(origins):
        if origin is not None and origin.place in without:
            _put(found, origin, left[column] if left else AROUND_ZERO if origin.shift or origin.scale != 1 else ())
    return tuple(map(some_of, found))


def _put(found: list[list[float]], origin: Origin | None, values: Sequence[float]) -> None:
    """Add these values of a column as the input that it comes from has them."""
    if origin is not None and origin.scale:
        found[origin.place].extend((value - origin.shift) / origin.scale for value in values)


def _thresholds(estimator: Any) -> Iterator[tuple[int, float]]:  # noqa: ANN401 - any object
    for part in fitted_parts(estimator):
        tree = getattr(part, "tree_", None)
        if tree is not None:
            inner = tree.feature >= 0
            yield from zip(tree.feature[inner].tolist(), tree.threshold[inner].tolist(), strict=True)
        for trees in getattr(part, "_predictors", ()):
            for one in trees:
                nodes = one.nodes[one.nodes["is_leaf"] == 0]
                yield from zip(nodes["feature_idx"].tolist(), nodes["num_threshold"].tolist(), strict=True)
