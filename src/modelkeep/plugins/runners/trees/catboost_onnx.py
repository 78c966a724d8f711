"""CatBoost's models of numbers as ONNX, which compares in FP32 and sums in FP64 as they do."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.onnx_nodes import Nodes
from modelkeep.contracts.runner import CannotCompile, Compiled
from modelkeep.contracts.signature import Dtype, Signature
from modelkeep.plugins.runners.trees import catboost_core, forest
from modelkeep.plugins.runners.trees.catboost_core import Core
from modelkeep.plugins.runners.trees.forest import Forest, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Places = NDArray[np.int64]
    Answer = Callable[[Nodes, str], Sequence[str]]

_ONE_AGAINST_ALL = "MultiClassOneVsAll"
_OPERATORS = {"RawFormulaVal": "Identity", "Exponent": "Exp"}
_THRESHOLD = "binclass_probability_threshold"


def compiled(model: Any, loss: str, kind_of_value: str, signature: Signature) -> Compiled:  # noqa: ANN401 - any model
    """Return the model as ONNX; raises `CannotCompile`. `kind_of_value` is what CatBoost is asked for, where it is no class."""
    import numpy as np

    forest.check_convertible(signature)
    if kind_of_value not in _OPERATORS:
        raise CannotCompile(f"Its answers are made of leaves as {kind_of_value}, which is not converted.")
    core = catboost_core.read(model._serialize_model())  # noqa: SLF001 - what pickle calls, and the only way without a file
    scale, bias = model.get_scale_and_bias()
    starts = [forest.constant(float(one), at, np.dtype(np.float64)) for at, one in enumerate(np.atleast_1d(bias))]
    trees = tuple(itertools.chain(starts, *_trees(core, scale)))
    answer = _answer(model, loss, _OPERATORS[kind_of_value], signature, core.dimension)
    return forest.compiled(Forest(trees, core.dimension, ">"), signature, Dtype.FP64, answer)


def _trees(core: Core, scale: float) -> Iterator[Iterator[Tree]]:
    """Each tree, once for every output that its leaves have a number for."""
    import numpy as np

    leaves = core.leaves.reshape(-1, core.dimension) * scale
    ends = np.cumsum(core.sizes)
    first_leaf = 0
    for start, end in zip((ends - core.sizes).tolist(), ends.tolist(), strict=True):
        if len(core.steps):
            splits, above, below, chosen = _grown(core, start, end)
        else:
            splits, above, below = _alike(core, start, end)
            chosen = np.arange(first_leaf, first_leaf + (1 << end - start))
            first_leaf += len(chosen)
        yield _for_each_output(core, splits, above, below, leaves[chosen])


def _for_each_output(
    core: Core, splits: "Places", above: "Places", below: "Places", leaves: "NDArray[np.float64]"
) -> Iterator[Tree]:
    for output in range(core.dimension):
        yield Tree(
            output=output,
            columns=core.columns[splits],
            thresholds=core.borders[splits],
            if_true=above,
            if_false=below,
            missing_is_true=core.missing_is_above[splits],
            leaves=leaves[:, output],
        )


def _alike(core: Core, start: int, end: int) -> "tuple[Places, Places, Places]":
    """A tree that asks the same on a whole level. The number of a leaf has a bit for each level, the first the lowest."""
    import numpy as np

    levels = core.splits[start:end].astype(np.int64)[::-1]
    splits = np.repeat(levels, 1 << np.arange(len(levels)))
    count = len(splits)
    below = 2 * np.arange(count) + 1  # as in a heap: the last level is followed by the leaves
    above = below + 1
    return splits, np.where(above < count, above, count - 1 - above), np.where(below < count, below, count - 1 - below)


def _grown(core: Core, start: int, end: int) -> "tuple[Places, Places, Places, Places]":
    """A tree whose nodes each have their own split, or none, or one with a leaf on this side only; and its leaves."""
    import numpy as np

    steps = core.steps[start:end].astype(np.int64)
    is_split, is_leaf = (steps > 0).any(axis=1), (steps == 0).any(axis=1)
    leaf = -np.cumsum(is_leaf)
    places = np.where(is_split, np.cumsum(is_split) - 1, leaf)
    here = np.arange(len(steps))
    below, above = (np.where(one > 0, places[here + one], leaf)[is_split] for one in steps.T)
    splits = core.splits[start:end].astype(np.int64)[is_split]
    return splits, above, below, core.step_leaves[start:end][is_leaf].astype(np.int64) // core.dimension


def _answer(model: Any, loss: str, operator: str, signature: Signature, outputs: int) -> "Answer":  # noqa: ANN401 - any model
    labels = model.classes_
    if not len(labels):
        return lambda nodes, sums: [forest.values(nodes, nodes.add(operator, sums), outputs)]
    if signature.outputs[0].shape != (-1,):
        return lambda nodes, sums: _several_labels(nodes, sums, outputs)
    if outputs > 1:
        return lambda nodes, sums: [_labelled(nodes, forest.best(nodes, sums), labels), _each(nodes, sums, loss)]
    least = _least_sum(model.get_metadata())
    return lambda nodes, sums: _of_two(nodes, sums, labels, least)


def _least_sum(metadata: Mapping[str, str]) -> float:
    """Above what sum of leaves the second of two classes is answered."""
    import numpy as np

    threshold = float(metadata[_THRESHOLD]) if _THRESHOLD in metadata.keys() else 0.5  # noqa: SIM118 - it has keys, and cannot be asked otherwise
    with np.errstate(divide="ignore"):
        return float(np.log(threshold) - np.log1p(-threshold))


def _of_two(nodes: Nodes, sums: str, labels: "NDArray[np.generic]", least: float) -> list[str]:
    second = forest.values(nodes, forest.is_above(nodes, sums, least, Dtype.FP64), 1)
    return [_labelled(nodes, second, labels), forest.of_two(nodes, forest.logistic(nodes, sums, Dtype.FP64), Dtype.FP64)]


def _each(nodes: Nodes, sums: str, loss: str) -> str:
    """The probabilities of several classes."""
    return forest.logistic(nodes, sums, Dtype.FP64) if loss == _ONE_AGAINST_ALL else nodes.add("Softmax", sums)


def _several_labels(nodes: Nodes, sums: str, outputs: int) -> list[str]:
    probabilities = forest.logistic(nodes, sums, Dtype.FP64)
    return [forest.is_above(nodes, sums, 0.0, Dtype.FP64), *forest.each_of_two(nodes, probabilities, outputs, Dtype.FP64)]


def _labelled(nodes: Nodes, places: str, labels: "NDArray[np.generic]") -> str:
    """The labels at these places, which are texts, whole numbers, numbers or booleans."""
    import numpy as np

    kind = labels.dtype.kind
    known = labels.astype(object if kind in "US" else np.int64 if kind in "iu" else labels.dtype)
    return nodes.add("Gather", nodes.constant(known), places)
