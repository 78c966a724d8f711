"""Predictions are answered again in real runners: what agrees, what differs, what is skipped, and what ends a replay."""

import base64
import hashlib
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from fixtures import artifacts
from fixtures.control import ADMIN, TestClock
from fixtures.history import NOON, Loader, record
from fixtures.replays import Place, echo
from fixtures.runners import Bench
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.signature import Dtype, ImageSpec, Signature, TensorSpec
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.control.models.rules import Version
from modelkeep.control.predictions.service import Predictions
from modelkeep.control.replays.errors import ReplayNotFound, RowsNotKept
from modelkeep.control.replays.rules import Asked, Compared, Pair, Replay, Skip, State
from modelkeep.control.replays.tables import replays
from modelkeep.infra.db import Database, DatabaseUnavailable
from modelkeep.infra.jobs import JobState, jobs
from modelkeep.infra.settings import HistorySettings
from modelkeep.sandbox.agreement import RELATIVE_TO_ROW
from modelkeep.worker.history import HistoryCourier
from modelkeep.worker.runners import RunnerUnavailable

LAST = Asked(last=1000)
DAY = 86_400.0
NOISE = 100_000
SHORT = Limits(memory_mb=2048, load_timeout_s=20, run_timeout_s=1)


@pytest.fixture
async def place(db: Database, control: ControlPlane, clock: TestClock, bench: Bench) -> Place:
    predictions = Predictions(db, clock)
    return Place(db, control, clock, predictions, bench, Loader(predictions))


def answered(
    version: Version, rows: list[list[float]], told: list[list[float]] | None = None, /, **changes: object
) -> PredictionRecord:
    """A prediction of an echo, with its answer."""
    given = {
        "version_id": version.id,
        "version": version.number,
        "rows": len(rows),
        "inputs": json.dumps({"inputs": rows}).encode(),
        "outputs": json.dumps({"outputs": {"input": rows if told is None else told}}).encode(),
    }
    return record(**{**given, **changes})


def done(replay: Replay) -> Replay:
    assert replay.state is State.DONE, replay.failure
    return replay


async def test_answers_that_are_the_same_are_counted_whatever_the_page(place: Place):
    version = await place.version(echo(), echo())
    kept = [answered(version, [[number, 1.5], [2.0, number]], at=NOON + number) for number in range(450)]
    await place.load(kept)
    await place.load([record(deployment="other")])
    replay = done(await place.replay(version, Asked(last=430)))
    found = replay.summary
    assert (found.predictions, found.replayed, found.rows, found.rows_equal, found.skipped) == (430, 430, 860, 860, {})
    assert [found.recorded_serving, found.serving_original] == [found.recorded_original] * 2
    assert found.recorded_original.rows == 860
    assert replay.details.differing == ()
    assert (replay.started_at, replay.finished_at, replay.progress) == (place.clock(), place.clock(), 430)


async def test_a_compiled_form_that_answers_otherwise_is_told_from_the_original(place: Place):
    version = await place.version(echo(), echo(factor=2.0))
    rows = [[float(number), 0.0] for number in range(100)]
    told = [[2.0 * one, 2.0 * other] for one, other in rows]
    sought = answered(version, rows, told)
    await place.load([sought])
    replay = done(await place.replay(version, LAST))
    found = replay.summary
    assert (found.rows, found.rows_equal) == (100, 1)  # twice nothing is nothing
    assert (found.serving_original.differ, found.recorded_original.differ, found.recorded_serving.differ) == (99, 99, 0)
    assert found.serving_original.largest_difference == found.largest_difference == 99.0
    assert [one.row for one in replay.details.differing] == list(range(1, 21))
    first = replay.details.differing[0]
    assert first.prediction == sought.id
    assert first.differs == (Pair.SERVING_ORIGINAL, Pair.RECORDED_ORIGINAL)
    assert (first.original.outputs, first.serving.outputs) == ({"input": [1.0, 0.0]}, {"input": [2.0, 0.0]})
    assert first.recorded is not None
    assert first.recorded.outputs == {"input": [2.0, 0.0]}


async def test_a_machine_that_answers_otherwise_than_then_is_told_from_a_fault_of_compiling(place: Place):
    version = await place.version(echo(), echo())
    fine = [answered(version, [[number, 1.0]]) for number in range(5)]
    changed = answered(version, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[1.0, 2.0], [3.0, 4.5], [5.0, 6.0000001]])
    await place.load([*fine, changed])
    replay = done(await place.replay(version, LAST))
    (row,) = replay.details.differing
    assert (row.prediction, row.row) == (changed.id, 1)
    assert row.differs == (Pair.RECORDED_SERVING, Pair.RECORDED_ORIGINAL)
    assert (replay.summary.rows, replay.summary.rows_equal) == (8, 7)
    assert replay.summary.recorded_serving.largest_difference == 0.5
    assert replay.summary.serving_original.differ == 0


async def test_where_the_uploaded_file_serves_there_is_one_runner(place: Place):
    version = await place.version(echo(noise=1000.0))  # two runs would never agree
    await place.load([answered(version, [[1.0, 2.0]])])
    replay = done(await place.replay(version, LAST))
    assert replay.summary.serving == replay.summary.original
    assert replay.summary.serving_original.differ == 0
    assert replay.summary.recorded_original.differ == 1
    assert len(place.bench.sessions) == 1


async def test_the_same_file_in_another_library_is_another_form(place: Place):
    pytest.importorskip("openvino")
    output = (TensorSpec("scores", Dtype.FP32, (-1, 3)),)
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 4)),), output)
    version = await place.version(artifacts.onnx_scores(), form="onnx", signature=signature, serves_by="openvino")
    replay = done(await place.replay(version, Asked(rows=True), [[1.0, 2.0, 3.0, 4.0]]))
    found = replay.summary
    assert len(place.bench.sessions) == 2
    assert found.serving == msgspec.structs.replace(found.original, runner="openvino")
    assert (found.compared, found.relative_tolerance) == (Compared.NUMBERS_BY_ROW, RELATIVE_TO_ROW)
    assert found.rows_equal == 1


async def test_the_same_file_in_another_precision_is_another_form(place: Place):
    version = await place.version(echo(), serves_by="echo", precision="bf16")
    replay = await place.replay(version, Asked(rows=True), [[1.0, 2.0]])
    assert replay.failure.code == "provider_mismatch"  # it was asked for, and echoes compute in nothing else
    assert replay.failure.message.startswith("The compiled form: ")
    assert len(place.bench.sessions) == 2


def _hashed(rows: object) -> bytes:
    return json.dumps(hashlib.sha256(str(rows).encode()).hexdigest()).encode()


def left_out(version: Version) -> dict[Skip, PredictionRecord]:
    """A prediction for each reason to skip one."""
    rows = [[1.0, 2.0]]
    hashes = {"input": [hashlib.sha256(b"1").hexdigest()]}
    return {
        Skip.OTHER_VERSION: answered(version, rows, version_id="ver_other", version=7),
        Skip.NOT_ANSWERED: answered(version, rows, outcome="error", code="model_failed", outputs=None),
        Skip.HASHED: answered(version, rows, inputs=_hashed(rows), input_note="hashed"),
        Skip.DROPPED: answered(version, rows, inputs=None, input_note="dropped"),
        Skip.SAMPLED_OUT: answered(version, rows, inputs=None, input_note="sampled out", outputs=None),
        Skip.TOO_LARGE: answered(version, rows, inputs=None, input_note="too large: 999999 bytes"),
        Skip.NOT_KEPT: answered(version, rows, inputs=None),
        Skip.FIELDS_NOT_KEPT: answered(version, rows, inputs=json.dumps(hashes).encode(), input_note="by field"),
        Skip.UNREADABLE: answered(version, rows, inputs=b'{"inputs": [[1.0]]}'),
    }


async def test_what_cannot_be_asked_again_is_counted_and_named(place: Place):
    version = await place.version(echo())
    skipped = left_out(version)
    fine = answered(version, [[1.0, 2.0]], inputs=b'{"input": [[1.0, 2.0]]}', input_note="by field")
    unknown = "prd_00000000000000000000000000"
    await place.load([*skipped.values(), fine])
    ids = (*(one.id for one in skipped.values()), unknown, fine.id)
    replay = done(await place.replay(version, Asked(predictions=ids)))
    assert (replay.summary.predictions, replay.summary.replayed) == (len(ids), 1)
    assert replay.summary.skipped == {reason.value: 1 for reason in (*skipped, Skip.NOT_FOUND)}
    named = {one.id: one for one in replay.details.skipped}
    assert {one.id: named[one.id].reason for one in skipped.values()} == {one.id: why for why, one in skipped.items()}
    assert named[unknown].reason is Skip.NOT_FOUND
    assert "version 7" in named[skipped[Skip.OTHER_VERSION].id].detail


async def test_counts_add_up_for_any_mix(place: Place):
    version = await place.version(echo())
    dice = random.Random(7)
    kept: dict[str, Skip | None] = {}
    records = []
    for _ in range(200):
        why = dice.choice([None, *left_out(version)])
        one = answered(version, [[1.0, 2.0]] * dice.randint(1, 3)) if why is None else left_out(version)[why]
        kept[one.id] = why
        records.append(one)
    await place.load(records)
    ids = list(kept)
    dice.shuffle(ids)
    found = done(await place.replay(version, Asked(predictions=tuple(ids)))).summary
    assert found.replayed == sum(why is None for why in kept.values())
    assert found.skipped == {why.value: list(kept.values()).count(why) for why in set(kept.values()) if why is not None}
    assert found.predictions == found.replayed + sum(found.skipped.values()) == 200
    assert found.rows == sum(one.rows for one in records if kept[one.id] is None)
    newest = done(await place.replay(version, Asked(last=10))).summary
    assert newest.replayed == 10
    assert newest.predictions == 10 + sum(newest.skipped.values())


async def test_where_nothing_can_be_asked_again_it_says_why(place: Place):
    version = await place.version(echo())
    empty = await place.replay(version, LAST)
    assert (empty.state, empty.failure.code) == (State.FAILED, "nothing_to_replay")
    assert empty.failure.message == "The history holds no predictions of this version."
    await place.load([left_out(version)[Skip.HASHED], left_out(version)[Skip.DROPPED]])
    none = await place.replay(version, LAST)
    assert none.failure.message == "None of 2 predictions can be answered again: 1 dropped, 1 hashed."
    assert len(none.details.skipped) == 2
    assert place.bench.sessions == {}  # no runner was started for it


async def test_what_policy_leaves_out_is_compared_and_not_shown(place: Place):
    version = await place.version(echo(), echo(factor=3.0))
    secret = answered(version, [[1234.5, 1.0]])
    then = answered(version, [[4321.5, 1.0]], outputs=_hashed("x"), output_note="hashed")
    await place.load([secret, then])
    shown = done(await place.replay(version, LAST))
    assert {one.prediction: one.hidden for one in shown.details.differing} == {secret.id: (), then.id: ("input",)}
    assert shown.summary.recorded_serving.rows == 1  # a hash is not compared
    await place.control.deployments.configure(ADMIN, "forest", {"recording": {"outputs": "drop"}})
    hidden = done(await place.replay(version, LAST))
    assert [one.hidden for one in hidden.details.differing] == [("input",), ("input",)]
    assert hidden.summary.serving_original.differ == 2
    async with place.db.read() as tx:
        row = await tx.one(sa.select(sa.cast(replays.c.details, sa.Text)).where(replays.c.id == hidden.id))
    assert row is not None
    assert not re.search(r"1234\.5|3703\.5|4321\.5|12964\.5", str(row[0]))


async def test_what_policy_hashed_then_stays_out_of_sight_when_policy_is_relaxed(place: Place):
    version = await place.version(echo(), echo(factor=3.0))
    then = answered(version, [[4321.5, 1.0]], outputs=_hashed("x"), output_note="hashed")
    await place.load([then])
    (row,) = done(await place.replay(version, LAST)).details.differing
    assert (row.hidden, row.serving.outputs, row.original.outputs) == (("input",), {}, {})


async def test_where_a_sample_is_kept_rows_of_ones_own_are_answered_out_of_sight(place: Place):
    version = await place.version(echo(), echo(factor=3.0))
    await place.load([answered(version, [[1234.5, 1.0]])])
    waiting = await place.control.replays.ask(ADMIN, "forest", 1, Asked(rows=True), "[[1, 2]]")
    await place.control.deployments.configure(ADMIN, "forest", {"recording": {"sample": 0.0}})
    await place.worker().run(await place.job())
    (own,) = (await place.control.replays.replay(ADMIN, waiting.id)).details.differing
    assert (own.hidden, own.original.outputs) == (("input",), {})
    with pytest.raises(RowsNotKept):
        await place.control.replays.ask(ADMIN, "forest", 1, Asked(rows=True), "[[1, 2]]")
    (chosen,) = done(await place.replay(version, LAST)).details.differing  # it was recorded: it may be shown
    assert chosen.original.outputs == {"input": [1234.5, 1.0]}


LAST_WORDS = (
    "print('saw', rows[0, 1], file=sys.stderr, flush=True)\nif rows[0, 0] == 13: signal.raise_signal(9)\nreturn rows[:, 0]"
)


async def _failing(place: Place) -> Replay:
    """A replay of a row whose answer differs, and then of one that its model dies of."""
    output = (TensorSpec("output", Dtype.FP64, (-1,)),)
    signature = Signature((TensorSpec("input", Dtype.FP64, (-1, 2)),), output)
    data = artifacts.pickle_answering(LAST_WORDS)
    version = await place.version(data, form="pickle", runner="sklearn", signature=signature)
    body = json.dumps({"outputs": {"output": [7.0]}}).encode()
    rows = ([1.0, 2.0], [13.0, 4321.5])
    kept = [answered(version, [row], outputs=body, at=NOON - 20 * 86_400) for row in rows]
    await place.load(kept)
    replay = await place.replay(version, Asked(predictions=tuple(one.id for one in kept)))
    assert (replay.state, replay.failure.code, len(replay.details.differing)) == (State.FAILED, "predict_crashed", 1)
    return replay


async def test_a_replay_that_fails_goes_with_what_it_shows(place: Place):
    await place.control.models.create(ADMIN, "forest")
    await place.control.deployments.configure(ADMIN, "forest", {"recording": {"keep_days": 25}})
    replay = await _failing(place)
    assert "4321.5" in replay.failure.message
    assert replay.expires_at == datetime(2026, 1, 7, tzinfo=UTC)


@pytest.mark.parametrize("policy", [{"outputs": "drop"}, {"inputs": "hash"}, {"enabled": False}])
async def test_last_words_of_a_model_are_left_out_where_policy_does_not_keep_all(place: Place, policy: dict):
    await place.control.models.create(ADMIN, "forest")
    await place.control.deployments.configure(ADMIN, "forest", {"recording": policy})
    replay = await _failing(place)
    assert replay.failure.message.startswith("The uploaded file: ")
    assert "4321.5" not in replay.failure.message


async def test_a_start_that_fails_ends_the_replay_at_once_with_its_words(place: Place):
    version = await place.version(echo())

    @asynccontextmanager
    async def refuses(spec: RunnerSpec, sample: object) -> AsyncIterator[None]:
        del spec, sample
        raise RunnerUnavailable("its file is gone")
        yield

    place.bench.start = refuses  # type: ignore[method-assign, assignment]
    replay = await place.replay(version, Asked(rows=True), [[1.0, 2.0]])
    assert (replay.state, replay.failure.code) == (State.FAILED, "runner_unavailable")
    assert replay.failure.message == "The replay could not begin: its file is gone"


async def test_outputs_that_were_kept_by_field_are_compared_where_they_are_in_the_clear(place: Place):
    outputs = (TensorSpec("a", Dtype.FP64, (-1,)), TensorSpec("b", Dtype.FP64, (-1,)))
    inputs = (TensorSpec("x", Dtype.FP64, (-1,)), TensorSpec("y", Dtype.FP64, (-1,)))
    described = [{"name": one.name, "dtype": "FP64", "shape": [-1]} for one in (*inputs, *outputs)]
    version = await place.version(echo(inputs=described[:2], outputs=described[2:]), signature=Signature(inputs, outputs))
    digest = hashlib.sha256(b"2.0").hexdigest()
    body = {"inputs": b'{"inputs": {"x": [1.0], "y": [2.0]}}', "output_note": "by field"}
    same = answered(version, [[0]], **body | {"outputs": json.dumps({"a": [1.0], "b": [digest]}).encode()})
    other = answered(version, [[0]], **body | {"outputs": json.dumps({"a": [9.0], "b": [digest]}).encode()})
    await place.load([same, other])
    replay = done(await place.replay(version, LAST))
    (row,) = replay.details.differing
    assert row.prediction == other.id
    assert row.recorded is not None
    assert row.recorded.outputs == {"a": 9.0}


async def test_one_bad_row_is_refused_alone(place: Place):
    version = await place.version(echo(fail_on=13.0), echo())
    rows = [[float(number), float(number)] for number in range(70)]
    await place.load([answered(version, rows)])
    replay = done(await place.replay(version, LAST))
    (row,) = replay.details.differing
    assert (row.row, row.original.error, row.serving.outputs) == (13, "predict_failed", {"input": [13.0, 13.0]})
    assert (replay.summary.rows, replay.summary.rows_equal, replay.summary.rows_refused) == (70, 69, 1)


@pytest.mark.parametrize(
    ("original", "compiled", "code", "which"),
    [
        ({"run_signal": 11}, {}, "predict_crashed", "The uploaded file: "),
        ({}, {"run_signal": 11}, "predict_crashed", "The compiled form: "),
        ({"load_error": "no"}, {}, "load_failed", "The uploaded file: "),
        ({"run_s": 3600}, {}, "predict_timeout", "The uploaded file: "),
    ],
)
async def test_a_runner_that_is_lost_ends_the_replay(place: Place, original: dict, compiled: dict, code: str, which: str):
    version = await place.version(echo(**original), echo(factor=1.0, **compiled))
    await place.load([answered(version, [[1.0, 2.0]])])
    replay = await place.replay(version, LAST, limits=SHORT)
    assert (replay.state, replay.failure.code) == (State.FAILED, code)
    assert replay.failure.message.startswith(which)


async def test_a_replay_that_takes_too_long_ends(place: Place):
    version = await place.version(echo(run_s=0.3))
    await place.load([answered(version, [[1.0, 2.0]]) for _ in range(20)])
    replay = await place.replay(version, LAST, within_s=1.5)
    assert replay.state is State.FAILED, replay
    assert replay.failure.code == "replay_timeout"
    assert all(one.exited.done() for one in place.bench.sessions.values())


async def test_rows_of_ones_own_are_answered_and_do_not_stay(place: Place):
    version = await place.version(echo(), echo(factor=2.0))
    replay = done(await place.replay(version, Asked(rows=True), [[0.0, 0.0], [7.0, 0.0]]))
    assert (replay.summary.predictions, replay.summary.rows, replay.summary.rows_equal) == (0, 2, 1)
    (row,) = replay.details.differing
    assert (row.prediction, row.row, row.recorded) == (None, 1, None)
    wrong = await place.replay(version, Asked(rows=True), [[1.0]])
    assert wrong.failure.code == "invalid_input"
    assert "column" in wrong.failure.message or "value" in wrong.failure.message
    async with place.db.read() as tx:
        assert {one.rows for one in await tx.all(sa.select(replays.c.rows))} == {None}


@pytest.mark.parametrize("independent", [False, True])
async def test_rows_of_one_request_stay_together_where_the_model_needs_that(place: Place, independent: bool):
    """The control: of a model that is called independent, the rows are run in pieces, and its answers differ."""
    data = artifacts.pickle_answering("return rows.sum() + rows[:, 0] * 0")
    output = (TensorSpec("output", Dtype.FP64, (-1,)),)
    signature = Signature((TensorSpec("input", Dtype.FP64, (-1, 2)),), output)
    version = await place.version(data, form="pickle", runner="sklearn", signature=signature, independent=independent)
    rows = np.arange(260.0).reshape(130, 2)
    body = json.dumps({"outputs": {"output": [rows.sum()] * 130}})
    await place.load([answered(version, rows.tolist(), outputs=body.encode())])
    found = done(await place.replay(version, LAST)).summary
    assert (found.rows_equal == 130) is (not independent)


async def test_the_open_inference_protocol_is_read_too(place: Place):
    version = await place.version(echo())
    tensor = {"name": "input", "shape": [2, 2], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0]}
    changed = tensor | {"data": [1.0, 2.0, 3.0, 4.5]}
    body = json.dumps({"inputs": [tensor]}).encode()
    fine, other = (
        answered(version, [[0]], dialect="v2", inputs=body, outputs=json.dumps({"outputs": [one]}).encode())
        for one in (tensor, changed)
    )
    await place.load([fine, other])
    replay = done(await place.replay(version, LAST))
    assert [(one.prediction, one.row) for one in replay.details.differing] == [(other.id, 1)]
    assert replay.summary.recorded_serving.rows == 4


async def test_pictures_that_the_history_keeps_are_asked_again(place: Place):
    image = ImageSpec(size=32, activation="softmax")
    signature = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), (TensorSpec("scores", Dtype.FP32, (-1, 5)),), image=True)
    data = artifacts.onnx_picture_classifier()
    version = await place.version(data, form="onnx", signature=signature, image=image, scores="scores")
    picture = artifacts.picture()
    probe = done(await place.replay(version, Asked(rows=True), [base64.b64encode(picture).decode()]))
    assert probe.summary.rows == 1
    top = [{"label": str(at), "index": at, "score": 0.123} for at in range(2)]
    sent = {"content_type": "image/png", "inputs": picture}
    wrong = answered(version, [[0]], **sent, outputs=json.dumps({"predictions": [top]}).encode())
    none = answered(version, [[0]], **sent, outputs=None, output_note="dropped")
    await place.load([wrong, none])
    replay = done(await place.replay(version, LAST))
    assert (replay.summary.rows, replay.summary.rows_equal) == (2, 1)
    (row,) = replay.details.differing
    assert row.recorded is not None
    assert row.recorded.outputs["predictions"] == top
    scores = row.serving.outputs["scores"]
    best = [{"label": str(at), "index": at, "score": scores[at]} for at in np.argsort(scores)[::-1][:3].tolist()]
    right = answered(version, [[0]], **sent, outputs=json.dumps({"predictions": [best]}).encode())
    await place.load([right])
    again = done(await place.replay(version, Asked(predictions=(right.id,))))
    assert (again.summary.rows_equal, again.summary.recorded_serving.rows) == (1, 1)


async def test_a_replay_is_done_again_from_its_start_and_ends_once(place: Place):
    version = await place.version(echo())
    await place.load([answered(version, [[1.0, 2.0]])])
    waiting = await place.control.replays.ask(ADMIN, "forest", 1, LAST)
    job = await place.job()
    assert await place.control.replays.begin(waiting.id) is not None  # and its worker died
    await place.control.replays.note_progress(waiting.id, 77)
    await place.worker().run(job)
    first = await place.control.replays.replay(ADMIN, waiting.id)
    assert (first.state, first.progress) == (State.DONE, 1)
    place.clock.advance(seconds=9)
    await place.worker().run(job)
    await place.worker().give_up(job)
    assert await place.control.replays.replay(ADMIN, waiting.id) == first
    async with place.db.read() as tx:
        (ended,) = await tx.all(sa.select(jobs).where(jobs.c.id == job.id))
    assert ended.state == JobState.DONE


async def test_a_replay_that_never_ends_is_given_up_with_words(place: Place):
    await place.version(echo())
    waiting = await place.control.replays.ask(ADMIN, "forest", 1, Asked(rows=True), "[[1, 2]]")
    job = await place.job()
    await place.worker().give_up(job)
    replay = await place.control.replays.replay(ADMIN, waiting.id)
    assert (replay.state, replay.failure.code) == (State.FAILED, "replay_failed")
    async with place.db.read() as tx:
        (ended,) = await tx.all(sa.select(jobs).where(jobs.c.id == job.id))
        (row,) = await tx.all(sa.select(replays.c.rows))
    assert ended.state == JobState.FAILED
    assert row.rows is None


async def test_a_replay_goes_with_the_first_prediction_that_it_shows(place: Place):
    version = await place.version(echo(), echo(factor=2.0))
    old = answered(version, [[1.0, 2.0]], at=NOON - 20 * 86_400)
    await place.load([old])
    await place.control.deployments.configure(ADMIN, "forest", {"recording": {"keep_days": 25}})
    replay = done(await place.replay(version, LAST))
    assert replay.expires_at == datetime(2026, 1, 7, tzinfo=UTC)
    place.clock.now = replay.expires_at - timedelta(seconds=1)
    assert await place.control.replays.replay(ADMIN, replay.id) == replay
    place.clock.advance(seconds=1)
    with pytest.raises(ReplayNotFound):
        await place.control.replays.replay(ADMIN, replay.id)
    assert await place.control.replays.replays(ADMIN, "forest", 1, limit=9) == []
    await place.control.replays.ask(ADMIN, "forest", 1, LAST)
    async with place.db.read() as tx:
        assert replay.id not in {row.id for row in await tx.all(sa.select(replays.c.id))}


async def test_what_leaves_the_history_over_its_cap_is_shown_by_no_replay_any_more(place: Place, tmp_path: Path):
    version = await place.version(echo(), echo(factor=2.0))
    days = [[answered(version, [[1.0, day]], at=NOON + DAY * day) for _ in range(3)] for day in range(2)]
    for day in days:
        await place.load(day)
    whole = done(await place.replay(version, LAST))
    mine = done(await place.replay(version, Asked(rows=True), [[1.0, 2.0]]))
    assert {row.prediction for row in whole.details.differing} == {one.id for day in days for one in day}
    forgotten: list[int] = []

    async def forget() -> int:
        if away:
            raise away.pop()
        forgotten.append(await place.control.replays.forget_shown(place.predictions.missing))
        return forgotten[-1]

    away = [DatabaseUnavailable()]
    settings = HistorySettings(max_gb=0.001)
    courier = HistoryCourier(place.predictions, tmp_path, tmp_path / "none", settings, forget_shown=forget)
    await tidied(courier)
    assert forgotten == []  # that database was away
    await tidied(courier)
    assert forgotten == [0]  # once after a start, for one may have died before it came to this
    await tidied(courier)
    assert forgotten == [0]
    await place.load([answered(version, [[1.0, 1.0]], at=NOON, inputs=noise(seed)) for seed in range(12)])
    await tidied(courier)
    assert (await place.predictions.lost())["over_cap"] == 12 + 3
    assert forgotten == [0, 3]
    left = await place.control.replays.replay(ADMIN, whole.id)
    assert {row.prediction for row in left.details.differing} == {one.id for one in days[1]}
    assert left.details.forgotten == 3
    assert left.summary == whole.summary
    assert await place.control.replays.replay(ADMIN, mine.id) == mine
    async with place.db.read() as tx:
        kept = str(await tx.all(sa.select(sa.type_coerce(replays.c.details, sa.Text))))
    assert not any(one.id in kept for one in days[0])


async def tidied(courier: HistoryCourier) -> None:
    """Have it do all that is due now and then."""
    courier._due.clear()
    await courier.tidy()


def noise(seed: int) -> bytes:
    """A request that does not get smaller when it is packed."""
    return json.dumps({"inputs": base64.b64encode(random.Random(seed).randbytes(NOISE)).decode()}).encode()


async def test_a_replay_shows_nothing_that_left_the_history_while_it_ran(place: Place, monkeypatch: pytest.MonkeyPatch):
    version = await place.version(echo(), echo(factor=2.0))
    await place.load([answered(version, [[1.0, 2.0]])])
    finish = place.control.replays.finish

    async def late(*args: object) -> None:
        await place.predictions.retire(keep_days=30, kept={}, max_bytes=0)
        await finish(*args)

    monkeypatch.setattr(place.control.replays, "finish", late)
    replay = done(await place.replay(version, LAST))
    assert (replay.details.differing, replay.details.forgotten, replay.summary.rows) == ((), 1, 1)


async def test_what_a_model_said_over_a_prediction_goes_with_it(place: Place):
    version = await place.version(echo(run_signal=9))
    died = answered(version, [[1.0, 2.0]])
    await place.load([died])
    replay = await place.replay(version, LAST)
    assert replay.failure.prediction == died.id
    assert await place.control.replays.forget_shown(place.predictions.missing) == 0
    await place.predictions.retire(keep_days=30, kept={}, max_bytes=0)
    assert await place.control.replays.forget_shown(place.predictions.missing) == 1
    after = await place.control.replays.replay(ADMIN, replay.id)
    assert (after.failure.code, after.failure.prediction) == (replay.failure.code, "")
    assert "has left the history" in after.failure.message
    assert await place.control.replays.forget_shown(place.predictions.missing) == 0
