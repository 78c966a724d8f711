"""Rows on which two forms of a model are compared: drawn around the sample, far from it, and where the answer may jump."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelkeep.contracts.missing import MARK
from modelkeep.contracts.signature import DATETIME, FLOATS, Dtype, Layout, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[Any]

_SEED = 22
_MIXED, _AROUND, _WIDE, _ENDS, _AT_EDGES, _MISSING = 96, 96, 64, 64, 256, 64
_FAR = 1000.0
_UNSEEN, _UTMOST = 64, 32
_GAP, _RARE = 0.25, 0.1
_UNHEARD_OF = ("", " ", "never seen", "żółw-Ångström-日本", "a\x00b", "x" * 5000, "nan", "None", "0", MARK, MARK * 2)
_LARGE = (1e39, -1e39, 1.7e308, -1.7e308, 2.0**53 + 2, -0.0, 5e-324)
"""Numbers beyond FP32, beyond whole numbers, and at both ends of zero."""


def drawn_rows(signature: Signature, sample: "Mapping[str, Rows]", edges: Sequence[Sequence[float]] = ()) -> "dict[str, Rows]":
    """Return at least 256 rows by input name, always the same for the same sample.

    Those of a matrix are `drawn`. Those of a table are it for its columns of floats together, and for the others: the sample's
    values mixed; then rows with unseen texts, with gaps in nullable columns, and with numbers at the ends of their datatypes.
    `edges` are by column of the matrix, or by input of the table.
    """
    if signature.layout is Layout.MATRIX:
        (source,) = signature.inputs
        return {source.name: drawn(source, sample[source.name], edges)}
    import numpy as np

    random = np.random.default_rng(_SEED + 1)
    floats = [at for at, one in enumerate(signature.inputs) if one.dtype in FLOATS]
    known = {one.name: sample[one.name].reshape(-1) for one in signature.inputs}
    usual = _floats(signature, known, floats, edges)
    count = len(usual) + _UNSEEN + _MISSING + _UTMOST
    table: dict[str, Rows] = {}
    for at, one in enumerate(signature.inputs):
        if at in floats:
            column = np.concatenate([usual[:, floats.index(at)], random.choice(usual[:, floats.index(at)], count - len(usual))])
            table[one.name] = column.astype(one.dtype.numpy)
        else:
            table[one.name] = _others(one, known[one.name], count, random)
    start = len(usual)
    unseen, lacking, utmost = (
        slice(start, start + _UNSEEN),
        slice(start + _UNSEEN, count - _UTMOST),
        slice(count - _UTMOST, count),
    )
    for one in signature.inputs:
        column = table[one.name]
        if one.dtype is Dtype.BYTES and one.kind != DATETIME:
            _scatter(column[unseen], _UNHEARD_OF, _GAP, random)
        if one.nullable:
            _scatter(column[lacking], (None,) if one.dtype is Dtype.BYTES else (np.nan,), _GAP, random)
        if one.dtype in FLOATS:
            largest = float(np.finfo(one.dtype.numpy).max)
            _scatter(column[utmost], [value for value in _LARGE if abs(value) <= largest], _RARE, random)
        elif one.dtype not in {Dtype.BYTES, Dtype.BOOL}:
            limits = np.iinfo(one.dtype.numpy)
            _scatter(column[utmost], (limits.min, limits.max, limits.max // 2), _RARE, random)
    return table


def _floats(
    signature: Signature, known: "Mapping[str, Rows]", floats: Sequence[int], edges: Sequence[Sequence[float]]
) -> "Rows":
    """Rows of all columns of floats, as of one matrix."""
    import numpy as np

    columns = [signature.inputs[at] for at in floats]
    base = np.empty((len(next(iter(known.values()))), len(columns)))
    for place, one in enumerate(columns):
        base[:, place] = known[one.name]
    if not columns:
        return np.empty((_MIXED + _AROUND + _WIDE + _ENDS, 0))
    spec = TensorSpec("", Dtype.FP64, (-1, len(columns)))
    return drawn(spec, base, [edges[at] if at < len(edges) else () for at in floats])


def _others(spec: TensorSpec, known: "Rows", count: int, random: "np.random.Generator") -> "Rows":
    """A column that is no float: the sample's values, mixed; whole numbers around them, too; booleans of both kinds."""
    import numpy as np

    if spec.dtype is Dtype.BOOL:
        return random.integers(0, 2, count).astype(bool)
    if spec.dtype is Dtype.BYTES:
        whole = np.empty(len(known), dtype=object)
        whole[:] = known.tolist()
        filled = whole[[one is not None for one in whole.tolist()]]
        usual = filled if len(filled) else whole
        return usual[random.integers(0, len(usual), count)]
    limits = np.iinfo(spec.dtype.numpy)
    around = {min(max(int(one) + step, limits.min), limits.max) for one in known.tolist() for step in (-1, 0, 0, 1)}
    values = np.array([*known.tolist(), *sorted(around), 0, 1], dtype=spec.dtype.numpy)
    return values[random.integers(0, len(values), count)]


def _scatter(rows: "Rows", values: Sequence[object], share: float, random: "np.random.Generator") -> None:
    """Put these values in turn at this share of the places, each at one at least."""
    count = max(len(values), int(share * len(rows)))
    for turn, place in enumerate(random.permutation(len(rows))[:count].tolist()):
        rows[place] = values[turn % len(values)]


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
