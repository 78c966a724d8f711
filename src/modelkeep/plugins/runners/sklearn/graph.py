"""Changes an ONNX graph so that it gives the outputs that were declared: names, datatypes, ranks."""

from typing import Any

from modelkeep.contracts.runner import CannotCompile
from modelkeep.contracts.signature import Dtype, TensorSpec

_ONNX_NAMES = {
    Dtype.BOOL: "BOOL",
    Dtype.INT64: "INT64",
    Dtype.FP32: "FLOAT",
    Dtype.FP64: "DOUBLE",
    Dtype.UINT64: "UINT64",
    Dtype.BYTES: "STRING",
}


def declare_outputs(graph: Any, declared: tuple[TensorSpec, ...]) -> None:  # noqa: ANN401 - ONNX carries no types here
    """Have the graph's first outputs be the declared ones, in their order; raises `CannotCompile` where they are fewer."""
    if len(graph.output) < len(declared):
        raise CannotCompile(f"The converted graph has {len(graph.output)} outputs, and the model {len(declared)}.")
    found = list(graph.output)[: len(declared)]
    del graph.output[:]
    for value, spec in zip(found, declared, strict=True):
        graph.output.append(_declared(graph, value, spec))


def declared_input(spec: TensorSpec) -> Any:  # noqa: ANN401 - as above
    """Return the graph's input of this name, datatype and shape."""
    from onnx import TensorProto, helper

    shape = [axis if axis > 0 else None for axis in spec.shape]
    return helper.make_tensor_value_info(spec.name, getattr(TensorProto, _ONNX_NAMES[spec.dtype]), shape)


def after(graph: Any, name: str, *steps: "tuple[str, Any]") -> None:  # noqa: ANN401 - as above
    """Compute the tensor `name` further by these steps: an operator, and its second input or, for a Cast, its datatype."""
    from onnx import helper, numpy_helper

    inner = f"{name}__0"
    rename(graph, name, inner)
    for number, (operator, operand) in enumerate(steps, 1):
        outer = name if number == len(steps) else f"{name}__{number}"
        if operator == "Cast":
            graph.node.append(helper.make_node("Cast", [inner], [outer], to=operand))
        else:
            constant = f"{outer}__by"
            graph.initializer.append(numpy_helper.from_array(operand, constant))
            graph.node.append(helper.make_node(operator, [inner, constant], [outer]))
        inner = outer
    _sort(graph)


def rename(graph: Any, old: str, new: str) -> None:  # noqa: ANN401 - as above
    """Give the tensor that a node computes another name; who reads it keeps reading `old`, until something else makes it."""
    for node in graph.node:
        for at, name in enumerate(node.output):
            if name == old:
                node.output[at] = new


def _declared(graph: Any, value: Any, spec: TensorSpec) -> Any:  # noqa: ANN401 - as above
    import numpy as np
    from onnx import TensorProto, helper

    kind = value.type.tensor_type
    wanted = getattr(TensorProto, _ONNX_NAMES[spec.dtype])
    steps: list[tuple[str, Any]] = []
    if kind.elem_type != wanted:
        steps.append(("Cast", wanted))
    rank = len(kind.shape.dim)
    reshaped = rank > len(spec.shape) == 1 and all(one.dim_value == 1 for one in list(kind.shape.dim)[1:])
    if reshaped:
        steps.append(("Reshape", np.array([-1])))
    if value.name != spec.name:
        _replace(graph, value.name, spec.name)
    if steps:
        after(graph, spec.name, *steps)
    axes = spec.shape if reshaped or rank == len(spec.shape) else (-1,) * rank  # what only a run shows is compared in runs
    return helper.make_tensor_value_info(spec.name, wanted, [axis if axis > 0 else None for axis in axes])


def _replace(graph: Any, old: str, new: str) -> None:  # noqa: ANN401 - as above
    """Rename a tensor everywhere; what bore the new name steps aside."""
    taken = {name for node in graph.node for name in node.output}
    if new in taken:
        _replace(graph, new, f"{new}__inner")
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new


def _sort(graph: Any) -> None:  # noqa: ANN401 - as above
    """Put every node after those whose results it reads."""
    made = {one.name for one in graph.input} | {one.name for one in graph.initializer} | {""}
    left, order = list(graph.node), []
    while left:
        ready = [node for node in left if made.issuperset(node.input)]
        if not ready:
            raise CannotCompile("The converted graph reads what nothing in it makes.")
        order += ready
        made.update(name for node in ready for name in node.output)
        left = [node for node in left if not any(node is one for one in ready)]
    del graph.node[:]
    graph.node.extend(order)
