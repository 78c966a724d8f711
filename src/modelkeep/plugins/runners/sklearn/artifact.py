"""From an uploaded file's bytes to a fitted estimator: joblib, pickle and skops, and what is wrong where it is none."""

import io
import re
import sys
from collections.abc import Mapping
from typing import Any

from modelkeep.contracts.columns import listed
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.sklearn.words import kind_of

_PICKLE = re.compile(rb"\x80[\x02-\x05]|c[\w.]+\n\w+\n|\(i?[\w.]*[\n(cl]")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x04\x22\x4d\x18", b"ZF")
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_JOBLIB_MARK = b"joblib.numpy_pickle"
_NO_ATTRIBUTE = re.compile(r"Can't get attribute '(?P<a>[\w.]+)' on <module '(?P<m>[\w.]+)'")
_HAS_NO_ATTRIBUTE = re.compile(r"module '(?P<m>[\w.]+)' has no attribute '(?P<a>[\w.]+)'")
_ENDS_EARLY = re.compile(
    r"truncated|ended before|ran out|unexpected end|EOF|exhausted|unpack requires|requires a buffer|incomplete"
)
_TRUSTED = (
    # Types that hold numbers and run nothing when they are made, and functions of rows, which skops does not know: without them
    # no forest, no gradient boosting and no nearest neighbours could be served from skops. One by one, never by a prefix.
    "numpy.dtype",
    "numpy.mean",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "scipy.sparse._csr.csr_matrix",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.cluster._bisect_k_means._BisectingTree",
    "sklearn.cluster._kmeans._kmeans_single_lloyd",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.CompoundKernel",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.DotProduct",
    "sklearn.gaussian_process.kernels.Matern",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.RationalQuadratic",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.metrics._classification.balanced_accuracy_score",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._scorer._CurveScorer",
    "sklearn.metrics._scorer._Scorer",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
)


def recognise(head: bytes, tail: bytes) -> str | None:
    """Return "skops" for its ZIP, "joblib" for its compressed and array forms, "pickle" for the rest of the family."""
    if head.startswith(b"PK\x03\x04"):
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        part = first.endswith((b".npz", b".bin"))  # as skops names what it keeps; a folder may hold a skops file, too
        return "skops" if first == b"schema.json" or first.endswith(b".npy") or (part and b"schema.json" in tail) else None
    if head.startswith((*_COMPRESSED, *_ZLIB)):
        return "joblib"
    if _PICKLE.match(head):
        return "joblib" if _JOBLIB_MARK in head else "pickle"
    return None


def read(data: bytes, format: str) -> Any:  # noqa: A002, ANN401 - the field's word; any object
    """Return the fitted estimator that the file holds; raises `CannotLoad` where it holds none."""
    estimator = _from_skops(data) if format == "skops" else _from_pickle(data)
    _must_predict(estimator)
    return estimator


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

    _import_skops()
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
        raise CannotLoad(Reason.UNTRUSTED_TYPES, f"Not trusted: {listed(unknown)}.")
    return skops.io.loads(data, trusted=list(_TRUSTED))


def _must_predict(estimator: Any) -> None:  # noqa: ANN401 - any object
    if isinstance(estimator, type):
        raise CannotLoad(Reason.NOT_A_MODEL, f"The file holds the class {estimator.__name__}, not a fitted object of it.")
    if not _can_predict(estimator):
        raise CannotLoad(Reason.NOT_A_MODEL, f"The file holds {kind_of(estimator)}, which has no predict().{_hint(estimator)}")
    if (type(estimator).__module__, type(estimator).__name__) == ("xgboost.core", "Booster"):
        saved = "Save it with save_model('model.ubj') and upload that file."
        raise CannotLoad(Reason.NOT_A_MODEL, f"The file holds XGBoost's Booster, whose predict() takes no rows. {saved}")
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


def _hint(thing: Any) -> str:  # noqa: ANN401 - any object
    """Where the model may be: people save it in a dictionary, or beside other things in a tuple."""
    parts = thing.items() if isinstance(thing, Mapping) else enumerate(thing) if isinstance(thing, list | tuple) else ()
    models = [repr(key) for key, value in parts if not isinstance(value, type) and _can_predict(value)]
    return f" Its part {' or '.join(models[:3])} has: save that alone, or a pipeline of all steps." if models else ""


def _import_skops() -> None:
    """Import skops without torch: it imports all of scikit-learn to see what there is, its adapter for torch included."""
    if "torch" in sys.modules:
        import skops.io

        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        import skops.io  # noqa: F401 - for those who use it
    finally:
        sys.meta_path.remove(absent)


class _Absent:
    """Lets nobody find torch. A None among the modules would not do: whoever looks there for torch takes that for it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise `ModuleNotFoundError` for torch, and leave all else to others."""
        del path, target
        if name == "torch":
            raise ModuleNotFoundError(name, name=name)
