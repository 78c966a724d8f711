"""Counts how three answers to the same rows compare, and keeps the first few rows that differ, as far as policy shows them."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from modelkeep.control.replays.rules import MOST_SHOWN, Comparison, DifferingRow, Pair, Side
from modelkeep.sandbox.agreement import Differs, differing, largest_gap
from modelkeep.serving.codec import Tensors, values_of
from modelkeep.worker.recorded import Answered, Question, comparable

LONGEST_SHOWN: Final = 4096
"""Most bytes of JSON of one output that are shown of a row."""

Answer = Tensors | str
"""Outputs by name, or the code of the error that came instead."""

MayShow = Callable[[str, str], bool]
"""Whether answers of a deployment's output may be written down."""

_Verdict = tuple[bool, float]


class Part(msgspec.Struct, frozen=True):
    """Some rows of a question, from row `start` on, with the answers of both files."""

    question: Question
    start: int
    rows: int
    serving: Answer
    original: Answer

    def row(self, at: int) -> "Part":
        """Return one row of them."""
        return Part(self.question, self.start + at, 1, _cut(self.serving, at), _cut(self.original, at))


class Tally:
    """What has been compared. `scores` names the output that best classes are taken from ("" for none)."""

    def __init__(self, scores: str, may_show: MayShow) -> None:
        self.rows = self.equal = self.refused = 0
        self.shown: list[DifferingRow] = []
        self.shown_of: list[Question] = []
        self._scores = scores
        self._may_show = may_show
        self._pairs = dict.fromkeys(Pair, Comparison())

    def pair(self, pair: Pair) -> Comparison:
        """Return how these two compare."""
        return self._pairs[pair]

    def take(self, part: Part) -> None:
        """Compare the answers to these rows: together, or one by one where they differ."""
        verdicts = self._verdicts(part)
        if all(same for same, _gap in verdicts.values()) or part.rows == 1:
            self._count(part, verdicts)
            return
        for at in range(part.rows):
            self.take(part.row(at))

    def _count(self, part: Part, verdicts: dict[Pair, _Verdict]) -> None:
        differs = tuple(pair for pair, (same, _gap) in verdicts.items() if not same)
        self.rows += part.rows
        self.equal += 0 if differs else part.rows
        self.refused += part.rows if isinstance(part.serving, str) or isinstance(part.original, str) else 0
        for pair, (same, gap) in verdicts.items():
            before = self._pairs[pair]
            self._pairs[pair] = Comparison(
                before.rows + part.rows,
                before.differ + (0 if same else part.rows),
                max(before.largest_difference, gap),
            )
        if differs and len(self.shown) < MOST_SHOWN:
            self.shown.append(self._shown(part, differs))
            self.shown_of.append(part.question)

    def _verdicts(self, part: Part) -> dict[Pair, _Verdict]:
        """Return, for each two answers that are there, whether they are the same, and how far apart their numbers are."""
        found: dict[Pair, _Verdict] = {}
        answered = part.question.answered
        if answered:
            found[Pair.RECORDED_SERVING] = self._as_recorded(part, part.serving)
        found[Pair.SERVING_ORIGINAL] = _same(part.original, part.serving)
        if answered:
            found[Pair.RECORDED_ORIGINAL] = self._as_recorded(part, part.original)
        return found

    def _as_recorded(self, part: Part, now: Answer) -> _Verdict:
        if isinstance(now, str):
            return False, 0.0
        try:
            return _same(*comparable(part.question.answered, part.start, now, self._scores))
        except (IndexError, KeyError, TypeError, ValueError):  # classes that the model does not have, or no classes at all
            return False, 0.0

    def _shown(self, part: Part, differs: tuple[Pair, ...]) -> DifferingRow:
        question = part.question
        known = [list(answer) for answer in (part.serving, part.original) if not isinstance(answer, str)]
        names = list(dict.fromkeys(name for one in (*known, list(question.answered.outputs)) for name in one))
        hidden = {name for name in names if not self._may_show(question.deployment, name)}
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
        if answered.top and self._scores not in hidden:
            outputs["predictions"] = _bounded(answered.top[at])
        return Side(outputs)


def _same(wanted: Answer, given: Answer) -> _Verdict:
    if isinstance(wanted, str) or isinstance(given, str):
        return isinstance(wanted, str) and isinstance(given, str) and wanted == given, 0.0
    try:
        gap = differing(wanted, given)
    except Differs:
        return False, largest_gap(wanted, given)
    return True, gap if np.isfinite(gap) else 0.0


def _cut(answer: Answer, at: int) -> Answer:
    return answer if isinstance(answer, str) else {name: array[at : at + 1] for name, array in answer.items()}


def _now(answer: Answer, hidden: set[str]) -> Side:
    if isinstance(answer, str):
        return Side(error=answer)
    return Side({name: _bounded(values_of(array, "text")[0]) for name, array in answer.items() if name not in hidden})


def _bounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    size = len(msgspec.json.encode(value))
    return value if size <= LONGEST_SHOWN else f"too large to be shown: {size} bytes"
