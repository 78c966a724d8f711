"""XGBoost's boosters of trees as ONNX, which compares and sums in FP32 as they do, in their order."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.onnx_nodes import Nodes
from modelkeep.contracts.runner import CannotCompile, Compiled
from modelkeep.contracts.signature import Dtype, Signature
from modelkeep.plugins.runners.trees import forest
from modelkeep.plugins.runners.trees import xgboost_file as files
from modelkeep.plugins.runners.trees.forest import Forest, Tree

if TYPE_CHECKING:
    Answer = Callable[[Nodes, str], Sequence[str]]

_AS_IT_IS = frozenset(
    {
        "binary:hinge",
        "binary:logitraw",
        "multi:softmax",
        "multi:softprob",
        "rank:map",
        "rank:ndcg",
        "rank:pairwise",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "reg:squarederror",
        "reg:squaredlogerror",
    }
)
_LEAST_SCORE = 1e-6
_LOGITS = frozenset({"binary:logistic", "reg:logistic"})
_LOGARITHMS = frozenset({"count:poisson", "reg:gamma", "reg:tweedie", "survival:aft", "survival:cox"})


def compiled(booster: Any, rounds: tuple[int, int], signature: Signature) -> Compiled:  # noqa: ANN401 - any booster
    """Return the booster as ONNX, of these rounds of it, (0, 0) for all; raises `CannotCompile`."""
    forest.check_convertible(signature)
    if signature.inputs[0].dtype is not Dtype.FP32:
        raise CannotCompile("It has columns of categories, which are not converted.")
    learner = files.read(bytes(booster.save_raw("ubj")))["learner"]  # as this version of XGBoost understood the file
    objective, part = str(learner["objective"]["name"]), learner["gradient_booster"]
    if part["name"] == "gblinear":
        raise CannotCompile("It is a linear model and has no trees.")
    if objective not in _AS_IT_IS | _LOGITS | _LOGARITHMS:
        raise CannotCompile(f"Its objective is {objective}, of which the way from leaves to answers is not known here.")
    model = part["gbtree"]["model"] if part["name"] == "dart" else part["model"]
    starts = _starts(learner["learner_model_param"], objective)
    count = int(model["iteration_indptr"][rounds[1]]) if rounds[1] else len(model["trees"])
    found = Forest((*starts, *_trees(model, count, part.get("weight_drop"))), len(starts), "<")
    return forest.compiled(found, signature, Dtype.FP32, _answer(objective, signature, len(starts)))


def _starts(params: Mapping[str, Any], objective: str) -> list[Tree]:
    """What each output begins with: the base score, as the sum of leaves that would be answered so."""
    import numpy as np

    groups = max(int(params["num_class"]), int(params.get("num_target", 1)), 1)
    scores = files.base_scores(params["base_score"])
    if objective in _LOGITS:
        within = [min(max(one, _LEAST_SCORE), 1 - _LEAST_SCORE) for one in scores]  # as XGBoost has it
        scores = [math.log(one / (1 - one)) for one in within]
    elif objective in _LOGARITHMS:
        scores = [math.log(one) for one in scores]
    each = scores * groups if len(scores) == 1 else scores
    return [forest.constant(one, at, np.dtype(np.float32)) for at, one in enumerate(each)]


def _trees(model: Mapping[str, Any], count: int, weights: Sequence[float] | None) -> list[Tree]:
    """The first `count` trees; those of a booster that dropped some have weights."""
    outputs = model["tree_info"]
    return [
        _tree(tree, int(outputs[at]), 1.0 if weights is None else float(weights[at]))
        for at, tree in enumerate(model["trees"][:count])
    ]


def _tree(tree: Mapping[str, Any], output: int, weight: float) -> Tree:
    import numpy as np

    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise CannotCompile("Its leaves hold several numbers each, which is not converted.")
    if np.any(tree["split_type"]):
        raise CannotCompile("It has columns of categories, which are not converted.")
    left, right = (np.asarray(tree[side], dtype=np.int64) for side in ("left_children", "right_children"))
    is_split = left != -1
    places = np.where(is_split, np.cumsum(is_split) - 1, -np.cumsum(~is_split))  # of a split, or the complement of a leaf's
    values = np.asarray(tree["split_conditions"], dtype=np.float32)  # thresholds, and at the ends the leaves
    return Tree(
        output=output,
        columns=np.asarray(tree["split_indices"], dtype=np.int64)[is_split],
        thresholds=values[is_split],
        if_true=places[left[is_split]],
        if_false=places[right[is_split]],
        missing_is_true=np.asarray(tree["default_left"]).astype(bool)[is_split],
        leaves=values[~is_split] * np.float32(weight),
    )


def _answer(objective: str, signature: Signature, outputs: int) -> "Answer":
    if objective == "binary:hinge":
        return lambda nodes, sums: [forest.values(nodes, forest.is_above(nodes, sums, 0.0, Dtype.FP32), outputs)]
    if objective.startswith("multi:"):
        return lambda nodes, sums: _of_several(nodes, sums, is_soft=objective == "multi:softprob")
    if objective == "reg:logistic":
        return lambda nodes, sums: [forest.values(nodes, forest.logistic(nodes, sums, Dtype.FP32), outputs)]
    if signature.outputs[0].name == "label":
        return lambda nodes, sums: _of_two(nodes, sums, outputs)
    operator = "Exp" if objective in _LOGARITHMS else "Identity"
    return lambda nodes, sums: [forest.values(nodes, nodes.add(operator, sums), outputs)]


def _of_several(nodes: Nodes, sums: str, *, is_soft: bool) -> list[str]:
    """The class and the probabilities; `softprob` takes the class from these, where two sums may have become one number."""
    probabilities = nodes.add("Softmax", sums, axis=1)
    return [forest.best(nodes, probabilities if is_soft else sums), probabilities]


def _of_two(nodes: Nodes, sums: str, outputs: int) -> list[str]:
    second = forest.logistic(nodes, sums, Dtype.FP32)
    label = forest.values(nodes, forest.is_likely(nodes, second, Dtype.FP32), outputs)
    if outputs == 1:
        return [label, forest.of_two(nodes, second, Dtype.FP32)]
    return [label, *forest.each_of_two(nodes, second, outputs, Dtype.FP32)]
