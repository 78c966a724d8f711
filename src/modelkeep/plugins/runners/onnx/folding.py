"""Folds normalisations into the convolutions before them: in integers, a number need not change its form between the two."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TERMS = 4


def fold_normalisations(graph: Any) -> int:  # noqa: ANN401 - ONNX carries no types
    """Have each convolution whose answers only a BatchNormalization takes do its work too; returns how many were folded.

    With g = scale / sqrt(variance + epsilon), weights become weights * g, and the bias (bias - mean) * g + shift. Weights that
    something else uses too, or that are no constants of the graph, are left alone.
    """
    constants = {one.name: one for one in graph.initializer}
    takers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            takers[name] = takers.get(name, 0) + 1
    for one in graph.output:
        takers[one.name] = takers.get(one.name, 0) + 1
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    folded = []
    for node in graph.node:
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" and len(node.output) == 1 else None
        if conv is None or takers[conv.output[0]] != 1:
            continue
        given = [*conv.input[1:], *node.input[1:]]
        if any(name not in constants or takers[name] != 1 for name in given):
            continue
        _fold(graph, constants, conv, node)
        folded.append(node)
    for node in folded:
        graph.node.remove(node)
    return len(folded)


def _fold(graph: Any, constants: dict[str, Any], conv: Any, normal: Any) -> None:  # noqa: ANN401 - as above
    import numpy as np
    from onnx import numpy_helper

    def values(name: str) -> "NDArray[np.float64]":
        return np.asarray(numpy_helper.to_array(constants[name]), dtype=np.float64)

    scale, shift, mean, variance = (values(name) for name in normal.input[1 : 1 + _TERMS])
    epsilon = next((one.f for one in normal.attribute if one.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    weight = values(conv.input[1])
    bias = values(conv.input[2]) if len(conv.input) > 2 else np.zeros_like(mean)  # noqa: PLR2004 - the bias may be left out
    kind = numpy_helper.to_array(constants[conv.input[1]]).dtype
    wider = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    constants[conv.input[1]].CopyFrom(numpy_helper.from_array(wider.astype(kind), conv.input[1]))
    name = f"{conv.output[0]}/folded_bias"
    graph.initializer.append(numpy_helper.from_array(((bias - mean) * factor + shift).astype(kind), name))
    del conv.input[2:]
    conv.input.append(name)
    conv.output[0] = normal.output[0]
