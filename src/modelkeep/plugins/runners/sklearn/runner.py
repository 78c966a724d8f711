"""The runner of scikit-learn estimators, and of what behaves like them, saved with joblib, pickle or skops."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from modelkeep.contracts.runner import Artifact, Compiled, Format, LoadOptions, Manifest, ModelFacts
from modelkeep.contracts.signature import DATETIME, Signature
from modelkeep.plugins.runners.sklearn import artifact as files
from modelkeep.plugins.runners.sklearn import dates
from modelkeep.plugins.runners.sklearn.anatomy import origin, shape_of
from modelkeep.plugins.runners.sklearn.answers import answers
from modelkeep.plugins.runners.sklearn.rows import feeder, inputs_of
from modelkeep.plugins.runners.sklearn.words import said

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]
    Outputs = dict[str, NDArray[np.generic]]


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
            "email.parser",  # importlib.metadata reads versions with it
            "numpy",
            "scipy",
            "scipy.linalg",
            "scipy.sparse",
            "scipy.special",
            "scipy.optimize",
            "scipy.stats",
            "pandas",
            "joblib",
            "picklescan.scanner",  # 15 ms in each runner of a file that may run code, otherwise
            "sklearn.base",
            "sklearn.compose",
            "sklearn.feature_extraction",
            "sklearn.linear_model",
            "sklearn.multioutput",
            "sklearn.ensemble",
            "sklearn.pipeline",
            "sklearn.preprocessing",
        ),
        extra="sklearn",
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "skops" for its ZIP, "joblib" for its compressed and array forms, "pickle" for the rest of the family."""
        return files.recognise(head, tail)

    def load(self, artifact: Artifact, options: LoadOptions) -> "SklearnModel":
        """Build the estimator, and find out how it wants its rows."""
        _run_in_this_process(options.threads)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            estimator = files.read(artifact.data, artifact.format)
            return SklearnModel(estimator, options, tuple(dict.fromkeys(said(one) for one in heard)))


class SklearnModel:
    """One fitted estimator."""

    def __init__(self, estimator: Any, options: LoadOptions, heard: tuple[str, ...]) -> None:  # noqa: ANN401 - any object
        kind, outputs, self._answer = answers(estimator)
        known = options.signature
        inputs = known.inputs if known else inputs_of(estimator, options.sample)
        self._estimator = estimator
        self._rows = feeder(estimator, Signature(inputs))
        self._dates = [one.name for one in inputs if one.kind == DATETIME]
        package, version = origin(estimator)
        self.facts = ModelFacts(
            signature=Signature(inputs, outputs),
            framework=package,
            framework_version=version,
            kind=kind,
            details={"estimator": shape_of(estimator)},
            warnings=heard,
        )

    def run(self, inputs: "Inputs") -> "Outputs":
        """Answer one micro-batch; rows whose dates are of different zones apart."""
        groups = dates.alike(inputs, self._dates) if self._dates else None
        if groups is None:
            return self._answer(self._estimator, self._rows(inputs))
        import numpy as np

        pieces = [self.run({name: array[places] for name, array in inputs.items()}) for places in groups]
        order = np.argsort(np.concatenate(groups))
        return {name: np.concatenate([piece[name] for piece in pieces])[order] for name in pieces[0]}

    def compiled(self) -> Compiled:
        """Return the estimator as ONNX; raises `CannotCompile`."""
        from modelkeep.plugins.runners.sklearn.conversion import compiled

        return compiled(self._estimator, self.facts.signature)


def _run_in_this_process(threads: int) -> None:
    """Keep estimators with `n_jobs` from starting processes or more threads than were granted."""
    import joblib

    joblib.parallel_config(backend="sequential" if threads == 1 else "threading", n_jobs=threads)
