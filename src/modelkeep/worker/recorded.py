"""Recorded predictions as questions that can be asked again: their rows as tensors, and what was answered then.

The history has request and answer as they went over the wire, or what policy left of them. What is not there in the clear is
skipped, with the reason; a hash is never taken for a value.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.signature import Signature
from modelkeep.control.replays.rules import Skip, SkippedPrediction
from modelkeep.serving.codec import Tensors, tensors_from, values_of
from modelkeep.worker.readings import READINGS, Answered

if TYPE_CHECKING:
    from modelkeep.serving.coercion import Array

_BY_FIELD: Final = "by field"
_NOTES: Final = {"hashed": Skip.HASHED, "dropped": Skip.DROPPED, "sampled out": Skip.SAMPLED_OUT}
_TOO_LARGE: Final = "too large"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NOT_FINITE: Final = frozenset({None, "NaN", "Infinity", "-Infinity"})


class Question(msgspec.Struct, frozen=True):
    """Rows to be answered again. `prediction` is None for the caller's own rows, which have no `answered`."""

    tensors: Tensors
    answered: Answered = Answered()
    prediction: str | None = None
    deployment: str = ""
    at: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.tensors.values())))


class SkippedError(Exception):
    """A prediction cannot be answered again; it says why."""

    def __init__(self, prediction: str, reason: Skip, detail: str = "") -> None:
        self.skipped = SkippedPrediction(prediction, reason, detail)
        super().__init__(f"{prediction}: {reason}")


def question_of(record: PredictionRecord, version_id: str, signature: Signature) -> Question:
    """Return a recorded prediction as a question to this version; raises `SkippedError`."""
    if record.version_id != version_id:
        raise SkippedError(record.id, Skip.OTHER_VERSION, f"version {record.version} answered, in {record.deployment}")
    if record.outcome not in {"ok", "degraded"}:
        raise SkippedError(record.id, Skip.NOT_ANSWERED, record.code)
    tensors = _inputs_of(record, signature)
    question = Question(tensors, prediction=record.id, deployment=record.deployment, at=record.at)
    return msgspec.structs.replace(question, answered=_answer_of(record, signature, question.rows))


def _inputs_of(record: PredictionRecord, signature: Signature) -> Tensors:
    note = record.input_note
    if note in _NOTES:
        raise SkippedError(record.id, _NOTES[note])
    if note.startswith(_TOO_LARGE):
        raise SkippedError(record.id, Skip.TOO_LARGE, note)
    if record.inputs is None:
        raise SkippedError(record.id, Skip.NOT_KEPT)
    try:
        if note == _BY_FIELD:
            return _of_fields(record, signature, record.inputs)
        if record.dialect in READINGS:
            return READINGS[record.dialect].inputs(signature, record, record.inputs)
    except ModelkeepError as error:
        raise SkippedError(record.id, Skip.UNREADABLE, error.code) from error
    except ImportError as error:
        raise SkippedError(record.id, Skip.UNREADABLE, "the extra `grpc` is not installed") from error
    raise SkippedError(record.id, Skip.UNREADABLE, f"of the dialect {record.dialect[:40]!r}")


def _of_fields(record: PredictionRecord, signature: Signature, kept: bytes) -> Tensors:
    """Read inputs that were kept field by field: all of them must be there, and none as hashes."""
    try:
        fields = msgspec.json.decode(kept, type=dict[str, list[Any]])
        hashed = sorted(name for name, values in fields.items() if _are_hashes(values))
        if not hashed:
            return tensors_from(signature, fields)
    except (msgspec.DecodeError, RecursionError, ModelkeepError) as error:
        raise SkippedError(record.id, Skip.FIELDS_NOT_KEPT) from error
    raise SkippedError(record.id, Skip.FIELDS_NOT_KEPT, f"hashed: {', '.join(hashed)[:200]}")


def _are_hashes(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) and _HASH.fullmatch(value) for value in values)


# ---- answers


def _answer_of(record: PredictionRecord, signature: Signature, rows: int) -> Answered:
    """Return what was answered, as far as it is kept and can be compared."""
    note = record.output_note
    if record.outputs is None or (note and note != _BY_FIELD):
        return Answered(note=note or "not kept", partly=True)
    partly = bool(note)
    try:
        answer = _fields(record.outputs) if note else READINGS[record.dialect].answered(signature, record, record.outputs)
    except (msgspec.DecodeError, ModelkeepError, RecursionError, KeyError, ValueError, TypeError, ImportError):
        return Answered(note="unreadable", partly=partly)
    if any(len(values) != rows for values in answer.outputs.values()) or (answer.top and len(answer.top) != rows):
        return Answered(note="unreadable", partly=partly)
    return msgspec.structs.replace(answer, note="" if answer else note or "not kept", partly=partly or answer.partly)


def _fields(body: bytes) -> Answered:
    fields = msgspec.json.decode(body, type=dict[str, list[Any]])
    return Answered({name: values for name, values in fields.items() if not _are_hashes(values)})


_BEST: Final = "\0best"
"""Stands beside the outputs for whether the best class of then is the best now; no output is called so."""


def comparable(answered: Answered, start: int, now: Tensors, scores: str, *, best: bool = False) -> tuple[Tensors, Tensors]:
    """Return what was answered from row `start` on, and the same part of what is answered `now`, as arrays to compare.

    `scores` names the output that the best classes were taken from. What is not finite is one thing in JSON, and so here.
    With `best`, a best class of then must be one of now, among all classes and not only those that were told.
    """
    wanted: Tensors = {}
    given: Tensors = {}
    rows = len(next(iter(now.values())))
    for name, values in answered.outputs.items():
        array = now.get(name, np.empty((rows, 0)))
        given[name] = _without_gaps(_as_told(array)) if answered.gapless else _as_told(array)
        wanted[name] = _as_array(values[start : start + rows], array)
    if answered.top and scores in now:
        lines = answered.top[start : start + rows]
        index = np.array([[one["index"] for one in line] for line in lines])
        given[scores] = _as_told(np.take_along_axis(now[scores], index, axis=1))
        wanted[scores] = _as_array([[one["score"] for one in line] for line in lines], now[scores])
        if best:
            told = np.where(wanted[scores] == np.nanmax(wanted[scores], axis=1, keepdims=True), given[scores], -np.inf)
            given[_BEST] = (told == np.nanmax(_as_told(now[scores]), axis=1, keepdims=True)).any(axis=1)
            wanted[_BEST] = np.ones(rows, dtype=bool)
    return wanted, given


def _as_told(array: "Array") -> "Array":
    """An output as JSON would have told it."""
    if array.dtype == object:
        return np.array(values_of(array), dtype=object)
    if array.dtype.kind == "f":
        return np.where(np.isfinite(array), array, np.nan).astype(array.dtype)
    return array


def _without_gaps(array: "Array") -> "Array":
    """An output as bytes would have told it, which have no sign for a missing text."""
    if array.dtype != object:
        return array
    told = ["" if value is None else value for value in array.reshape(-1).tolist()]
    return np.array(told, dtype=object).reshape(array.shape)


def _as_array(values: list[Any], like: "Array") -> "Array":
    """Values of JSON as an array of the datatype of `like`; an array of none where they are of another kind."""
    try:
        if like.dtype.kind == "f":
            return np.array(_numbers(values), dtype=np.float64).astype(like.dtype)
        return np.array(values, dtype=like.dtype)
    except (ValueError, TypeError, OverflowError):
        return np.empty((0,), dtype=like.dtype)


def _numbers(values: Any) -> Any:  # noqa: ANN401 - nested lists of any depth
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    return np.nan if values in _NOT_FINITE else values
