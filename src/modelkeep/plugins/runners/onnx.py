"""Runs ONNX models with ONNX Runtime on the CPU.

The file's structure is walked here first, without a parser: a cut file is told from a damaged one, the classes of a ZipMap are
known before anything runs, and weights outside the file are refused (ONNX Runtime would read any file they name) unless they
are in the same archive: ONNX Runtime then gets them from memory, and opens nothing. Field numbers are those of `onnx.proto3`
(ONNX, Apache-2.0).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from modelkeep.contracts.missing import MARK, PROPERTY, marked
from modelkeep.contracts.pieces import in_pieces
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Format, LoadOptions, Manifest, ModelFacts
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Files = Mapping[str, memoryview | bytes]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_FIELDS = {
    1: _VARINT,  # ir_version
    2: _BYTES,  # producer_name
    3: _BYTES,  # producer_version
    4: _BYTES,  # domain
    5: _VARINT,  # model_version
    6: _BYTES,  # doc_string
    7: _BYTES,  # graph
    8: _BYTES,  # opset_import
    14: _BYTES,  # metadata_props
    20: _BYTES,  # training_info
    25: _BYTES,  # functions
    26: _BYTES,  # configuration
}
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_NEWEST_IR = 64
_PARTS = {  # which fields of a message are messages that may hold tensors
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_MAX_DEPTH = 100
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_NODE_OUTPUT, _NODE_OP, _NODE_ATTRIBUTE = 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS = 1, 8, 9
_VARINT_BITS = 64
_DAMAGED = "The file begins like ONNX, and is damaged further on."

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


class EndsEarlyError(Exception):
    """The bytes stop within a field."""


class NotProtobufError(Exception):
    """The bytes are not in the Protocol Buffers wire format."""


class OnnxRunner:
    """Loads `.onnx` files, alone or in an archive with the files that hold their weights."""

    manifest: ClassVar[Manifest] = Manifest(
        name="onnx",
        formats=(Format("onnx", (".onnx",), "data"), Format("onnx-files", (), "data", archive="memory")),
        preload=("numpy", "onnxruntime"),
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "onnx" for the beginning of a ModelProto: an IR version, then only fields that it has."""
        del tail
        seen = 0
        try:
            for field, kind, value in walk(memoryview(head)):
                if _MODEL_FIELDS.get(field) != kind or (seen == 0 and field != _IR_VERSION):
                    return None
                if field == _IR_VERSION and not (isinstance(value, int) and 0 < value < _NEWEST_IR):
                    return None
                seen += 1
        except EndsEarlyError:
            pass
        except NotProtobufError:
            return None
        return "onnx" if seen and len(head) > 2 else None  # noqa: PLR2004 - a version alone is no model

    @staticmethod
    def recognise_files(names: tuple[str, ...]) -> str | None:
        """Return "onnx-files" for an archive with a graph in it that is nobody else's."""
        return "onnx-files" if "MLmodel" not in names and any(name.endswith(".onnx") for name in names) else None

    def load(self, artifact: Artifact, options: LoadOptions) -> "OnnxModel":
        """Load the graph from its bytes."""
        data, beside = _graph(artifact)
        classes, used = inspect(data, beside)
        session = _open(data, options, used)
        return OnnxModel(session, options.signature, classes)


class OnnxModel:
    """One ONNX Runtime session."""

    def __init__(self, session: Any, known: Signature | None, classes: dict[str, tuple[str, ...]]) -> None:  # noqa: ANN401
        import onnxruntime

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
            details={name: text for name, text in details.items() if text},
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


def walk(data: memoryview) -> Iterator[tuple[int, int, "int | memoryview"]]:
    """Yield each field of a Protocol Buffers message: number, wire type, value. Raises where the bytes end within one."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        if field == 0 or kind not in {_VARINT, _FIXED64, _BYTES, _FIXED32}:
            raise NotProtobufError
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield field, kind, number
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        else:
            size = 8 if kind == _FIXED64 else 4
        if at + size > len(data):
            raise EndsEarlyError
        yield field, kind, data[at : at + size]
        at += size


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


def inspect(data: bytes, beside: "Files | None" = None) -> "tuple[dict[str, tuple[str, ...]], Files]":
    """Check that the file is whole, and alone but for what is in the files `beside` it; raises `CannotLoad`.

    Returns the classes of its ZipMaps by output name, and those of the files that its weights are in.
    """
    model = memoryview(data)
    try:
        fields = {field for field, _kind, _value in walk(model)}
    except EndsEarlyError:
        detail = f"The file has {len(data)} bytes and stops within a field that is longer."
        raise CannotLoad(Reason.TRUNCATED, detail) from None
    except NotProtobufError:
        raise CannotLoad(Reason.LOAD_FAILED, _DAMAGED) from None
    if not {_GRAPH, _OPSET} <= fields:
        raise CannotLoad(Reason.TRUNCATED, "The file stops before its graph is complete.")
    classes: dict[str, tuple[str, ...]] = {}
    used: dict[str, memoryview | bytes] = {}
    try:
        for kind, part in _messages("model", model, 0):
            if kind == "tensor" and _is_elsewhere(part):
                name = _whereabouts(part, beside)
                used[name] = (beside or {})[name]
            if kind == "node":
                classes |= _zipmap(part)
    except (EndsEarlyError, NotProtobufError):
        raise CannotLoad(Reason.LOAD_FAILED, _DAMAGED) from None
    return classes, used


def _whereabouts(tensor: memoryview, beside: "Files | None") -> str:
    """The file that a tensor's bytes are in; raises `CannotLoad` unless it is one of those `beside`, and they are inside it."""
    if beside is None:
        advice = "Push the folder that holds both files, or save the model as one file."
        raise CannotLoad(Reason.LOAD_FAILED, f"The model keeps its weights in another file. {advice}")
    told: dict[str, str] = {}
    for field, _kind, value in walk(tensor):
        if field == _EXTERNAL_DATA and isinstance(value, memoryview):
            entry = {part: bytes(text).decode(errors="replace") for part, _, text in walk(value) if not isinstance(text, int)}
            if entry.get(1, "") not in _EXTERNAL_KEYS or entry[1] in told:
                raise CannotLoad(Reason.LOAD_FAILED, f"A weight has an unknown or repeated property {entry.get(1, '')[:40]!r}.")
            told[entry[1]] = entry.get(2, "")
    name = told.get("location", "")
    if name not in beside or "*" in name:  # ONNX Runtime has names with stars for addresses in memory
        raise CannotLoad(Reason.LOAD_FAILED, f"The model keeps its weights in {name[:100]!r}, which is no file of the archive.")
    numbers = [told.get("offset", "0"), told.get("length", "0")]
    if not all(one.isascii() and one.isdigit() and len(one) < _VARINT_BITS for one in numbers) or sum(map(int, numbers)) > len(
        beside[name]
    ):
        raise CannotLoad(Reason.TRUNCATED, f"A weight lies outside {name[:100]!r}, which has {len(beside[name])} bytes.")
    return name


def _messages(kind: str, message: memoryview, depth: int) -> Iterator[tuple[str, memoryview]]:
    """Yield every message inside a message that may hold tensors, itself included."""
    if depth > _MAX_DEPTH:
        raise NotProtobufError
    yield kind, message
    parts = _PARTS[kind]
    if not parts:
        return
    for field, _kind, value in walk(message):
        if field in parts and isinstance(value, memoryview):
            yield from _messages(parts[field], value, depth + 1)


def _is_elsewhere(tensor: memoryview) -> bool:
    return any(field == _DATA_LOCATION and value for field, _kind, value in walk(tensor))


def _zipmap(node: memoryview) -> dict[str, tuple[str, ...]]:
    output, operator = "", ""
    classes: tuple[str, ...] = ()
    for field, _kind, value in walk(node):
        if not isinstance(value, memoryview):
            continue
        if field == _NODE_OUTPUT:
            output = bytes(value).decode(errors="replace")
        elif field == _NODE_OP:
            operator = bytes(value).decode(errors="replace")
        elif field == _NODE_ATTRIBUTE and operator == "ZipMap":
            classes = classes or _class_labels(value)
    return {output: classes} if operator == "ZipMap" else {}


def _class_labels(attribute: memoryview) -> tuple[str, ...]:
    name = ""
    labels: list[str] = []
    for field, _kind, value in walk(attribute):
        if field == _ATTRIBUTE_NAME and isinstance(value, memoryview):
            name = bytes(value).decode(errors="replace")
        elif field == _ATTRIBUTE_STRINGS and isinstance(value, memoryview):
            labels.append(bytes(value).decode(errors="replace"))
        elif field == _ATTRIBUTE_INTS:
            labels.extend(str(_signed(number)) for number in _integers(value))
    return tuple(labels) if name.startswith("classlabels") else ()


def _integers(value: int | memoryview) -> list[int]:
    """A repeated integer: one value, or many packed together."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _signed(number: int) -> int:
    return number - (1 << _VARINT_BITS) if number >> (_VARINT_BITS - 1) else number


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data):
            raise EndsEarlyError
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return number, at
        shift += 7
        if shift >= _VARINT_BITS:
            raise NotProtobufError


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
        return onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
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
