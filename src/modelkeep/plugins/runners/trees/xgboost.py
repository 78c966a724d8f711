"""Runs XGBoost models saved as JSON or UBJSON, by `Booster.save_model` or by an estimator's."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Compiled, Format, LoadOptions, Manifest, ModelFacts
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.plugins.runners.trees import xgboost_file as files
from modelkeep.plugins.runners.trees.columns import feeder, inputs_of
from modelkeep.plugins.runners.trees.xgboost_file import JSON, UBJSON, Description

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]
    Outputs = dict[str, NDArray[np.generic]]
    Answer = Callable[["XgboostModel", NDArray[np.generic]], Outputs]

_KINDS = {"rank": "ranker", "survival": "survival model", "multi": "classifier"}
_CLASSIFIERS = frozenset({"binary:logistic", "binary:hinge"})
_LABEL_ONLY = "binary:hinge"
_HALF = 0.5
_ORIGIN = re.compile(r"^\[[\d:]+\] \S+?:\d+: ")


class XgboostRunner:
    """Loads `.json` and `.ubj` files of XGBoost, and what is named otherwise and is one of these."""

    manifest: ClassVar[Manifest] = Manifest(
        name="xgboost",
        formats=(
            Format(JSON, (".json",), "data", also=(UBJSON,)),
            Format(UBJSON, (".ubj", ".xgb", ".bst", ".model"), "data", also=(JSON,)),
        ),
        preload_when_asked=("numpy", "scipy.special", "xgboost"),
        extra="xgboost",
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "xgboost-json" or "xgboost-ubj" for a document that begins as theirs."""
        del tail
        return files.recognise(head)

    def load(self, artifact: Artifact, options: LoadOptions) -> "XgboostModel":
        """Look the file through, then have XGBoost load it from memory."""
        description = files.describe(artifact.data)
        import xgboost

        xgboost.set_config(verbosity=0)
        booster = xgboost.Booster({"nthread": options.threads})
        try:
            booster.load_model(bytearray(artifact.data))
        except xgboost.core.XGBoostError as error:
            raise CannotLoad(Reason.LOAD_FAILED, _said(error)) from error
        return XgboostModel(booster, description, options)


class XgboostModel:
    """One booster, which answers as XGBoost's own estimators do."""

    def __init__(self, booster: Any, description: Description, options: LoadOptions) -> None:  # noqa: ANN401 - any booster
        import xgboost

        dtype = Dtype.FP64 if any(one.categories and not one.is_text for one in description.features) else Dtype.FP32
        inputs = options.signature.inputs if options.signature else inputs_of(description.features, options.sample, dtype)
        self._booster = booster
        self._threads = options.threads
        self._by_matrix = _by_matrix(description)
        self._rounds, warnings = _rounds(description)
        self._feed = feeder(description.features, Signature(inputs), dtype, unknown_is_missing=False)
        group = description.objective.partition(":")[0]
        is_classifier = description.objective in _CLASSIFIERS or group == "multi"
        answer: Answer
        outputs, answer = _classifier(description) if is_classifier else (_VALUE, _value)
        self._answer = answer
        self.facts = ModelFacts(
            signature=Signature(inputs, outputs),
            framework="xgboost",
            framework_version=xgboost.__version__,
            kind="classifier" if is_classifier else _KINDS.get(group, "regressor"),
            details={
                "objective": description.objective,
                "booster": description.booster,
                "trees": str(description.trees),
                "saved_with": description.version,
            },
            warnings=warnings,
        )

    def run(self, inputs: "Inputs") -> "Outputs":
        """Answer one micro-batch."""
        return self._answer(self, self._feed(inputs))

    def compiled(self) -> Compiled:
        """Return the trees as ONNX; raises `CannotCompile`."""
        from modelkeep.plugins.runners.trees.xgboost_onnx import compiled

        return compiled(self._booster, self._rounds, self.facts.signature)

    def predict(self, rows: "NDArray[np.generic]", *, margin: bool = False) -> Any:  # noqa: ANN401 - XGBoost carries no types
        """Return what the booster answers, or its sum of leaves before the objective made an answer of it."""
        if self._by_matrix:
            import xgboost

            matrix = xgboost.DMatrix(rows, nthread=self._threads)
            answer = self._booster.predict(matrix, iteration_range=self._rounds, output_margin=margin, validate_features=False)
        else:
            kind = "margin" if margin else "value"
            answer = self._booster.inplace_predict(
                rows, iteration_range=self._rounds, predict_type=kind, validate_features=False
            )
        return answer


_VALUE = (TensorSpec("value", Dtype.FP32, (-1,)),)


def _value(model: XgboostModel, rows: "NDArray[np.generic]") -> "Outputs":
    return {"value": model.predict(rows)}


def _classifier(description: Description) -> "tuple[tuple[TensorSpec, ...], Answer]":
    names = tuple(str(at) for at in range(max(description.classes, 2)))
    label = TensorSpec("label", Dtype.INT64, (-1,))
    probabilities = TensorSpec("probabilities", Dtype.FP32, (-1, len(names)), classes=names)
    if description.objective == _LABEL_ONLY:
        return (label,), _hinge
    if description.objective == "multi:softmax":
        return (label, probabilities), _softmax
    if description.objective == "multi:softprob":
        return (label, probabilities), _softprob
    if description.targets == 1:
        return (label, probabilities), _of_two
    many = tuple(msgspec.structs.replace(probabilities, name=f"probabilities_{at}") for at in range(description.targets))
    return (TensorSpec("label", Dtype.INT64, (-1, description.targets)), *many), _of_many


def _hinge(model: XgboostModel, rows: "NDArray[np.generic]") -> "Outputs":
    import numpy as np

    return {"label": (model.predict(rows) > _HALF).astype(np.int64)}


def _of_two(model: XgboostModel, rows: "NDArray[np.generic]") -> "Outputs":
    import numpy as np

    second = model.predict(rows)
    return {"label": (second > _HALF).astype(np.int64), "probabilities": np.stack((1.0 - second, second), axis=1)}


def _of_many(model: XgboostModel, rows: "NDArray[np.generic]") -> "Outputs":
    import numpy as np

    second = model.predict(rows)
    every = {f"probabilities_{at}": np.stack((1.0 - one, one), axis=1) for at, one in enumerate(second.T)}
    return {"label": (second > _HALF).astype(np.int64), **every}


def _softprob(model: XgboostModel, rows: "NDArray[np.generic]") -> "Outputs":
    probabilities = model.predict(rows)
    return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}


def _softmax(model: XgboostModel, rows: "NDArray[np.generic]") -> "Outputs":
    """The objective answers only the label; probabilities follow from the sums of leaves, as its estimator computes them."""
    import numpy as np
    from scipy.special import softmax

    return {
        "label": model.predict(rows).astype(np.int64),
        "probabilities": softmax(model.predict(rows, margin=True), axis=1),
    }


def _rounds(description: Description) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Which rounds answer: an estimator stops at its best one, a booster uses all, as each does by itself."""
    best = description.attributes.get("best_iteration", "")
    if not best.isdigit() or description.booster == "gblinear":
        return (0, 0), ()
    if "scikit_learn" in description.attributes:
        return (0, int(best) + 1), ()
    return (0, 0), (f"Training was best after round {best}. All rounds answer, as with Booster.predict.",)


def _by_matrix(description: Description) -> bool:
    """Whether XGBoost itself would make a matrix of the rows first.

    Linear boosters know no other way. Dropped trees are weighted in another order then, which shows in the last digit: so a
    booster of those answers as Booster.predict, and an estimator as its own predict, which takes rows as they are.
    """
    is_estimator = "scikit_learn" in description.attributes
    return description.booster == "gblinear" or (description.booster == "dart" and not is_estimator)


def _said(error: Exception) -> str:
    """XGBoost's own sentence, without where in its source it was said, and what called what."""
    return _ORIGIN.sub("", str(error).partition("Stack trace")[0].strip())
