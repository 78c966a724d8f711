"""LightGBM's text files, looked through before LightGBM sees them: an edited one ends its process, or never ends.

A file is a head, one block a tree, an end mark, importances, parameters, and the categories that a pandas table had.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from modelkeep.plugins.runners.trees.columns import Category
from modelkeep.plugins.runners.trees.structure import cut, damaged, no_way_back, same_length, within

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_START = re.compile(rb"tree\r?\nversion=v\d")
_TREE = re.compile(rb"^Tree=(\d+)$", re.MULTILINE)
_END_OF_TREES, _END_OF_PARAMETERS = b"\nend of trees", b"\nend of parameters"
_CATEGORIES = b"pandas_categorical:"
_CATEGORICAL = re.compile(rb"^\[categorical_feature: ([\d,]+)\]$", re.MULTILINE)
_UNNAMED = re.compile(r"Column_(\d+)")
_MOST_CLASSES = 1 << 20
_MOST_LEAVES = 1 << 24
_IS_CATEGORICAL = 1
_PER_LEAF = frozenset({"leaf_weight", "leaf_count"})
_PER_SPLIT = frozenset({"split_gain", "internal_value", "internal_weight", "internal_count"})


class Description(msgspec.Struct, frozen=True):
    """What a model file says of its model.

    `names` has one for every column, "" where it has none. `categorical`: the places of columns that are compared as
    categories. `categories`: those of the pandas table, column by column, without saying which columns.
    """

    objective: str
    classes: int
    names: tuple[str, ...]
    categorical: tuple[int, ...]
    categories: tuple[tuple[Category, ...], ...]
    trees: int
    version: str


def recognise(head: bytes) -> bool:
    """Whether a file begins as LightGBM's do."""
    return _START.match(head) is not None


def describe(data: bytes) -> Description:
    """Return what the file says of its model; raises `CannotLoad` where it is cut or contradicts itself."""
    trees_end, tail = _whole(data)
    starts = list(_TREE.finditer(data, 0, trees_end))
    try:
        head = _head(data, starts, trees_end)
        names = tuple(head["feature_names"].split(" "))
        infos = head["feature_infos"].split(" ")
        classes, per_round = int(head["num_class"]), int(head["num_tree_per_iteration"])
        same_length("the head", int(head["max_feature_idx"]) + 1, names, infos)
        if not (0 < classes < _MOST_CLASSES and per_round == classes and len(starts) % per_round == 0):
            raise damaged(f"it has {len(starts)} trees, {per_round} a round, for {classes} classes")
        _check_sizes(head, [one.start() for one in starts], trees_end)
        for place, (start, tree) in enumerate(zip(starts, _blocks(data, starts, trees_end), strict=True)):
            if int(start[1]) != place:
                raise damaged("its trees are in another order")
            _check_tree(tree, len(names))
        return Description(
            objective=_objective(head, classes),
            classes=classes,
            names=("",) * len(names) if _are_made_up(names) else names,
            categorical=_categorical(data, infos),
            categories=_categories(tail),
            trees=len(starts),
            version=head["version"],
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise damaged(f"its parts are not those of a model ({type(error).__name__}: {error})") from error


def _whole(data: bytes) -> tuple[int, bytes]:
    """Where the trees end, and what follows the parameters; raises `CannotLoad` where the file stops before."""
    trees = data.rfind(_END_OF_TREES)
    if trees < 0:
        raise cut(data, "before the end of its trees")
    parameters = data.find(_END_OF_PARAMETERS, trees)
    if parameters >= 0:
        tail = data[parameters + len(_END_OF_PARAMETERS) :].strip()
    else:
        tail = data[max(data.rfind(_CATEGORIES), trees) :].strip()
        if b"\nparameters:" in data[trees:] or not tail.startswith(_CATEGORIES):
            raise cut(data, "before the end of its parameters")
    if tail and not (tail.startswith(_CATEGORIES) and tail.endswith((b"]", b"null"))):
        raise cut(data, "before the end of its categories")
    return trees + 1, tail


def answering_part(data: bytes) -> bytes:
    """Return the file without importances, parameters and categories: no answer needs them."""
    return data[: data.rfind(_END_OF_TREES)] + _END_OF_TREES + b"\n\n" + _CATEGORIES + b"null\n"


def parts(data: bytes) -> tuple[Mapping[str, str], list[Mapping[str, str]]]:
    """Return the lines `name=value` of the head, and those of each tree."""
    trees_end, _tail = _whole(data)
    starts = list(_TREE.finditer(data, 0, trees_end))
    return _head(data, starts, trees_end), list(_blocks(data, starts, trees_end))


def _head(data: bytes, starts: list[re.Match[bytes]], trees_end: int) -> Mapping[str, str]:
    return _fields(data[: starts[0].start() if starts else trees_end])


def _blocks(data: bytes, starts: list[re.Match[bytes]], trees_end: int) -> Iterator[Mapping[str, str]]:
    ends = [*(one.start() for one in starts[1:]), trees_end]
    for start, end in zip(starts, ends, strict=True):
        yield _fields(data[start.end() : end])


def _fields(block: bytes) -> Mapping[str, str]:
    """The lines `name=value` of a block."""
    parts = (line.partition("=") for line in block.decode().splitlines())
    return {name: value for name, _is, value in parts}


def _check_sizes(head: Mapping[str, str], starts: list[int], end: int) -> None:
    """The head says how long each block is, and LightGBM looks for it there."""
    if "tree_sizes" not in head:
        return
    sizes = [int(one) for one in head["tree_sizes"].split()]
    found = [after - start for start, after in zip(starts, [*starts[1:], end], strict=True)]
    if sizes != found:
        raise damaged("its trees are of other lengths than its head says")


def _check_tree(tree: Mapping[str, str], columns: int) -> None:
    import numpy as np

    leaves, sets = int(tree["num_leaves"]), int(tree["num_cat"])
    if not (0 < leaves < _MOST_LEAVES and 0 <= sets < _MOST_LEAVES):
        raise damaged("a tree has impossible counts")
    splits = leaves - 1
    _numbers(tree, "leaf_value", leaves)
    for name in tree.keys() & _PER_LEAF:
        _numbers(tree, name, leaves if splits else len(tree[name].split()))
    for name in tree.keys() & _PER_SPLIT:
        _numbers(tree, name, splits)
    float(tree.get("shrinkage", "1"))
    if int(tree.get("is_linear", "0")):
        _check_linear(tree, leaves, columns)
    if not splits:
        return
    left, right = _whole_numbers(tree, "left_child", splits), _whole_numbers(tree, "right_child", splits)
    children = np.concatenate([left, right])
    within(children, -leaves, splits, "a tree")
    no_way_back(children[children >= 0], "a tree")
    within(_whole_numbers(tree, "split_feature", splits), 0, columns, "a tree's column")
    kinds, thresholds = _whole_numbers(tree, "decision_type", splits), _numbers(tree, "threshold", splits)
    within(kinds, 0, 1 << 4, "a kind of split")
    bounds = _whole_numbers(tree, "cat_boundaries", sets + 1) if sets else np.zeros(1, dtype=np.int64)
    words = len(tree.get("cat_threshold", "").split())
    if bounds[0] != 0 or bounds[-1] != words or (np.diff(bounds) < 0).any():
        raise damaged("a tree's categories are of other nodes")
    within(thresholds[(kinds & _IS_CATEGORICAL) == 1].astype(np.int64), 0, sets, "a category")
    if words:
        within(_whole_numbers(tree, "cat_threshold", words), 0, 1 << 32, "a category")


def _check_linear(tree: Mapping[str, str], leaves: int, columns: int) -> None:
    """Leaves that are linear models: how many columns each has, which, and with what factor."""
    counts = _whole_numbers(tree, "num_features", leaves)
    within(counts, 0, columns + 1, "a leaf's column")
    _numbers(tree, "leaf_const", leaves)
    total = int(counts.sum())
    _numbers(tree, "leaf_coeff", total)
    within(_whole_numbers(tree, "leaf_features", total), 0, columns, "a leaf's column")


def _numbers(tree: Mapping[str, str], name: str, length: int) -> "NDArray[np.float64]":
    import numpy as np

    values = np.array(tree[name].split(), dtype=np.float64)
    same_length("a tree", length, values)
    return values


def _whole_numbers(tree: Mapping[str, str], name: str, length: int) -> "NDArray[np.int64]":
    import numpy as np

    values = np.array(tree[name].split(), dtype=np.int64)
    same_length("a tree", length, values)
    return values


def _objective(head: Mapping[str, str], classes: int) -> str:
    """The objective with its settings, as the file has it; "custom" where its author wrote one."""
    objective = head.get("objective", "custom")
    parts = dict(part.split(":", 1) for part in objective.split()[1:] if ":" in part)
    if int(parts.get("num_class", classes)) != classes:
        raise damaged("its objective has another number of classes")
    return objective


def _are_made_up(names: tuple[str, ...]) -> bool:
    """Whether LightGBM named the columns by itself, because nobody did."""
    return all((found := _UNNAMED.fullmatch(name)) and int(found[1]) == at for at, name in enumerate(names))


def _categorical(data: bytes, infos: list[str]) -> tuple[int, ...]:
    found = _CATEGORICAL.search(data)
    if found:
        return tuple(sorted({int(one) for one in found[1].split(b",") if one}))
    return tuple(at for at, info in enumerate(infos) if not info.startswith("[") and info != "none")


def _categories(tail: bytes) -> tuple[tuple[Category, ...], ...]:
    text = tail.removeprefix(_CATEGORIES).strip()
    lists = msgspec.json.decode(text, type=list[list[str | int | float | bool]] | None) if text else None
    return tuple(tuple(one) for one in lists or ())
