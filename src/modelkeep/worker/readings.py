"""How requests and answers of each dialect are read again, as the history has them: one entry a dialect.

A record has both as they went over the wire. What cannot be read raises what reading it raises: `ModelkeepError` for requests,
`ValueError` and its like for answers, `ImportError` where an extra is missing that the dialect needs.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from modelkeep.contracts.prediction import PredictionRecord, json_length
from modelkeep.contracts.signature import Dtype, Signature
from modelkeep.serving.codec import Tensors
from modelkeep.serving.dialects import mlflow, native, rows, sagemaker, scoring, tf_serving, vertex
from modelkeep.serving.dialects.open_inference import GRPC_NAME, NAME
from modelkeep.serving.dialects.open_inference import body as open_inference

if TYPE_CHECKING:
    from types import ModuleType


class Answered(msgspec.Struct, frozen=True):
    """What was answered then: values by output, a row each, or the best classes of each row in `top`.

    `note` says why there is nothing. Where `partly`, something was left out then, and outputs that are not here are not shown.
    Where `gapless`, it was told in bytes, which say of a missing text what they say of an empty one.
    """

    outputs: dict[str, list[Any]] = {}
    top: list[list[dict[str, Any]]] = []
    note: str = ""
    partly: bool = False
    gapless: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self.outputs or self.top)


class Reading(NamedTuple):
    """Reads a request's body as inputs, and an answer's as what was answered."""

    inputs: Callable[[Signature, PredictionRecord, bytes], Tensors]
    answered: Callable[[Signature, PredictionRecord, bytes], Answered]


def _native_inputs(signature: Signature, record: PredictionRecord, body: bytes) -> Tensors:
    return native.tensors_of(signature, record.content_type, body)


class _Native(msgspec.Struct):
    outputs: dict[str, list[Any]] = {}
    predictions: list[Any] = []


def _native_answer(_signature: Signature, _record: PredictionRecord, body: bytes) -> Answered:
    answer = msgspec.json.decode(body, type=_Native)
    top = answer.predictions
    if top and isinstance(top[0], dict):  # one picture, asked for by the short form
        top = [top]
    return Answered(answer.outputs, [[dict(one) for one in row] for row in top])


def _v2_inputs(signature: Signature, record: PredictionRecord, body: bytes) -> Tensors:
    return open_inference.tensors_of(signature, record.content_type, body)


def _v2_answer(signature: Signature, record: PredictionRecord, body: bytes) -> Answered:
    in_bytes = json_length(record.answer_type) is not None
    return _values(signature, open_inference.answer_of(record.answer_type, body), gapless=in_bytes)


def _message_inputs(signature: Signature, _record: PredictionRecord, body: bytes) -> Tensors:
    tensors: Tensors = _messages().tensors_of(signature, body)
    return tensors


def _message_answer(signature: Signature, _record: PredictionRecord, body: bytes) -> Answered:
    return _values(signature, _messages().answer_of(body), gapless=True)


def _values(signature: Signature, outputs: dict[str, list[Any]], *, gapless: bool) -> Answered:
    """Return an answer's values. An output of numbers that was told as its best classes (`value:index`) has none of its own."""
    numbers = {spec.name for spec in signature.outputs if spec.dtype is not Dtype.BYTES}
    values = {name: rows for name, rows in outputs.items() if not (name in numbers and _are_classes(rows))}
    return Answered(values, partly=len(values) < len(outputs), gapless=gapless)


def _are_classes(rows: list[Any]) -> bool:
    return all(isinstance(row, list) and all(isinstance(one, str) and ":" in one for one in row) for row in rows)


def _messages() -> "ModuleType":
    """What reads messages of gRPC, which is not installed everywhere."""
    from modelkeep.serving.dialects.open_inference import grpc

    return grpc


def _scoring_inputs(how: scoring.Reading, signature: Signature, record: PredictionRecord, body: bytes) -> Tensors:
    return scoring.tensors_of(signature, record.content_type, body, how)


def _scoring_answer(signature: Signature, record: PredictionRecord, body: bytes) -> Answered:
    """Rows by MLflow's protocol do not all name their outputs: what was asked for says which they are."""
    whole = record.inputs is not None and not record.input_note
    wish = scoring.wish_of(record.content_type, record.inputs or b"") if whole else scoring.Wish()
    outputs, top = scoring.answered(signature, body, wish)
    return Answered(outputs, top)


class _Rows(msgspec.Struct):
    predictions: list[Any] | None = None
    outputs: Any = None
    results: list[Any] | None = None


def _scored(pair: Any) -> Any:  # noqa: ANN401 - any JSON value
    _label, score = pair
    return score


def _vertex_answer(signature: Signature, _record: PredictionRecord, body: bytes) -> Answered:
    predictions = msgspec.json.decode(body, type=_Rows).predictions or []
    if predictions and _are_top_classes(predictions[0]):
        return Answered(top=[[dict(one) for one in row] for row in predictions])
    return Answered(rows.outputs_in_rows(signature, predictions))


def _are_top_classes(row: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Whether a row is the best classes, which `top_k` asks for; no output is a list of objects with an index."""
    return isinstance(row, list) and bool(row) and isinstance(row[0], dict) and "index" in row[0]


def _tf_serving_answer(signature: Signature, _record: PredictionRecord, body: bytes) -> Answered:
    answer = msgspec.json.decode(body, type=_Rows)
    if answer.predictions is not None:
        return Answered(rows.outputs_in_rows(signature, answer.predictions))
    if answer.results is None:
        return Answered(rows.outputs_in_columns(signature, answer.outputs))
    if any(isinstance(row, list) for row in answer.results):
        return Answered(top=[[{"index": at, "score": _scored(pair)} for at, pair in enumerate(row)] for row in answer.results])
    spec = tf_serving.regressed(signature)
    if spec is None:
        return Answered()
    shape = (len(answer.results), *(1 for _ in spec.shape[1:]))
    return Answered({spec.name: np.array(answer.results, dtype=object).reshape(shape).tolist()})


def _in_json(
    read: Callable[[Signature, bytes], Tensors], signature: Signature, _record: PredictionRecord, body: bytes
) -> Tensors:
    return read(signature, body)


READINGS: Final[Mapping[str, Reading]] = {
    native.NAME: Reading(_native_inputs, _native_answer),
    NAME: Reading(_v2_inputs, _v2_answer),
    GRPC_NAME: Reading(_message_inputs, _message_answer),
    tf_serving.NAME: Reading(partial(_in_json, tf_serving.tensors_of), _tf_serving_answer),
    vertex.NAME: Reading(partial(_in_json, vertex.tensors_of), _vertex_answer),
    mlflow.NAME: Reading(partial(_scoring_inputs, mlflow.DATABRICKS), _scoring_answer),
    sagemaker.NAME: Reading(partial(_scoring_inputs, sagemaker.READING), _scoring_answer),
}
