"""What an estimator answers: its kind, the outputs that this gives, and the function that computes them."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.dates import without_dates
from modelkeep.contracts.signature import Dtype, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Outputs = dict[str, NDArray[np.generic]]


MOST_BYTES = 128 << 20
"""How large a sparse answer may become when it is made dense; what is larger does not fit the way to its caller anyhow."""


def answers(estimator: Any) -> "tuple[str, tuple[TensorSpec, ...], Callable[[Any, Any], Outputs]]":  # noqa: ANN401 - any object
    """The kind of an estimator, its outputs, and the function that computes them."""
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

    if not callable(getattr(estimator, "predict", None)):
        return "transformer", (TensorSpec("values", Dtype.FP64, (-1, -1)),), _transform
    if not hasattr(estimator, "__sklearn_tags__"):
        return "", (TensorSpec("output", Dtype.FP64, (-1,)),), lambda model, rows: {"output": _dense(model.predict(rows))}
    if is_classifier(estimator) and not _is_plain_catboost(estimator):
        return _classifier(estimator)
    if is_outlier_detector(estimator):
        specs = (TensorSpec("label", Dtype.INT64, (-1,)), TensorSpec("score", Dtype.FP64, (-1,)))
        return "outlier detector", specs if _scores(estimator) else specs[:1], _outliers
    if is_clusterer(estimator):
        return (
            "clusterer",
            (TensorSpec("label", Dtype.INT64, (-1,)),),
            lambda model, rows: {"label": _label(model.predict(rows))},
        )
    kind = "regressor" if is_regressor(estimator) else ""
    return kind, (TensorSpec("value", Dtype.FP64, (-1,)),), lambda model, rows: {"value": _dense(model.predict(rows))}


def _classifier(estimator: Any) -> "tuple[str, tuple[TensorSpec, ...], Callable[[Any, Any], Outputs]]":  # noqa: ANN401 - any object
    classes = getattr(estimator, "classes_", None)
    many = isinstance(classes, list)
    every = list(classes) if classes is not None and many else [classes]
    shape = (-1, len(every)) if many else (-1,)
    label = TensorSpec("label", _label_dtype(every[0]), shape)
    if not hasattr(estimator, "predict_proba"):
        return "classifier", (label,), lambda model, rows: {"label": _label(model.predict(rows))}
    if _is_chain(estimator):  # one column a label: how likely it is set
        return "classifier", (label, TensorSpec("probabilities", Dtype.FP64, shape)), _label_and_probabilities
    names = [f"probabilities_{at}" for at in range(len(every))] if many else ["probabilities"]
    probabilities = tuple(_probability(name, known) for name, known in zip(names, every, strict=True))
    answer = _by_probabilities if not many and _says_the_likeliest(estimator) else _label_and_probabilities
    return "classifier", (label, *probabilities), answer


def _is_plain_catboost(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether it is CatBoost's own class, whose predict() answers raw scores, whatever its tags say it was trained for."""
    return (type(estimator).__module__, type(estimator).__name__) == ("catboost.core", "CatBoost")


def _probability(name: str, classes: Any) -> TensorSpec:  # noqa: ANN401 - an array, or None
    if classes is None:
        return TensorSpec(name, Dtype.FP64, (-1, -1))
    return TensorSpec(name, Dtype.FP64, (-1, len(classes)), classes=tuple(str(one) for one in classes.tolist()))


def _label_dtype(classes: Any) -> Dtype:  # noqa: ANN401 - an array, or None
    kinds = {"i": Dtype.INT64, "u": Dtype.INT64, "b": Dtype.BOOL, "f": Dtype.FP64}
    if getattr(classes, "dtype", None) == "uint64":
        return Dtype.UINT64
    return Dtype.INT64 if classes is None else kinds.get(classes.dtype.kind, Dtype.BYTES)


def _says_the_likeliest(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether predict() is the likeliest class by definition, so that one pass over the rows gives both answers."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    return type(_last(estimator)) in {RandomForestClassifier, ExtraTreesClassifier}


def _is_chain(estimator: Any) -> bool:  # noqa: ANN401 - any object
    from sklearn.multioutput import ClassifierChain

    return isinstance(_last(estimator), ClassifierChain)


def _last(estimator: Any) -> Any:  # noqa: ANN401 - any object
    """Return what answers: the last step of a pipeline."""
    while isinstance(getattr(estimator, "steps", None), list):
        estimator = estimator.steps[-1][1]
    return estimator


def _by_probabilities(model: Any, rows: Any) -> "Outputs":  # noqa: ANN401 - any object
    probabilities = _dense(model.predict_proba(rows))
    return {"label": _label(model.classes_.take(probabilities.argmax(axis=1), axis=0)), "probabilities": probabilities}


def _label_and_probabilities(model: Any, rows: Any) -> "Outputs":  # noqa: ANN401 - any object
    label, probabilities = _label(model.predict(rows)), model.predict_proba(rows)
    if isinstance(probabilities, list):
        return {"label": label} | {f"probabilities_{at}": _dense(one) for at, one in enumerate(probabilities)}
    return {"label": label, "probabilities": _dense(probabilities)}


def _outliers(model: Any, rows: Any) -> "Outputs":  # noqa: ANN401 - any object
    answer = {"label": _label(model.predict(rows))}
    scores = _scores(model)
    return answer | {"score": _dense(scores(rows))} if scores else answer


def _scores(model: Any) -> Any:  # noqa: ANN401 - any object
    return getattr(model, "decision_function", None) or getattr(model, "score_samples", None)


def _transform(model: Any, rows: Any) -> "Outputs":  # noqa: ANN401 - any object
    values = _dense(model.transform(rows))
    if values.ndim == 1 and len(rows) == 1 and len(values) != 1:
        values = values.reshape(1, -1)  # SparsePCA drops the axis of a single row
    return {"values": values}


def _dense(answer: Any) -> "NDArray[np.generic]":  # noqa: ANN401 - arrays, tables, sparse matrices
    """An answer as an array; floats as FP64, dates as texts. Raises `ValueError` for a sparse one that is too large."""
    import numpy as np

    if hasattr(answer, "toarray"):
        size = math.prod(answer.shape) * max(8, answer.dtype.itemsize)
        if size > MOST_BYTES:
            raise ValueError(
                f"the answer is sparse, of the shape {list(answer.shape)}: made dense it takes {size >> 20} MiB, "
                f"more than {MOST_BYTES >> 20}. Ask for fewer rows"
            )
        answer = answer.toarray()
    array = np.asarray(answer)
    if array.dtype.kind == "M" or array.dtype == object:
        return without_dates(array)
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array


def _label(answer: Any) -> "NDArray[np.generic]":  # noqa: ANN401 - as above
    """Labels as INT64 (UINT64 where the model has those, which may be larger), BOOL, FP64 or texts."""
    import numpy as np

    array = _dense(answer)
    if array.dtype.kind in "iu":
        return array if array.dtype == np.uint64 else array.astype(np.int64, copy=False)
    return array.astype(object) if array.dtype.kind in "US" else array
