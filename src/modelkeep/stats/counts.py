"""What counts in classes say: quantiles of a histogram, and bounds of a share."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

Z: Final = 3.0
"""Standard deviations to either side: one of some hundred shares is as far off by chance, not one of twenty."""


def quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """Return the upper bound of the class that this part of all lies within; None for none at all, infinity beyond the last.

    `counts` has one class more than there are bounds.
    """
    total = sum(counts)
    if not total:
        return None
    at = next(at for at, below in enumerate(accumulate(counts)) if below >= part * total and below)
    return bounds[at] if at < len(bounds) else math.inf


def share_bounds(found: int, of: int, z: float = Z) -> tuple[float, float]:
    """Return the bounds of a share, of which `found` were found in `of`: Wilson's interval; 0 and 1 of nothing."""
    if not of:
        return 0.0, 1.0
    rate, weight = found / of, z * z / of
    middle = (rate + weight / 2) / (1 + weight)
    half = z * math.sqrt(rate * (1 - rate) / of + weight / (4 * of)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def added(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Return the sums of two histograms; an empty one counts nothing."""
    if not one or not other:
        return tuple(one or other)
    return tuple(a + b for a, b in zip(one, other, strict=True))
