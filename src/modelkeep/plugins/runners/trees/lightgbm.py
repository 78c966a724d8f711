"""Runs LightGBM models saved as text by `Booster.save_model`; an estimator's `booster_` has it too."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Column, Compiled, Format, LoadOptions, Manifest, ModelFacts
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.plugins.runners.trees import lightgbm_file as files
from modelkeep.plugins.runners.trees.columns import Category, Feature, feeder, inputs_of, matching
from modelkeep.plugins.runners.trees.lightgbm_file import Description

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]
    Outputs = dict[str, NDArray[np.generic]]
    Answer = Callable[[NDArray[np.generic]], Outputs]

_SEVERAL = frozenset({"multiclass", "multiclassova"})
_RANKERS = frozenset({"lambdarank", "rank_xendcg"})


class LightgbmRunner:
    """Loads LightGBM's text files."""

    manifest: ClassVar[Manifest] = Manifest(
        name="lightgbm",
        formats=(Format("lightgbm", (".lgb", ".lgbm", ".txt"), "data"),),
        preload_when_asked=("numpy", "scipy.sparse", "lightgbm"),
        extra="lightgbm",
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "lightgbm" for a file that begins as one."""
        del tail
        return "lightgbm" if files.recognise(head) else None

    def load(self, artifact: Artifact, options: LoadOptions) -> "LightgbmModel":
        """Look the file through, then have LightGBM load it from memory."""
        description = files.describe(artifact.data)
        import lightgbm

        try:
            booster = lightgbm.Booster(model_str=files.answering_part(artifact.data).decode())
        except lightgbm.basic.LightGBMError as error:
            raise CannotLoad(Reason.LOAD_FAILED, str(error)) from error
        return LightgbmModel(booster, description, options)


class LightgbmModel:
    """One booster, which answers as LightGBM's own estimators do."""

    def __init__(self, booster: Any, description: Description, options: LoadOptions) -> None:  # noqa: ANN401 - any booster
        import lightgbm

        features = _features(description, options)
        known = options.signature
        inputs = known.inputs if known else inputs_of(features, options.sample, Dtype.FP64)
        self._booster = booster
        self._objective = description.objective
        self._threads = options.threads
        self._feed = feeder(features, Signature(inputs), Dtype.FP64, unknown_is_missing=True)
        objective = description.objective.split(" ")[0]
        kind = "classifier" if objective in _SEVERAL | {"binary"} else "ranker" if objective in _RANKERS else "regressor"
        outputs: tuple[TensorSpec, ...] = (TensorSpec("value", Dtype.FP64, (-1,)),)
        self._answer: Answer = self._value
        if kind == "classifier":
            names = tuple(str(at) for at in range(max(description.classes, 2)))
            probabilities = TensorSpec("probabilities", Dtype.FP64, (-1, len(names)), classes=names)
            outputs = (TensorSpec("label", Dtype.INT64, (-1,)), probabilities)
            self._answer = self._several if objective in _SEVERAL else self._of_two
        self.facts = ModelFacts(
            signature=Signature(inputs, outputs),
            framework="lightgbm",
            framework_version=lightgbm.__version__,
            kind=kind,
            details={
                "objective": description.objective,
                "trees": str(description.trees),
                "file_version": description.version,
            },
        )

    def run(self, inputs: "Inputs") -> "Outputs":
        """Answer one micro-batch."""
        return self._answer(self._feed(inputs))

    def compiled(self) -> Compiled:
        """Return the trees as ONNX; raises `CannotCompile`."""
        from modelkeep.plugins.runners.trees.lightgbm_onnx import compiled

        return compiled(self._booster.model_to_string().encode(), self._objective, self.facts.signature)

    def _predict(self, rows: "NDArray[np.generic]") -> Any:  # noqa: ANN401 - LightGBM answers arrays for arrays
        return self._booster.predict(rows, num_threads=self._threads)

    def _value(self, rows: "NDArray[np.generic]") -> "Outputs":
        return {"value": self._predict(rows)}

    def _several(self, rows: "NDArray[np.generic]") -> "Outputs":
        probabilities = self._predict(rows)
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

    def _of_two(self, rows: "NDArray[np.generic]") -> "Outputs":
        import numpy as np

        second = self._predict(rows)
        probabilities = np.stack((1.0 - second, second), axis=1)
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}


def _features(description: Description, options: LoadOptions) -> list[Feature]:
    """The columns with their categories. Which columns have them is told by the file, or else by where texts are."""
    categories: dict[int, tuple[Category, ...]] = {}
    if description.categories:
        places: Sequence[int] = description.categorical
        if len(places) != len(description.categories):
            places = _places_of_texts(description, options)
        categories = dict(zip(places, description.categories, strict=True))
    return [Feature(name, categories.get(at)) for at, name in enumerate(description.names)]


def _places_of_texts(description: Description, options: LoadOptions) -> list[int]:
    columns: Sequence[Column | TensorSpec] = options.signature.inputs if options.signature else options.sample
    if options.sample and not options.signature:
        columns = matching(options.sample, description.names)
    places = [at for at, one in enumerate(columns) if one.dtype is Dtype.BYTES]
    if len(places) != len(description.categories):
        count = len(description.categories)
        detail = f"The model has categories for {count} columns and does not say for which: the sample must have texts in them."
        raise CannotLoad(Reason.SAMPLE_NEEDED, detail)
    return places
