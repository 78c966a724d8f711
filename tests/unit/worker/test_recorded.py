"""What the history has becomes a question, or is skipped with a reason; whatever it has, nothing breaks."""

import hashlib
import json
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.history import record
from fixtures.rpcs import question as asked_over_grpc
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.control.predictions.contents import inputs_of, outputs_of
from modelkeep.control.replays.rules import Skip
from modelkeep.serving.dialects import open_inference
from modelkeep.serving.protos import open_inference_pb2 as pb
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


def binary(array: np.ndarray, **named: object) -> tuple[bytes, str]:
    """An Open Inference body with a tensor as bytes, and the type under which it is kept."""
    data = array.tobytes()
    tensor = {"name": "input", "shape": list(array.shape), "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps(
        named | {side: [tensor | {"name": name}] for side, name in (("inputs", "input"), ("outputs", "y"))}
    ).encode()
    return head + data, f"application/octet-stream; inference-header-content-length={len(head)}"


def test_tensors_that_came_and_went_as_bytes_are_read_again() -> None:
    body, kind = binary(np.array([[1, 2], [3, np.nan]], np.float32))
    question = asked(MATRIX, dialect="v2", inputs=body, content_type=kind, outputs=body, answer_type=kind)
    assert question.tensors["input"].tolist()[0] == [1.0, 2.0]
    assert question.answered.outputs == {"y": [[1.0, 2.0], [3.0, "NaN"]]}
    sides = inputs_of(record(inputs=body, content_type=kind)), outputs_of(record(outputs=body, answer_type=kind))
    for side in sides:
        assert side is not None
        assert (side.value["inputs"][0]["datatype"], side.data) == ("FP32", body)


@given(st.binary(max_size=20), st.integers(0, 400), st.integers(0, 400))
def test_a_damaged_answer_in_bytes_is_unreadable_and_breaks_nothing(damage: bytes, at: int, length: int) -> None:
    body, kind = binary(np.array([[1, 2]], np.float32))
    kept = {"outputs": body[:at] + damage, "answer_type": f"application/octet-stream; inference-header-content-length={length}"}
    question = asked(MATRIX, dialect="v2", inputs=body, content_type=kind, **kept)
    assert question.answered.note or question.answered.outputs == {"y": [[1.0, 2.0]]} or damage
    assert outputs_of(record(**kept)) is not None


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


SCORED = Signature(MATRIX.inputs, (TensorSpec("label", Dtype.INT64, (-1,)), TensorSpec("scores", Dtype.FP32, (-1, 2))))
SPLIT = {"dataframe_split": {"columns": ["b", "a"], "data": [[2, 1], [4, 3]]}}


@pytest.mark.parametrize("texts", [["0.9:1:b", "0.1:0:a"], ["0.9:1", "0.1:0"]])
def test_the_best_classes_are_not_taken_for_values(texts: list[str]) -> None:
    told = [
        {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "scores", "datatype": "BYTES", "shape": [1, 2], "data": texts},
    ]
    sent = json.dumps({"inputs": [V2]}).encode()
    question = asked(SCORED, dialect="v2", inputs=sent, outputs=json.dumps({"outputs": told}).encode())
    assert (question.answered.outputs, question.answered.partly) == ({"label": [1]}, True)


TOP = [[{"label": "x", "index": 1, "score": 0.5}], [{"label": "y", "index": 0, "score": 0.5}]]


@pytest.mark.parametrize(
    ("dialect", "content_type", "body"),
    [
        ("mlflow", "application/json", json.dumps(SPLIT).encode()),
        ("mlflow", "application/json; charset=utf-8", json.dumps(SPLIT | {"client_request_id": "one"}).encode()),
        ("mlflow", "text/csv", b"b,a\n2,1\n4,3\n"),
        ("mlflow", "text/csv; header=absent", b"1,2\n3,4\n"),
        ("sagemaker", "text/csv", b"1,2\n3,4\n"),
    ],
)
def test_bodies_of_mlflow_and_sagemaker_are_read_as_they_were(dialect: str, content_type: str, body: bytes) -> None:
    question = asked(MATRIX, dialect=dialect, content_type=content_type, inputs=body)
    assert question.tensors["input"].tolist() == [[1, 2], [3, 4]]


def test_answers_of_mlflow_are_read_by_what_was_asked_for() -> None:
    rows = [{"label": 1, "scores": [0.5, 0.5]}, {"label": 0, "scores": [1.0, 0.0]}]

    def answered(predictions: object, **params: object) -> tuple[object, object, str]:
        body = SPLIT | {"params": params}
        found = kept(SCORED, body, dialect="mlflow", outputs=json.dumps({"predictions": predictions}).encode()).answered
        return found.outputs, found.top, found.note

    assert answered(rows) == ({"label": [1, 0], "scores": [[0.5, 0.5], [1.0, 0.0]]}, [], "")
    assert answered([1, 0], outputs=["label"]) == ({"label": [1, 0]}, [], "")
    assert answered(TOP, top_k=1) == ({}, TOP, "")
    assert answered([1, 0])[2] == answered(rows[:1])[2] == answered(7)[2] == "unreadable"


def test_answers_that_do_not_fit_their_rows_are_not_compared() -> None:
    body = {"inputs": [[1, 2], [3, 4]]}
    assert kept(MATRIX, body, outputs=b'{"outputs": {"y": [1]}}').answered.note == "unreadable"
    assert kept(MATRIX, body, outputs=b'{"outputs": {"y": [1, 2]}}').answered.outputs == {"y": [1, 2]}
    assert kept(MATRIX, body, outputs=None, output_note="dropped").answered.note == "dropped"
    assert kept(MATRIX, body, outputs=None).answered.note == "not kept"


def test_a_question_over_grpc_is_asked_again_and_its_answer_compared() -> None:
    rows = np.array([[1.5, 2.5], [np.nan, 4.0]], np.float32)
    for bare in (True, False):
        answer = pb.ModelInferResponse()
        answer.outputs.add(name="y", datatype="FP64", shape=[2])
        if bare:
            answer.raw_output_contents.append(np.array([4.0, np.inf]).tobytes())
        else:
            answer.outputs[0].contents.fp64_contents.extend([4.0, np.inf])
        body = asked_over_grpc(rows, Dtype.FP32, bare=bare).SerializeToString()
        found = asked(MATRIX, dialect="v2-grpc", inputs=body, outputs=answer.SerializeToString())
        assert found.tensors["input"].tobytes() == rows.tobytes()
        assert found.answered.outputs == {"y": [4.0, "Infinity"]}
    assert skipped(MATRIX, dialect="v2-grpc", inputs=b"\xff") is Skip.UNREADABLE
    assert skipped(TABLE, dialect="v2-grpc", inputs=body) is Skip.UNREADABLE
    assert asked(MATRIX, dialect="v2-grpc", inputs=body, outputs=b"\xff").answered.note == "unreadable"


def test_where_grpc_is_not_installed_its_questions_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelkeep.serving.dialects.open_inference.grpc", None)
    monkeypatch.delattr(open_inference, "grpc", raising=False)
    assert skipped(MATRIX, dialect="v2-grpc", inputs=b"") is Skip.UNREADABLE


NAMES = st.sampled_from(["outputs", "index", "score", "y", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(HASH),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
BODIES = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())
SIDES = st.sampled_from(["outputs", "predictions", "results"])
ANSWERS = st.builds(lambda side, value: json.dumps({side: value}).encode(), SIDES, JSON)
V2 = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
SENT = {
    "native": {"inputs": [[1, 2]]},
    "v2": {"inputs": [V2]},
    "mlflow": {"instances": [[1, 2]], "params": {"outputs": ["y"]}},
    "sagemaker": {"inputs": [[1, 2]], "params": {"top_k": 1}},
    "v1": {"instances": [[1, 2]]},
    "vertex": {"instances": [{"a": 1, "b": 2}]},
}


@given(
    inputs=st.none() | BODIES,
    outputs=st.none() | BODIES | ANSWERS,
    dialect=st.sampled_from([*SENT, "v2-grpc", "other"]),
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
