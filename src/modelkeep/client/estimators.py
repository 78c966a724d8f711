"""An estimator as a file: skops where all that is in it is trusted, joblib otherwise.

A skops file runs no code when it is loaded, so every installation takes it; a joblib file may.
"""

from io import BytesIO
from typing import Final

from modelkeep.client.errors import Invalid

TRUSTED: Final = (
    # What servers trust beyond skops itself; a test keeps this list equal to theirs.
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


def as_skops(estimator: object, *, needed: bool = False) -> bytes | None:
    """Return the estimator as skops; None where skops is not installed or cannot keep it, or a server would not trust it.

    Where it is `needed`, raises `Invalid` instead, with the reason.
    """
    try:
        import skops.io
    except ImportError as error:
        if needed:
            raise Invalid("skops is needed for that: install it.", code="missing_dependency") from error
        return None
    try:
        data: bytes = skops.io.dumps(estimator)
        unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in TRUSTED]
        if not unknown:
            skops.io.loads(data, trusted=list(TRUSTED))  # some things can be written that cannot be read
    except Exception as error:  # skops says in many ways that it cannot
        if needed:
            kind = type(estimator).__name__
            raise Invalid(f"skops cannot keep this {kind} ({type(error).__name__}).", code="not_skops") from error
        return None
    if unknown and needed:
        raise Invalid(f"Servers do not trust {', '.join(unknown[:3])} in a skops file.", code="not_skops")
    return None if unknown else data


def as_joblib(estimator: object) -> bytes:
    """Return the estimator as joblib; raises `Invalid` where joblib is not installed or cannot keep it."""
    try:
        import joblib
    except ImportError as error:
        raise Invalid(
            "joblib is needed to push an estimator: install it, or push a file.", code="missing_dependency"
        ) from error
    file = BytesIO()
    try:
        joblib.dump(estimator, file)
    except Exception as error:  # pickle lets every class say in its own way that it cannot
        kind = type(estimator).__name__
        raise Invalid(f"This {kind} cannot be pickled ({type(error).__name__}: {error}).", code="not_picklable") from error
    return file.getvalue()
