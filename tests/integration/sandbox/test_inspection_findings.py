"""What a version is found to be: its cost, its behaviour, its outputs. In real runners."""

import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor

from fixtures import artifacts
from fixtures.inspection import accepted, refused
from modelkeep.contracts.signature import Dtype

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD_ONNX = artifacts.onnx_scores()
GOOD_JOBLIB = artifacts.as_joblib(artifacts.classifier())
FRAME = artifacts.numbers(6)
CSV = FRAME.to_csv(index=False).encode()
TWO_LABELS = (FRAME[["f0", "f1"]] > FRAME[["f0", "f1"]].median()).astype(int)
LABEL_TYPES = [((0, 1), Dtype.INT64), (("no", "yes"), Dtype.BYTES), ((False, True), Dtype.BOOL), ((1.0, 2.0), Dtype.FP64)]


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


class Fetches:
    """Pickled as a call that scanners call dangerous, and that does nothing."""

    def __reduce__(self):
        return getattr, ("text", "upper")


async def test_a_scanners_findings_are_told_and_decide_nothing(inspect):
    model = artifacts.classifier()
    model.note = Fetches()
    found = await accepted(inspect, artifacts.as_pickle(model), "pickle", CSV)
    assert [one for one in found.report.warnings if "builtins.getattr" in one and "advice only" in one]
    assert "scanner" not in "".join((await accepted(inspect, GOOD_JOBLIB, "joblib", CSV)).report.warnings)
    refusal = await refused(inspect, artifacts.as_pickle(Fetches()), "pickle")
    assert "builtins.getattr" in refusal.detail
