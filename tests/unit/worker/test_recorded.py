"""What the history has becomes a question, or is skipped with a reason; whatever it has, nothing breaks."""

import hashlib
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history import record
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.control.replays.rules import Skip
from modelkeep.worker.comparing import Part, Tally
from modelkeep.worker.recorded import Question, SkippedError, question_of

TABLE = Signature((TensorSpec("age", Dtype.FP64, (-1,)), TensorSpec("city", Dtype.BYTES, (-1,))))
MATRIX = Signature((TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),))
PICTURES = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True)
HASH = hashlib.sha256(b'"Bern"').hexdigest()
FORM = b'--x\r\ncontent-disposition: form-data; name="file"; filename="p.png"\r\n\r\n\x89PNG\r\n--x--\r\n'


def asked(signature: Signature, **changes: object) -> Question:
    return question_of(record(**changes), "ver_A", signature)


def kept(signature: Signature, inputs: object, **changes: object) -> Question:
    return asked(signature, inputs=json.dumps(inputs).encode(), **changes)


def skipped(signature: Signature, **changes: object) -> Skip:
    with pytest.raises(SkippedError) as refused:
        asked(signature, **changes)
    return refused.value.skipped.reason


def test_columns_that_were_kept_one_by_one_are_put_together_again() -> None:
    question = kept(MATRIX, {"a": [1.5, 2.5], "b": [3.0, 4.0]}, input_note="by field")
    assert question.tensors["input"].tolist() == [[1.5, 3.0], [2.5, 4.0]]
    assert question.rows == 2


def test_a_hash_is_never_taken_for_a_text() -> None:
    whole = {"age": [31.0], "city": ["Bern"]}
    assert kept(TABLE, whole, input_note="by field").tensors["city"].tolist() == ["Bern"]
    hashed = json.dumps(whole | {"city": [HASH]}).encode()
    assert skipped(TABLE, inputs=hashed, input_note="by field") is Skip.FIELDS_NOT_KEPT
    assert skipped(TABLE, inputs=json.dumps({"age": [31.0]}).encode(), input_note="by field") is Skip.FIELDS_NOT_KEPT
    assert skipped(TABLE, inputs=json.dumps(HASH).encode(), input_note="hashed") is Skip.HASHED


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("image/png", b"\x89PNG"),
        ("application/octet-stream", b"\x89PNG"),
        ("multipart/form-data; boundary=x", FORM),
        ("application/json", b'{"inputs": ["iVBORw=="], "top_k": 3}'),
        ("application/json; charset=utf-8", b'{"inputs": {"image": ["iVBORw=="]}}'),
    ],
)
def test_a_picture_is_read_however_it_came(content_type: str, body: bytes) -> None:
    assert asked(PICTURES, content_type=content_type, inputs=body).tensors["image"].tolist() == [b"\x89PNG"]


def test_a_dialect_that_is_not_known_here_is_skipped() -> None:
    assert skipped(MATRIX, dialect="of tomorrow", inputs=b'{"inputs": [[1, 2]]}') is Skip.UNREADABLE


def test_answers_that_do_not_fit_their_rows_are_not_compared() -> None:
    body = {"inputs": [[1, 2], [3, 4]]}
    assert kept(MATRIX, body, outputs=b'{"outputs": {"y": [1]}}').answered.note == "unreadable"
    assert kept(MATRIX, body, outputs=b'{"outputs": {"y": [1, 2]}}').answered.outputs == {"y": [1, 2]}
    assert kept(MATRIX, body, outputs=None, output_note="dropped").answered.note == "dropped"
    assert kept(MATRIX, body, outputs=None).answered.note == "not kept"


NAMES = st.sampled_from(["outputs", "index", "score", "y", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(HASH),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
BODIES = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())
SIDES = st.sampled_from(["outputs", "predictions"])
ANSWERS = st.builds(lambda side, value: json.dumps({side: value}).encode(), SIDES, JSON)
V2 = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
SENT = {"native": {"inputs": [[1, 2]]}, "v2": {"inputs": [V2]}}


@given(
    inputs=st.none() | BODIES,
    outputs=st.none() | BODIES | ANSWERS,
    dialect=st.sampled_from(["native", "v2", "other"]),
    notes=st.tuples(*[st.sampled_from(["", "by field", "hashed", "too large: 9 bytes", "?"])] * 2),
    content_type=st.sampled_from(["application/json", "image/png", "multipart/form-data; boundary=x", ""]),
    whole=st.booleans(),
)
def test_whatever_the_history_holds_is_compared_or_skipped(
    inputs: bytes | None, outputs: bytes | None, dialect: str, notes: tuple[str, str], content_type: str, whole: bool
) -> None:
    given_inputs = json.dumps(SENT[dialect]).encode() if whole and dialect in SENT else inputs
    one: PredictionRecord = record(
        inputs=given_inputs,
        outputs=outputs,
        dialect=dialect,
        input_note=notes[0],
        output_note=notes[1],
        content_type=content_type,
    )
    for signature in (MATRIX, TABLE, PICTURES):
        try:
            question = question_of(one, "ver_A", signature)
        except SkippedError:
            continue
        now = {"y": np.full((question.rows, 2), 0.5), "x": np.array(["a"] * question.rows, dtype=object)}
        tally = Tally("y", lambda _deployment, _output: True)
        tally.take(Part(question, 0, question.rows, now, now))
        assert tally.rows == question.rows
        msgspec.json.encode(tally.shown)
