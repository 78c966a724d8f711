"""Rows on which two forms of a model are compared: drawn around the sample, far from it, and where the answer may jump."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.signature import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[Any]

_SEED = 22
_MIXED, _AROUND, _WIDE, _ENDS, _AT_EDGES, _MISSING = 96, 96, 64, 64, 256, 64
_FAR = 1000.0


def drawn(spec: TensorSpec, sample: "Rows", edges: Sequence[Sequence[float]] = ()) -> "Rows":
    """Return at least 256 rows [n, k] of the matrix `spec`, always the same for the same sample of shape [m, k].

    They mix the sample's values, lie around and far from them, at the ends of each column's range and at zero and one; on
    `edges` (values by column) and the numbers next to them; and lack values where `spec` is nullable.
    """
    import numpy as np

    random = np.random.default_rng(_SEED)
    base = np.where(np.isfinite(sample), sample, np.nan).astype(np.float64)
    base = np.where(np.isnan(base), _middles(base), base)
    low, high = base.min(axis=0), base.max(axis=0)
    spread = np.where(high > low, high - low, np.maximum(np.abs(low), 1.0))

    def mixed(count: int) -> "Rows":
        return np.take_along_axis(base, random.integers(0, len(base), (count, base.shape[1])), axis=0)

    around = mixed(_AROUND) + random.standard_normal((_AROUND, base.shape[1])) * spread / 4
    wide = random.uniform(low - 2 * spread, high + 2 * spread, (_WIDE, base.shape[1]))
    zero = np.zeros_like(low)
    ends = np.stack([low, high, (low + high) / 2, zero, zero + 1, zero - 1, low - _FAR * spread, high + _FAR * spread])
    pieces = [mixed(_MIXED), around, np.round(around), wide]
    pieces.append(np.take_along_axis(ends, random.integers(0, len(ends), (_ENDS, base.shape[1])), axis=0))
    if any(edges):
        pieces.append(_at_edges(mixed(_AT_EDGES), edges, random))
    if spec.nullable:
        lacking = mixed(_MISSING)
        lacking[random.random(lacking.shape) < 0.25] = np.nan  # noqa: PLR2004 - a quarter of the values
        pieces.append(lacking)
    return np.concatenate(pieces).astype(spec.dtype.numpy)


def _middles(base: "Rows") -> "Rows":
    """The median of each column's values, 0 where it has none."""
    import numpy as np

    columns = (column[~np.isnan(column)] for column in base.T)
    return np.array([np.median(column) if len(column) else 0.0 for column in columns])


def _at_edges(rows: "Rows", edges: Sequence[Sequence[float]], random: "np.random.Generator") -> "Rows":
    import numpy as np

    for column, values in enumerate(edges[: rows.shape[1]]):
        known = np.array(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        if not len(known):
            continue
        at = known[random.integers(0, len(known), len(rows))]
        single = at.astype(np.float32).astype(np.float64)
        near = np.stack([at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf), single, rows[:, column]])
        rows[:, column] = near[random.integers(0, len(near), len(rows)), np.arange(len(rows))]
    return rows
