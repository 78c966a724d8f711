"""From a fitted estimator to ONNX, as exactly as can be.

The graph takes FP64 as the estimator does. scikit-learn's trees compare in FP32, its histogram trees in FP64, everything else
computes in FP64: so does the graph, and only where that cannot be converted is the whole of it computed in FP32.
"""

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

from modelkeep.contracts.runner import CannotCompile, Compiled
from modelkeep.contracts.signature import Layout, Signature, TensorSpec
from modelkeep.plugins.runners.sklearn import graph
from modelkeep.plugins.runners.sklearn.anatomy import fitted_parts
from modelkeep.plugins.runners.sklearn.votes import count_exactly, in_double, lead_missing

_OPSETS = {"": 18, "ai.onnx.ml": 3}
_MOST_EDGES = 64


def compiled(estimator: Any, signature: Signature) -> Compiled:  # noqa: ANN401 - any object
    """Return the estimator as ONNX with the names, datatypes and ranks of `signature`; raises `CannotCompile`."""
    if signature.layout is not Layout.MATRIX:
        raise CannotCompile("Only models of one matrix of numbers are compiled; this one takes a table or texts.")
    if importlib.util.find_spec("skl2onnx") is None:
        raise CannotCompile("The package skl2onnx, which converts scikit-learn models, is not installed here.")
    steps = _steps(estimator)
    failed: Exception | None = None
    for exact in (True, False):
        try:
            model = _converted(steps, signature, exact=exact)
            return Compiled(model, "onnx", "onnx", _edges(steps, signature.inputs[0]))
        except CannotCompile:
            raise
        except Exception as error:  # noqa: BLE001 - the converter raises anything for what it does not know
            failed = failed or error
    words = " ".join(str(failed).split())[:300]
    raise CannotCompile(f"It cannot be converted to ONNX: {type(failed).__name__}: {words}") from failed


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


def _converted(steps: list[Any], signature: Signature, *, exact: bool) -> bytes:
    import numpy as np
    import onnxruntime
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.sklapi import CastTransformer
    from sklearn.base import is_classifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC  # the one classifier whose converter does not know zipmap

    source, last = signature.inputs[0], steps[-1]
    narrow = [CastTransformer(dtype=np.float32)]
    if not exact:
        chain = [*narrow, *steps]
    elif _has_trees(last):
        chain = [*steps[:-1], *narrow, last]
    else:
        chain = steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = convert_sklearn(
            make_pipeline(*chain),
            initial_types=[(source.name, DoubleTensorType([None, source.shape[1]]))],
            options={id(last): {"raw_scores": True} if isinstance(last, LinearSVC) else {"zipmap": False}}
            if is_classifier(last)
            else None,
            target_opset=_OPSETS,
        )
    if chain is steps and hasattr(last, "_predictors"):
        in_double(model, last)
    lead_missing(model, last)
    count_exactly(model, last)
    graph.declare_outputs(model.graph, signature.outputs)
    data: bytes = model.SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])  # a graph that does not load is none
    return data


def _has_trees(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether it holds trees that read rows as FP32."""
    return any(hasattr(one, "tree_") for one in fitted_parts(estimator))


def _edges(steps: list[Any], source: TensorSpec) -> tuple[tuple[float, ...], ...]:
    """Thresholds by column, evenly chosen; none behind steps that change the columns."""
    import numpy as np

    if len(steps) > 1:
        return ()
    found: list[list[float]] = [[] for _ in range(source.shape[1])]
    for column, threshold in _thresholds(steps[0]):
        found[column].append(threshold)
    edges = []
    for values in found:
        unique = np.unique(values)
        places = np.linspace(0, len(unique) - 1, min(len(unique), _MOST_EDGES)).astype(int)
        edges.append(tuple(unique[places].tolist()))
    return tuple(edges)


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
