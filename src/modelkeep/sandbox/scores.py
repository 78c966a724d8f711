"""Which output of a model holds the scores of classes, and what makes them probabilities."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelkeep.contracts.signature import FLOATS, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAMES = ("probabilities", "scores", "logits")
_AXES = 2
_CLOSE = 1e-3


def score_output(outputs: Sequence[TensorSpec]) -> str:
    """Return the name of the output with one score a class: one of the usual names, or the only matrix of floats; else ""."""
    matrices = [one for one in outputs if one.dtype in FLOATS and len(one.shape) == _AXES and one.shape[1] != 1]
    for name in _NAMES:
        if any(one.name == name for one in matrices):
            return name
    return matrices[0].name if len(matrices) == 1 else ""


def softmax(scores: "NDArray[np.generic]") -> "NDArray[np.generic]":
    """Return each row as probabilities: positive, with the sum 1."""
    import numpy as np

    wide = scores.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    result: NDArray[np.generic] = (powers / powers.sum(axis=-1, keepdims=True)).astype(scores.dtype)
    return result


def are_probabilities(scores: "NDArray[np.generic]") -> bool:
    """Whether every row is a distribution already."""
    wide = scores.astype("float64")
    return bool((wide >= 0).all() and (abs(wide.sum(axis=-1) - 1) < _CLOSE).all())
