"""How the answers of two versions to the same rows compare, row by row: what agrees, how far the rest is apart, and where.

One way for a shadow's live answers and for a replay of the history. A row agrees where each output does that both have:
labels, texts and whole numbers are the same; the best class is, of scores; other numbers are within `RELATIVE` of the promoted
version's. Two versions were trained twice, so a tolerance for rounding would find nothing but differences.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from modelkeep.contracts.shadow import (
    DISTANCES,
    MOST_FEATURES,
    MOST_PAIRS,
    MOST_WORST,
    ClassPair,
    Compared,
    Kind,
    OutputSeen,
    SliceSeen,
    WorstRow,
)
from modelkeep.contracts.snapshot import Recording
from modelkeep.sandbox.agreement import classes_apart
from modelkeep.serving.codec import Tensors, values_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Whole = NDArray[np.intp]

RELATIVE: Final = 0.01
ABSOLUTE: Final = 1e-9
"""Numbers agree within ABSOLUTE + RELATIVE * |the promoted version's|."""

LEARNED_FROM: Final = 500
"""So many rows say where the bins of a column are."""

_BINS: Final = 8
_MISSING: Final = _BINS
_FLUSH_ROWS: Final = 256
_LABEL: Final = "label"
_MATRIX: Final = 2
_LONGEST_SHOWN: Final = 2048
_LONGEST_CLASS: Final = 80
_BOUNDS: Final = np.array(DISTANCES)

_encode = msgspec.json.Encoder().encode


class Pair(msgspec.Struct, frozen=True):
    """Two answers to some rows. `recording` is the policy by which the history has them; None: it has not."""

    prediction: str
    at: float
    rows: int
    inputs: Tensors
    primary: Tensors
    shadow: Tensors
    recording: Recording | None = None


class _Apart(msgspec.Struct, frozen=True):
    """Which rows of an output differ, and how far apart they are: None where there are no numbers."""

    kind: Kind
    differ: "Flags"
    absolute: "Floats | None" = None
    relative: "Floats | None" = None


class Disagreement:
    """Compares pair by pair. `scores` names the output of class scores ("" for none), `labels` its classes.

    `columns` names the columns of an input that is a matrix. It is for one thread at a time.
    """

    def __init__(
        self, scores: str = "", labels: Sequence[str] = (), columns: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._scores = scores
        self._labels = labels
        self._columns = columns or {}
        self._requests = self._requests_differ = self._rows = self._differ = 0
        self._outputs: dict[str, _Output] = {}
        self._slices = Slices(self._columns)
        self._worst: list[tuple[tuple[bool, float], WorstRow]] = []

    def take(self, pair: Pair, first_row: int = 0) -> int:
        """Compare two answers; returns in how many rows they differ. Its rows are counted from `first_row` on."""
        differ, farthest = np.zeros(pair.rows, dtype=bool), np.zeros(pair.rows)
        common = [name for name in pair.primary if name in pair.shadow]
        for name in common:
            apart = apart_in(name, pair.primary[name], pair.shadow[name], rows=pair.rows, scores=self._scores)
            output = self._outputs.get(name)
            if output is None:
                output = self._outputs[name] = _Output(name, apart.kind, self._labels if name == self._scores else ())
            shown = pair.recording is not None and keeps(pair.recording, name, pair.recording.outputs)
            output.take(apart, pair.primary[name], pair.shadow[name], shown=shown)
            differ |= apart.differ
            if apart.relative is not None:
                np.maximum(farthest, apart.relative, out=farthest)
            else:
                farthest[apart.differ] = np.inf
        if not common:
            differ[:], farthest[:] = True, np.inf
        found = int(differ.sum())
        self._requests += 1
        self._requests_differ += found > 0
        self._rows += pair.rows
        self._differ += found
        self._slices.take(pair.inputs, differ, pair.recording)
        if pair.recording is not None:
            self._keep_worst(pair, differ, farthest, first_row)
        return found

    def seen(self) -> Compared:
        """Return what has been compared so far."""
        return Compared(
            self._requests,
            self._requests_differ,
            self._rows,
            self._differ,
            tuple(output.seen() for output in self._outputs.values()),
            self._slices.seen(),
            self.worst,
        )

    @property
    def worst(self) -> tuple[WorstRow, ...]:
        """The rows that are the farthest apart."""
        return tuple(row for _key, row in self._worst)

    def _keep_worst(self, pair: Pair, differ: "Flags", farthest: "Floats", first_row: int) -> None:
        """Keep the rows that are farther apart than those that are kept, one that differs before any that does not."""
        order = np.lexsort((np.arange(pair.rows), -farthest, ~differ))[:MOST_WORST]
        for at in order.tolist():
            key = (bool(differ[at]), float(farthest[at]))
            if key == (False, 0.0) or (len(self._worst) >= MOST_WORST and key <= self._worst[-1][0]):
                return
            self._worst.append((key, self._shown(pair, at, first_row, key)))
            self._worst.sort(key=lambda one: one[0], reverse=True)
            del self._worst[MOST_WORST:]

    def _shown(self, pair: Pair, at: int, first_row: int, key: tuple[bool, float]) -> WorstRow:
        differs, distance = key
        recording = pair.recording
        assert recording is not None  # noqa: S101 - nothing else is shown
        return WorstRow(
            pair.prediction,
            first_row + at,
            pair.at,
            differs,
            distance if np.isfinite(distance) else None,
            _values(pair.primary, at, recording, recording.outputs, {}),
            _values(pair.shadow, at, recording, recording.outputs, {}),
            _values(pair.inputs, at, recording, recording.inputs, self._columns),
        )


class _Output:
    """What has been seen of one output."""

    def __init__(self, name: str, kind: Kind, labels: Sequence[str]) -> None:
        self._name = name
        self._kind = kind
        self._labels = labels
        self._rows = self._differ = self._unpaired = 0
        self._largest = 0.0
        self._numbers = False
        self._absolute = np.zeros(len(DISTANCES) + 1, dtype=np.int64)
        self._relative = np.zeros(len(DISTANCES) + 1, dtype=np.int64)
        self._pairs: Counter[tuple[str, str]] = Counter()

    def take(self, apart: _Apart, primary: "NDArray[Any]", shadow: "NDArray[Any]", *, shown: bool) -> None:
        self._rows += len(apart.differ)
        self._differ += int(apart.differ.sum())
        if apart.absolute is not None and apart.relative is not None:
            self._numbers = True
            _count(self._absolute, apart.absolute)
            _count(self._relative, apart.relative)
            self._largest = max(self._largest, float(np.max(apart.absolute, initial=0.0, where=np.isfinite(apart.absolute))))
        if self._kind != "numbers":
            self._pair(primary, shadow, len(apart.differ), shown=shown)

    def _pair(self, primary: "NDArray[Any]", shadow: "NDArray[Any]", rows: int, *, shown: bool) -> None:
        """Count which class the one says where the other says which."""
        if not shown:
            self._unpaired += rows
            return
        ours, theirs = self._classes(primary, rows), self._classes(shadow, rows)
        for pair, count in Counter(zip(ours, theirs, strict=True)).items():
            if pair in self._pairs or len(self._pairs) < MOST_PAIRS:
                self._pairs[pair] += count
            else:
                self._unpaired += count

    def _classes(self, array: "NDArray[Any]", rows: int) -> list[str]:
        if len(array) != rows:
            return [""] * rows
        flat = array.reshape(rows, -1)
        if self._kind == "classes" and flat.dtype.kind == "f":
            if not flat.shape[1]:
                return [""] * rows
            best = np.where(np.isnan(flat), -np.inf, flat).argmax(axis=1).tolist()
            return [self._labels[at][:_LONGEST_CLASS] if at < len(self._labels) else str(at) for at in best]
        if flat.shape[1] == 1:
            return [_text(value) for value in flat[:, 0].tolist()]
        return [_text(value) for value in flat.tolist()]

    def seen(self) -> OutputSeen:
        return OutputSeen(
            self._name,
            self._kind,
            self._rows,
            self._differ,
            tuple(self._absolute.tolist()) if self._numbers else (),
            tuple(self._relative.tolist()) if self._numbers else (),
            self._largest,
            tuple(ClassPair(*pair, rows) for pair, rows in self._pairs.most_common()),
            self._unpaired,
        )


class Slices:
    """Where the rows lie that differ: by each column's bins or categories, which the first rows say."""

    def __init__(self, names: Mapping[str, Sequence[str]] | None = None) -> None:
        self._names = names or {}
        self._columns: list[tuple[str, str, int]] | None = None
        self._hidden: set[str] = set()
        self._waiting: list[tuple[list[NDArray[Any]], Flags]] = []
        self._rows = 0
        self._bins: list[_Bins] | None = None

    def take(self, inputs: Tensors, differ: "Flags", recording: Recording | None) -> None:
        """Take rows in; they are counted many at a time."""
        if recording is None:
            return
        if self._columns is None:
            self._columns = columns_of(inputs, self._names)
        self._hidden.update(name for name, *_ in self._columns if not keeps(recording, name, recording.inputs))
        if not self._columns:
            return
        try:
            values = [_column(inputs[name], at) for _column_name, name, at in self._columns]
        except (KeyError, IndexError):  # another width than the first one's
            return
        if any(len(one) != len(differ) for one in values):
            return
        self._waiting.append((values, differ))
        self._rows += len(differ)
        if self._rows >= (LEARNED_FROM if self._bins is None else _FLUSH_ROWS):
            self._bins = self._counted()
            self._waiting, self._rows = [], 0

    def seen(self) -> tuple[SliceSeen, ...]:
        """Return all slices with rows in them; before enough rows have come, by bins of those that have."""
        bins = self._counted() if self._waiting else self._bins or []
        if self._bins is not None and self._waiting:
            self._bins, self._waiting, self._rows = bins, [], 0
        return tuple(one for column in bins for one in column.seen() if column.name not in self._hidden)

    def _counted(self) -> "list[_Bins]":
        """Return the bins with the waiting rows counted in them."""
        columns = [np.concatenate(parts) for parts in zip(*(values for values, _differ in self._waiting), strict=True)]
        differ = np.concatenate([one for _values, one in self._waiting])
        bins = self._bins
        if bins is None:
            bins = [_Bins(name, values) for (name, *_), values in zip(self._columns or (), columns, strict=True)]
        for one, values in zip(bins, columns, strict=True):
            one.count(values, differ)
        return bins


class _Bins:
    """One column's bins: up to eight of numbers, equally full at first, or the seven commonest texts and the others."""

    def __init__(self, name: str, values: "NDArray[Any]") -> None:
        self.name = name
        self._texts: list[str] | None = None
        self._edges: Floats = np.zeros(0)
        if values.dtype.kind in "fiub":
            known = values[np.isfinite(values)].astype(np.float64)
            if len(known):
                self._edges = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS, method="inverted_cdf"))
                self._edges = self._edges[self._edges > known.min()]  # below the lowest there is nothing
        else:
            common = Counter(_text(one) for one in values.tolist() if one is not None).most_common(_BINS - 1)
            self._texts = [text for text, _count in common]
        self._rows = np.zeros(_BINS + 1, dtype=np.int64)
        self._differ = np.zeros(_BINS + 1, dtype=np.int64)

    def count(self, values: "NDArray[Any]", differ: "Flags") -> None:
        places = self._places(values)
        self._rows += np.bincount(places, minlength=_BINS + 1)
        self._differ += np.bincount(places[differ], minlength=_BINS + 1)

    def _places(self, values: "NDArray[Any]") -> "Whole":
        if self._texts is not None:
            known = {text: at for at, text in enumerate(self._texts)}
            places = [_MISSING if one is None else known.get(_text(one), _BINS - 1) for one in values.tolist()]
            return np.array(places, dtype=np.intp)
        numbers = values.astype(np.float64)
        return np.where(np.isnan(numbers), _MISSING, np.searchsorted(self._edges, numbers, side="right"))

    def seen(self) -> list[SliceSeen]:
        counts = enumerate(zip(self._rows.tolist(), self._differ.tolist(), strict=True))
        return [self._slice(at, rows, differ) for at, (rows, differ) in counts if rows]

    def _slice(self, at: int, rows: int, differ: int) -> SliceSeen:
        if at == _MISSING:
            return SliceSeen(self.name, missing=True, rows=rows, differ=differ)
        if self._texts is not None:
            if at < len(self._texts):
                return SliceSeen(self.name, category=self._texts[at], rows=rows, differ=differ)
            return SliceSeen(self.name, others=True, rows=rows, differ=differ)
        edges = self._edges.tolist()
        low, high = edges[at - 1] if at else None, edges[at] if at < len(edges) else None
        return SliceSeen(self.name, low, high, rows=rows, differ=differ)


def apart_in(name: str, primary: "NDArray[Any]", shadow: "NDArray[Any]", *, rows: int, scores: str) -> _Apart:
    """Return which rows of an output differ, and how far apart they are."""
    numbers = primary.dtype.kind in "fiu" and shadow.dtype.kind in "fiu" and name != _LABEL
    kind: Kind = "labels"
    if numbers and primary.dtype.kind == "f":
        kind = "classes" if name == scores else "numbers"
    if primary.shape != shadow.shape or len(primary) != rows:
        beyond = np.full(rows, np.inf) if numbers else None
        return _Apart(kind, np.ones(rows, dtype=bool), beyond, beyond)
    same = _same(primary, shadow, rows)
    if not numbers:
        return _Apart(kind, ~same)
    absolute, relative, within = _distances(primary, shadow, rows)
    if kind == "classes" and shadow.dtype.kind == "f":
        return _Apart(kind, classes_apart({name: primary}, {name: shadow}, rows, name), absolute, relative)
    return _Apart(kind, ~(within if kind == "numbers" else same), absolute, relative)


def _same(primary: "NDArray[Any]", shadow: "NDArray[Any]", rows: int) -> "Flags":
    same: Any = np.array(primary == shadow, dtype=bool)
    if primary.dtype.kind == "f" and shadow.dtype.kind == "f":
        same |= np.isnan(primary) & np.isnan(shadow)
    flags: Flags = np.asarray(np.broadcast_to(same, primary.shape).reshape(rows, -1).all(axis=1), dtype=bool)
    return flags


def _distances(primary: "NDArray[Any]", shadow: "NDArray[Any]", rows: int) -> "tuple[Floats, Floats, Flags]":
    """Return each row's largest distance, absolute and relative, and whether all its numbers are within the tolerance.

    Two that are both missing are not apart; where only one is, they are infinitely so.
    """
    ours = primary.reshape(rows, -1).astype(np.float64)
    theirs = shadow.reshape(rows, -1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.where(ours == theirs, 0.0, np.abs(ours - theirs))
        gaps[np.isnan(ours) & np.isnan(theirs)] = 0.0
        gaps[np.isnan(gaps)] = np.inf
        sizes = np.maximum(np.abs(ours), np.abs(theirs))
        shares = np.where(gaps == 0.0, 0.0, np.where(np.isfinite(gaps), gaps / sizes, np.inf))
        within = np.isfinite(gaps) & ((gaps == 0.0) | (gaps <= ABSOLUTE + RELATIVE * np.abs(ours)))
    return gaps.max(axis=1, initial=0.0), shares.max(axis=1, initial=0.0), within.all(axis=1)


def columns_of(inputs: Tensors, names: Mapping[str, Sequence[str]]) -> list[tuple[str, str, int]]:
    """Return the first columns of inputs: the name of each, and the input and the place where it lies."""
    found: list[tuple[str, str, int]] = []
    for name, array in inputs.items():
        if array.ndim == 1 or (array.shape[1:] == (1,) and name not in names):
            found.append((name, name, 0))
        elif array.ndim == _MATRIX:
            known = names.get(name, ())
            width = min(array.shape[1], MOST_FEATURES)
            found += [(known[at] if at < len(known) else f"{name}[{at}]", name, at) for at in range(width)]
    return found[:MOST_FEATURES]


def keeps(recording: Recording, field: str, otherwise: str) -> bool:
    """Whether the policy keeps this field's values."""
    return recording.enabled and recording.fields.get(field, otherwise) == "keep"


def _column(array: "NDArray[Any]", at: int) -> "NDArray[Any]":
    return array if array.ndim == 1 else array[:, at]


def _count(into: "NDArray[np.int64]", distances: "Floats") -> None:
    into += np.bincount(np.searchsorted(_BOUNDS, distances, side="left"), minlength=len(into))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value)[:_LONGEST_CLASS]


def _values(
    tensors: Tensors, at: int, recording: Recording, otherwise: str, columns: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return one row of what the policy keeps, by tensor, or by column where the columns have names."""
    found: dict[str, Any] = {}
    for name, array in tensors.items():
        if at >= len(array):
            continue
        value = values_of(array[at : at + 1], "text")[0]
        if name in columns and isinstance(value, list):
            found |= dict(zip(columns[name], value, strict=False))
        else:
            found[name] = value
    kept = {name: value for name, value in found.items() if keeps(recording, name, otherwise)}
    return kept if len(_encode(kept)) <= _LONGEST_SHOWN else {}
