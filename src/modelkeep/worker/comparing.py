"""Counts how three answers to the same rows compare, and keeps the first few rows that differ, as far as policy shows them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from modelkeep.control.replays.rules import MOST_SHOWN, Compared, Comparison, DifferingRow, Pair, Side
from modelkeep.sandbox.agreement import classes_apart, largest_gap, rows_apart
from modelkeep.serving.codec import Tensors, values_of
from modelkeep.worker.readings import Answered
from modelkeep.worker.recorded import Question, comparable

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_SHOWN: Final = 4096
"""Most bytes of JSON of one output that are shown of a row."""

Answer = Tensors | str
"""Outputs by name, or the code of the error that came instead."""

MayShow = Callable[[Question, str], bool]
"""Whether answers of this output to a question may be written down."""

_Apart = tuple["NDArray[np.bool_]", float]


class Part(msgspec.Struct, frozen=True):
    """Some rows of a question, from row `start` on, with the answers of both files."""

    question: Question
    start: int
    rows: int
    serving: Answer
    original: Answer
    serving_s: float = 0.0
    original_s: float = 0.0

    def row(self, at: int) -> "Part":
        """Return one row of them."""
        return Part(self.question, self.start + at, 1, _cut(self.serving, at), _cut(self.original, at))


class Tally:
    """What has been compared, by this rule. `scores` names the output that best classes are taken from ("" for none)."""

    def __init__(self, scores: str, may_show: MayShow, compared: Compared = Compared.NUMBERS) -> None:
        self.rows = self.equal = self.refused = 0
        self.shown: list[DifferingRow] = []
        self.shown_of: list[Question] = []
        self._scores = scores
        self._may_show = may_show
        self._compared = compared
        self._pairs = dict.fromkeys(Pair, Comparison())

    def pair(self, pair: Pair) -> Comparison:
        """Return how these two compare."""
        return self._pairs[pair]

    def take(self, part: Part) -> None:
        """Compare the answers to these rows, and cut out those that are shown; of many rows, this takes a while."""
        found = self._found(part)
        apart = np.zeros(part.rows, dtype=bool)
        for rows, _gap in found.values():
            apart |= rows
        self.rows += part.rows
        self.equal += part.rows - int(apart.sum())
        self.refused += part.rows if isinstance(part.serving, str) or isinstance(part.original, str) else 0
        for pair, (rows, gap) in found.items():
            before = self._pairs[pair]
            largest = max(before.largest_difference, gap)
            self._pairs[pair] = Comparison(before.rows + part.rows, before.differ + int(rows.sum()), largest)
        for at in np.flatnonzero(apart)[: MOST_SHOWN - len(self.shown)].tolist():
            differs = tuple(pair for pair, (rows, _gap) in found.items() if rows[at])
            self.shown.append(self._shown(part.row(at), differs))
            self.shown_of.append(part.question)

    def _found(self, part: Part) -> dict[Pair, _Apart]:
        """Return, for each two answers that are there, which rows differ, and how far apart their numbers are."""
        found: dict[Pair, _Apart] = {}
        answered = part.question.answered
        if answered:
            found[Pair.RECORDED_SERVING] = self._as_recorded(part, part.serving)
        found[Pair.SERVING_ORIGINAL] = self._apart(part.original, part.serving, part.rows)
        if answered:
            same = part.serving is part.original
            found[Pair.RECORDED_ORIGINAL] = found[Pair.RECORDED_SERVING] if same else self._as_recorded(part, part.original)
        return found

    def _as_recorded(self, part: Part, now: Answer, start: int = 0, stop: int = 0) -> _Apart:
        """Compare rows from `start` to `stop` (0: the last) with what was recorded, each half by itself where that fails.

        A record may be of another shape or kind in one row, and must not be so for the others.
        """
        stop = stop or part.rows
        if isinstance(now, str):
            return np.ones(stop - start, dtype=bool), 0.0
        piece = {name: array[start:stop] for name, array in now.items()}
        answered, first = part.question.answered, part.start + start
        try:
            best = self._compared is Compared.CLASSES
            wanted, given = comparable(answered, first, piece, self._scores, best=best)
        except (IndexError, KeyError, TypeError, ValueError):  # classes that the model does not have, or no classes at all
            wanted, given = {}, {}
        if wanted and all(wanted[name].shape == given[name].shape for name in wanted):
            return self._apart(wanted, given, stop - start)
        if stop - start == 1:
            return np.ones(1, dtype=bool), largest_gap(wanted, given)
        middle = (start + stop) // 2
        halves = self._as_recorded(part, now, start, middle), self._as_recorded(part, now, middle, stop)
        return np.concatenate([rows for rows, _gap in halves]), max(gap for _rows, gap in halves)

    def _apart(self, wanted: Answer, given: Answer, rows: int) -> _Apart:
        if isinstance(wanted, str) or isinstance(given, str):
            same = isinstance(wanted, str) and isinstance(given, str) and wanted == given
            return np.full(rows, not same), 0.0
        if self._compared is Compared.CLASSES:
            apart = classes_apart(wanted, given, rows, self._scores)
        else:
            apart = rows_apart(wanted, given, rows, by_row=self._compared is Compared.NUMBERS_BY_ROW)
        return apart, largest_gap(wanted, given)

    def _shown(self, part: Part, differs: tuple[Pair, ...]) -> DifferingRow:
        question = part.question
        known = [list(answer) for answer in (part.serving, part.original) if not isinstance(answer, str)]
        names = list(dict.fromkeys(name for one in (*known, list(question.answered.outputs)) for name in one))
        if question.answered.top and self._scores and self._scores not in names:
            names.append(self._scores)
        hidden = {name for name in names if not self._may_show(question, name)}
        return DifferingRow(
            prediction=question.prediction,
            row=part.start,
            differs=differs,
            recorded=None if question.prediction is None else self._recorded(question.answered, part.start, hidden),
            serving=_now(part.serving, hidden),
            original=_now(part.original, hidden),
            hidden=tuple(name for name in names if name in hidden),
        )

    def _recorded(self, answered: Answered, at: int, hidden: set[str]) -> Side:
        if not answered:
            return Side(note=answered.note)
        outputs = {name: _bounded(values[at]) for name, values in answered.outputs.items() if name not in hidden}
        if answered.top and self._scores and self._scores not in hidden:
            outputs["predictions"] = _bounded(answered.top[at])
        return Side(outputs)


def _cut(answer: Answer, at: int) -> Answer:
    return answer if isinstance(answer, str) else {name: array[at : at + 1] for name, array in answer.items()}


def _now(answer: Answer, hidden: set[str]) -> Side:
    if isinstance(answer, str):
        return Side(error=answer)
    return Side({name: _bounded(values_of(array, "text")[0]) for name, array in answer.items() if name not in hidden})


def _bounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    size = len(msgspec.json.encode(value))
    return value if size <= LONGEST_SHOWN else f"too large to be shown: {size} bytes"
