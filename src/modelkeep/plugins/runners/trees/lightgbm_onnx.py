"""LightGBM's boosters as ONNX, which compares and sums in FP64 as they do.

A split says what its column's missing values are. They are NaN, which goes the split's own way; or zero, and NaN with it; or
there are none, and NaN is taken for zero.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.onnx_nodes import Nodes
from modelkeep.contracts.runner import CannotCompile, Compiled
from modelkeep.contracts.signature import Dtype, Signature
from modelkeep.plugins.runners.trees import forest
from modelkeep.plugins.runners.trees import lightgbm_file as files
from modelkeep.plugins.runners.trees.forest import Forest, Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Answer = Callable[[Nodes, str], Sequence[str]]

_AS_IT_IS = frozenset(
    {"custom", "fair", "huber", "lambdarank", "mape", "quantile", "rank_xendcg", "regression", "regression_l1"}
)
_LOGARITHMS = frozenset({"poisson", "gamma", "tweedie"})
_DEFAULT_LEFT = 2
_KIND = 2
"""By how many bits the kind of missing values is shifted in what a split says of itself."""

_NO_MISSING, _ZERO = 0, 1


def compiled(data: bytes, objective: str, signature: Signature) -> Compiled:
    """Return the model of this file as ONNX; raises `CannotCompile`."""
    forest.check_convertible(signature)
    head, blocks = files.parts(data)
    if any(int(one["num_cat"]) for one in blocks):
        raise CannotCompile("It has columns of categories, which are not converted.")
    if any(int(one.get("is_linear", "0")) for one in blocks):
        raise CannotCompile("Its leaves are linear models, which are not converted.")
    outputs = int(head["num_class"])
    answer = _answer(objective, outputs)
    rounds = len(blocks) // outputs if "average_output" in head else 1
    trees = tuple(_tree(one, at % outputs, rounds) for at, one in enumerate(blocks))
    return forest.compiled(Forest(trees, outputs, "<=", _zero_is_missing(blocks)), signature, Dtype.FP64, answer)


def _zero_is_missing(blocks: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """Columns whose zeros are missing ones; raises `CannotCompile` where only some splits of a column say so."""
    kinds: dict[int, bool] = {}
    for block in blocks:
        for column, kind in zip(block.get("split_feature", "").split(), block.get("decision_type", "").split(), strict=True):
            is_zero = int(kind) >> _KIND == _ZERO
            if kinds.setdefault(int(column), is_zero) != is_zero:
                raise CannotCompile("Its splits do not agree on whether zero is a missing value.")
    return tuple(sorted(column for column, is_zero in kinds.items() if is_zero))


def _tree(block: Mapping[str, str], output: int, rounds: int) -> Tree:
    import numpy as np

    def listed(name: str, dtype: type) -> "NDArray[Any]":
        return np.array(block.get(name, "").split(), dtype=dtype)

    has_splits = int(block["num_leaves"]) > 1
    kinds = listed("decision_type", np.int64) if has_splits else np.zeros(0, dtype=np.int64)
    thresholds = listed("threshold", np.float64)
    missing_is_left = (kinds & _DEFAULT_LEFT) > 0
    return Tree(
        output=output,
        columns=listed("split_feature", np.int64),
        thresholds=_around_zero(thresholds),
        if_true=listed("left_child", np.int64),
        if_false=listed("right_child", np.int64),
        missing_is_true=np.where(kinds >> _KIND == _NO_MISSING, thresholds >= 0, missing_is_left),
        leaves=listed("leaf_value", np.float64) / rounds,
    )


def _around_zero(thresholds: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The thresholds, with those within the ends of zero at these ends: LightGBM takes every number in between for 0."""
    import numpy as np

    is_within = np.abs(thresholds) <= forest.ZERO
    return np.where(is_within, np.where(thresholds < 0, np.nextafter(-forest.ZERO, -1.0), forest.ZERO), thresholds)


def _answer(objective: str, outputs: int) -> "Answer":
    name, *settings = objective.split(" ")
    said = dict(one.partition(":")[::2] for one in settings)
    steepness = float(said.get("sigmoid", "1"))
    if name == "binary":
        return lambda nodes, sums: _classes(nodes, forest.of_two(nodes, _logistic(nodes, sums, steepness), Dtype.FP64))
    if name == "multiclass":
        return lambda nodes, sums: _classes(nodes, nodes.add("Softmax", sums, axis=1))
    if name == "multiclassova":
        return lambda nodes, sums: _classes(nodes, _logistic(nodes, sums, steepness))
    if name == "cross_entropy":
        return lambda nodes, sums: [forest.values(nodes, forest.logistic(nodes, sums, Dtype.FP64), outputs)]
    if name in _LOGARITHMS:
        return lambda nodes, sums: [forest.values(nodes, nodes.add("Exp", sums), outputs)]
    if name not in _AS_IT_IS:
        raise CannotCompile(f"Its objective is {name}, of which the way from leaves to answers is not known here.")
    if "sqrt" in said:
        return lambda nodes, sums: [forest.values(nodes, nodes.add("Mul", sums, nodes.add("Abs", sums)), outputs)]
    return lambda nodes, sums: [forest.values(nodes, sums, outputs)]


def _classes(nodes: Nodes, probabilities: str) -> list[str]:
    return [forest.best(nodes, probabilities), probabilities]


def _logistic(nodes: Nodes, sums: str, steepness: float) -> str:
    import numpy as np

    return forest.logistic(nodes, nodes.add("Mul", sums, nodes.constant(np.array(steepness))), Dtype.FP64)
