"""Makes a graph of 8-bit integers from one of floats, by the ranges that its tensors have over calibration rows. All in memory.

ONNX Runtime's own quantiser works through files, which a locked-in runner cannot have: so ranges are collected here, by a copy
of the graph that puts out the least and the greatest number of each tensor, and its quantiser for nodes is then used directly.
Weights become INT8, a scale for each channel; activations become UINT8, a scale for each tensor.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.runner import CannotCompile
from modelkeep.plugins.runners.onnx.folding import fold_normalisations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]
    Ranges = dict[str, tuple[float, float]]

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_KINDS = (*_WEIGHTED, "Add", "Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape", "Concat")
"""What is computed in integers: the operators with weights, and what lies between them."""

_LEAST, _GREATEST = "ReduceMin", "ReduceMax"
_OPSET = 13
"""The first one in which a scale may belong to a channel."""


def quantised(data: bytes, chunks: "Iterable[Arrays]", *, narrow: bool, spare_ends: bool, threads: int) -> bytes:
    """Return the graph in `data` with 8-bit weights and activations; raises `CannotCompile`.

    `chunks` are rows by input name, a few at a time. `narrow`: weights take 7 of the 8 bits, for processors that add products
    of 8 bits up in 16. `spare_ends`: the first and the last operator with weights stay as they are.
    """
    model = _prepared(data)
    spared = _ends(model) if spare_ends else []
    watched = _watched(model, spared)
    ranges = _ranges(model, watched, chunks, threads)
    return _integers(model, ranges, spared, narrow=narrow)


def _prepared(data: bytes) -> Any:  # noqa: ANN401 - ONNX carries no types
    """The graph with names for all nodes, types of all tensors, and no normalisation that a convolution can do."""
    import onnx

    model = onnx.load_from_string(data)
    version = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    if version < _OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
    fold_normalisations(model.graph)
    if not any(node.op_type in _WEIGHTED for node in model.graph.node):
        raise CannotCompile("The graph has no convolution and no product of matrices.")
    if any(node.op_type in {"QuantizeLinear", "DequantizeLinear"} for node in model.graph.node):
        raise CannotCompile("The graph computes with 8-bit integers as it is.")
    for place, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{place}"
    return onnx.shape_inference.infer_shapes(model)


def _ends(model: Any) -> list[str]:  # noqa: ANN401 - as above
    weighted = [node.name for node in model.graph.node if node.op_type in _WEIGHTED]
    return [weighted[0], weighted[-1]]


def _watched(model: Any, spared: list[str]) -> list[str]:  # noqa: ANN401 - as above
    """The tensors of floats that come into or out of what is to compute in integers."""
    from onnx import TensorProto

    graph = model.graph
    known = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.input, *graph.output)}
    weights = {one.name for one in graph.initializer}
    found: dict[str, None] = {}
    for node in graph.node:
        if node.op_type in _KINDS and node.name not in spared:
            found |= dict.fromkeys((*node.input, *node.output))
    return [name for name in found if name not in weights and known.get(name) == TensorProto.FLOAT]


def _ranges(model: Any, watched: list[str], chunks: "Iterable[Arrays]", threads: int) -> "Ranges":  # noqa: ANN401 - as above
    """The least and the greatest number of each tensor over all rows; raises `CannotCompile` where one is not finite."""
    import numpy as np

    names = [f"{name}/{kind}" for name in watched for kind in (_LEAST, _GREATEST)]
    session = _watching(model, watched, threads)
    least, greatest = np.full(len(watched), np.inf), np.full(len(watched), -np.inf)
    for chunk in chunks:
        seen = np.array(session.run(names, dict(chunk)), dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(seen).all():
            place = int(np.argmin(np.isfinite(seen).all(axis=1)))
            raise CannotCompile(f"The tensor {watched[place][:80]!r} is not finite over the calibration rows.")
        least, greatest = np.minimum(least, seen[:, 0]), np.maximum(greatest, seen[:, 1])
    return {name: (least[at], greatest[at]) for at, name in enumerate(watched)}


def _watching(model: Any, watched: list[str], threads: int) -> Any:  # noqa: ANN401 - as above
    """A session of the graph that can put out the range of each tensor."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in watched:
        for kind in (_LEAST, _GREATEST):
            copy.graph.node.append(helper.make_node(kind, [name], [f"{name}/{kind}"], keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(f"{name}/{kind}", TensorProto.FLOAT, []))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(copy.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def _integers(model: Any, ranges: "Ranges", spared: list[str], *, narrow: bool) -> bytes:  # noqa: ANN401 - as above
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    add_infer_metadata(model)  # shapes are inferred: the quantiser need not do it, which it would in a file
    seen = {name: (np.float32(least), np.float32(greatest)) for name, (least, greatest) in ranges.items()}
    quantiser = QDQQuantizer(
        model,
        True,
        narrow,
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, {name: tuple(map(np.asarray, both)) for name, both in seen.items()}),
        [],
        spared,
        list(_KINDS),
        {},
    )
    quantiser.quantize_model()
    done: bytes = quantiser.model.model.SerializeToString()
    return done
