"""What TensorFlow Serving's clients and Vertex AI asked and were answered becomes a question again."""

import json
from typing import Any

import numpy as np
import pytest

from fixtures.history import record
from modelkeep.contracts.prediction import mixed_type
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.control.replays.rules import Skip
from modelkeep.serving.dialects.open_inference import raw
from modelkeep.worker.recorded import Question, SkippedError, comparable, question_of

ONE = Signature(
    (TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),),
    (TensorSpec("y", Dtype.FP32, (-1, 1)),),
)
TWO = Signature(ONE.inputs, (TensorSpec("label", Dtype.BYTES, (-1,)), TensorSpec("scores", Dtype.FP32, (-1, 2))))
NOW = {"label": np.array([b"cat", b"\xff"], dtype=object), "scores": np.array([[0.75, 0.25], [0.5, 0.5]], dtype=np.float32)}


def kept(signature: Signature, dialect: str, asked: object, answered: object) -> Question:
    one = record(dialect=dialect, inputs=json.dumps(asked).encode(), outputs=json.dumps(answered).encode())
    return question_of(one, "ver_A", signature)


@pytest.mark.parametrize(
    ("dialect", "asked"),
    [
        ("v1", {"instances": [[1.5, 2], [3, 4]]}),
        ("v1", {"instances": [{"a": 1.5, "b": 2}, {"a": 3, "b": 4}], "signature_name": "serving_default"}),
        ("v1", {"inputs": {"a": [1.5, 3], "b": [2, 4]}}),
        ("v1", {"examples": [{"a": 1.5, "b": 2}, {"a": 3, "b": 4}]}),
        ("vertex", {"instances": [[1.5, 2], [3, 4]], "parameters": {"top_k": 2}}),
    ],
)
def test_rows_are_read_as_they_were(dialect: str, asked: dict[str, Any]) -> None:
    question = kept(ONE, dialect, asked, {"predictions": [[1], [2]]})
    assert question.tensors["input"].tolist() == [[1.5, 2.0], [3.0, 4.0]]
    assert question.answered.outputs == {"y": [[1], [2]]}


def test_the_context_is_part_of_recorded_examples() -> None:
    question = kept(ONE, "v1", {"context": {"b": 2}, "examples": [{"a": 1}]}, {"results": [0.5]})
    assert question.tensors["input"].tolist() == [[1.0, 2.0]]
    assert question.answered.outputs == {"y": [[0.5]]}


@pytest.mark.parametrize(
    ("dialect", "answered"),
    [
        ("v1", {"predictions": [{"label": "cat", "scores": [0.75, 0.25]}, {"label": {"b64": "/w=="}, "scores": [0.5, 0.5]}]}),
        ("v1", {"outputs": {"label": ["cat", {"b64": "/w=="}], "scores": [[0.75, 0.25], [0.5, 0.5]]}}),
        ("v1", {"results": [[["", 0.75], ["", 0.25]], [["", 0.5], ["", 0.5]]]}),
        ("vertex", {"predictions": [[{"index": 0, "score": 0.75}], [{"index": 1, "score": 0.5}]]}),
    ],
)
def test_answers_agree_with_the_same_answers_now(dialect: str, answered: dict[str, Any]) -> None:
    question = kept(TWO, dialect, {"instances": [[1, 2], [3, 4]]}, answered)
    assert question.answered
    assert not question.answered.note
    wanted, given = comparable(question.answered, 0, NOW, "scores")
    assert wanted
    for name, values in wanted.items():
        np.testing.assert_array_equal(values, given[name])


def test_a_missing_text_that_was_told_in_bytes_is_the_one_that_is_missing_now() -> None:
    texts = Signature(ONE.inputs, (TensorSpec("y", Dtype.BYTES, (-1,)),))
    asked = {"inputs": [{"name": "input", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    head = {"outputs": [{"name": "y", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}
    answer = json.dumps(head).encode()
    one = record(
        dialect="v2",
        inputs=json.dumps(asked).encode(),
        outputs=answer + raw.packed([None, "a"]),
        answer_type=mixed_type(len(answer)),
    )
    answered = question_of(one, "ver_A", texts).answered
    for now, same in (([None, "a"], True), (["", "a"], True), ([None, "b"], False)):
        wanted, given = comparable(answered, 0, {"y": np.array(now, dtype=object)}, "")
        assert (wanted["y"].tolist() == given["y"].tolist()) is same


@pytest.mark.parametrize(
    "answered", [{"predictions": [1]}, {"predictions": [{}, {}]}, {"outputs": 5}, {"results": [[1], [2]]}, {}]
)
def test_answers_of_another_form_are_not_compared(answered: dict[str, Any]) -> None:
    assert kept(TWO, "v1", {"instances": [[1, 2], [3, 4]]}, answered).answered.note == "unreadable"


@pytest.mark.parametrize("dialect", ["v1", "vertex"])
@pytest.mark.parametrize("asked", [{}, {"instances": 5}, {"instances": [["x", 1]]}, [], {"instances": []}])
def test_what_cannot_be_read_again_is_skipped(dialect: str, asked: object) -> None:
    with pytest.raises(SkippedError) as skipped:
        kept(ONE, dialect, asked, {})
    assert skipped.value.skipped.reason is Skip.UNREADABLE
