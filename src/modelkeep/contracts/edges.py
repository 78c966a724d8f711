"""Which of the values at which a model's answer may jump are told, where it has more than are tried."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST = 64


def some_of(values: "Sequence[float] | NDArray[np.float64]") -> tuple[float, ...]:
    """Return at most 64 of them, each once, evenly chosen from the least to the greatest."""
    import numpy as np

    known = np.unique(values)
    places = np.linspace(0, len(known) - 1, min(len(known), _MOST)).astype(int)
    return tuple(known[places].tolist())
