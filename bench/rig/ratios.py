"""The arithmetic of paired measurements.

A shared machine is faster at one minute than at the next. Bursts that go round the contestants in turn are hit alike, so
what is compared is the ratio within a round; the interval says how far the median of those ratios can be trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and a 95 % bootstrap interval of it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return ours / theirs. Both: one figure a round, in the order of the rounds; raises `ValueError` for unequal numbers."""
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} figures cannot be paired with {len(theirs)}")
    ratios = np.asarray(ours, float) / np.asarray(theirs, float)
    picks = np.random.default_rng(0).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    medians = np.median(ratios[picks], axis=1)
    low, high = np.quantile(medians, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Ratio(float(np.median(ratios)), float(low), float(high))
