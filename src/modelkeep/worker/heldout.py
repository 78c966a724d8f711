"""How far two answers to the same rows are apart, on rows that nothing was fitted to."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

FEWEST = 20
"""Fewer rows than this held out say nothing about an accuracy."""

_SEED = 24
_STEADY = 0.01
"""A place in the answer that varies less than this share of the whole counts as if it varied so much."""

TOP_CLASS = "share of held-out rows whose top class changes"
DEVIATION = "mean difference of held-out answers, in standard deviations of the original's"


def different(rows: "Arrays") -> "NDArray[np.intp]":
    """Return the places of the rows that are unlike all before them: a row that is there twice must not be on both sides."""
    import numpy as np

    count = len(next(iter(rows.values())))
    seen: dict[bytes, int] = {}
    for place in range(count):
        digest = hashlib.sha256()
        for array in rows.values():
            row = array[place]
            digest.update(repr(np.asarray(row).tolist()).encode() if array.dtype == object else np.ascontiguousarray(row).data)
        seen.setdefault(digest.digest(), place)
    return np.array(sorted(seen.values()), dtype=np.intp)


def split(rows: int) -> "tuple[NDArray[np.intp], NDArray[np.intp]]":
    """Return the places of the rows that calibrate and of those that are held out: two halves by chance, always the same.

    Of an odd number, the one more is held out.
    """
    import numpy as np

    order = np.random.default_rng(_SEED).permutation(rows)
    return np.sort(order[: rows // 2]), np.sort(order[rows // 2 :])


def measure(wanted: "Arrays", given: "Arrays", scores: str = "") -> float:
    """Return how far answers are apart, as a share: 0 for the same, infinite where they cannot be compared.

    It is the largest of:

    - for the output `scores` of shape [n, classes]: the share of the n rows whose greatest score is another class's. No labels
      are needed: an accuracy can fall by no more than the share of rows whose answer changes.
    - for an output that is not of floats: the share of rows with any other value.
    - for every other output: the mean, over its places, of mean(|given - wanted|) / std(wanted), both over the rows. A place
      that hardly varies counts with 0.01 of the root mean square of all places' standard deviations.
    """
    if set(wanted) != set(given):
        return float("inf")
    return max((_apart(wanted[name], given[name], top=name == scores) for name in wanted), default=0.0)


def _apart(wanted: "NDArray[Any]", given: "NDArray[Any]", *, top: bool) -> float:
    import numpy as np

    if wanted.shape != given.shape or (wanted.dtype.kind == "f") != (given.dtype.kind == "f"):
        return float("inf")
    flat, other = wanted.reshape(len(wanted), -1), given.reshape(len(given), -1)
    if wanted.dtype.kind != "f":
        return float((flat != other).any(axis=1).mean())
    lost = (np.isfinite(flat) != np.isfinite(other)).any(axis=1)
    if top:
        return float((lost | (flat.argmax(axis=1) != other.argmax(axis=1))).mean())
    return float("inf") if lost.any() else _deviation(flat.astype(np.float64), other.astype(np.float64))


def _deviation(wanted: "NDArray[np.float64]", given: "NDArray[np.float64]") -> float:
    import numpy as np

    both = np.isfinite(wanted).all(axis=0)
    wanted, given = wanted[:, both], given[:, both]
    gaps = np.abs(given - wanted).mean(axis=0)
    if not gaps.any():
        return 0.0
    spread = wanted.std(axis=0)
    whole = float(np.sqrt((spread**2).mean()))
    return float((gaps / np.maximum(spread, _STEADY * whole)).mean()) if whole > 0 else float("inf")
