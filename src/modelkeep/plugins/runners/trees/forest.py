"""Boosted trees of any framework as ONNX: the one form that every file is brought to, and the graph that sums its leaves.

The node is `TreeEnsemble` of ai.onnx.ml 5, written here and by no converter. onnxmltools 1.16 rounds LightGBM's thresholds to
FP32, where LightGBM compares in FP64, does not know columns whose zeros are missing values, and has nothing for CatBoost,
whose own exporter sums in FP32 and writes a file, which a runner may not. This node compares and sums in FP64 where the
framework does, and says of each split which way a missing value goes.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelkeep.contracts.edges import some_of
from modelkeep.contracts.onnx_nodes import TABLES, Nodes
from modelkeep.contracts.runner import CannotCompile, Compiled
from modelkeep.contracts.signature import Dtype, Layout, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Places = NDArray[np.int64]

    Answer = Callable[[Nodes, str], Sequence[str]]
    """From the tensor of sums [n, outputs] to the tensors that are answered, in the order of the signature."""

Comparison = Literal["<=", "<", ">"]

_MODES = {"<=": 0, "<": 1, ">": 3}  # as ONNX numbers them
_SUM, _AS_IT_IS = 1, 0
_OPSETS = {"": 18, TABLES: 5}
_IR_VERSION = 10
_PREFIX = "trees/"
_HALF = 0.5


class Tree(msgspec.Struct, frozen=True):
    """One tree, which adds to one output.

    Of each split: the column, the threshold, where it leads if the comparison is true and where if it is false, and whether a
    missing value goes where a true one does. The root is split 0; a place below 0 is a leaf, whose number is its complement.
    A tree without splits is its only leaf.
    """

    output: int
    columns: "Places"
    thresholds: "Floats"
    if_true: "Places"
    if_false: "Places"
    missing_is_true: "NDArray[np.bool_]"
    leaves: "Floats"


class Forest(msgspec.Struct, frozen=True):
    """Trees that are summed. All compare a value with their thresholds in the same way.

    `zero_is_missing`: columns in which a number that differs from 0 by no more than `ZERO` is a missing one.
    """

    trees: tuple[Tree, ...]
    outputs: int
    comparison: Comparison
    zero_is_missing: tuple[int, ...] = ()


ZERO = 1.0000000180025095e-35
"""What LightGBM takes for zero, and less: 1e-35 in FP32."""


def constant(value: float, output: int, dtype: "np.dtype[np.floating]") -> Tree:
    """Return a tree of one leaf: what the others are added to."""
    import numpy as np

    none, nowhere = np.zeros(0, dtype=dtype), np.zeros(0, dtype=np.int64)
    return Tree(output, nowhere, none, nowhere, nowhere, nowhere.astype(bool), np.array([value], dtype=dtype))


def check_convertible(signature: Signature) -> None:
    """Raise `CannotCompile` where no model of this signature is converted, or nothing here could write it."""
    if signature.layout is not Layout.MATRIX:
        raise CannotCompile("It has columns of categories, which are not converted.")
    if importlib.util.find_spec("onnx") is None:
        raise CannotCompile("The package onnx, which writes graphs, is not installed here.")


def compiled(forest: Forest, signature: Signature, dtype: Dtype, answer: "Answer") -> Compiled:
    """Return the graph that reads a matrix, sums the leaves in `dtype`, and answers what `answer` makes of the sums."""
    from onnx import helper

    nodes = Nodes(_PREFIX)
    (source,) = signature.inputs
    rows = source.name if source.dtype is dtype else nodes.cast(source.name, _type_name(dtype))
    answers = answer(nodes, _summed(nodes, forest, _with_zeros_missing(nodes, forest, rows, source.shape[1]), dtype))
    for tensor, spec in zip(answers, signature.outputs, strict=True):
        nodes.nodes.append(helper.make_node("Identity", [tensor], [spec.name]))
    graph = helper.make_graph(
        nodes.nodes, "trees", [_declared(source)], list(map(_declared, signature.outputs)), nodes.constants
    )
    opsets = [helper.make_opsetid(domain, at) for domain, at in _OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="modelkeep")
    return Compiled(model.SerializeToString(), "onnx", "onnx", _edges(forest, source.shape[1]))


def _summed(nodes: Nodes, forest: Forest, rows: str, dtype: Dtype) -> str:
    """The sums of the leaves that rows reach, [n, outputs]. A tree without splits is one whose both ways end in its leaf."""
    import numpy as np
    from onnx import numpy_helper

    none = np.zeros(1, dtype=np.int64)
    splits = [max(len(tree.columns), 1) for tree in forest.trees]
    first_split = np.cumsum([0, *splits])[:-1]
    first_leaf = np.cumsum([0, *(len(tree.leaves) for tree in forest.trees)])[:-1]

    def joined(of: "Callable[[Tree], NDArray[np.generic]]", otherwise: "NDArray[np.generic]" = none) -> "NDArray[np.generic]":
        return np.concatenate([of(tree) if len(tree.columns) else otherwise for tree in forest.trees])

    def ways(of: "Callable[[Tree], Places]") -> "tuple[list[int], list[int]]":
        to = joined(of, none - 1).astype(np.int64)
        is_leaf = to < 0
        places = np.where(is_leaf, ~to + np.repeat(first_leaf, splits), to + np.repeat(first_split, splits))
        return places.tolist(), is_leaf.astype(np.int64).tolist()

    true_ways, true_ends = ways(lambda tree: tree.if_true)
    false_ways, false_ends = ways(lambda tree: tree.if_false)
    weights = np.concatenate([tree.leaves for tree in forest.trees]).astype(dtype.numpy)
    return nodes.add(
        "TreeEnsemble",
        rows,
        domain=TABLES,
        n_targets=forest.outputs,
        aggregate_function=_SUM,
        post_transform=_AS_IT_IS,
        tree_roots=first_split.tolist(),
        nodes_featureids=joined(lambda tree: tree.columns).tolist(),
        nodes_splits=numpy_helper.from_array(joined(lambda tree: tree.thresholds).astype(dtype.numpy)),
        nodes_modes=numpy_helper.from_array(np.full(sum(splits), _MODES[forest.comparison], dtype=np.uint8)),
        nodes_missing_value_tracks_true=joined(lambda tree: tree.missing_is_true.astype(np.int64)).tolist(),
        nodes_truenodeids=true_ways,
        nodes_trueleafs=true_ends,
        nodes_falsenodeids=false_ways,
        nodes_falseleafs=false_ends,
        leaf_targetids=np.repeat([tree.output for tree in forest.trees], [len(tree.leaves) for tree in forest.trees]).tolist(),
        leaf_weights=numpy_helper.from_array(weights),
    )


def _with_zeros_missing(nodes: Nodes, forest: Forest, rows: str, width: int) -> str:
    """The rows with NaN for what is zero, in the columns where that is missing."""
    import numpy as np

    if not forest.zero_is_missing:
        return rows
    least = np.full(width, -1.0)  # no size is below it
    least[list(forest.zero_is_missing)] = ZERO
    is_zero = nodes.add("LessOrEqual", nodes.add("Abs", rows), nodes.constant(least))
    return nodes.add("Where", is_zero, nodes.constant(np.array(np.nan)), rows)


def _edges(forest: Forest, width: int) -> tuple[tuple[float, ...], ...]:
    """The thresholds of each column, evenly chosen, and the ends of zero where that is missing."""
    found: list[list[float]] = [[-ZERO, 0.0, ZERO] if at in forest.zero_is_missing else [] for at in range(width)]
    for tree in forest.trees:
        for column, threshold in zip(tree.columns.tolist(), tree.thresholds.tolist(), strict=True):
            found[column].append(threshold)
    return tuple(map(some_of, found))


def _declared(spec: TensorSpec) -> Any:  # noqa: ANN401 - ONNX carries no types here
    from onnx import TensorProto, helper

    shape = [axis if axis > 0 else None for axis in spec.shape]
    return helper.make_tensor_value_info(spec.name, getattr(TensorProto, _type_name(spec.dtype)), shape)


_TYPE_NAMES = {Dtype.FP32: "FLOAT", Dtype.FP64: "DOUBLE", Dtype.INT64: "INT64", Dtype.BOOL: "BOOL", Dtype.BYTES: "STRING"}


def _type_name(dtype: Dtype) -> str:
    """The datatype's name in ONNX."""
    return _TYPE_NAMES[dtype]


# ---- what is made of sums


def values(nodes: Nodes, sums: str, outputs: int) -> str:
    """Return numbers that are answered: [n] where there is one a row."""
    import numpy as np

    return nodes.add("Reshape", sums, nodes.constant(np.array([-1]))) if outputs == 1 else sums


def logistic(nodes: Nodes, sums: str, dtype: Dtype) -> str:
    """Return 1 / (1 + exp(-x)), as the frameworks compute it.

    ONNX Runtime's own Sigmoid is made for speed: in FP32 it errs by 1e-7, so that what is rarer has no order, or is 0.
    """
    import numpy as np

    one = nodes.constant(np.array(1, dtype=dtype.numpy))
    return nodes.add("Div", one, nodes.add("Add", one, nodes.add("Exp", nodes.add("Neg", sums))))


def of_two(nodes: Nodes, second: str, dtype: Dtype) -> str:
    """Return [n, 2] of the probability of the second class, [n, 1]."""
    import numpy as np

    return nodes.add("Concat", nodes.add("Sub", nodes.constant(np.ones(1, dtype=dtype.numpy)), second), second, axis=1)


def is_above(nodes: Nodes, tensor: str, least: float, dtype: Dtype) -> str:
    """Return 1 or 0, INT64, by whether a number is greater than `least`."""
    import numpy as np

    return nodes.cast(nodes.add("Greater", tensor, nodes.constant(np.array(least, dtype=dtype.numpy))), "INT64")


def is_likely(nodes: Nodes, probability: str, dtype: Dtype) -> str:
    """Return 1 or 0, INT64, by whether a probability is above one half."""
    return is_above(nodes, probability, _HALF, dtype)


def best(nodes: Nodes, scores: str) -> str:
    """Return the place of each row's highest score, the first of equals, INT64 [n]."""
    return nodes.add("ArgMax", scores, axis=1, keepdims=0)


def each_of_two(nodes: Nodes, probabilities: str, outputs: int, dtype: Dtype) -> list[str]:
    """Return [n, 2] for each column of probabilities."""
    import numpy as np

    columns = [nodes.add("Gather", probabilities, nodes.constant(np.array([at])), axis=1) for at in range(outputs)]
    return [of_two(nodes, one, dtype) for one in columns]
