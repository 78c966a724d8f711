"""The nodes of an ONNX graph in the making, each result under a name of its own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TABLES = "ai.onnx.ml"
"""The domain of operators that look values up."""


class Nodes:
    """Nodes and constants, in the order in which they are computed. All names of results begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._made = 0

    def add(self, operator: str, *inputs: str, domain: str = "", name: str = "", **attributes: Any) -> str:  # noqa: ANN401 - ONNX carries no types here
        """Compute an operator; returns the name of its only result. `name` is what an error at run time says."""
        from onnx import helper

        result = self._fresh()
        node = helper.make_node(operator, list(inputs), [result], name=name or result, domain=domain, **attributes)
        self.nodes.append(node)
        return result

    def constant(self, array: "NDArray[np.generic]") -> str:
        """Return the name of a constant tensor."""
        from onnx import numpy_helper

        name = self._fresh()
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def cast(self, tensor: str, datatype: str) -> str:
        """Return the tensor in another datatype, by its name in ONNX: `DOUBLE`, `INT64`."""
        from onnx import TensorProto

        return self.add("Cast", tensor, to=getattr(TensorProto, datatype))

    def graft(self, model: Any, feeds: Mapping[str, str]) -> list[Any]:  # noqa: ANN401 - as above
        """Compute another model's graph on tensors of this one, by its input names; returns what its outputs are here."""
        from onnx import compose

        inner = compose.add_prefix(model, f"{self._fresh()}/").graph
        names = {new.name: feeds[old.name] for new, old in zip(inner.input, model.graph.input, strict=True)}
        for node in inner.node:
            for at, name in enumerate(node.input):
                node.input[at] = names.get(name, name)
        self.nodes.extend(inner.node)
        self.constants.extend(inner.initializer)
        return list(inner.output)

    def _fresh(self) -> str:
        self._made += 1
        return f"{self.prefix}{self._made}"
