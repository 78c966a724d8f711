"""Whether the trees of a file are trees: every index points somewhere, and no way leads back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def damaged(what: str) -> CannotLoad:
    """Return the refusal of a file that contradicts itself."""
    return CannotLoad(Reason.LOAD_FAILED, f"The file is damaged: {what}.")


def cut(data: bytes, what: str) -> CannotLoad:
    """Return the refusal of a file that ends too early."""
    return CannotLoad(Reason.TRUNCATED, f"The file has {len(data)} bytes and stops {what}.")


def whole_numbers(values: object, what: str) -> "NDArray[np.int64]":
    """Return a list of whole numbers as an array; raises `CannotLoad` where it is none."""
    import numpy as np

    if not isinstance(values, list | tuple | np.ndarray):
        raise damaged(f"{what} is no list")
    array = np.asarray(values)
    if not array.size:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise damaged(f"{what} is no list of whole numbers")
    return array.astype(np.int64)


def same_length(what: str, length: int, *arrays: "NDArray[np.generic] | Sequence[object]") -> None:
    """Raise `CannotLoad` unless every list has `length` places."""
    if any(len(one) != length for one in arrays):
        raise damaged(f"{what} has lists of different lengths")


def within(values: "NDArray[np.int64]", low: int, high: int, what: str) -> None:
    """Raise `CannotLoad` unless low <= every value < high."""
    if values.size and not (low <= int(values.min()) and int(values.max()) < high):
        raise damaged(f"{what} points outside")


def no_way_back(children: "NDArray[np.int64]", what: str) -> None:
    """Raise `CannotLoad` unless nothing leads to the root, node 0, and at most one way to each other node."""
    import numpy as np

    if children.size and (int(children.min()) <= 0 or len(np.unique(children)) != len(children)):
        raise damaged(f"{what} leads back to itself")
