"""Runs ONNX models with ONNX Runtime on the CPU.

The file's structure is walked first (`contracts.onnx_file`): ONNX Runtime would read any file that a weight names. Weights in
the same archive it gets from memory, and opens nothing.
"""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from modelkeep.contracts import onnx_file
from modelkeep.contracts.missing import MARK, PROPERTY, marked
from modelkeep.contracts.pieces import in_pieces
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import (
    Artifact,
    CannotCompile,
    CannotLoad,
    Compiled,
    Format,
    LoadOptions,
    Manifest,
    ModelFacts,
    Precision,
)
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]
    Files = Mapping[str, memoryview | bytes]

_PROVIDER = "CPUExecutionProvider"
_DTYPES = {
    "tensor(bool)": Dtype.BOOL,
    "tensor(uint8)": Dtype.UINT8,
    "tensor(uint16)": Dtype.UINT16,
    "tensor(uint32)": Dtype.UINT32,
    "tensor(uint64)": Dtype.UINT64,
    "tensor(int8)": Dtype.INT8,
    "tensor(int16)": Dtype.INT16,
    "tensor(int32)": Dtype.INT32,
    "tensor(int64)": Dtype.INT64,
    "tensor(float16)": Dtype.FP16,
    "tensor(float)": Dtype.FP32,
    "tensor(double)": Dtype.FP64,
    "tensor(string)": Dtype.BYTES,
}
_ZIPMAPS = frozenset({"seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))"})


class OnnxRunner:
    """Loads `.onnx` files, alone or in an archive with the files that hold their weights."""

    manifest: ClassVar[Manifest] = Manifest(
        name="onnx",
        formats=(Format("onnx", (".onnx",), "data"), Format("onnx-files", (), "data", archive="memory")),
        preload=("numpy", "onnxruntime"),
        precisions=("f32", "int8"),
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "onnx" for the beginning of a ModelProto: an IR version, then only fields that it has."""
        del tail
        return "onnx" if onnx_file.begins(head) else None

    @staticmethod
    def recognise_files(names: tuple[str, ...]) -> str | None:
        """Return "onnx-files" for an archive with a graph in it that is nobody else's."""
        return "onnx-files" if "MLmodel" not in names and any(name.endswith(".onnx") for name in names) else None

    def load(self, artifact: Artifact, options: LoadOptions) -> "OnnxModel":
        """Load the graph from its bytes."""
        data, beside = _graph(artifact)
        classes, used = onnx_file.inspect(data, beside)
        session = _open(data, options, used)
        details = proof(session, options.precision, integers=onnx_file.is_quantised(data))
        return OnnxModel(session, options, classes, details, data if options.quantises and not used else b"")


def proof(session: Any, precision: Precision, *, integers: bool) -> dict[str, str]:  # noqa: ANN401 - ONNX Runtime has no types
    """Return what the session runs on and in, as it says itself; raises `CannotLoad` where that is not what was asked for."""
    providers = session.get_providers()
    if providers != [_PROVIDER]:
        raise CannotLoad(Reason.PROVIDER_MISMATCH, f"It was to run on {_PROVIDER}, and runs on {', '.join(providers)}.")
    if precision == "int8" and not integers:
        raise CannotLoad(Reason.PROVIDER_MISMATCH, "It was to compute in 8-bit integers, and the graph has none.")
    return {"provider": f"ONNX Runtime, {_PROVIDER}", "precision": "int8" if integers else "f32"}


class OnnxModel:
    """One ONNX Runtime session."""

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - as above
        options: LoadOptions,
        classes: dict[str, tuple[str, ...]],
        proven: dict[str, str],
        data: bytes,
    ) -> None:
        import onnxruntime

        known = options.signature
        self._data = data
        self._threads = options.threads
        meta = session.get_modelmeta()
        found, self._batch = _signature(session, classes)
        inputs = known.inputs if known else found.inputs
        self._session = session
        self._classes = classes
        self._texts = frozenset(one.name for one in inputs if one.dtype is Dtype.BYTES)
        self._marked = meta.custom_metadata_map.get(PROPERTY) == MARK
        self._outputs = [one.name for one in session.get_outputs()]
        details = {"producer": meta.producer_name, "graph": meta.graph_name, "fixed_batch": str(self._batch or "")}
        self.facts = ModelFacts(
            signature=msgspec.structs.replace(found, inputs=inputs),
            framework="onnxruntime",
            framework_version=onnxruntime.__version__,
            kind="graph",
            details={name: text for name, text in details.items() if text} | proven,
            warnings=(f"The graph takes exactly {self._batch} rows: larger batches run in pieces.",) if self._batch else (),
            batch=self._batch,
        )

    def run(self, inputs: "Mapping[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """Answer one micro-batch; a graph of a fixed batch runs as often as needed, the last piece filled up."""
        feed = inputs
        if self._texts:
            feed = {
                name: _as_texts(array, marks=self._marked) if name in self._texts else array for name, array in inputs.items()
            }
        return in_pieces(feed, self._batch, self._batch, self._once) if self._batch else self._once(feed)

    def quantised(self, chunks: "Iterable[Arrays]", *, narrow: bool, spare_ends: bool) -> Compiled:
        """Return the graph in 8-bit integers; raises `CannotCompile`."""
        from modelkeep.plugins.runners.onnx.quantisation import quantised

        if not self._data:
            raise CannotCompile("Only graphs in one file have a form in 8-bit integers.")
        if importlib.util.find_spec("onnx") is None:
            raise CannotCompile("The package onnx, which rewrites graphs, is not installed here (the extra `quantise`).")
        whole = (piece for chunk in chunks for piece in _filled(chunk, self._batch))
        data = quantised(self._data, whole, narrow=narrow, spare_ends=spare_ends, threads=self._threads)
        return Compiled(data, "onnx", "onnx")

    def _once(self, feed: "Mapping[str, NDArray[np.generic]]") -> "dict[str, NDArray[np.generic]]":
        answers = zip(self._outputs, self._session.run(self._outputs, feed), strict=True)
        if not self._classes:  # only ZipMaps answer otherwise than with arrays
            return dict(answers)
        return {name: self._unzipped(name, answer) if isinstance(answer, list) else answer for name, answer in answers}

    def _unzipped(self, name: str, maps: list[dict[object, float]]) -> "NDArray[np.generic]":
        """A ZipMap's list of {class: probability} as a matrix again, in the order of its classes."""
        import numpy as np

        classes = self._classes[name]
        by_text = [{str(key): value for key, value in one.items()} for one in maps]
        return np.array([[one[label] for label in classes] for one in by_text], dtype=np.float32)


def _filled(chunk: "Arrays", batch: int) -> "Iterator[Arrays]":
    """The rows in pieces of exactly `batch`, the last one filled up with its own again; all at once for 0."""
    import numpy as np

    rows = len(next(iter(chunk.values())))
    for start in range(0, rows, batch or rows):
        places = start + np.arange(batch or rows) % min(batch or rows, rows - start)
        yield {name: np.take(array, places, axis=0) for name, array in chunk.items()}


def _graph(artifact: Artifact) -> tuple[bytes, "Files | None"]:
    """The graph's bytes, and the files of its archive by their names as seen from its folder; None where it is alone."""
    if not artifact.files:
        return artifact.data, None
    graphs = [name for name in artifact.files if name.endswith(".onnx")]
    if len(graphs) != 1:
        detail = f"The archive holds {len(graphs)} files .onnx, and not one: {', '.join(sorted(graphs)[:5])}"
        raise CannotLoad(Reason.LOAD_FAILED, detail)
    folder = graphs[0].removesuffix(graphs[0].rpartition("/")[2])
    beside = {name.removeprefix(folder): data for name, data in artifact.files.items() if name.startswith(folder)}
    return bytes(artifact.files[graphs[0]]), beside


def _open(data: bytes, options: LoadOptions, weights: "Files") -> Any:  # noqa: ANN401 - ONNX Runtime carries no types
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.use_deterministic_compute = True
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle models must not burn a core
    if weights:
        held = list(weights.values())
        settings.add_external_initializers_from_files_in_memory(list(weights), held, [len(one) for one in held])
    try:
        return onnxruntime.InferenceSession(data, settings, providers=[_PROVIDER])
    except Exception as error:
        raise _explain(error) from error


def _explain(error: Exception) -> Exception:
    text = str(error).removeprefix("[ONNXRuntimeError] : ").strip()
    low = text.lower()
    if "bad_alloc" in low or "failed to allocate" in low:
        return MemoryError(text)
    if "is not a registered function/op" in low or "no opset import for domain" in low:
        return CannotLoad(Reason.MISSING_DEPENDENCY, f"The graph uses an operator that is not available here: {text}")
    return CannotLoad(Reason.LOAD_FAILED, text)


def _signature(session: Any, classes: Mapping[str, tuple[str, ...]]) -> tuple[Signature, int]:  # noqa: ANN401 - as above
    """The session's signature with an open batch axis, and the batch that the graph really takes (0 for any)."""
    inputs = tuple(_input(one) for one in session.get_inputs())
    if not inputs:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, "The graph has no inputs.")
    batches = {one.shape[0] for one in session.get_inputs() if isinstance(one.shape[0], int) and one.shape[0] > 0}
    if len(batches) > 1:
        shapes = ", ".join(f"{one.name} {list(one.shape)}" for one in session.get_inputs())
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The first axis of every input must be the batch: {shapes}.")
    outputs = tuple(_output(one, classes) for one in session.get_outputs())
    batch = batches.pop() if batches else 0
    for one in session.get_outputs() if batch else ():
        if one.shape and isinstance(one.shape[0], int) and one.shape[0] not in {0, batch}:
            detail = f"The inputs have {batch} rows; the output {one.name!r} has the shape {list(one.shape)}: no answer a row."
            raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, detail)
    return Signature(inputs, outputs), batch


def _input(one: Any) -> TensorSpec:  # noqa: ANN401 - as above
    if one.type not in _DTYPES:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The input {one.name!r} is of the type {one.type}.")
    if not one.shape:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The input {one.name!r} has no batch axis.")
    return TensorSpec(one.name, _DTYPES[one.type], _open_shape(one.shape))


def _output(one: Any, classes: Mapping[str, tuple[str, ...]]) -> TensorSpec:  # noqa: ANN401 - as above
    if one.type in _ZIPMAPS and classes.get(one.name):
        return TensorSpec(one.name, Dtype.FP32, (-1, len(classes[one.name])), classes=classes[one.name])
    if one.type not in _DTYPES:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The output {one.name!r} is of the type {one.type}.")
    return TensorSpec(one.name, _DTYPES[one.type], _open_shape(one.shape or [-1]))


def _open_shape(shape: "list[int | str | None]") -> tuple[int, ...]:
    return (-1, *(axis if isinstance(axis, int) and axis > 0 else -1 for axis in shape[1:]))


def _as_texts(array: "NDArray[np.generic]", *, marks: bool) -> "NDArray[np.generic]":
    """Texts as ONNX Runtime takes them; it knows no missing text, but the graph may know one by its mark."""
    import numpy as np

    values = [one.decode() if isinstance(one, bytes) else one for one in array.reshape(-1).tolist()]
    if marks:
        values = [marked(one) for one in values]
    elif None in values:
        message = "a text is missing, and ONNX has no missing texts"
        raise ValueError(message)
    texts = np.empty(len(values), dtype=object)
    texts[:] = values
    return texts.reshape(array.shape)
