"""Every kind of upload ends as what it is: fit to serve, or refused with its own code. In real runners."""

import asyncio
import io
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fixtures import artifacts
from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.rejections import Reason, Rejection
from modelkeep.contracts.signature import Dtype, ImageSpec, Layout
from modelkeep.contracts.snapshot import Limits
from modelkeep.sandbox.control import Cause
from modelkeep.sandbox.limits import ENVIRONMENT
from modelkeep.worker.inspection import Inspection, InspectionRequest, RunnerInspector

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD_ONNX = artifacts.onnx_scores()
GOOD_JOBLIB = artifacts.as_joblib(artifacts.classifier())
FRAME = artifacts.numbers(6)
CSV = FRAME.to_csv(index=False).encode()
QUICK = Limits(memory_mb=2048, load_timeout_s=1.5, run_timeout_s=1.5)
PICTURE = ImageSpec(size=32)
LABELS = ("a", "b", "c", "d", "e")
TWO_LABELS = (FRAME[["f0", "f1"]] > FRAME[["f0", "f1"]].median()).astype(int)
UNREADABLE = [b"", b"a,b\n", b"1,2\n3,4\n", b"a,b\n1\n", b"a,a\n1,2\n", b",a\n0,1\n", b"\xff\xfe\x00a", b"{oops"]
LABEL_TYPES = [((0, 1), Dtype.INT64), (("no", "yes"), Dtype.BYTES), ((False, True), Dtype.BOOL), ((1.0, 2.0), Dtype.FP64)]


@pytest.fixture
def inspect(warm_bench):
    async def inspect(data, name, sample=None, filename="sample.csv", labels=(), limits=None, **spec):
        request = InspectionRequest(warm_bench.spec(data, name, **spec), sample, filename, tuple(labels))
        return await RunnerInspector(warm_bench.start, limits).inspect(request)

    return inspect


async def refused(inspect, *args, **options):
    found = await inspect(*args, **options)
    assert isinstance(found, Rejection), found
    assert found.advice
    return found


async def accepted(inspect, *args, **options):
    found = await inspect(*args, **options)
    assert isinstance(found, Inspection), found
    return found


# ---- broken uploads: each ends with its own code


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


# ---- samples


async def test_a_sample_with_other_columns_is_refused_and_both_lists_are_named(inspect):
    sample = FRAME.rename(columns={"f1": "wrong"}).to_csv(index=False).encode()
    found = await refused(inspect, GOOD_JOBLIB, "joblib", sample)
    assert found.code is Reason.SAMPLE_MISMATCH
    assert "missing: f1" in found.detail
    assert "not the model's: wrong" in found.detail


@pytest.mark.parametrize("columns", [["f0", "f1"], ["f0", "f1", "f2", "f3", "extra"]])
@pytest.mark.parametrize(
    ("data", "name"),
    [(GOOD_JOBLIB, "joblib"), (artifacts.as_joblib(artifacts.classifier(named=False)), "joblib"), (GOOD_ONNX, "onnx")],
    ids=["named", "unnamed", "onnx"],
)
async def test_a_sample_of_another_width_is_refused(inspect, data, name, columns):
    sample = FRAME.assign(extra=1.0)[columns].to_csv(index=False).encode()
    found = await refused(inspect, data, name, sample)
    assert found.code is Reason.SAMPLE_MISMATCH
    assert "extra" in found.detail or "f2" in found.detail or str(len(columns)) in found.detail


@pytest.mark.parametrize(
    ("sample", "filename"),
    [
        (CSV, "rows.csv"),
        (FRAME.to_csv(index=False, sep=";").encode(), "rows.csv"),
        (b"\xef\xbb\xbf" + CSV, "rows.csv"),
        (FRAME[["f3", "f2", "f1", "f0"]].to_csv(index=False).encode(), "rows.csv"),
        (FRAME.to_json(orient="records").encode(), "rows.json"),
        (FRAME.to_json(orient="columns").encode(), "rows.json"),
        (FRAME.to_json(orient="values").encode(), "rows.json"),
        (b'{"inputs": ' + FRAME.to_json(orient="values").encode() + b"}", "rows.json"),
    ],
    ids=["csv", "semicolons", "byte order mark", "other order", "records", "columns", "rows", "inputs"],
)
async def test_samples_of_every_form_are_run(inspect, sample, filename):
    found = await accepted(inspect, GOOD_JOBLIB, "joblib", sample, filename)
    assert found.report.sample == "given"
    assert found.report.rows_tested == 6
    assert found.signature.inputs[0].columns == ("f0", "f1", "f2", "f3")


async def test_a_table_of_different_types_is_run_with_its_missing_values(inspect):
    sample = artifacts.PEOPLE.to_csv(index=False).encode()
    found = await accepted(inspect, artifacts.as_joblib(artifacts.people_classifier()), "joblib", sample)
    assert found.signature.layout is Layout.TABLE
    kinds = {one.name: (one.dtype, one.nullable) for one in found.signature.inputs}
    assert kinds == {
        "age": (Dtype.FP64, True),
        "city": (Dtype.BYTES, True),
        "zip": (Dtype.BYTES, True),  # digits, which the encoder was fitted on as texts; a missing one is just unknown
        "member": (Dtype.BOOL, False),
    }
    assert found.signature.outputs[0].dtype is Dtype.BYTES
    assert found.signature.outputs[1].classes == ("no", "yes")


async def test_a_text_model_takes_texts(inspect):
    texts = ["good day", "bad day", "good night", "bad luck"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    for sample in (None, b"review\ngood day\nbad luck\n"):
        found = await accepted(inspect, artifacts.as_joblib(model), "joblib", sample)
        assert [(one.dtype, one.shape) for one in found.signature.inputs] == [(Dtype.BYTES, (-1,))]
        assert not found.signature.inputs[0].nullable


async def test_column_names_of_the_sample_name_the_columns_of_a_matrix(inspect):
    found = await accepted(inspect, GOOD_ONNX, "onnx", CSV)
    assert found.signature.inputs[0].columns == ("f0", "f1", "f2", "f3")


async def test_tensors_come_as_json(inspect):
    sample = b'{"ids": [[1, 2, 3], [4, 5, 6]], "bias": [0.5, 1]}'
    found = await accepted(inspect, artifacts.onnx_two_inputs(), "onnx", sample, "s.json")
    assert found.report.rows_tested == 2
    assert (await refused(inspect, artifacts.onnx_two_inputs(), "onnx", CSV)).code is Reason.SAMPLE_MISMATCH


@pytest.mark.parametrize("sample", UNREADABLE)
async def test_an_unreadable_sample_is_refused(inspect, sample):
    assert (await refused(inspect, GOOD_ONNX, "onnx", sample)).code is Reason.SAMPLE_UNREADABLE


# ---- what is found out


async def test_the_report_says_what_it_costs_and_how_it_behaves(inspect):
    found = await accepted(inspect, GOOD_JOBLIB, "joblib", CSV)
    report = found.report
    assert (report.framework, report.kind) == ("scikit-learn", "classifier")
    assert report.details["estimator"] == "Pipeline(StandardScaler, LogisticRegression)"
    assert report.deterministic
    assert report.load_s > 0
    assert report.peak_bytes > report.memory_bytes >= 0
    assert 0 < report.latency_ms["1"] < 1000
    assert 0 < report.latency_ms["64"] < 1000
    assert all(check.ok for check in report.checks)
    assert found.scores == "probabilities"
    assert found.signature.outputs[1].classes == ("0", "1")


async def test_a_model_that_answers_differently_is_served_and_reported(inspect):
    found = await accepted(inspect, artifacts.echo(noise=1.0), "echo")
    assert not found.report.deterministic


async def test_a_model_whose_rows_depend_on_each_other_is_reported(inspect):
    found = await accepted(inspect, artifacts.pickle_answering("return rows[:, 0] - rows[:, 0].mean()"), "pickle")
    assert [check.ok for check in found.report.checks] == [True, False]


async def test_missing_values_are_taken_where_the_answer_is_still_a_number(inspect):
    linear = await accepted(inspect, GOOD_ONNX, "onnx")
    assert not linear.signature.inputs[0].nullable
    trees = await accepted(inspect, artifacts.as_joblib(artifacts.forest()), "joblib")
    assert trees.signature.inputs[0].nullable
    assert not (await accepted(inspect, GOOD_JOBLIB, "joblib")).signature.inputs[0].nullable


async def test_running_64_rows_may_fail_without_refusing_the_version(inspect):
    source = "import numpy\nif len(rows) > 32:\n    bytearray(20 << 30)\nreturn numpy.zeros(len(rows))"
    found = await accepted(inspect, artifacts.pickle_answering(source), "pickle")
    assert list(found.report.latency_ms) == ["1"]
    assert any(check.name == "64 rows at once" and not check.ok for check in found.report.checks)


@pytest.mark.parametrize(
    ("model", "kind", "outputs"),
    [
        (artifacts.regressor(), "regressor", {"value": (-1,)}),
        (MultiOutputRegressor(artifacts.regressor()).fit(FRAME, FRAME[["f0", "f1"]]), "regressor", {"value": (-1, 2)}),
        (KMeans(2, n_init=1, random_state=0).fit(FRAME), "clusterer", {"label": (-1,)}),
        (PCA(2).fit(FRAME), "transformer", {"values": (-1, 2)}),
        (IsolationForest(n_estimators=5, random_state=0).fit(FRAME), "outlier detector", {"label": (-1,), "score": (-1,)}),
        (
            MultiOutputClassifier(LogisticRegression()).fit(FRAME, TWO_LABELS),
            "classifier",
            {"label": (-1, 2), "probabilities_0": (-1, 2), "probabilities_1": (-1, 2)},
        ),
        (
            GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2).fit(FRAME, FRAME["f0"] > FRAME["f0"].median()),
            "classifier",
            {"label": (-1,), "probabilities": (-1, 2)},
        ),
    ],
    ids=["regressor", "many values", "clusterer", "transformer", "outliers", "many labels", "search"],
)
async def test_every_kind_of_estimator_has_its_outputs(inspect, model, kind, outputs):
    found = await accepted(inspect, artifacts.as_joblib(model), "joblib")
    assert found.report.kind == kind
    assert {one.name: one.shape for one in found.signature.outputs} == outputs
    assert bool(found.scores) == ("probabilities" in outputs)


@pytest.mark.parametrize(("labels", "dtype"), LABEL_TYPES)
async def test_labels_keep_their_type(inspect, labels, dtype):
    found = await accepted(inspect, artifacts.as_joblib(artifacts.classifier(labels=labels)), "joblib")
    assert found.signature.outputs[0].dtype is dtype


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
async def test_joblib_of_every_compression_is_loaded_under_either_suffix(inspect, compress):
    data = artifacts.as_joblib(artifacts.classifier(), compress)
    for name in ("joblib", "pickle"):
        await accepted(inspect, data, name)


@pytest.mark.parametrize("protocol", range(6))
async def test_pickles_of_every_protocol_are_loaded_under_either_suffix(inspect, protocol):
    data = artifacts.as_pickle(artifacts.classifier(), protocol)
    for name in ("joblib", "pickle"):
        await accepted(inspect, data, name)


# ---- ONNX


@pytest.mark.parametrize(
    "kind",
    [
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING,
    ],
)  # fmt: skip
async def test_onnx_tensors_of_every_datatype_come_back(inspect, kind):
    found = await accepted(inspect, artifacts.onnx_identity(kind), "onnx")
    assert found.signature.inputs[0].dtype is found.signature.outputs[0].dtype


@pytest.mark.parametrize("batch", [1, 4])
async def test_a_graph_of_a_fixed_batch_is_served_in_pieces(inspect, warm_bench, batch):
    data = artifacts.onnx_scores(batch=batch)
    found = await accepted(inspect, data, "onnx", CSV)
    assert found.signature.inputs[0].shape == (-1, 4)
    assert found.report.rows_tested == 6
    rows = FRAME.to_numpy(dtype=np.float32)
    answers = []
    for one in (data, artifacts.onnx_scores()):
        async with warm_bench.start(warm_bench.spec(one, "onnx")) as runner:
            await runner.load()
            answers.append((await runner.run(x=rows))[1]["logits"])
    assert np.allclose(*answers, atol=1e-5)


@pytest.mark.parametrize("labels", [("ham", "spam"), (-3, 7)])
async def test_a_zipmap_becomes_a_matrix_with_its_classes(inspect, labels):
    found = await accepted(inspect, artifacts.onnx_zipmap(labels), "onnx")
    output = found.signature.outputs[0]
    assert (output.shape, output.classes) == ((-1, 2), tuple(str(one) for one in labels))
    assert found.scores == "output_probability"


async def test_texts_go_through_an_onnx_graph(inspect):
    found = await accepted(inspect, artifacts.onnx_texts(), "onnx", b"text\nyes\nno\n")
    assert found.signature.layout is Layout.TABLE
    assert [one.dtype for one in found.signature.outputs] == [Dtype.BYTES, Dtype.INT64]
    assert not found.signature.inputs[0].nullable


async def test_open_axes_are_tried_until_rows_run(inspect):
    weights = artifacts.constant("w", np.ones((1, 3, 20, 20), dtype=np.float32))
    data = artifacts.onnx_file(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])],
        [artifacts.value("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [artifacts.value("y", TensorProto.FLOAT, ["n", 1, 1, 1])],
        [weights],
    )
    found = await accepted(inspect, data, "onnx")
    assert found.signature.inputs[0].shape == (-1, 3, -1, -1)


async def test_a_graph_without_a_batch_axis_is_refused(inspect):
    found = await refused(inspect, artifacts.onnx_identity(TensorProto.FLOAT, []), "onnx")
    assert found.code is Reason.SIGNATURE_UNSUPPORTED
    assert "'x'" in found.detail


async def test_a_graph_of_sequences_is_refused(inspect):
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    data = artifacts.onnx_file(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [artifacts.value("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_value_info("y", kind)],
    )
    found = await refused(inspect, data, "onnx")
    assert found.code is Reason.SIGNATURE_UNSUPPORTED
    assert "seq" in found.detail


async def test_an_unknown_operator_is_a_missing_dependency(inspect):
    node = helper.make_node("Fancy", ["x"], ["y"], domain="com.example")
    graph = helper.make_graph(
        [node], "g", [artifacts.value("x", TensorProto.FLOAT, ["n", 2])], [artifacts.value("y", TensorProto.FLOAT, ["n", 2])]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    found = await refused(inspect, model.SerializeToString(), "onnx")
    assert found.code is Reason.MISSING_DEPENDENCY
    assert "Fancy" in found.detail


@pytest.mark.parametrize("in_node", [False, True])
async def test_weights_outside_the_file_are_not_read_from_the_machine(inspect, in_node):
    found = await refused(inspect, artifacts.onnx_weights_elsewhere("etc/passwd", in_node=in_node), "onnx")
    assert found.code is Reason.LOAD_FAILED
    assert "another file" in found.detail


async def test_the_framework_alone_would_read_them():
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.stdin.buffer.read()); print('loaded')"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=ENVIRONMENT, cwd="/"
    )
    said, _ = await process.communicate(artifacts.onnx_weights_elsewhere("etc/passwd"))
    assert said == b"loaded\n"


# ---- pictures


async def test_raw_scores_get_a_softmax_and_probabilities_do_not(inspect):
    raw = await accepted(inspect, artifacts.onnx_picture_classifier(), "onnx", image=PICTURE)
    assert (raw.image.activation, raw.scores) == ("softmax", "scores")
    ready = await accepted(inspect, artifacts.onnx_picture_classifier(softmax=True), "onnx", image=PICTURE)
    assert ready.image.activation == "none"
    told = await accepted(inspect, artifacts.onnx_picture_classifier(), "onnx", image=ImageSpec(size=32, activation="none"))
    assert told.image.activation == "none"


@pytest.mark.parametrize("batch", ["n", 1])
async def test_a_picture_is_run_as_the_sample(inspect, batch):
    data = artifacts.onnx_picture_classifier(batch=batch)
    found = await accepted(inspect, data, "onnx", artifacts.picture(kind="JPEG"), "photo.jpg", LABELS, image=PICTURE)
    assert found.signature.layout is Layout.IMAGE
    assert found.report.sample == "given"
    assert found.signature.outputs[0].shape == (-1, 5)


async def test_a_sample_that_is_no_picture_is_refused(inspect):
    found = await refused(inspect, artifacts.onnx_picture_classifier(), "onnx", b"a,b\n1,2\n", image=PICTURE)
    assert found.code is Reason.SAMPLE_UNREADABLE


@pytest.mark.parametrize("image", [ImageSpec(size=64), ImageSpec(size=32, layout="NHWC")])
async def test_a_preparation_of_another_size_or_layout_is_refused(inspect, image):
    found = await refused(inspect, artifacts.onnx_picture_classifier(), "onnx", image=image)
    assert found.code is Reason.PREPROCESS_MISMATCH
    assert "[-1, 3, 32, 32]" in found.detail


async def test_labels_are_counted_against_the_classes(inspect):
    data = artifacts.onnx_picture_classifier()
    await accepted(inspect, data, "onnx", labels=LABELS, image=PICTURE)
    found = await refused(inspect, data, "onnx", labels=["a", "b"], image=PICTURE)
    assert found.code is Reason.LABELS_MISMATCH
    assert "2 labels" in found.detail
    assert "5 classes" in found.detail


async def test_labels_for_a_model_without_classes_are_refused(inspect):
    found = await refused(inspect, artifacts.as_joblib(artifacts.regressor()), "joblib", labels=["a"])
    assert found.code is Reason.LABELS_MISMATCH


async def test_pictures_are_not_what_a_table_model_takes(inspect):
    found = await refused(inspect, GOOD_ONNX, "onnx", image=PICTURE)
    assert found.code is Reason.PREPROCESS_MISMATCH


# ---- ends that say nothing about the upload


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
    source = (
        "import os, time\n"
        "for one in os.listdir('/proc/self/fd'):\n"
        "    if int(one) > 2:\n"
        "        try:\n            os.close(int(one))\n        except OSError:\n            pass\n"
        "time.sleep(3600)"
    )
    found = await refused(inspect, artifacts.pickle_answering(source), "pickle")
    assert found.code is Reason.PREDICT_CRASHED


async def test_a_runner_that_writes_nonsense_to_its_socket_is_refused(inspect):
    source = (
        "import os, socket\n"
        "for one in os.listdir('/proc/self/fd'):\n"
        "    if 'socket' in os.readlink('/proc/self/fd/' + one) if os.path.exists('/proc/self/fd/' + one) else False:\n"
        "        os.write(int(one), b'\\xff' * 64)\n"
        "import time\ntime.sleep(3600)"
    )
    found = await refused(inspect, artifacts.pickle_answering(source), "pickle")
    assert found.code is Reason.PREDICT_CRASHED
    assert "cap" in found.detail


async def test_a_photograph_of_many_modes_is_prepared(inspect):
    into = io.BytesIO()
    Image.new("CMYK", (50, 40), (0, 200, 0, 0)).save(into, "JPEG")
    await accepted(inspect, artifacts.onnx_picture_classifier(), "onnx", into.getvalue(), "p.jpg", image=PICTURE)
