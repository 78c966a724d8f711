"""What is written down of predictions: by policy, before the answer, and nothing of what policy says to leave out."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.calling import Kept, make_call, make_route
from modelkeep.contracts.errors import InvalidInput, ModelFailed, StorageFull
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import DeploymentSettings, Keep, Recording
from modelkeep.contracts.traffic import Trial
from modelkeep.serving.calls import Call, Run, Share
from modelkeep.serving.codec import Tensors
from modelkeep.serving.matrix import Matrix
from modelkeep.serving.messages import Response
from modelkeep.serving.recorder import Recorder
from modelkeep.serving.trials import Alone, Arm, Count, Rollout

MATRIX = Signature((TensorSpec("x", Dtype.FP64, (-1, 2), columns=("age", "iban")),), (TensorSpec("score", Dtype.FP64, (-1,)),))
BARE = Signature((TensorSpec("x", Dtype.FP64, (-1, 2)),), (TensorSpec("score", Dtype.FP64, (-1,)),))
TABLE = Signature(
    (TensorSpec("age", Dtype.FP64, (-1, 1)), TensorSpec("iban", Dtype.BYTES, (-1, 1))),
    (TensorSpec("score", Dtype.FP64, (-1,)), TensorSpec("label", Dtype.BYTES, (-1,))),
)
BODY = b'{"inputs":[[41.0,12345678.0]]}'
ANSWER = b'{"predictions":[0.75]}'


class Desk:
    """A recorder over a spool in a list, and calls in front of it."""

    def __init__(self, max_payload: int = 1000) -> None:
        self.kept = Kept()
        self.recorder = Recorder(self.kept, max_payload=max_payload)

    def call(
        self, recording: Recording, payload: Tensors | Matrix, signature: Signature, outputs: Tensors, body: bytes = BODY
    ) -> Call:
        async def make() -> Call:
            route = make_route(signature, DeploymentSettings(recording=recording))
            call = make_call(payload, route=route, body=body, owner="usr_1", key_id="key_1")
            call.share = Share(Run(outputs, 0.25), 0, call.rows)
            return call

        return asyncio.run(make())

    def answered(self, *calls: Call, answer: bytes = ANSWER) -> StorageFull | None:
        share = calls[0].share
        assert share is not None
        trouble = self.recorder.answered([(call, Response(200, answer)) for call in calls], share.run)
        assert trouble is None or isinstance(trouble, StorageFull)
        return trouble

    def record(self) -> PredictionRecord:
        (record,) = self.kept.records
        return record


@pytest.fixture
def desk() -> Desk:
    return Desk()


def matrix(desk: Desk, recording: Recording, signature: Signature = MATRIX, body: bytes = BODY) -> Call:
    return desk.call(recording, Matrix(signature, [[41.0, 12345678.0]]), signature, {"score": np.array([0.75])}, body)


def sha(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def test_by_default_both_sides_are_kept_as_they_went_over_the_wire(desk: Desk) -> None:
    call = matrix(desk, Recording())
    assert desk.answered(call) is None
    record = desk.record()
    assert (record.inputs, record.outputs, record.input_note, record.output_note) == (BODY, ANSWER, "", "")
    assert (record.id, record.request_id, record.deployment) == (call.id, call.request_id, "m")
    assert (record.key_id, record.user) == ("key_1", "usr_1")
    assert (record.version_id, record.version, record.dialect, record.rows) == ("v1", 1, "native", 1)
    assert (record.outcome, record.code, record.status, record.run_ms) == ("ok", "", 200, 250.0)
    assert record.total_ms >= 0
    assert record.queue_ms >= 0


@pytest.mark.parametrize(
    ("keep", "note", "inputs", "outputs"),
    [
        ("keep", "", BODY, ANSWER),
        ("drop", "dropped", None, None),
        (
            "hash",
            "hashed",
            f'"{hashlib.sha256(BODY).hexdigest()}"'.encode(),
            f'"{hashlib.sha256(ANSWER).hexdigest()}"'.encode(),
        ),
    ],
)
def test_each_side_has_a_policy_of_its_own(desk: Desk, keep: Keep, note: str, inputs: object, outputs: object) -> None:
    desk.answered(matrix(desk, Recording(inputs=keep)))
    desk.answered(matrix(desk, Recording(outputs=keep)))
    one, other = desk.kept.records
    assert (one.inputs, one.input_note, one.outputs, one.output_note) == (inputs, note, ANSWER, "")
    assert (other.inputs, other.input_note, other.outputs, other.output_note) == (BODY, "", outputs, note)


def test_columns_of_a_matrix_are_kept_hashed_and_dropped_by_name(desk: Desk) -> None:
    desk.answered(matrix(desk, Recording(fields={"iban": "hash"})))
    desk.answered(matrix(desk, Recording(fields={"iban": "drop"})))
    desk.answered(matrix(desk, Recording(inputs="drop", fields={"age": "keep"})))
    desk.answered(matrix(desk, Recording(inputs="hash", outputs="drop", fields={"age": "keep"})))
    inputs = [json.loads(record.inputs or b"") for record in desk.kept.records]
    hidden = sha(12345678.0)
    assert inputs == [{"age": [41.0], "iban": [hidden]}, {"age": [41.0]}, {"age": [41.0]}, {"age": [41.0], "iban": [hidden]}]
    assert [record.outputs for record in desk.kept.records] == [b'{"score":[0.75]}'] * 3 + [b"{}"]
    assert {record.input_note for record in desk.kept.records} == {"by field"}


def test_a_matrix_without_names_is_one_field(desk: Desk) -> None:
    desk.answered(matrix(desk, Recording(fields={"score": "hash"}), BARE))
    desk.answered(matrix(desk, Recording(fields={"x": "hash"}), BARE))
    one, other = desk.kept.records
    assert (one.inputs, json.loads(one.outputs or b"")) == (b'{"x":[[41.0,12345678.0]]}', {"score": [sha(0.75)]})
    assert json.loads(other.inputs or b"") == {"x": [sha([41.0, 12345678.0])]}


def table(desk: Desk, recording: Recording, iban: str = "PL61", label: bytes = b"good") -> Call:
    payload: Tensors = {"age": np.array([[41.0]]), "iban": np.array([[iban]], dtype=object)}
    outputs: Tensors = {"score": np.array([0.75]), "label": np.array([label], dtype=object)}
    return desk.call(recording, payload, TABLE, outputs, json.dumps({"inputs": [{"age": 41, "iban": iban}]}).encode())


def test_fields_of_a_table_and_of_its_answer_go_by_name(desk: Desk) -> None:
    desk.answered(table(desk, Recording(fields={"iban": "hash", "label": "drop"})))
    record = desk.record()
    assert json.loads(record.inputs or b"") == {"age": [41.0], "iban": [sha("PL61")]}
    assert json.loads(record.outputs or b"") == {"score": [0.75]}


def test_a_matrix_that_came_as_a_tensor_goes_by_its_columns(desk: Desk) -> None:
    payload: Tensors = {"x": np.array([[41.0, 12345678.0]])}
    desk.answered(desk.call(Recording(fields={"iban": "drop"}), payload, MATRIX, {"score": np.array([0.75])}))
    assert desk.record().inputs == b'{"age":[41.0]}'


SECRET = "5eCreT"
KEEPS = st.sampled_from(["keep", "hash", "drop"])
HIDDEN = st.sampled_from(["hash", "drop"])


@given(
    inputs=KEEPS,
    outputs=KEEPS,
    fields=st.dictionaries(st.sampled_from(["age", "iban", "score", "label", "other"]), KEEPS),
    sample=st.sampled_from([0.0, 0.5, 1.0]),
    max_payload=st.sampled_from([0, 40, 1000]),
    failed=st.booleans(),
)
def test_a_value_that_is_hashed_or_dropped_is_nowhere_in_the_record(
    inputs: Keep, outputs: Keep, fields: dict[str, Keep], sample: float, max_payload: int, failed: bool
) -> None:
    desk = Desk(max_payload)
    recording = Recording(sample=sample, inputs=inputs, outputs=outputs, fields=fields)
    call = table(desk, recording, iban=f"in-{SECRET}", label=f"out-{SECRET}".encode())
    if failed:
        desk.recorder.refused(call, ModelFailed(), "error")
    else:
        desk.answered(call, answer=f'{{"predictions":["out-{SECRET}"]}}'.encode())
    whole = msgspec.msgpack.encode(desk.record())
    if fields.get("iban", inputs) != "keep":
        assert f"in-{SECRET}".encode() not in whole
    if fields.get("label", outputs) != "keep":
        assert f"out-{SECRET}".encode() not in whole
    record = desk.record()
    for side in (record.inputs, record.outputs):
        assert side is None or len(side) <= max(max_payload, 66), "larger than a hash and than the bound"


@given(column=HIDDEN, number=st.floats(1e6, 1e9))
def test_a_number_that_is_hashed_or_dropped_is_nowhere_in_the_record(column: Keep, number: float) -> None:
    desk = Desk()
    body = msgspec.json.encode({"inputs": [[41.0, number]]})
    payload = Matrix(MATRIX, [[41.0, number]])
    desk.answered(desk.call(Recording(fields={"iban": column}), payload, MATRIX, {"score": np.array([0.75])}, body))
    assert msgspec.json.encode(number) not in msgspec.msgpack.encode(desk.record())


def test_a_sample_is_one_decision_for_both_sides_and_near_its_share(desk: Desk) -> None:
    for _ in range(2000):
        desk.answered(matrix(desk, Recording(sample=0.3)))
    records = desk.kept.records
    assert len(records) == 2000, "each is written down, whatever is kept of it"
    taken = [record for record in records if record.inputs is not None]
    assert 500 < len(taken) < 700
    for record in records:
        assert (record.inputs is None) == (record.outputs is None)
        assert record.input_note == record.output_note == ("" if record.inputs else "sampled out")


def test_of_what_is_too_large_only_its_size_is_kept(desk: Desk) -> None:
    desk.answered(matrix(desk, Recording(), body=b"x" * 1001))
    desk.answered(matrix(desk, Recording()), answer=b"y" * 1001)
    desk.answered(matrix(desk, Recording(), body=b"x" * 1000), answer=b"y" * 1000)
    notes = [(record.input_note, record.output_note) for record in desk.kept.records]
    assert notes == [("too large: 1001 bytes", ""), ("", "too large: 1001 bytes"), ("", "")]
    assert [(record.inputs is None, record.outputs is None) for record in desk.kept.records] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_what_is_too_large_can_be_hashed(desk: Desk) -> None:
    desk.answered(matrix(desk, Recording(inputs="hash"), body=b"x" * 5000))
    assert desk.record().input_note == "hashed"


@pytest.mark.parametrize("keep", ["keep", "hash", "drop"])
def test_a_refused_call_is_written_down_by_the_policy_of_its_inputs(desk: Desk, keep: Keep) -> None:
    call = matrix(desk, Recording(inputs=keep))
    desk.recorder.refused(call, InvalidInput("No."), "rejected")
    record = desk.record()
    assert (record.outcome, record.code, record.status) == ("rejected", "invalid_input", 400)
    assert (record.key_id, record.user) == ("key_1", "usr_1")
    assert (record.outputs, record.output_note) == (None, "")
    assert (record.inputs == BODY) == (keep == "keep")
    assert (record.inputs is None) == (keep == "drop")


def test_a_call_that_could_not_be_read_shows_nothing_where_fields_have_a_policy(desk: Desk) -> None:
    call = matrix(desk, Recording(fields={"iban": "drop"}))
    call.payload = {}
    desk.recorder.refused(call, InvalidInput("No."), "rejected")
    assert desk.record().inputs == b"{}"


def test_where_nothing_is_recorded_nothing_is_written(desk: Desk) -> None:
    off = matrix(desk, Recording(enabled=False))
    desk.answered(off)
    desk.recorder.refused(off, InvalidInput("No."), "rejected")
    none = Recorder(None, max_payload=1)
    on = matrix(desk, Recording())
    assert on.share is not None
    none.answered([(on, Response(200, ANSWER))], on.share.run)
    none.refused(on, InvalidInput("No."), "rejected")
    assert not desk.kept.records


def test_a_run_is_one_append_without_those_that_got_no_answer_or_are_not_recorded(desk: Desk) -> None:
    appended: list[Any] = []
    append: Callable[[Any], None] = appended.append
    desk.kept.append = append  # type: ignore[method-assign]
    calls = [matrix(desk, Recording(enabled=enabled)) for enabled in (True, False, True, True)]
    share = calls[0].share
    assert share is not None
    finished = [(call, Response(200, ANSWER)) for call in calls]
    desk.recorder.answered([*finished[:3], (calls[3], ModelFailed())], share.run)
    assert [[record.id for record in records] for records in appended] == [[calls[0].id, calls[2].id]]


def test_a_full_spool_is_told_to_whoever_answers_and_to_nobody_else(desk: Desk) -> None:
    desk.kept.full = StorageFull()
    call = matrix(desk, Recording())
    assert desk.answered(call) is desk.kept.full
    desk.recorder.refused(call, InvalidInput("No."), "rejected")
    assert desk.answered(matrix(desk, Recording(enabled=False))) is None


def test_a_record_says_which_trial_counts_it_until_that_is_halted():
    desk = Desk()
    trial = Trial("rol_1", 2, "v2", 0.1, slow_ms=100.0, alphas={"errors": 0.01})
    count = Count("m", trial, Rollout(), lambda: None)

    def asked(arm: Arm | None) -> tuple[str, int | None]:
        call = desk.call(Recording(), {"x": np.array([[1.0, 2.0]])}, BARE, {"score": np.array([0.5])})
        call.route.arm, call.unit = arm, 7
        desk.answered(call)
        return desk.kept.records[-1].trial, desk.kept.records[-1].unit

    assert asked(count.arms[0]) == asked(count.arms[1]) == ("rol_1:2", 7)
    assert asked(Alone(count)) == ("rol_1:2", None)
    assert asked(None) == ("", None), "whom a rule or the caller has chosen for"
    count.halted = "errors"
    assert asked(count.arms[1]) == ("", None)
