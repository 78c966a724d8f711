"""Runs CatBoost models saved in its binary format, `.cbm`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Column, Compiled, Format, LoadOptions, Manifest, ModelFacts
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.plugins.runners.trees import catboost_file as files
from modelkeep.plugins.runners.trees.columns import MATRIX, matching

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Inputs = Mapping[str, NDArray[np.generic]]
    Outputs = dict[str, NDArray[np.generic]]
    Answer = Callable[[Any], Outputs]

_SEVERAL_LABELS = frozenset({"MultiLogloss", "MultiCrossEntropy"})
_RANKERS = ("YetiRank", "PairLogit", "Query", "StochasticRank", "LambdaMart", "GroupQuantile")
_ESTIMATED = {"Poisson": "Exponent", "Tweedie": "Exponent", "RMSEWithUncertainty": "RMSEWithUncertainty"}
_LABELS = {"i": Dtype.INT64, "u": Dtype.INT64, "b": Dtype.BOOL, "f": Dtype.FP64}
_WHOLE = frozenset({Dtype.INT8, Dtype.INT16, Dtype.INT32, Dtype.INT64, Dtype.UINT8, Dtype.UINT16, Dtype.UINT32, Dtype.UINT64})


class CatboostRunner:
    """Loads `.cbm` files."""

    manifest: ClassVar[Manifest] = Manifest(
        name="catboost",
        formats=(Format("catboost", (".cbm",), "data"),),
        preload_when_asked=("numpy", "pandas", "catboost"),
        extra="catboost",
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "catboost" for a file that begins as one."""
        del tail
        return "catboost" if files.recognise(head) else None

    def load(self, artifact: Artifact, options: LoadOptions) -> "CatboostModel":
        """Look at the file's frame, then have CatBoost load it from memory."""
        files.check(artifact.data)
        import catboost

        try:
            model = catboost.CatBoost().load_model(blob=artifact.data)
        except catboost.CatBoostError as error:
            raise CannotLoad(Reason.LOAD_FAILED, str(error)) from error
        return CatboostModel(model, options)


class CatboostModel:
    """One model, which answers as CatBoost's own estimators do."""

    def __init__(self, model: Any, options: LoadOptions) -> None:  # noqa: ANN401 - any model
        import catboost

        if model.get_text_feature_indices():
            raise files.not_served("texts")
        if model.get_embedding_feature_indices():
            raise files.not_served("embeddings")
        self._model = model
        self._threads = options.threads
        self._names = [str(one) for one in model.feature_names_]
        self._categorical = frozenset(model.get_cat_feature_indices())
        known = options.signature
        inputs = known.inputs if known else _inputs(self._names, self._categorical, options.sample)
        self._order = [one.name for one in inputs]
        self._loss = loss = _loss(model)
        self._kind_of_value = _ESTIMATED.get(loss, "RawFormulaVal")
        classes = model.classes_
        outputs: tuple[TensorSpec, ...] = (TensorSpec("value", Dtype.FP64, (-1,)),)
        self._answer: Answer = self._value
        kind = "ranker" if loss.startswith(_RANKERS) else "regressor"
        if len(classes):
            kind = "classifier"
            outputs = _classifier(classes, several=loss in _SEVERAL_LABELS)
            self._answer = self._several_labels if loss in _SEVERAL_LABELS else self._label
        self.facts = ModelFacts(
            signature=Signature(inputs, outputs),
            framework="catboost",
            framework_version=catboost.__version__,
            kind=kind,
            details={"loss": loss, "trees": str(model.tree_count_)},
        )

    def run(self, inputs: "Inputs") -> "Outputs":
        """Answer one micro-batch."""
        import catboost

        if not self._categorical:
            return self._answer(catboost.Pool(inputs[self._order[0]], feature_names=self._names, thread_count=self._threads))
        import pandas as pd

        columns = {
            name: _plain(inputs[source], is_category=at in self._categorical)
            for at, (name, source) in enumerate(zip(self._names, self._order, strict=True))
        }
        table = pd.DataFrame(columns, copy=False)
        return self._answer(catboost.Pool(table, cat_features=sorted(self._categorical), thread_count=self._threads))

    def compiled(self) -> Compiled:
        """Return the trees as ONNX; raises `CannotCompile`."""
        from modelkeep.plugins.runners.trees.catboost_onnx import compiled

        return compiled(self._model, self._loss, self._kind_of_value, self.facts.signature)

    def _predict(self, pool: Any, kind: str) -> Any:  # noqa: ANN401 - CatBoost carries no types
        return self._model.predict(pool, prediction_type=kind, thread_count=self._threads)

    def _value(self, pool: Any) -> "Outputs":  # noqa: ANN401 - as above
        return {"value": self._predict(pool, self._kind_of_value)}

    def _label(self, pool: Any) -> "Outputs":  # noqa: ANN401 - as above
        label = self._predict(pool, "Class")
        return {"label": _label(label.reshape(len(label))), "probabilities": self._predict(pool, "Probability")}

    def _several_labels(self, pool: Any) -> "Outputs":  # noqa: ANN401 - as above
        import numpy as np

        every = self._predict(pool, "Probability").T
        probabilities = {f"probabilities_{at}": np.stack((1.0 - one, one), axis=1) for at, one in enumerate(every)}
        return {"label": self._predict(pool, "Class").astype(np.int64), **probabilities}


def _inputs(names: list[str], categorical: frozenset[int], sample: tuple[Column, ...]) -> tuple[TensorSpec, ...]:
    """One matrix, or a table where some columns are categories: texts, unless the sample has whole numbers there."""
    said = [name if name != str(at) else "" for at, name in enumerate(names)]  # CatBoost numbers columns that have no names
    columns = matching(sample, said) if sample else None
    if not categorical:
        return (TensorSpec(MATRIX, Dtype.FP32, (-1, len(names)), nullable=True, columns=tuple(said) if all(said) else ()),)
    specs = []
    for at, name in enumerate(said):
        given = columns[at].dtype if columns else Dtype.BYTES
        kind = Dtype.INT64 if given in _WHOLE else Dtype.BOOL if given is Dtype.BOOL else Dtype.BYTES
        kind = kind if at in categorical else Dtype.FP32
        specs.append(TensorSpec(name or f"column_{at}", kind, (-1,), nullable=at not in categorical))
    return tuple(specs)


def _classifier(classes: "NDArray[np.generic]", *, several: bool) -> tuple[TensorSpec, ...]:
    names = tuple(str(one) for one in classes.tolist())
    if several:
        each = TensorSpec("probabilities", Dtype.FP64, (-1, 2), classes=("0", "1"))
        many = [msgspec.structs.replace(each, name=f"probabilities_{at}") for at in range(len(names))]
        return (TensorSpec("label", Dtype.INT64, (-1, len(names))), *many)
    label = TensorSpec("label", _LABELS.get(classes.dtype.kind, Dtype.BYTES), (-1,))
    return (label, TensorSpec("probabilities", Dtype.FP64, (-1, len(names)), classes=names))


def _loss(model: Any) -> str:  # noqa: ANN401 - any model
    """The name of the loss that training minimised, "" where the file does not keep it."""
    metadata = model.get_metadata()
    if "params" not in metadata.keys():  # noqa: SIM118 - it has keys, and cannot be asked otherwise
        return ""
    loss = msgspec.json.decode(metadata["params"]).get("loss_function", {})
    return str(loss.get("type", ""))


def _plain(column: "NDArray[np.generic]", *, is_category: bool) -> "NDArray[np.generic]":
    column = column.reshape(len(column))
    if not is_category or column.dtype != object:
        return column
    texts = column.copy()
    texts[:] = [one.decode() if isinstance(one, bytes) else one for one in column.tolist()]
    return texts


def _label(label: "NDArray[np.generic]") -> "NDArray[np.generic]":
    import numpy as np

    return label.astype(object) if label.dtype.kind in "US" else label.astype(np.int64) if label.dtype.kind in "iu" else label
