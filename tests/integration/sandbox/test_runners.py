"""Real runners, forked from a real template: they load, answer, fail, die and leave nothing behind."""

import asyncio
import signal

import msgspec
import numpy as np
import psutil
import pytest

from fixtures import artifacts
from fixtures.runners import PATIENCE_S
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.signature import Dtype, ImageSpec, TensorSpec
from modelkeep.contracts.snapshot import Limits
from modelkeep.sandbox import control, frames
from modelkeep.sandbox.child import CANNOT_LOAD, PROTOCOL_FAULT
from modelkeep.sandbox.connection import RunnerGone

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])


async def test_a_runner_answers_with_what_its_model_computes(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(factor=3.0), "echo")) as runner:
        loaded = await runner.load()
        assert isinstance(loaded, frames.Loaded)
        assert loaded.rss_after >= loaded.rss_before > 0
        result, outputs = await runner.run(input=ROWS)
        assert result.run_s > 0
        assert outputs["input"].tolist() == (ROWS * 3).tolist()


async def test_answers_come_in_order_and_by_number(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        answers = await asyncio.gather(*(runner.run(input=np.full((1, 2), float(at))) for at in range(50)))
        assert [outputs["input"][0, 0] for _result, outputs in answers] == list(range(50))


async def test_a_large_batch_crosses_the_socket_both_ways(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        large = np.random.default_rng(1).standard_normal((200_000, 2))
        _result, outputs = await runner.run(input=large)
        assert np.array_equal(outputs["input"], large)


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ({"run_error": "the model says no"}, "refused", "ValueError: the model says no"),
        ({"run_mb": 30_000}, "memory", "MemoryError"),
        ({"lose_rows": 1}, "output_invalid", "2 rows"),
    ],
)
async def test_a_failing_run_says_why_and_the_runner_lives_on(warm_bench, behaviour, code, words):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(**behaviour), "echo")) as runner:
        await runner.load()
        for _ in range(2):
            failed, outputs = await runner.run(input=ROWS)
            assert isinstance(failed, frames.RunFailed)
            assert failed.code == code
            assert words in failed.detail
            assert outputs == {}


async def test_one_bad_row_fails_its_batch_and_others_pass(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(fail_on=13.0), "echo")) as runner:
        await runner.load()
        failed, _ = await runner.run(input=np.array([[1.0, 13.0]]))
        assert failed.code == "refused"
        answered, _ = await runner.run(input=ROWS)
        assert isinstance(answered, frames.Result)


async def test_what_a_model_prints_goes_to_its_pipe_only(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(print="hello from the model"), "echo")) as runner:
        await runner.load()
        await runner.run(input=ROWS)
        assert runner.written() == b"hello from the model\n"


async def test_exceptions_are_told_without_paths_and_stacks(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.RAISES_ON_PREDICT, "pickle")) as runner:
        await runner.load()
        failed, _ = await runner.run(input=ROWS)
        assert "it is broken" in failed.detail
        assert "secret" not in failed.detail
        assert "File" not in failed.detail


async def test_a_crash_closes_the_socket_and_is_reported_with_its_signal(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(run_signal=int(signal.SIGSEGV)), "echo")) as runner:
        await runner.load()
        with pytest.raises(RunnerGone):
            await runner.run(input=ROWS)
        gone = await runner.gone()
        assert gone.cause is control.Cause.SIGNAL
        assert (await runner.exited).status == -signal.SIGSEGV


async def test_a_killed_runner_is_reaped_and_its_memory_reported(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        runner.kill(control.Cause.STOPPED)
        exited = await runner.exited
        assert exited.status == -signal.SIGKILL
        assert exited.peak_rss > 1_000_000
        assert not psutil.pid_exists(runner.pid)


async def test_closing_the_socket_ends_the_runner(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        runner.connection.close()
        assert (await asyncio.wait_for(asyncio.shield(runner.exited), PATIENCE_S)).status == 0


async def test_what_is_no_frame_ends_the_runner(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        runner.connection._sock.send(b"\x04\0\0\0nope")
        assert (await asyncio.wait_for(asyncio.shield(runner.exited), PATIENCE_S)).status == PROTOCOL_FAULT


async def test_a_refused_artifact_ends_the_runner_with_its_reason(warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.picture(), "onnx")) as runner:
        failed = await runner.load()
        assert failed == frames.LoadFailed(
            Reason.UNRECOGNISED, "The file was declared as onnx; its content seems to be a PNG picture."
        )
        assert (await runner.exited).status == CANNOT_LOAD


async def test_bytes_that_are_not_those_uploaded_are_refused(warm_bench):
    data = artifacts.echo()
    digest = warm_bench.keep(data)
    with open(f"{warm_bench.folder}/{digest}", "r+b") as file:  # noqa: PTH123 - a byte, changed behind its back
        file.write(b"X")
    spec = warm_bench.spec(artifacts.echo(factor=2.0), "echo")
    async with warm_bench.start(msgspec.structs.replace(spec, digest=digest)) as runner:
        assert (await runner.load()).reason is Reason.CORRUPT


async def test_many_runners_live_beside_each_other(warm_bench):
    specs = [warm_bench.spec(artifacts.echo(factor=float(at)), "echo") for at in range(6)]

    async def use(spec, factor):
        async with warm_bench.start(spec) as runner:
            await runner.load()
            _result, outputs = await runner.run(input=ROWS)
            return outputs["input"].tolist() == (ROWS * factor).tolist()

    assert all(await asyncio.gather(*(use(spec, at) for at, spec in enumerate(specs))))


async def test_no_two_runners_draw_the_same_random_numbers(warm_bench):
    draw = (
        "import random, numpy\n"
        "class Model:\n    n_features_in_ = 2\n"
        "    def predict(self, rows):\n        return numpy.array([[random.random(), numpy.random.random()]])\n"
        "model = Model()"
    )
    drawn = []
    for _ in range(2):
        async with warm_bench.start(warm_bench.spec(artifacts.pickle_running(draw), "pickle")) as runner:
            await runner.load()
            _result, outputs = await runner.run(input=ROWS[:1])
            drawn.append(outputs["output"][0])
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]


async def test_an_image_version_takes_pictures_and_names_the_bad_one(warm_bench):
    data = artifacts.onnx_picture_classifier(size=16)
    spec = warm_bench.spec(data, "onnx", image=ImageSpec(size=16, activation="softmax"))
    pictures = np.empty(2, dtype=object)
    pictures[:] = [artifacts.picture(), artifacts.picture(kind="JPEG")]
    async with warm_bench.start(spec) as runner:
        signature = (await runner.load()).facts.signature
    async with warm_bench.start(msgspec.structs.replace(spec, signature=signature)) as runner:  # as it is served
        loaded = await runner.load()
        assert loaded.facts.signature == signature
        assert loaded.facts.signature.image
        assert loaded.facts.signature.inputs == (TensorSpec("image", Dtype.BYTES, (-1,)),)
        result, outputs = await runner.run(image=pictures)
        assert result.preprocess_s > 0
        assert np.allclose(outputs["scores"].sum(axis=1), 1, atol=1e-5)
        pictures[1] = b"no picture"
        failed, _ = await runner.run(image=pictures)
        assert (failed.code, failed.row) == ("bad_image", 1)


async def test_strings_and_missing_values_reach_a_table_model(warm_bench):
    from modelkeep.worker.samples import read_sample

    sample = read_sample(artifacts.PEOPLE.to_csv(index=False).encode(), "people.csv", picture=False)
    spec = warm_bench.spec(artifacts.as_joblib(artifacts.people_classifier()), "joblib")
    async with warm_bench.start(spec, sample.columns) as runner:
        loaded = await runner.load()
        assert [(one.name, one.dtype) for one in loaded.facts.signature.inputs] == [
            ("age", Dtype.FP64),
            ("city", Dtype.BYTES),
            ("zip", Dtype.BYTES),
            ("member", Dtype.BOOL),
        ]
        texts = np.empty((2, 2), dtype=object)
        texts[:] = [["Bern", None], ["0100", "0200"]]
        _result, outputs = await runner.run(
            age=np.array([float("nan"), 30.0]), city=texts[0], zip=texts[1], member=np.array([True, False])
        )
        assert set(outputs["label"].tolist()) <= {"yes", "no"}
        assert outputs["probabilities"].shape == (2, 2)


async def test_a_file_that_needs_more_memory_than_allowed_is_refused_and_nothing_else_dies(warm_bench):
    limits = Limits(memory_mb=700)
    async with (
        warm_bench.start(warm_bench.spec(artifacts.echo(load_mb=900), "echo", limits=limits)) as large,
        warm_bench.start(warm_bench.spec(artifacts.echo(load_mb=10), "echo", limits=limits)) as small,
    ):
        assert (await large.load()).reason is Reason.MEMORY_LIMIT
        assert isinstance(await small.load(), frames.Loaded)


async def test_garbage_is_collected_in_runners(warm_bench):
    source = "import gc\nreturn [float(gc.isenabled())] * len(rows)"
    async with warm_bench.start(warm_bench.spec(artifacts.pickle_answering(source), "pickle")) as runner:
        await runner.load()
        _result, outputs = await runner.run(input=ROWS)
        assert outputs["output"].tolist() == [1.0, 1.0]
