"""Runs models in OpenVINO's own form, an XML file and a file of weights, and ONNX graphs, on the CPU and from memory.

The XML is looked through before OpenVINO gets it: no document types or entities, no endless nesting, and no weight outside its
file. Nothing but OpenVINO's own operations is there to be used: extensions would have to be loaded from files, and none are.
The package brings `openvino-telemetry`, which its converter imports, and which starts a thread: the converter is kept out. That
is also why OpenVINO is imported in the runner and not before it is forked.

What was asked for is read back from the compiled network: OpenVINO takes another precision where a processor lacks one.
"""

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from xml.parsers import expat

from modelkeep.contracts import onnx_file
from modelkeep.contracts.pieces import in_pieces
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Format, LoadOptions, Manifest, ModelFacts, Precision
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

LARGEST_XML = 128 << 20
DEEPEST = 64

_DECLARATION = re.compile(rb"<!(?!--)")
_WEIGHTED = frozenset({"Convolution", "FullyConnected", "MatMul", "Gemm"})
_DTYPES = {
    "boolean": Dtype.BOOL,
    "u8": Dtype.UINT8,
    "u16": Dtype.UINT16,
    "u32": Dtype.UINT32,
    "u64": Dtype.UINT64,
    "i8": Dtype.INT8,
    "i16": Dtype.INT16,
    "i32": Dtype.INT32,
    "i64": Dtype.INT64,
    "f16": Dtype.FP16,
    "f32": Dtype.FP32,
    "f64": Dtype.FP64,
}


class OpenvinoRunner:
    """Loads archives of `.xml` and `.bin`."""

    manifest: ClassVar[Manifest] = Manifest(
        name="openvino",
        formats=(Format("openvino", (), "data", archive="memory"),),
        preload=("numpy",),
        needs=("openvino",),
        extra="openvino",
        also_runs=("onnx",),
        precisions=("f32", "bf16", "int8"),
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return None: one file alone is no such model."""
        del head, tail
        return None

    @staticmethod
    def recognise_files(names: tuple[str, ...]) -> str | None:
        """Return "openvino" for an archive with a `.xml` and the `.bin` of the same name, and nobody else's mark."""
        return "openvino" if "MLmodel" not in names and _networks(names) else None

    def load(self, artifact: Artifact, options: LoadOptions) -> "OpenvinoModel":
        """Build the network from its two files or its graph, and compile it for this processor."""
        if artifact.format == "onnx":
            return _from_onnx(artifact.data, options)
        names = _networks(tuple(artifact.files))
        if len(names) != 1:
            detail = f"The archive holds {len(names)} networks, and not one: {', '.join(names[:5])}"
            raise CannotLoad(Reason.LOAD_FAILED, detail)
        xml, weights = bytes(artifact.files[f"{names[0]}.xml"]), artifact.files[f"{names[0]}.bin"]
        inspect(xml, len(weights))
        return _from_ir(xml, weights, options)


def _from_ir(xml: bytes, weights: bytes | memoryview, options: LoadOptions) -> "OpenvinoModel":
    import numpy as np

    openvino = _framework()
    core = openvino.Core()
    held = np.frombuffer(weights, dtype=np.uint8).copy()  # where a file begins in an archive, no number need begin
    network = core.read_model(xml, openvino.Tensor(held) if held.size else openvino.Tensor(np.zeros(1, np.uint8)))
    return OpenvinoModel(core, network, options)


def _from_onnx(data: bytes, options: LoadOptions) -> "OpenvinoModel":
    """The network of an ONNX graph in one file, checked as strictly as ONNX Runtime's runner does."""
    onnx_file.inspect(data)
    inputs, outputs = onnx_file.names(data)
    core = _framework().Core()
    return OpenvinoModel(core, core.read_model(data), options, frozenset((*inputs, *outputs)))


class OpenvinoModel:
    """One compiled network. `declared` are the names that inputs and outputs have for people, where they have others too."""

    def __init__(
        self,
        core: Any,  # noqa: ANN401 - OpenVINO carries no types
        network: Any,  # noqa: ANN401 - the same
        options: LoadOptions,
        declared: frozenset[str] = frozenset(),
    ) -> None:
        openvino = _framework()
        self._compiled: Any = core.compile_model(network, "CPU", _settings(options))
        proven = proof(self._compiled, options.precision)
        inputs = tuple(_spec(port, "input", declared) for port in self._compiled.inputs)
        if not inputs:
            raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, "The network has no inputs.")
        self._names = [one.name for one in inputs]
        outputs = tuple(_spec(port, "output", declared) for port in self._compiled.outputs)
        self._outputs = [one.name for one in outputs]
        self._batch = _batch(self._compiled.inputs)
        found = Signature(inputs, outputs)
        self.facts = ModelFacts(
            signature=Signature(options.signature.inputs, outputs) if options.signature else found,
            framework="openvino",
            framework_version=openvino.__version__.partition("-")[0],
            kind="network",
            details={"network": network.get_friendly_name()}
            | ({"fixed_batch": str(self._batch)} if self._batch else {})
            | proven,
            warnings=(f"The network takes exactly {self._batch} rows: larger batches run in pieces.",) if self._batch else (),
            batch=self._batch,
        )

    def run(self, inputs: "Arrays") -> "dict[str, NDArray[np.generic]]":
        """Answer one micro-batch; a network of a fixed batch runs as often as needed, the last piece filled up."""
        return in_pieces(inputs, self._batch, self._batch, self._once) if self._batch else self._once(inputs)

    def _once(self, inputs: "Arrays") -> "dict[str, NDArray[np.generic]]":
        answer = self._compiled({place: inputs[name] for place, name in enumerate(self._names)})
        return {name: answer[place] for place, name in enumerate(self._outputs)}


def _settings(options: LoadOptions) -> dict[str, str]:
    return {
        # unless it is asked for, the answers are those of the original, also where bfloat16 is faster
        "INFERENCE_PRECISION_HINT": "bf16" if options.precision == "bf16" else "f32",
        "EXECUTION_MODE_HINT": "ACCURACY" if options.precision == "f32" else "PERFORMANCE",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(options.threads),
        "ENABLE_CPU_PINNING": "NO",
    }


def proof(compiled: Any, precision: Precision) -> dict[str, str]:  # noqa: ANN401 - OpenVINO carries no types
    """Return what the network runs on and in, as it says itself; raises `CannotLoad` where that is not what was asked for."""
    devices = list(compiled.get_property("EXECUTION_DEVICES"))
    if devices != ["CPU"]:
        raise CannotLoad(Reason.PROVIDER_MISMATCH, f"OpenVINO was to run it on the CPU, and says {', '.join(devices)}.")
    wanted, hint = "bf16" if precision == "bf16" else "f32", compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if hint != wanted:
        raise CannotLoad(Reason.PROVIDER_MISMATCH, f"OpenVINO was to compute in {wanted}, and says {hint}.")
    whole = sum(_runs_in(operation) in {"i8", "u8"} for operation in compiled.get_runtime_model().get_ops())
    if precision == "int8" and not whole:
        raise CannotLoad(Reason.PROVIDER_MISMATCH, "It was to compute in 8-bit integers, and OpenVINO runs no operation so.")
    return {"provider": "OpenVINO, CPU", "precision": "int8" if whole and precision != "bf16" else hint}


def _runs_in(operation: Any) -> str:  # noqa: ANN401 - as above
    """The datatype in which an operation with weights is run, "" for other operations."""
    told = operation.get_rt_info()
    layer = told["layerType"].astype(str) if "layerType" in told else ""
    return told["runtimePrecision"].astype(str) if layer in _WEIGHTED and "runtimePrecision" in told else ""


def _framework() -> Any:  # noqa: ANN401 - a module
    """OpenVINO, without its converter."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino.tools.ovc", None)  # what is None is not imported
    import openvino

    return openvino


def inspect(xml: bytes, weights: int) -> None:
    """Refuse an XML that is none, is too large or too deep, declares anything, or places a weight outside its file."""
    if len(xml) > LARGEST_XML:
        raise CannotLoad(Reason.LOAD_FAILED, f"The XML has {len(xml)} bytes; at most {LARGEST_XML} are read.")
    if b"\0" in xml or _DECLARATION.search(xml):
        raise CannotLoad(Reason.LOAD_FAILED, "The XML declares a document type or entities, or is not written in UTF-8.")
    parser = expat.ParserCreate("utf-8")
    seen = _Seen(weights)
    parser.StartElementHandler = seen.begin
    parser.EndElementHandler = seen.end
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise CannotLoad(Reason.TRUNCATED, f"The XML ends early, or is damaged: {error}") from error


class _Seen:
    """What was met in the XML so far."""

    def __init__(self, weights: int) -> None:
        self._weights = weights
        self._depth = 0

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST or (self._depth == 1 and name != "net"):
            raise CannotLoad(Reason.LOAD_FAILED, "The XML is no network of OpenVINO's, or is nested too deeply.")
        if name == "data" and {"offset", "size"} <= attributes.keys():
            numbers = attributes["offset"], attributes["size"]
            plain = all(one.isascii() and one.isdigit() and len(one) < DEEPEST for one in numbers)
            if not plain or sum(map(int, numbers)) > self._weights:
                raise CannotLoad(
                    Reason.TRUNCATED, f"A weight lies outside the file of weights, which has {self._weights} bytes."
                )

    def end(self, _name: str) -> None:
        self._depth -= 1


def _networks(names: tuple[str, ...]) -> list[str]:
    """What networks there are, without their suffixes."""
    stems = [name.removesuffix(".xml") for name in names if name.endswith(".xml")]
    return [stem for stem in stems if f"{stem}.bin" in names]


def _spec(port: Any, kind: str, declared: frozenset[str]) -> TensorSpec:  # noqa: ANN401 - OpenVINO's ports carry no types
    name = next(iter(sorted(port.names & declared)), port.any_name if port.names else port.node.get_friendly_name())
    type_name, shape = port.element_type.get_type_name(), port.partial_shape
    if type_name not in _DTYPES:
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The {kind} {name!r} is of the type {type_name}.")
    if shape.rank.is_dynamic or (kind == "input" and len(shape) == 0):
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The {kind} {name!r} has no batch axis, or any number of axes.")
    axes = [-1 if axis.is_dynamic else axis.get_length() for axis in shape]
    return TensorSpec(name, _DTYPES[type_name], (-1, *axes[1:]))


def _batch(ports: Any) -> int:  # noqa: ANN401 - as above
    """The batch that the network really takes (0 for any)."""
    batches = {port.partial_shape[0].get_length() for port in ports if not port.partial_shape[0].is_dynamic}
    if len(batches) > 1:
        shapes = ", ".join(f"{port.any_name} {port.partial_shape}" for port in ports)
        raise CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The first axis of every input must be the batch: {shapes}.")
    return int(batches.pop()) if batches else 0
