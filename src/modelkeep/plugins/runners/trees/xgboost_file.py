"""XGBoost's model files, JSON and UBJSON, looked through before XGBoost sees them: its parser trusts what it reads.

The document is the same in both; `open_file` returns it when its trees are trees and its counts agree.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.trees import ubjson
from modelkeep.plugins.runners.trees.columns import Category, Feature
from modelkeep.plugins.runners.trees.structure import cut, damaged, no_way_back, same_length, whole_numbers, within

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JSON, UBJSON = "xgboost-json", "xgboost-ubj"

_JSON = re.compile(
    rb'\s*\{\s*(?:"learner"\s*:\s*\{\s*"(?:attributes|feature_names|feature_types|gradient_booster|learner_model_param|objective)"'
    rb'|"version"\s*:\s*\[\s*\d+\s*,\s*\d+\s*,\s*\d+\s*\]\s*,\s*"learner"\s*:)'
)
_UBJSON = re.compile(rb"\{(?:L\0{7}|l\0{3}|I\0|[iU])\x07(?:learner\{|version\[)")
_OLD_BINARY = (b"binf", b"bs64\t", b"CONFIG-offset:")
_OLD_HEADER_BYTES = 136
_OLD_OBJECTIVE = re.compile(rb"(?:reg|binary|multi|count|rank|survival):\w+")
_ROOT = {2147483647, -1}
_MOST_GROUPS = 1 << 20
_MOST_CODES = 1 << 24
_PER_NODE = (
    "left_children",
    "right_children",
    "parents",
    "split_indices",
    "split_conditions",
    "default_left",
    "sum_hessian",
    "loss_changes",
    "split_type",
)


class Description(msgspec.Struct, frozen=True):
    """What a model file says of its model. `attributes` are those that its author or a wrapper set."""

    booster: str
    objective: str
    features: tuple[Feature, ...]
    classes: int
    targets: int
    trees: int
    attributes: dict[str, str]
    version: str


def recognise(head: bytes) -> str | None:
    """Return the format that a file's beginning is of. The old binary format is taken for UBJSON, to be refused with advice."""
    if _JSON.match(head):
        return JSON
    if _UBJSON.match(head) or _is_old_binary(head):
        return UBJSON
    return None


def _is_old_binary(head: bytes) -> bool:
    if head.startswith(_OLD_BINARY):
        return True
    at = _OLD_HEADER_BYTES + 8
    size = int.from_bytes(head[_OLD_HEADER_BYTES:at], "little")
    return 0 < size < 64 and _OLD_OBJECTIVE.fullmatch(head[at : at + size]) is not None  # noqa: PLR2004 - a short name


def describe(data: bytes) -> Description:
    """Return what the file says of its model; raises `CannotLoad` where it is cut or contradicts itself."""
    document = read(data)
    try:
        return _checked(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise damaged(f"its parts are not those of a model ({type(error).__name__}: {error})") from error


def read(data: bytes) -> Any:  # noqa: ANN401 - a document
    """Return the document that the file is; raises `CannotLoad` where it is none."""
    if _is_old_binary(data[:4096]):
        detail = (
            "The file is in XGBoost's old binary format. Load it with the version that wrote it, and save it as .json or .ubj."
        )
        raise CannotLoad(Reason.MISMATCH, detail)
    if _UBJSON.match(data):
        try:
            return ubjson.decode(data)
        except ubjson.EndsEarlyError:
            raise cut(data, "within a value") from None
        except ubjson.NotUbjsonError:
            raise damaged("what it holds is no UBJSON") from None
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        if "truncated" in str(error) or not data.rstrip().endswith(b"}"):
            raise cut(data, "within a value") from None
        if b"NaN" not in data and b"Infinity" not in data:
            raise damaged(f"what it holds is no JSON ({error})") from None
    except UnicodeDecodeError:
        raise damaged("what it holds is no JSON") from None
    return _read_with_words_for_numbers(data)


def _read_with_words_for_numbers(data: bytes) -> Any:  # noqa: ANN401 - a document
    """Read JSON with NaN and Infinity, which XGBoost writes, and which JSON does not have."""
    import json

    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        if error.pos >= len(data) - 1 or not data.rstrip().endswith(b"}"):
            raise cut(data, "within a value") from None
        raise damaged(f"what it holds is no JSON ({error.msg})") from None
    except (UnicodeDecodeError, RecursionError):
        raise damaged("what it holds is no JSON") from None


def _checked(document: Mapping[str, Any]) -> Description:
    learner = document["learner"]
    params, booster, objective = learner["learner_model_param"], learner["gradient_booster"], learner["objective"]
    columns, classes = int(params["num_feature"]), int(params["num_class"])
    targets = int(params.get("num_target", 1))
    if not (0 < columns < 1 << 31 and 0 <= classes < _MOST_GROUPS and 0 < targets < _MOST_GROUPS):
        raise damaged("its counts of columns, classes or targets are impossible")
    groups = max(classes, targets, 1)
    _check_base_score(params["base_score"], groups)
    _check_objective(objective, classes, targets)
    name = str(booster["name"])
    model = booster["gbtree"]["model"] if name == "dart" else booster["model"]
    count = 0
    if name == "gblinear":
        same_length("the linear model", (columns + 1) * groups, model["weights"])
    elif name in {"gbtree", "dart"}:
        count = _check_forest(model, columns, groups)
        if name == "dart":
            same_length("the model", count, booster["weight_drop"])
    else:
        raise damaged(f"it has a booster of the unknown kind {name[:40]!r}")
    return Description(
        booster=name,
        objective=str(objective["name"]),
        features=_features(learner, model.get("cats") if isinstance(model, dict) else None, columns),
        classes=classes,
        targets=targets,
        trees=count,
        attributes={str(key): str(value) for key, value in (learner.get("attributes") or {}).items()},
        version=".".join(str(int(one)) for one in document["version"]),
    )


def base_scores(text: object) -> list[float]:
    """Return the base score of every output, or the one of all."""
    return list(map(float, msgspec.json.decode(str(text)))) if str(text).startswith("[") else [float(str(text))]


def _check_base_score(text: object, groups: int) -> None:
    if len(base_scores(text)) not in {1, groups}:
        raise damaged("its base score is of another number of outputs")


def _check_objective(objective: Mapping[str, Any], classes: int, targets: int) -> None:
    softmax = objective.get("softmax_multiclass_param")
    if softmax is not None and int(softmax["num_class"]) != classes:
        raise damaged("its objective has another number of classes")
    if str(objective["name"]).startswith("multi:") and not classes:
        raise damaged("its objective is of classes, and it has none")
    quantiles = objective.get("quantile_loss_param")
    if quantiles is not None:
        alpha = msgspec.json.decode(str(quantiles["quantile_alpha"]))
        if len(alpha if isinstance(alpha, list) else [alpha]) not in {1, targets}:
            raise damaged("its objective has another number of quantiles")


def _check_forest(model: Mapping[str, Any], columns: int, groups: int) -> int:
    trees, params = model["trees"], model["gbtree_model_param"]
    count = len(trees)
    info = whole_numbers(model["tree_info"], "the list of outputs of trees")
    if int(params["num_trees"]) != count or len(info) != count or int(params.get("num_parallel_tree", 1)) < 0:
        raise damaged(f"it has {count} trees and says otherwise")
    within(info, 0, groups, "the output of a tree")
    rounds = model.get("iteration_indptr")
    if rounds is not None and len(rounds):
        steps = whole_numbers(rounds, "the list of rounds")
        if int(steps[0]) != 0 or int(steps[-1]) != count or (steps[1:] < steps[:-1]).any():
            raise damaged("its rounds are of other trees")
    for place, tree in enumerate(trees):
        if tree.get("id", place) != place:
            raise damaged("its trees are in another order")
        _check_tree(tree, columns, groups)
    return count


def _check_tree(tree: Mapping[str, Any], columns: int, groups: int) -> None:
    import numpy as np

    params = tree["tree_param"]
    nodes, width = int(params["num_nodes"]), int(params.get("size_leaf_vector", 1))
    if not (0 < nodes < 1 << 31 and width in {0, 1, groups} and int(params["num_feature"]) in {0, columns}):
        raise damaged("a tree has impossible counts")
    same_length("a tree", nodes, *(tree[name] for name in _PER_NODE if name in tree))
    left, right = (whole_numbers(tree[name], name) for name in ("left_children", "right_children"))
    inner = left != -1
    children = np.concatenate([left[inner], right[inner]])
    within(left, -1, nodes, "a tree")
    within(right[inner], 0, nodes, "a tree")
    no_way_back(children, "a tree")
    parents = whole_numbers(tree["parents"], "parents")
    places = np.flatnonzero(inner)
    if int(parents[0]) not in _ROOT or (parents[children] != np.concatenate([places, places])).any():
        raise damaged("a tree's branches do not belong to each other")
    within(whole_numbers(tree["split_indices"], "split_indices")[inner], 0, columns, "a tree's column")
    if width > 1:
        same_length("a tree", nodes * width, tree["base_weights"])
        _check_vectors(tree, right, inner, width)
    else:
        same_length("a tree", nodes, tree["base_weights"])
        if (right[~inner] != -1).any():
            raise damaged("a leaf has a branch")
    _check_categories(tree, nodes)


def _check_vectors(tree: Mapping[str, Any], right: "NDArray[np.int64]", inner: "NDArray[np.bool_]", width: int) -> None:
    """A tree of several outputs: its leaves have their values in a list of their own, by number."""
    leaves = tree.get("leaf_weights")
    if leaves is not None:
        if len(leaves) % width:
            raise damaged("a tree has lists of different lengths")
        within(right[~inner], -1, len(leaves) // width, "a leaf")


def _check_categories(tree: Mapping[str, Any], nodes: int) -> None:
    if "categories" not in tree:
        return
    names = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
    codes, places, starts, sizes = (whole_numbers(tree[name], name) for name in names)
    same_length("a tree's categories", len(places), starts, sizes)
    within(codes, 0, _MOST_CODES, "a category")
    within(places, 0, nodes, "a category")
    within(sizes, 0, len(codes) + 1, "a category")
    within(starts, 0, len(codes) + 1, "a category")
    within(starts + sizes, 0, len(codes) + 1, "a category")
    kinds = whole_numbers(tree["split_type"], "split_type")
    within(kinds, 0, 2, "a kind of split")
    if sorted(places.tolist()) != kinds.nonzero()[0].tolist():
        raise damaged("a tree's categories are of other nodes")


def _features(learner: Mapping[str, Any], cats: Mapping[str, Any] | None, columns: int) -> tuple[Feature, ...]:
    names = [str(one) for one in learner.get("feature_names") or []]
    types = learner.get("feature_types") or []
    if len(names) not in {0, columns} or len(types) not in {0, columns}:
        raise damaged(f"it has {columns} columns and {len(names)} names")
    known = _categories(cats, columns) if cats else [None] * columns
    return tuple(Feature(names[at] if names else "", known[at]) for at in range(columns))


def _categories(cats: Mapping[str, Any], columns: int) -> list[tuple[Category, ...] | None]:
    """The categories of each column, from lists in the layout of Apache Arrow: texts are one string and where each begins."""
    encoded = cats["enc"]
    if not len(encoded):
        return [None] * columns
    same_length("the list of categories", columns, encoded)
    found = [_category_list(one) for one in encoded]
    segments = whole_numbers(cats["feature_segments"], "the list of categories")
    counts = [len(one or ()) for one in found]
    same_length("the list of categories", columns + 1, segments)
    if (segments[1:] - segments[:-1]).tolist() != counts or int(segments[0]) != 0:
        raise damaged("its lists of categories are of other lengths")
    order = whole_numbers(cats["sorted_idx"], "the order of categories")
    same_length("the order of categories", sum(counts), order)
    within(order, 0, max(counts, default=0) or 1, "the order of categories")
    return found


def _category_list(one: Mapping[str, Any]) -> tuple[Category, ...] | None:
    if "offsets" not in one:
        return tuple(int(value) for value in one["values"])
    offsets = whole_numbers(one["offsets"], "the list of categories").tolist()
    if not offsets:
        return None
    raw = bytes(int(value) & 0xFF for value in one["values"])
    if offsets[0] != 0 or offsets[-1] != len(raw) or any(end < start for start, end in pairwise(offsets)):
        raise damaged("its lists of categories are of other lengths")
    return tuple(raw[start:end].decode() for start, end in pairwise(offsets))
