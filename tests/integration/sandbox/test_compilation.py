"""Models are compiled in their own runner, and the compiled form serves only where it is the same model and faster."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from fixtures import artifacts
from fixtures.inspection import accepted
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import Limits
from modelkeep.contracts.storage import Blob
from modelkeep.plugins.runners.sklearn.conversion import compiled
from modelkeep.worker.compilation import Compiler
from modelkeep.worker.drawn import drawn
from modelkeep.worker.inspection import InspectionRequest, RunnerInspector
from modelkeep.worker.trial import speed_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(300, 4)) * [1, 10, 1000, 0.01]
SIDE = (ROWS[:, 0] * ROWS[:, 1] > RANDOM.normal(size=300)).astype(int)
THREE = np.array(["ham", "eggs", "spam"])[SIDE + (ROWS[:, 2] > 500)]
VALUE = ROWS[:, 0] * 100 + ROWS[:, 1] ** 2
CSV = ("a,b,c,d\n" + "\n".join(",".join(map(repr, map(float, row))) for row in ROWS[:40])).encode()
QUICK = Limits(memory_mb=2048, load_timeout_s=20, run_timeout_s=5)


@pytest.fixture
def inspect(warm_bench):
    async def inspect(data, name, sample=None, *, compile=True, convert_s=60.0, compare_s=60.0):  # noqa: A002 - the field's word
        async def keep(data: bytes) -> Blob:
            return Blob(warm_bench.keep(data), len(data))

        compiler = Compiler(warm_bench.start, keep, convert_s=convert_s, compare_s=compare_s)
        request = InspectionRequest(warm_bench.spec(data, name), sample, "sample.csv", compile=compile)
        return await RunnerInspector(warm_bench.start, QUICK, compiler).inspect(request)

    return inspect


def echo(**behaviour: object) -> bytes:
    """An echo that is slow, so that what it compiles to is faster."""
    return artifacts.echo(run_s=0.003, **behaviour)


def other(**behaviour: object) -> dict[str, object]:
    return json.loads(artifacts.echo(**behaviour))


CLASSIFIERS = {
    "tree": DecisionTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(100, random_state=0),
    "shallow forest": RandomForestClassifier(20, max_depth=3, random_state=0),
    "extra trees": ExtraTreesClassifier(7, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=10, random_state=0),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=20),
    "adaboost": AdaBoostClassifier(n_estimators=5),
    "logistic": LogisticRegression(),
    "scaled logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "scaled forest": make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)),
    "scaled network": make_pipeline(MinMaxScaler(), MLPClassifier((8,), max_iter=300, random_state=0)),
    "support vectors": make_pipeline(StandardScaler(), SVC()),
    "stochastic": make_pipeline(StandardScaler(), SGDClassifier(random_state=0)),
    "naive": GaussianNB(),
    "search": GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2),
}
REGRESSORS = {
    "forest": RandomForestRegressor(20, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=20, random_state=0),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=20),
    "linear": LinearRegression(),
    "scaled ridge": make_pipeline(StandardScaler(), Ridge()),
    "network": make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=0)),
}


def used(found):
    compilation = found.report.compiled
    assert compilation.used, compilation.reason
    assert found.compiled.format == found.compiled.runner == "onnx"
    assert compilation.rows_compared >= 40 + 256
    assert compilation.latency_ms.keys() == found.report.latency_ms.keys() == {"1", "64"}
    assert all(compilation.latency_ms[rows] < taken for rows, taken in found.report.latency_ms.items())
    assert found.report.cost_ms == compilation.latency_ms
    assert compilation.speed == speed_of(compilation.latency_ms, found.report.latency_ms) > 1
    return compilation


def unused(found):
    assert not found.report.compiled.used
    assert found.compiled is None
    assert found.report.cost_ms == found.report.latency_ms
    assert found.report.compiled.speed == 0
    return found.report.compiled.reason


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("labels", [SIDE, THREE], ids=["two", "three"])
@pytest.mark.parametrize("name", CLASSIFIERS)
async def test_a_classifier_is_compiled_and_agrees(inspect, name, labels):
    model = CLASSIFIERS[name].fit(ROWS, labels)
    used(await accepted(inspect, artifacts.as_joblib(model), "joblib", CSV))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REGRESSORS)
async def test_a_regressor_is_compiled_and_agrees(inspect, name):
    model = REGRESSORS[name].fit(ROWS, VALUE)
    used(await accepted(inspect, artifacts.as_joblib(model), "joblib", CSV))


async def test_a_transformer_is_compiled(inspect):
    used(await accepted(inspect, artifacts.as_joblib(PCA(2).fit(ROWS)), "joblib", CSV))


async def test_the_compiled_form_takes_and_gives_what_the_original_does(inspect, warm_bench):
    model = RandomForestClassifier(100, random_state=0).fit(ROWS, THREE)
    data = artifacts.as_joblib(model)
    found = await accepted(inspect, data, "joblib", CSV)
    used(found)
    artifact = found.compiled
    spec = warm_bench.spec(data, "joblib", signature=found.signature)
    compiled = warm_bench.spec(
        data, "onnx", digest=artifact.digest, size=artifact.size, signature=found.signature, runner=artifact.runner
    )
    async with warm_bench.start(spec) as one, warm_bench.start(compiled) as two:
        await one.load()
        await two.load()
        (_, wanted), (_, given) = await one.run(input=ROWS), await two.run(input=ROWS)
    assert list(wanted) == list(given) == ["label", "probabilities"]
    assert wanted["label"].tolist() == given["label"].tolist() == model.predict(ROWS).tolist()
    assert wanted["probabilities"].dtype == given["probabilities"].dtype == np.float64
    assert np.abs(wanted["probabilities"] - given["probabilities"]).max() < 1e-15


async def test_missing_values_take_the_same_way_through_trees(inspect):
    holes = ROWS.copy()
    holes[::7, 1] = np.nan
    model = HistGradientBoostingClassifier(max_iter=10).fit(holes, SIDE)
    found = await accepted(inspect, artifacts.as_joblib(model), "joblib", CSV)
    assert found.signature.inputs[0].nullable
    used(found)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (NearestCentroid().fit(ROWS, SIDE), "NearestCentroid cannot be converted"),
    ],
    ids=["no converter"],
)
async def test_what_cannot_be_converted_is_served_as_it_is(inspect, model, reason):
    assert reason in unused(await accepted(inspect, artifacts.as_joblib(model), "joblib", CSV))


async def test_a_table_of_gaps_and_texts_is_compiled(inspect):
    sample = artifacts.PEOPLE.to_csv(index=False).encode()
    used(await accepted(inspect, artifacts.as_joblib(artifacts.people_classifier()), "joblib", sample))


FAR = 5000 + ROWS
OPPOSITE = np.where(SIDE > 0, "yes", "no")
AT_A_DISTANCE = {
    "scaled support vectors": make_pipeline(StandardScaler(), SVC()).fit(FAR, OPPOSITE),
    "ranged support vectors": make_pipeline(MinMaxScaler(), SVC()).fit(FAR, OPPOSITE),
    "support vectors": SVC(C=1e6).fit(FAR, OPPOSITE),
    "naive Bayes": GaussianNB().fit(FAR, OPPOSITE),
}


@pytest.mark.parametrize("name", AT_A_DISTANCE)
async def test_rows_without_a_sample_are_drawn_where_training_was(name):
    """Around zero all of these give one label, and so would anything."""
    model = AT_A_DISTANCE[name]
    spec = TensorSpec("inputs", Dtype.FP64, (-1, 4))
    found = compiled(model, Signature((spec,), (TensorSpec("label", Dtype.BYTES, (-1,)),)))
    made_up = RANDOM.normal(size=(32, 4))
    assert len(set(model.predict(drawn(spec, made_up)).tolist())) == 1
    labels = model.predict(drawn(spec, made_up, found.edges)).tolist()
    assert min(labels.count("yes"), labels.count("no")) > 5


async def test_one_answer_to_all_rows_proves_nothing(inspect):
    model = DecisionTreeClassifier(min_samples_leaf=200).fit(ROWS, SIDE)
    report = (await accepted(inspect, artifacts.as_joblib(model), "joblib", CSV)).report
    assert not report.compiled.used
    assert "got one answer" in report.compiled.reason


async def test_it_can_be_switched_off(inspect):
    model = artifacts.as_joblib(LogisticRegression().fit(ROWS, SIDE))
    assert "switched off" in unused(await accepted(inspect, model, "joblib", CSV, compile=False))


# ---- converters that must not be believed


async def test_an_honest_converter_is_used(inspect):
    found = await accepted(inspect, echo(compiles_to=other()), "echo")
    assert found.report.compiled.used
    assert found.compiled.runner == "echo"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"compiles_to": other(factor=2.0)}, "differs by"),
        ({"compiles_to": other(factor=1.001)}, "differs by"),
        ({"compiles_to": other(noise=1.0)}, "differs by"),
        ({"compiles_to": other(outputs=[{"name": "other", "dtype": "FP64", "shape": [-1, 2]}])}, "outputs are other"),
        ({"compiles_to": other(lose_rows=1)}, "failed"),
        ({"compiles_to": other(run_error="no")}, "failed"),
        ({"compiles_to": other(run_signal=11)}, "failed"),
        ({"compiles_to": other(load_signal=11)}, "failed"),
        ({"compiles_to": other(load_error="no")}, "failed"),
        ({"compiles_to": other(run_s=0.02)}, "not faster"),
        ({"compiles_to": other(), "compiles_as": "onnx"}, "failed"),
        ({"compiles_to": other(), "compiles_as": "pickle"}, "only parsed"),
        ({"compiles_to": other(), "compiles_as": "unknown"}, "only parsed"),
        ({"compile_signal": 9}, "failed"),
        ({"compile_signal": 11}, "failed"),
        ({"compile_mb": 1 << 16}, "Memory"),
        ({}, "no faster form"),
    ],
)
async def test_what_differs_or_fails_leaves_the_original_in_use(inspect, behaviour, reason):
    assert reason in unused(await accepted(inspect, echo(**behaviour), "echo"))


async def test_a_conversion_without_an_end_is_ended(inspect):
    reason = unused(await accepted(inspect, echo(compile_s=3600), "echo", convert_s=0.5))
    assert "not compiled after 0.5 s" in reason


async def test_a_comparison_without_an_end_is_ended(inspect):
    found = await accepted(inspect, echo(compiles_to=other(run_s=4.0)), "echo", compare_s=1.0)
    assert "longer than 1 s" in unused(found)


async def test_a_difference_on_one_drawn_row_is_enough(inspect):
    found = await accepted(inspect, echo(compiles_to=other(fail_on=0.0)), "echo")
    assert "fail on" in unused(found)
    assert found.report.compiled.rows_compared > 0


async def test_a_row_that_is_answered_though_the_model_refuses_it_is_enough(inspect):
    found = await accepted(inspect, echo(fail_on=0.0, compiles_to=other()), "echo")
    assert "answers a row that the model refuses" in unused(found)


async def test_a_row_that_both_refuse_is_no_difference(inspect):
    found = await accepted(inspect, echo(fail_on=0.0, compiles_to=other(fail_on=0.0)), "echo")
    assert found.report.compiled.used, found.report.compiled.reason
    assert found.report.compiled.rows_compared > 256
