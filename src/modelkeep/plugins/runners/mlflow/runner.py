"""The runner of MLflow's folders: it finds the model's own file in them, and hands it to the runner of that file's format.

MLflow itself is not needed. What the file is, its content says, and never `MLmodel`: a folder that was declared to be data is
refused when its model is a pickle, before anything of it is opened.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from modelkeep.contracts import discovery
from modelkeep.contracts.errors import NotFound
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import (
    Artifact,
    CannotLoad,
    Compilable,
    Compiled,
    Format,
    LoadOptions,
    Manifest,
    Model,
    Runner,
)
from modelkeep.contracts.signature import Layout, Signature
from modelkeep.plugins.runners.mlflow import code, description, example, pyfunc
from modelkeep.plugins.runners.mlflow.description import Description

if TYPE_CHECKING:
    import numpy as np

_EDGE: Final = 4096
_PLACES: Final = {  # where each flavour says its file is, and whose formats that file may have
    "xgboost": ("data", ("xgboost", "sklearn")),
    "lightgbm": ("data", ("lightgbm", "sklearn")),
    "catboost": ("data", ("catboost", "sklearn")),
    "onnx": ("data", ("onnx",)),
    "sklearn": ("pickled_model", ("sklearn",)),
    "pytorch": ("model_data", ("torch",)),
}
_NETWORKS: Final = ("model.pt2", "model.pth")  # in the folder that the flavour pytorch names


class MlflowRunner:
    """Loads archives with `MLmodel` in them."""

    manifest: ClassVar[Manifest] = Manifest(
        name="mlflow",
        formats=(
            Format("mlflow", (), "guarded", archive="memory"),
            Format("mlflow-code", (), "code", also=("mlflow",), archive="memory"),
        ),
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return None: it is always a folder."""
        del head, tail
        return None

    @staticmethod
    def recognise_files(names: tuple[str, ...]) -> str | None:
        """Return "mlflow" for an archive with `MLmodel`."""
        return "mlflow" if description.NAME in names else None

    def load(self, artifact: Artifact, options: LoadOptions) -> "MlflowModel":
        """Load the file in the folder with the runner of its format."""
        told = description.read(bytes(artifact.files[description.NAME]))
        flavour, path = _choose(told, artifact.files)
        if path not in artifact.files:
            raise CannotLoad(
                Reason.LOAD_FAILED, f"MLmodel names {path[:100]!r} for its {flavour} model, which is not in the folder."
            )
        runner, inner = _inner(flavour, path, artifact.files)
        _check_safety(runner, inner, artifact.format)
        assumed = not options.sample and options.signature is None
        known = msgspec.structs.replace(options, sample=told.columns) if assumed else options
        rows, unusable = example.sample(told, artifact.files) if assumed else (b"", "")
        if artifact.format == "mlflow-code":
            code.importable(told.code, artifact.files)
        try:
            model = runner().load(inner, known)
        except CannotLoad as error:
            if flavour == "pytorch" and error.reason is Reason.UNRECOGNISED:
                detail = f"{error.detail} mlflow.pytorch.save_model does so with serialization_format='pt2'."
                raise CannotLoad(error.reason, detail) from error
            if assumed and told.columns and error.reason is Reason.SAMPLE_MISMATCH:
                raise CannotLoad(Reason.LOAD_FAILED, f"MLmodel's signature is not the model's own: {error.detail}") from error
            if assumed and error.reason is Reason.SAMPLE_NEEDED:
                why = f"The columns in MLmodel are not used: {told.why}." if told.why else ""
                raise CannotLoad(error.reason, " ".join(filter(None, (error.detail, why, unusable))), rows) from error
            raise
        found = (CompilableModel if isinstance(model, Compilable) else MlflowModel)(model, told, flavour)
        found.bring(rows, unusable)
        return found


class MlflowModel:
    """The model of the file in the folder."""

    def __init__(self, model: Model, told: Description, flavour: str) -> None:
        self._model = model
        note = f"The columns in MLmodel are not used: {told.why}." if told.why else ""
        self.facts = msgspec.structs.replace(
            model.facts,
            signature=_named(model.facts.signature, told) if flavour == "sklearn" else model.facts.signature,
            details={**model.facts.details, "mlflow": told.version, "flavour": flavour},
            warnings=(*model.facts.warnings, *([note] if note else [])),
        )

    def bring(self, rows: bytes, unusable: str) -> None:
        """Say what the folder's own example is, or why it is not used."""
        warnings = (*self.facts.warnings, unusable) if unusable else self.facts.warnings
        self.facts = msgspec.structs.replace(self.facts, example=rows, warnings=warnings)

    def run(self, inputs: "Mapping[str, np.ndarray[Any, Any]]") -> "dict[str, np.ndarray[Any, Any]]":
        """Answer one micro-batch."""
        return self._model.run(inputs)


class CompilableModel(MlflowModel):
    """One that may have a faster form."""

    def compiled(self) -> Compiled:
        """Return it; raises `CannotCompile`."""
        if not isinstance(self._model, Compilable):
            raise TypeError
        return self._model.compiled()


def _named(signature: Signature, told: Description) -> Signature:
    """The signature of one matrix without names of columns, with those that MLmodel has for them."""
    names = tuple(one.name for one in told.columns)
    matrix = signature.inputs[0]
    distinct = len({*names, ""}) == len(names) + 1
    if signature.layout is not Layout.MATRIX or matrix.columns or matrix.shape != (-1, len(names)) or not distinct:
        return signature
    return msgspec.structs.replace(signature, inputs=(msgspec.structs.replace(matrix, columns=names),))


def _choose(told: Description, files: Mapping[str, memoryview | bytes]) -> tuple[str, str]:
    """The flavour that is served here, and its file's name in the folder."""
    for flavour, (key, _runners) in _PLACES.items():
        path = told.flavours.get(flavour, {}).get(key)
        if not isinstance(path, str):
            continue
        if flavour == "pytorch":
            inside = [f"{path}/{name}" for name in _NETWORKS]
            path = next((one for one in inside if one in files), inside[0])
        return flavour, path
    pyfunc.refuse(told.flavours, files)
    found = ", ".join(sorted(told.flavours))[:200] or "none"
    served = ", ".join(_PLACES)
    raise CannotLoad(
        Reason.LOAD_FAILED,
        f"The folder has the flavours {found}; served are {served}. Save it as one of those, or push it with a "
        "class of your own: a folder with model.py.",
    )


def _inner(flavour: str, path: str, files: Mapping[str, memoryview | bytes]) -> tuple[type[Runner], Artifact]:
    """The runner that knows the file by its content, and the file as it takes it."""
    data = files[path]
    head, tail = bytes(data[:_EDGE]), bytes(data[-_EDGE:])
    for name in _PLACES[flavour][1]:
        try:
            runner: type[Runner] = discovery.find(discovery.RUNNERS, name)
        except NotFound:
            continue
        found = runner.recognise(head, tail)
        if found == "onnx":
            folder = path.removesuffix(path.rpartition("/")[2])
            return runner, Artifact(b"", "onnx-files", {one: held for one, held in files.items() if one.startswith(folder)})
        if found is not None:
            return runner, Artifact(bytes(data), found)
    raise CannotLoad(Reason.MISMATCH, f"The {flavour} model in {path[:100]!r} is of no format that is served for that flavour.")


def _check_safety(runner: type[Runner], inner: Artifact, declared: str) -> None:
    if declared == "mlflow" and any(one.name == inner.format and one.safety == "code" for one in runner.manifest.formats):
        detail = f"The folder was declared as mlflow; its model is a {inner.format}, which may run code: mlflow-code."
        raise CannotLoad(Reason.MISMATCH, detail)
