"""Writes predictions down: one append a micro-batch to this server's spool, before any of its callers hears the answer.

What is kept follows the deployment's policy. By default request and answer as they went over the wire; otherwise the values
of single tensors and columns, by name, are hashed or left out before anything touches a disk.
"""

import hashlib
import random
import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from modelkeep.contracts.errors import ModelkeepError, StorageFull
from modelkeep.contracts.prediction import Outcome, PredictionRecord
from modelkeep.contracts.signature import TensorSpec
from modelkeep.contracts.snapshot import Keep, Recording
from modelkeep.infra.problems import STATUS
from modelkeep.serving.calls import Call, Run, Share
from modelkeep.serving.codec import Tensors, values_of
from modelkeep.serving.matrix import Matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelkeep.serving.batcher import Finished
    from modelkeep.serving.messages import Response

_encode = msgspec.json.Encoder().encode


class Spool(Protocol):
    """Where records go; `append` raises `StorageFull` where nothing may be answered that is not written down."""

    def append(self, records: "Sequence[PredictionRecord]") -> None:
        """Append a batch at once."""
        ...


class Recorder:
    """Turns calls into records. `max_payload` is the largest request or answer that is kept, in bytes."""

    def __init__(self, spool: Spool | None, *, max_payload: int) -> None:
        self._spool = spool
        self._max_payload = max_payload

    def answered(self, finished: "Finished", run: Run) -> ModelkeepError | None:
        """Write down a run's answers; returns why nothing may be answered, where the policy is to refuse then."""
        if self._spool is None:
            return None
        records = []
        now, clock = time.time(), time.monotonic()
        for call, response in finished:
            recording: Recording = call.route.recording
            if recording.enabled and not isinstance(response, ModelkeepError):
                records.append(self._answered(call, response.body, run, now, clock))
        if not records:
            return None
        try:
            self._spool.append(records)
        except StorageFull as error:
            return error
        return None

    def prepare(self, call: Call) -> None:
        """Make ready what is kept of a large call, in its threads: of its body now, of its answer when that is written."""
        recording: Recording = call.route.recording
        if self._spool is None or call.route.plain or not recording.enabled:
            return
        inputs, write = self._kept(call.body, recording, recording.inputs, call, None), call.write
        call.kept = (*inputs, None, "")

        def written(call: Call, share: Share) -> "Response":
            response = write(call, share)
            call.kept = (*inputs, *self._kept(response.body, recording, recording.outputs, call, share.run))
            return response

        call.write = written

    def refused(self, call: Call, error: ModelkeepError, outcome: Outcome) -> None:
        """Write down a prediction that was asked for and could not be given."""
        recording: Recording = call.route.recording
        if self._spool is None or not recording.enabled:
            return
        version = call.route.served.version
        inputs, note = call.kept[:2] if call.kept else self._kept(call.body, recording, recording.inputs, call, None)
        record = PredictionRecord(
            call.id,
            time.time(),
            call.request_id,
            call.route.name,
            version.id,
            version.number,
            call.key_id,
            call.dialect,
            outcome,
            error.code,
            STATUS[error.kind],
            call.rows,
            (time.monotonic() - call.started) * 1000,
            0.0,
            0.0,
            call.content_type.decode("latin-1"),
            inputs,
            None,
            note,
            "",
            user=call.owner,
        )
        try:
            self._spool.append((record,))
        except StorageFull:
            return  # the spool has counted it; there is no answer that could be refused

    def _answered(self, call: Call, answer: bytes, run: Run, now: float, clock: float) -> PredictionRecord:
        route = call.route
        version = route.served.version
        inputs: bytes | None = call.body
        outputs: bytes | None = answer
        input_note = output_note = ""
        if call.kept is not None:
            inputs, input_note, outputs, output_note = call.kept
        elif not route.plain or len(call.body) > self._max_payload or len(answer) > self._max_payload:
            recording = route.recording
            inputs, input_note = self._kept(call.body, recording, recording.inputs, call, None)
            outputs, output_note = self._kept(answer, recording, recording.outputs, call, run)
        total_s = clock - call.started
        arm = route.arm
        trial = "" if arm is None else arm.count.counting
        return PredictionRecord(
            call.id,
            now,
            call.request_id,
            route.name,
            version.id,
            version.number,
            call.key_id,
            call.dialect,
            "ok",
            "",
            200,
            call.rows,
            total_s * 1000,
            max(0.0, total_s - run.run_s - run.preprocess_s) * 1000,
            run.run_s * 1000,
            call.content_type.decode("latin-1"),
            inputs,
            outputs,
            input_note,
            output_note,
            "application/json" if output_note else call.answer_type,
            call.owner,
            trial,
            None if arm is None or not trial else arm.unit(call),
        )

    def _kept(self, raw: bytes, recording: Recording, keep: Keep, call: Call, run: Run | None) -> tuple[bytes | None, str]:
        """Return what is kept of one side of a prediction, and a note on why it is not the whole."""
        if not in_sample(recording, call.id):
            return None, "sampled out"
        if recording.fields:
            raw = _encode(by_policy(_named(call, run), keep, recording.fields))
        elif keep == "drop":
            return None, "dropped"
        elif keep == "hash":
            return hashlib.sha256(raw).hexdigest().join('""').encode(), "hashed"
        if len(raw) > self._max_payload:
            return None, f"too large: {len(raw)} bytes"
        return raw, "by field" if recording.fields else ""


def by_policy(values: dict[str, list[object]], keep: Keep, fields: dict[str, Keep]) -> dict[str, object]:
    """Return each field's values as they may be kept: themselves, their SHA-256 one by one, or nothing."""
    kept: dict[str, object] = {}
    for name, column in values.items():
        match fields.get(name, keep):
            case "keep":
                kept[name] = column
            case "hash":
                kept[name] = [hashlib.sha256(_encode(value)).hexdigest() for value in column]
            case "drop":
                continue
    return kept


def is_plain(recording: Recording) -> bool:
    """Whether everything is kept as it went over the wire."""
    return recording.inputs == recording.outputs == "keep" and not recording.fields and recording.sample >= 1


def in_sample(recording: Recording, prediction_id: str) -> bool:
    """Whether what went in and came out of this prediction is considered at all."""
    return recording.sample >= 1 or _unit(prediction_id) < recording.sample


def _named(call: Call, run: Run | None) -> dict[str, list[object]]:
    """Return inputs, or outputs where there is a run, as lists by tensor, or by column where the columns have names."""
    signature = call.route.served.version.signature
    if run is not None:
        share: Share | None = call.share
        assert share is not None  # noqa: S101 - a call with a run has its share of it
        return {name: values_of(share.tensor(name)) for name in share.names}
    if isinstance(call.payload, Matrix):
        return _columns(call.payload.spec, call.payload.rows)
    tensors: Tensors = call.payload
    spec = signature.inputs[0]
    if len(tensors) == 1 and spec.columns:
        return _columns(spec, values_of(tensors[spec.name]))
    return {name: _plain(values_of(array)) for name, array in tensors.items()}


def _columns(spec: TensorSpec, rows: list[list[float]]) -> dict[str, list[object]]:
    if not spec.columns:
        return {spec.name: list(rows)}
    return {name: [row[at] for row in rows] for at, name in enumerate(spec.columns)}


def _plain(values: list[object]) -> list[object]:
    """A column of a table comes with an axis of its own: [[1], [2]] is 1 and 2."""
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]


def _unit(prediction_id: str) -> float:
    """Return a number in [0, 1) that is the same for both sides of a prediction, and for whoever asks again."""
    return random.Random(prediction_id).random()  # noqa: S311 - a sample is no secret
