"""Runs scikit-learn estimators, and what behaves like them, saved with joblib, pickle or skops.

How rows reach the estimator follows from how it was fitted: a matrix of numbers, a table of typed columns, or plain texts.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Column, Format, LoadOptions, Manifest, ModelFacts
from modelkeep.contracts.signature import Dtype, Layout, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]
    Outputs = dict[str, NDArray[np.generic]]

_MATRIX = "input"
_TEXT = "text"
_PICKLE = re.compile(rb"\x80[\x02-\x05]|c[\w.]+\n\w+\n|\(i?[\w.]*[\n(cl]")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x04\x22\x4d\x18", b"ZF")
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_JOBLIB_MARK = b"joblib.numpy_pickle"
_NO_ATTRIBUTE = re.compile(r"Can't get attribute '(?P<a>[\w.]+)' on <module '(?P<m>[\w.]+)'")
_HAS_NO_ATTRIBUTE = re.compile(r"module '(?P<m>[\w.]+)' has no attribute '(?P<a>[\w.]+)'")
_ENDS_EARLY = re.compile(
    r"truncated|ended before|ran out|unexpected end|EOF|exhausted|unpack requires|requires a buffer|incomplete"
)
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
_MAX_NAMES = 20

_TRUSTED = (
    # Types of scikit-learn that hold numbers and run nothing when they are made, and that skops does not know: without them
    # no forest, no gradient boosting and no nearest neighbours could be served from skops. One by one, never by a prefix.
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
)


class SklearnRunner:
    """Loads `.joblib`, `.pkl` and `.skops` files, and their usual other suffixes."""

    manifest: ClassVar[Manifest] = Manifest(
        name="sklearn",
        formats=(
            Format("joblib", (".joblib", ".jbl"), "code", also=("pickle",)),
            Format("pickle", (".pkl", ".pickle", ".sav"), "code", also=("joblib",)),
            Format("skops", (".skops",), "guarded"),
        ),
        preload=(
            "numpy",
            "scipy",
            "scipy.linalg",
            "scipy.sparse",
            "scipy.special",
            "scipy.optimize",
            "scipy.stats",
            "pandas",
            "joblib",
            "sklearn.base",
            "sklearn.compose",
            "sklearn.linear_model",
            "sklearn.ensemble",
            "sklearn.pipeline",
            "sklearn.preprocessing",
        ),
        extra="sklearn",
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "skops" for its ZIP, "joblib" for its compressed and array forms, "pickle" for the rest of the family."""
        if head.startswith(b"PK\x03\x04"):
            first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
            return "skops" if first == b"schema.json" or first.endswith(b".npy") or b"schema.json" in tail else None
        if head.startswith((*_COMPRESSED, *_ZLIB)):
            return "joblib"
        if _PICKLE.match(head):
            return "joblib" if _JOBLIB_MARK in head else "pickle"
        return None

    def load(self, artifact: Artifact, options: LoadOptions) -> "SklearnModel":
        """Build the estimator, and find out how it wants its rows."""
        _run_in_this_process(options.threads)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            estimator = _from_skops(artifact.data) if artifact.format == "skops" else _from_pickle(artifact.data)
            _must_predict(estimator)
            return SklearnModel(estimator, options, tuple(dict.fromkeys(_words(one) for one in heard)))


class SklearnModel:
    """One fitted estimator."""

    def __init__(self, estimator: Any, options: LoadOptions, heard: tuple[str, ...]) -> None:  # noqa: ANN401 - any object
        kind, outputs, self._answer = _answers(estimator)
        known = options.signature
        inputs = known.inputs if known else _inputs(estimator, options.sample)
        self._estimator = estimator
        self._rows = _feeder(estimator, Signature(inputs))
        package, version = _origin(estimator)
        self.facts = ModelFacts(
            signature=Signature(inputs, outputs),
            framework=package,
            framework_version=version,
            kind=kind,
            details={"estimator": _shape_of(estimator)},
            warnings=heard,
        )

    def run(self, inputs: "Inputs") -> "Outputs":
        """Answer one micro-batch."""
        return self._answer(self._estimator, self._rows(inputs))


# ---- from bytes to an estimator


def _from_pickle(data: bytes) -> Any:  # noqa: ANN401 - any object
    import joblib

    try:
        return joblib.load(io.BytesIO(data))
    except (MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:
        if _ends_early(data, error):
            detail = f"The file has {len(data)} bytes and stops before its last object is complete."
            raise CannotLoad(Reason.TRUNCATED, detail) from error
        missing = _NO_ATTRIBUTE.search(str(error)) or _HAS_NO_ATTRIBUTE.search(str(error))
        if missing:
            raise _not_here(missing["a"], missing["m"]) from error
        raise


def _not_here(attribute: str, module: str) -> CannotLoad:
    if module == "__main__":
        detail = f"{attribute} was defined in the script or notebook that saved the model. Move it to an installed package."
        return CannotLoad(Reason.MISSING_DEPENDENCY, detail)
    detail = f"{module} has no {attribute} here: the model was saved with another version of {module.partition('.')[0]}."
    return CannotLoad(Reason.MISSING_DEPENDENCY, detail)


def _ends_early(data: bytes, error: Exception) -> bool:
    if isinstance(error, EOFError):
        return True
    if data.startswith((*_COMPRESSED, *_ZLIB)):
        return bool(_ENDS_EARLY.search(str(error))) or isinstance(error, IndexError)
    return not data.endswith(b".") or bool(_ENDS_EARLY.search(str(error)))


def _from_skops(data: bytes) -> Any:  # noqa: ANN401 - any object
    import zipfile

    import skops.io

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        detail = f"The file has {len(data)} bytes and lacks the table of contents at its end."
        raise CannotLoad(Reason.TRUNCATED, detail) from error
    if "schema.json" not in names:
        raise CannotLoad(Reason.LOAD_FAILED, "The archive has no schema.json, so skops did not write it.")
    unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in _TRUSTED]
    if unknown:
        raise CannotLoad(Reason.UNTRUSTED_TYPES, f"Not trusted: {_listed(unknown)}.")
    return skops.io.loads(data, trusted=list(_TRUSTED))


def _must_predict(estimator: Any) -> None:  # noqa: ANN401 - any object
    if isinstance(estimator, type):
        raise CannotLoad(Reason.NOT_A_MODEL, f"The file holds the class {estimator.__name__}, not a fitted object of it.")
    if not _can_predict(estimator):
        raise CannotLoad(Reason.NOT_A_MODEL, f"The file holds {_kind_of(estimator)}, which has no predict().{_hint(estimator)}")
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if isinstance(estimator, BaseEstimator):
        try:
            check_is_fitted(estimator)
        except NotFittedError as error:
            raise CannotLoad(Reason.NOT_FITTED, f"{type(estimator).__name__} is not fitted.") from error


def _can_predict(thing: Any) -> bool:  # noqa: ANN401 - any object
    return callable(getattr(thing, "predict", None)) or callable(getattr(thing, "transform", None))


def _kind_of(thing: Any) -> str:  # noqa: ANN401 - any object
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _hint(thing: Any) -> str:  # noqa: ANN401 - any object
    """Where the model may be: people save it in a dictionary, or beside other things in a tuple."""
    parts = thing.items() if isinstance(thing, Mapping) else enumerate(thing) if isinstance(thing, list | tuple) else ()
    models = [repr(key) for key, value in parts if not isinstance(value, type) and _can_predict(value)]
    return f" Its part {' or '.join(models[:3])} has: save that alone, or a pipeline of all steps." if models else ""


def _words(warning: warnings.WarningMessage) -> str:
    saved = getattr(warning.message, "original_sklearn_version", None)
    if saved is not None:
        current = getattr(warning.message, "current_sklearn_version", "")
        return f"Saved with scikit-learn {saved}, served with {current}: results may differ."
    return " ".join(str(warning.message).split())[:300]


def _run_in_this_process(threads: int) -> None:
    """Keep estimators with `n_jobs` from starting processes or more threads than were granted."""
    import joblib

    joblib.parallel_config(backend="sequential" if threads == 1 else "threading", n_jobs=threads)


# ---- what goes in


def _inputs(estimator: Any, sample: Sequence[Column]) -> tuple[TensorSpec, ...]:  # noqa: ANN401 - any object
    if _takes_texts(estimator):
        if len(sample) > 1:
            raise CannotLoad(
                Reason.SAMPLE_MISMATCH, f"The model takes one column of texts; the sample has {len(sample)} columns."
            )
        return (TensorSpec(sample[0].name or _TEXT if sample else _TEXT, Dtype.BYTES, (-1,)),)
    names = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    count = getattr(estimator, "n_features_in_", None) or len(names) or None
    if not sample:
        return _inputs_unseen(estimator, names, count)
    columns = _matching(sample, names, count)
    texts = _text_columns(estimator)
    if any(one.dtype is Dtype.BYTES or texts & {one.name, at} for at, one in enumerate(columns)):
        return tuple(_column(one, at, is_text=bool(texts & {one.name, at})) for at, one in enumerate(columns))
    return (_matrix(len(columns), names, nullable=any(one.nullable for one in columns)),)


def _inputs_unseen(estimator: Any, names: tuple[str, ...], count: int | None) -> tuple[TensorSpec, ...]:  # noqa: ANN401 - any object
    """The inputs without a sample: numbers, unless the first step may want something else and refuses numbers."""
    if count is None:
        raise CannotLoad(Reason.SAMPLE_NEEDED, f"{type(estimator).__name__} does not say how many columns it takes.")
    spec = _matrix(count, names, nullable=False)
    if type(_first_step(estimator)).__name__ in _FIRST_STEPS:
        import numpy as np

        try:
            _answers(estimator)[2](estimator, _feeder(estimator, Signature((spec,)))({_MATRIX: np.zeros((1, count))}))
        except (ValueError, TypeError, KeyError) as error:
            words = " ".join(str(error).split())[:200]
            raise CannotLoad(Reason.SAMPLE_NEEDED, f"The model does not take {count} plain numbers: {words}") from error
    return (spec,)


def _matrix(count: int, names: tuple[str, ...], *, nullable: bool) -> TensorSpec:
    return TensorSpec(_MATRIX, Dtype.FP64, (-1, count), nullable=nullable, columns=names)


def _column(column: Column, place: int, *, is_text: bool) -> TensorSpec:
    """One column of a table. Whole numbers are taken as floats: the next row may have a fraction, or none at all."""
    dtype = Dtype.BYTES if is_text else column.dtype
    if dtype not in {Dtype.BYTES, Dtype.BOOL} or (dtype is Dtype.BOOL and column.nullable):
        dtype = Dtype.FP64
    return TensorSpec(column.name or f"column_{place}", dtype, (-1,), nullable=column.nullable)


def _matching(sample: Sequence[Column], names: tuple[str, ...], count: int | None) -> list[Column]:
    """The sample's columns in the model's order; raises `CannotLoad` where they are not the model's."""
    by_name = {one.name: one for one in sample}
    if names and "" not in by_name:
        missing = [name for name in names if name not in by_name]
        extra = [name for name in by_name if name not in names]
        if missing or extra:
            parts = [f"missing: {_listed(missing)}"] * bool(missing) + [f"not the model's: {_listed(extra)}"] * bool(extra)
            raise CannotLoad(Reason.SAMPLE_MISMATCH, f"The sample's columns differ; {'; '.join(parts)}.")
        return [by_name[name] for name in names]
    if count is not None and len(sample) != count:
        found = _listed([one.name for one in sample if one.name])
        raise CannotLoad(
            Reason.SAMPLE_MISMATCH,
            f"The model takes {count} columns; the sample has {len(sample)}{': ' + found if found else ''}.",
        )
    return [Column(name, one.dtype, one.nullable) for name, one in zip(names, sample, strict=True)] if names else list(sample)


def _takes_texts(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether the first step is a text vectoriser, which wants a list of documents and no table."""
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

    return isinstance(_first_step(estimator), CountVectorizer | HashingVectorizer)


def _first_step(estimator: Any) -> Any:  # noqa: ANN401 - any object
    while True:
        inner = getattr(estimator, "best_estimator_", None)
        steps = getattr(estimator, "steps", None)
        if inner is not None:
            estimator = inner
        elif isinstance(steps, list) and steps:
            estimator = steps[0][1]
        else:
            return estimator


def _text_columns(estimator: Any) -> "frozenset[str | int]":  # noqa: ANN401 - any object
    """Columns whose fitted categories are texts, even where the sample's values look like numbers (postal codes)."""
    first = _first_step(estimator)
    found: set[str | int] = set()
    for _name, transformer, columns in getattr(first, "transformers_", ()):
        categories = next((one.categories_ for one in _steps(transformer) if hasattr(one, "categories_")), None)
        if categories is not None and isinstance(columns, list) and len(columns) == len(categories):
            found.update(column for column, known in zip(columns, categories, strict=True) if known.dtype.kind in "OUS")
    if hasattr(first, "categories_"):
        found.update(at for at, known in enumerate(first.categories_) if known.dtype.kind in "OUS")
    return frozenset(found)


def _steps(transformer: Any) -> Iterator[Any]:  # noqa: ANN401 - any object
    steps = getattr(transformer, "steps", None)
    if isinstance(steps, list):
        for _name, step in steps:
            yield from _steps(step)
    else:
        yield transformer


def _feeder(estimator: Any, signature: Signature) -> "Callable[[Inputs], Any]":  # noqa: ANN401 - any object
    """Return what turns input arrays into the rows that the estimator was fitted on."""
    if signature.layout is Layout.MATRIX:
        name, names = signature.inputs[0].name, getattr(estimator, "feature_names_in_", None)
        if names is None or not _needs_names(estimator):
            return lambda inputs: inputs[name]
        return lambda inputs: _frame({column: inputs[name][:, at] for at, column in enumerate(names)})
    if _takes_texts(estimator):
        only = signature.inputs[0].name
        return lambda inputs: [_text(one) for one in inputs[only].tolist()]
    order = [one.name for one in signature.inputs]
    if getattr(estimator, "feature_names_in_", None) is None:
        return lambda inputs: _frame({name: inputs[name] for name in order}).to_numpy(dtype=object)
    return lambda inputs: _frame({name: inputs[name] for name in order})


def _needs_names(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether column names decide anything. Where they do not, an array saves the table's making on every run."""
    if not type(estimator).__module__.startswith("sklearn."):
        return True
    return any(
        type(step).__name__ in _BY_COLUMN or not type(step).__module__.startswith("sklearn.") for step in _parts(estimator)
    )


def _parts(estimator: Any) -> Iterator[Any]:  # noqa: ANN401 - any object
    """The estimator and every estimator inside it."""
    yield estimator
    if hasattr(estimator, "get_params"):
        for value in estimator.get_params(deep=True).values():
            if hasattr(value, "fit"):
                yield value


def _frame(columns: "Mapping[str, NDArray[np.generic]]") -> Any:  # noqa: ANN401 - pandas carries no types here
    import pandas as pd

    return pd.DataFrame({name: _pandas(array) for name, array in columns.items()}, copy=False)


def _pandas(array: "NDArray[np.generic]") -> Any:  # noqa: ANN401 - as above
    if array.ndim > 1:
        array = array.reshape(len(array))
    if array.dtype != object:
        return array
    import numpy as np

    texts = np.empty(len(array), dtype=object)
    texts[:] = [np.nan if one is None else _text(one) for one in array.tolist()]
    return texts


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


# ---- what comes out


def _answers(estimator: Any) -> "tuple[str, tuple[TensorSpec, ...], Callable[[Any, Any], Outputs]]":  # noqa: ANN401 - any object
    """The kind of an estimator, its outputs, and the function that computes them."""
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

    if not callable(getattr(estimator, "predict", None)):
        return "transformer", (TensorSpec("values", Dtype.FP64, (-1, -1)),), _transform
    if not hasattr(estimator, "__sklearn_tags__"):
        return "", (TensorSpec("output", Dtype.FP64, (-1,)),), lambda model, rows: {"output": _dense(model.predict(rows))}
    if is_classifier(estimator):
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
    names = [f"probabilities_{at}" for at in range(len(every))] if many else ["probabilities"]
    probabilities = tuple(_probability(name, known) for name, known in zip(names, every, strict=True))
    answer = _by_probabilities if not many and _says_the_likeliest(estimator) else _label_and_probabilities
    return "classifier", (label, *probabilities), answer


def _probability(name: str, classes: Any) -> TensorSpec:  # noqa: ANN401 - an array, or None
    if classes is None:
        return TensorSpec(name, Dtype.FP64, (-1, -1))
    return TensorSpec(name, Dtype.FP64, (-1, len(classes)), classes=tuple(str(one) for one in classes.tolist()))


def _label_dtype(classes: Any) -> Dtype:  # noqa: ANN401 - an array, or None
    kinds = {"i": Dtype.INT64, "u": Dtype.INT64, "b": Dtype.BOOL, "f": Dtype.FP64}
    return Dtype.INT64 if classes is None else kinds.get(classes.dtype.kind, Dtype.BYTES)


def _says_the_likeliest(estimator: Any) -> bool:  # noqa: ANN401 - any object
    """Whether predict() is the likeliest class by definition, so that one pass over the rows gives both answers."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    last = estimator
    while isinstance(getattr(last, "steps", None), list):
        last = last.steps[-1][1]
    return type(last) in {RandomForestClassifier, ExtraTreesClassifier}


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
    return {"values": _dense(model.transform(rows))}


def _dense(answer: Any) -> "NDArray[np.generic]":  # noqa: ANN401 - arrays, tables, sparse matrices
    """An answer as an array; floats as FP64."""
    import numpy as np

    array = np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array


def _label(answer: Any) -> "NDArray[np.generic]":  # noqa: ANN401 - as above
    """Labels as INT64, BOOL, FP64 or texts."""
    import numpy as np

    array = _dense(answer)
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    return array.astype(object) if array.dtype.kind in "US" else array


# ---- what it is


def _origin(estimator: Any) -> tuple[str, str]:  # noqa: ANN401 - any object
    from importlib.metadata import PackageNotFoundError, version

    package = type(estimator).__module__.partition(".")[0]
    name = "scikit-learn" if package == "sklearn" else package
    try:
        return name, version(name)
    except PackageNotFoundError:
        return name, ""


def _shape_of(estimator: Any) -> str:  # noqa: ANN401 - any object
    """The estimator's class, and for a pipeline those of its steps."""
    steps = getattr(estimator, "steps", None)
    name = type(estimator).__name__
    if isinstance(steps, list):
        return f"{name}({', '.join(_shape_of(step) for _name, step in steps)})"
    inner = getattr(estimator, "best_estimator_", None)
    return f"{name}({_shape_of(inner)})" if inner is not None else name


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else shown
