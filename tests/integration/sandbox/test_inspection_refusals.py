"""Broken uploads are refused, each with its own code, and whatever ends a runner says why. In real runners."""

import asyncio

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fixtures import artifacts
from fixtures.inspection import accepted, refused
from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.rejections import Reason, Rejection
from modelkeep.contracts.snapshot import Limits
from modelkeep.sandbox.control import Cause
from modelkeep.worker.inspection import InspectionRequest, RunnerInspector

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD_ONNX = artifacts.onnx_scores()
GOOD_JOBLIB = artifacts.as_joblib(artifacts.classifier())
FRAME = artifacts.numbers(6)
QUICK = Limits(memory_mb=2048, load_timeout_s=1.5, run_timeout_s=1.5)


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (artifacts.truncated(GOOD_ONNX), "onnx", Reason.TRUNCATED),
        (artifacts.truncated(GOOD_JOBLIB), "joblib", Reason.TRUNCATED),
        (artifacts.truncated(artifacts.as_joblib(artifacts.classifier(), compress=3)), "joblib", Reason.TRUNCATED),
        (artifacts.truncated(artifacts.as_pickle(artifacts.forest())), "pickle", Reason.TRUNCATED),
        (artifacts.truncated(artifacts.as_skops(artifacts.classifier())), "skops", Reason.TRUNCATED),
        (artifacts.picture(), "onnx", Reason.UNRECOGNISED),
        (b"a,b\n1,2\n", "joblib", Reason.UNRECOGNISED),
        (GOOD_ONNX, "joblib", Reason.MISMATCH),
        (GOOD_JOBLIB, "onnx", Reason.MISMATCH),
        (artifacts.as_skops(artifacts.classifier()), "pickle", Reason.MISMATCH),
        (artifacts.as_joblib({"weights": [1, 2, 3]}), "joblib", Reason.NOT_A_MODEL),
        (artifacts.as_pickle(LogisticRegression), "pickle", Reason.NOT_A_MODEL),
        (artifacts.as_joblib(DBSCAN().fit(FRAME)), "joblib", Reason.NOT_A_MODEL),
        (artifacts.as_joblib(LogisticRegression()), "joblib", Reason.NOT_FITTED),
        (artifacts.as_joblib(make_pipeline(StandardScaler(), LogisticRegression())), "joblib", Reason.NOT_FITTED),
        (artifacts.as_skops(artifacts.calling_a_function()), "skops", Reason.UNTRUSTED_TYPES),
        (b"cnot_installed_here\nModel\n.", "pickle", Reason.MISSING_DEPENDENCY),
        (b"c__main__\nMyModel\n.", "pickle", Reason.MISSING_DEPENDENCY),
        (artifacts.CRASHES_ON_LOAD, "pickle", Reason.LOAD_CRASHED),
        (artifacts.pickle_running("import os; os._exit(0); model = 0"), "pickle", Reason.LOAD_CRASHED),
        (artifacts.ALLOCATES_ON_LOAD, "pickle", Reason.MEMORY_LIMIT),
        (artifacts.pickle_running("raise RuntimeError('odd')"), "pickle", Reason.LOAD_FAILED),
        (artifacts.DIES_ON_PREDICT, "pickle", Reason.PREDICT_CRASHED),
        (artifacts.RAISES_ON_PREDICT, "pickle", Reason.PREDICT_FAILED),
        (artifacts.ALLOCATES_ON_PREDICT, "pickle", Reason.MEMORY_LIMIT),
        (artifacts.pickle_answering("return [1]"), "pickle", Reason.OUTPUT_INVALID),
        (artifacts.pickle_answering("return [{}] * len(rows)"), "pickle", Reason.OUTPUT_INVALID),
        (artifacts.pickle_answering("return [1j] * len(rows)"), "pickle", Reason.OUTPUT_INVALID),
        (artifacts.onnx_one_answer_for_all(), "onnx", Reason.OUTPUT_INVALID),
        (artifacts.onnx_weights_elsewhere(), "onnx", Reason.LOAD_FAILED),
        (artifacts.as_joblib(artifacts.people_classifier()), "joblib", Reason.SAMPLE_NEEDED),
        (b"", "onnx", Reason.TRUNCATED),
    ],
)
async def test_a_broken_upload_is_refused_with_its_own_code(inspect, data, name, code):
    found = await refused(inspect, data, name)
    assert found.code is code
    assert "/" not in found.detail or "not installed" in found.detail


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (artifacts.HANGS_ON_LOAD, "pickle", Reason.LOAD_TIMEOUT),
        (artifacts.HANGS_ON_PREDICT, "pickle", Reason.PREDICT_TIMEOUT),
        (artifacts.onnx_endless(), "onnx", Reason.PREDICT_TIMEOUT),
        (artifacts.echo(load_s=3600), "echo", Reason.LOAD_TIMEOUT),
        (artifacts.echo(run_s=3600), "echo", Reason.PREDICT_TIMEOUT),
    ],
)
async def test_what_hangs_is_ended_at_its_deadline(inspect, data, name, code):
    assert (await refused(inspect, data, name, limits=QUICK)).code is code


async def test_other_runners_do_not_notice_a_hostile_one(inspect, warm_bench):
    async with warm_bench.start(warm_bench.spec(artifacts.echo(factor=2.0), "echo")) as other:
        await other.load()
        broken = [artifacts.DIES_ON_PREDICT, artifacts.ALLOCATES_ON_LOAD, artifacts.CRASHES_ON_LOAD]
        ending = asyncio.gather(*(inspect(data, "pickle") for data in broken))
        answered = 0
        while not ending.done():
            _result, outputs = await other.run(input=np.ones((1, 2)))
            assert outputs["input"].tolist() == [[2.0, 2.0]]
            answered += 1
        assert answered > 10
        assert all(isinstance(one, Rejection) for one in ending.result())


async def test_a_refusal_names_the_type_that_is_not_trusted(inspect):
    found = await refused(inspect, artifacts.as_skops(artifacts.calling_a_function()), "skops")
    assert "posix.getcwd" in found.detail


async def test_a_forest_from_skops_is_fit_to_serve(inspect):
    found = await accepted(inspect, artifacts.as_skops(artifacts.forest()), "skops")
    assert found.scores == "probabilities"


async def test_a_refusal_names_the_module_that_is_missing(inspect):
    found = await refused(inspect, b"cnot_installed_here\nModel\n.", "pickle")
    assert "not_installed_here" in found.detail
    found = await refused(inspect, b"c__main__\nMyModel\n.", "pickle")
    assert "MyModel" in found.detail


async def test_a_model_in_a_dictionary_is_pointed_at(inspect):
    found = await refused(inspect, artifacts.as_joblib({"scaler": 1, "model": artifacts.classifier()}), "joblib")
    assert "'model'" in found.detail


async def test_a_stopped_validation_is_no_verdict(warm_bench):
    async def inspect():
        request = InspectionRequest(warm_bench.spec(artifacts.echo(load_s=60), "echo"))
        return await RunnerInspector(warm_bench.start).inspect(request)

    known = set(warm_bench.sessions)
    task = asyncio.create_task(inspect())
    while not (new := set(warm_bench.sessions) - known) or not warm_bench.sessions[next(iter(new))].pid:
        await asyncio.sleep(0.01)
    warm_bench.sessions[new.pop()].kill(Cause.STOPPED)
    with pytest.raises(Unavailable):
        await task


async def test_a_runner_that_hides_its_end_is_ended(inspect):
    source = "import os, time\nos.closerange(3, 256)\ntime.sleep(3600)"
    found = await refused(inspect, artifacts.pickle_answering(source), "pickle")
    assert found.code is Reason.PREDICT_CRASHED


async def test_a_runner_that_writes_nonsense_to_its_socket_is_refused(inspect):
    source = (
        "import os, stat, time\n"
        "for one in range(3, 256):\n"
        "    try:\n"
        "        if stat.S_ISSOCK(os.fstat(one).st_mode): os.write(one, b'\\xff' * 64)\n"
        "    except OSError:\n        pass\n"
        "time.sleep(3600)"
    )
    found = await refused(inspect, artifacts.pickle_answering(source), "pickle")
    assert found.code is Reason.PREDICT_CRASHED
    assert "cap" in found.detail
