"""Hooks in real runners: the model inside is found out about by itself, and the whole is what callers see."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from fixtures import artifacts, python_models
from modelkeep.contracts.confinement import Confinement, Level
from modelkeep.contracts.rejections import Reason, Rejection
from modelkeep.contracts.signature import Dtype, ImageSpec, TensorSpec
from modelkeep.contracts.snapshot import Limits
from modelkeep.contracts.storage import Blob
from modelkeep.sandbox import golden, loader
from modelkeep.sandbox.frames import Loaded, RunFailed
from modelkeep.worker.compilation import Compiler
from modelkeep.worker.inspection import Inspection, InspectionRequest, RunnerInspector
from modelkeep.worker.rehearsal import rehearsed
from modelkeep.worker.samples import read_sample

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCORES = artifacts.onnx_scores(width=2, classes=2)
BOTH = """
    import math
    import numpy as np

    def preprocess(inputs):
        lengths = [len(one) for one in inputs["city"]]
        return np.stack([np.log1p(inputs["income"]), np.array(lengths, float)], axis=1)

    def postprocess(outputs):
        first = outputs["logits"][:, 0]
        return {"verdict": np.where(first > 0, "yes", "no"), "score": first}
"""
CSV = b"income,city\n100,Graz\n2500,Linz an der Donau\n17,Wien\n"
RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(size=(200, 2))
FOREST = artifacts.as_joblib(RandomForestClassifier(60, random_state=0).fit(ROWS, ROWS[:, 0] * ROWS[:, 1] > 0))
POINTS = ("p,q\n" + "\n".join(f"{a!r},{b!r}" for a, b in ROWS[:30].tolist())).encode()


@pytest.fixture
def inspect(warm_bench):
    async def inspect(data, name, source, sample=None, *, compiled=False, limits=None, filename="sample.csv", **spec):
        async def keep(data: bytes) -> Blob:
            return Blob(warm_bench.keep(data), len(data))

        wanted = warm_bench.spec(data, name, hooks=warm_bench.hooks(source), **spec)
        compiler = Compiler(warm_bench.start, keep) if compiled else None
        return await RunnerInspector(warm_bench.start, limits, compiler, keep).inspect(
            InspectionRequest(wanted, sample, filename)
        )

    return inspect


def served(warm_bench, found: Inspection, data: bytes, name: str, hooks):
    """The spec that a version becomes with these findings."""
    assert found.hooks.digest == hooks.digest
    form = {} if found.compiled is None else msgspec.structs.asdict(found.compiled)
    spec = {"signature": found.signature, "image": found.image, "hooks": found.hooks}
    return msgspec.structs.replace(warm_bench.spec(data, name, **spec), **form)


async def test_a_version_takes_other_inputs_and_answers_other_outputs_than_its_model(inspect, warm_bench):
    found = await inspect(SCORES, "onnx", BOTH, CSV)
    assert isinstance(found, Inspection), found
    assert found.signature.inputs == (
        TensorSpec("income", Dtype.FP64, (-1,)),
        TensorSpec("city", Dtype.BYTES, (-1,)),
    )
    assert [(one.name, one.dtype) for one in found.signature.outputs] == [("verdict", Dtype.BYTES), ("score", Dtype.FP32)]
    assert found.hooks.functions == ("preprocess", "postprocess")
    assert [one.name for one in found.hooks.inner.inputs] == ["x"]
    assert found.report.hooked
    assert found.report.cost_ms == found.report.latency_ms
    assert found.report.details["hooks"] == "preprocess, postprocess"
    spec = served(warm_bench, found, SCORES, "onnx", warm_bench.hooks(BOTH))
    async with warm_bench.start(spec) as session:
        assert (await session.load()).facts.signature == found.signature
        city = np.array(["Graz", "Linz"], dtype=object)
        _result, outputs = await session.run(income=np.array([100.0, 2500.0]), city=city)
        weights = np.random.default_rng(7).standard_normal((2, 2)).astype(np.float32)
        expected = np.stack([np.log1p([100.0, 2500.0]), [4.0, 4.0]], axis=1).astype(np.float32) @ weights
        assert outputs["score"] == pytest.approx(expected[:, 0], rel=1e-5)
        assert list(outputs["verdict"]) == ["yes" if one > 0 else "no" for one in expected[:, 0]]
        kept = golden.unpack(Path(warm_bench.folder, found.report.golden).read_bytes())
        message, again = await session.run(**kept.inputs)
        golden.check(kept, message, again)
        assert set(kept.inputs) == {"income", "city"}


async def test_a_compiled_model_inside_is_proven_without_the_hooks_and_serves_with_them(inspect, warm_bench):
    constant = "def postprocess(outputs):\n    return {'n': [1] * len(outputs['label'])}\n"
    found = await inspect(FOREST, "joblib", constant, POINTS, compiled=True)
    assert isinstance(found, Inspection), found
    assert found.report.compiled.used, found.report.compiled.reason
    assert found.compiled.format == "onnx"
    assert found.report.framework == "scikit-learn"
    assert [one.name for one in found.signature.outputs] == ["n"]
    async with warm_bench.start(served(warm_bench, found, FOREST, "joblib", warm_bench.hooks(constant))) as session:
        assert isinstance(await session.load(), Loaded)
        _result, outputs = await session.run(**{found.signature.inputs[0].name: ROWS[:3]})
        assert outputs["n"].tolist() == [1, 1, 1]


async def test_hooks_that_hide_a_difference_do_not_prove_a_compiled_form(inspect):
    wrong = json.loads(artifacts.echo(factor=2.0))
    data = artifacts.echo(run_s=0.003, compiles_to=wrong)
    constant = "def postprocess(outputs):\n    return {'n': [1] * len(outputs['input'])}\n"
    found = await inspect(data, "echo", constant, compiled=True)
    assert isinstance(found, Inspection), found
    assert not found.report.compiled.used
    assert "differ" in found.report.compiled.reason


async def test_a_model_that_needs_a_sample_learns_its_columns_from_what_preprocess_returns(inspect, warm_bench):
    estimator = LogisticRegression().fit(ROWS, ROWS[:, 0] > 0)
    model = artifacts.as_joblib(estimator)
    source = (
        "import numpy as np\ndef preprocess(inputs):\n    return np.array([[len(t), len(t) ** 2] for t in inputs['text']])\n"
    )
    found = await inspect(model, "joblib", source, b"text\nab\nabcd\nabc def\n")
    assert isinstance(found, Inspection), found
    assert [one.name for one in found.signature.inputs] == ["text"]
    assert "label" in {one.name for one in found.signature.outputs}
    async with warm_bench.start(served(warm_bench, found, model, "joblib", warm_bench.hooks(source))) as session:
        assert isinstance(await session.load(), Loaded)
        _result, outputs = await session.run(text=np.array(["", "four"], dtype=object))
    assert outputs["label"].tolist() == estimator.predict([[0, 0], [4, 16]]).tolist()


async def test_calibration_rows_go_through_preprocess_as_the_sample_does_and_gaps_stay_gaps(warm_bench):
    source = "def preprocess(inputs):\n    return {'a': inputs['income'], 'b': [len(one) for one in inputs['city']]}\n"
    spec = warm_bench.spec(SCORES, "onnx", hooks=warm_bench.hooks(source))
    lines = "".join(f"{at if at % 7 else ''},{'x' * (at % 5 + 1)}\n" for at in range(150))
    many = read_sample(f"income,city\n{lines}".encode(), "rows.csv", picture=False)
    tried = await rehearsed(warm_bench.start, spec, read_sample(CSV, "rows.csv", picture=False), many)
    assert tried.hooks.functions == ("preprocess",)
    assert [one.name for one in tried.sample.columns] == ["a", "b"]
    assert tried.sample.rows == ((100.0, 4), (2500.0, 17), (17.0, 4))
    assert tried.calibration.rows == tuple((float(at) if at % 7 else None, at % 5 + 1) for at in range(150))


async def test_hooks_whose_answers_depend_on_other_rows_are_told_so_that_callers_share_no_run(inspect):
    source = "def postprocess(outputs):\n    return outputs['logits'][:, 0] - outputs['logits'][:, 0].mean()\n"
    found = await inspect(SCORES, "onnx", source, b"a,b\n1,2\n3,4\n-5,6\n")
    assert not found.report.independent


async def test_pictures_may_be_changed_before_they_are_decoded_and_scores_after_the_activation(inspect):
    source = """
        import numpy as np

        def preprocess(inputs):
            return {"image": [one for one in inputs["image"]]}

        def postprocess(outputs):
            scores = next(iter(outputs.values()))
            return {"total": scores.sum(axis=1), "best": scores.argmax(axis=1)}
    """
    picture = artifacts.picture()
    found = await inspect(
        artifacts.onnx_picture_classifier(8), "onnx", source, picture, filename="a.png", image=ImageSpec(size=8)
    )
    assert isinstance(found, Inspection), found
    assert found.signature.image
    assert {one.name for one in found.signature.outputs} == {"total", "best"}


@pytest.mark.parametrize(
    ("source", "sample", "code", "says"),
    [
        ("x = 1", CSV, Reason.HOOKS_UNUSABLE, "defines neither"),
        ("def preprocess(inputs):\n  return inputs", None, Reason.SAMPLE_NEEDED, "no sample came with it"),
        ("def preprocess(inputs):\n  return inputs", CSV, Reason.HOOKS_UNUSABLE, "What preprocess makes of the sample"),
        ("def preprocess(inputs):\n  return inputs['income'][:2]", CSV, Reason.PREDICT_FAILED, "the rows are to be kept"),
        ("def preprocess(inputs):\n  return inputs['age']", CSV, Reason.PREDICT_FAILED, "KeyError: 'age'"),
        ("def postprocess(outputs):\n  return [1]", b"a,b\n1,2\n3,4\n", Reason.OUTPUT_INVALID, "the rows come first"),
        ("def postprocess(outputs):\n  return None", b"a,b\n1,2\n3,4\n", Reason.OUTPUT_INVALID, "the rows come first"),
    ],
)
async def test_hooks_that_do_not_fit_are_refused_with_what_was_seen(inspect, source, sample, code, says):
    found = await inspect(SCORES, "onnx", source, sample)
    assert isinstance(found, Rejection), found
    assert (found.code, says in found.detail) == (code, True), found


async def test_a_class_has_methods_of_its_own_and_takes_no_hooks(inspect):
    found = await inspect(python_models.doubles(), "python", "def preprocess(inputs):\n  return inputs", b"x\n1\n")
    assert isinstance(found, Rejection)
    assert found.code is Reason.HOOKS_UNUSABLE
    assert "methods" in found.detail or "of its own" in found.detail


async def test_hooks_over_the_runs_limit_are_ended_with_their_runner(inspect):
    quick = Limits(memory_mb=2048, load_timeout_s=20, run_timeout_s=0.5)
    found = await inspect(SCORES, "onnx", "def preprocess(inputs):\n  while True: pass", CSV, limits=quick)
    assert found.code is Reason.PREDICT_TIMEOUT


async def test_an_error_in_a_hook_is_an_error_of_the_model_and_a_value_error_one_of_the_values(inspect, warm_bench):
    source = """
        def postprocess(outputs):
            if outputs["logits"][0, 0] > 100:
                raise ValueError("too much in /var/secret/place")
            if outputs["logits"][0, 0] < -100:
                raise KeyError("nothing")
            return outputs
    """
    found = await inspect(SCORES, "onnx", source, b"a,b\n1,2\n3,4\n")
    spec = served(warm_bench, found, SCORES, "onnx", warm_bench.hooks(source))
    weights = np.random.default_rng(7).standard_normal((2, 2)).astype(np.float32)
    row = (weights[:, :1] * 1e5).T.copy()
    async with warm_bench.start(spec) as session:
        await session.load()
        refused, _none = await session.run(x=row)
        failed, _none = await session.run(x=-row)
        fine, _outputs = await session.run(x=np.zeros((1, 2), np.float32))
    assert isinstance(refused, RunFailed)
    assert (refused.code, refused.detail) == ("refused", "ValueError: too much in ...")
    assert isinstance(failed, RunFailed)
    assert (failed.code, failed.detail) == ("model_failed", "KeyError: 'nothing'")
    assert not isinstance(fine, RunFailed)


async def test_hooks_are_code_whatever_their_model_is(warm_bench):
    plain = warm_bench.spec(SCORES, "onnx")
    hooked = warm_bench.spec(SCORES, "onnx", hooks=warm_bench.hooks(BOTH))
    filtered, walled = Confinement(Level.FILTERED), Confinement(Level.WALLED)
    assert (loader.may_load(plain, filtered), loader.may_load(hooked, filtered)) == (True, False)
    assert loader.may_load(hooked, walled)
    accepted = warm_bench.spec(SCORES, "onnx", hooks=warm_bench.hooks(BOTH), accepted=Level.FILTERED)
    assert loader.may_load(accepted, filtered)


async def test_hooks_of_another_digest_are_not_loaded(warm_bench):
    hooks = warm_bench.hooks(BOTH)
    Path(warm_bench.folder, hooks.digest).write_text("#")
    try:
        async with warm_bench.start(warm_bench.spec(SCORES, "onnx", hooks=hooks)) as session:
            assert (await session.load()).reason is Reason.CORRUPT
    finally:
        warm_bench.hooks(BOTH)
