"""Boosted trees and encoders that were fitted on frames of pandas, pickled, answer as they do in the process that fitted them.

Every column is of a dtype that pandas has and files have not: categories, booleans with gaps, whole numbers with gaps.
"""

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fixtures import artifacts
from fixtures.frames import bodies, expected, same, samples
from fixtures.loading import load
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.contracts.signature import BOOLEAN, Dtype
from modelkeep.worker.samples import fit, read_sample

pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = 120
RANDOM = np.random.default_rng(8)


def _gaps(values, gap=None):
    return [gap if at % 6 == 5 else one for at, one in enumerate(values.tolist())]


FRAME = pd.DataFrame(
    {
        "weight": _gaps(RANDOM.normal(size=ROWS), np.nan),
        "plan": pd.Categorical(RANDOM.choice(["team", "basic", "pro, plus"], ROWS), categories=["team", "basic", "pro, plus"]),
        "street": pd.Categorical(_gaps(RANDOM.choice(["High", "Low", "007"], ROWS))),
        "rooms": pd.Categorical(RANDOM.choice([30, 10, 20], ROWS), categories=[30, 10, 20]),
        "floor": pd.Categorical(_gaps(RANDOM.choice([3, 1, 2], ROWS))),
        "garden": RANDOM.choice([True, False], ROWS),
        "visits": RANDOM.integers(0, 9, ROWS),
    }
)
LABEL = np.where((FRAME["plan"] == "basic") ^ (FRAME["rooms"] == 10) ^ (FRAME["floor"] == 3), "stays", "leaves")
CODE = (LABEL == "stays").astype(int)
ORDERED = FRAME.assign(plan=FRAME["plan"].cat.as_ordered())
LIGHTGBM = lightgbm.LGBMClassifier(n_estimators=6, min_child_samples=3, min_data_per_group=2, n_jobs=1, verbosity=-1)
XGBOOST = xgboost.XGBClassifier(n_estimators=6, max_depth=4, enable_categorical=True, n_jobs=1)


def _passing():
    scaled = make_column_transformer((StandardScaler(), ["visits", "weight"]), remainder="passthrough")
    return scaled.set_output(transform="pandas")


MODELS = {
    "LightGBM": lambda: lightgbm.LGBMClassifier(**LIGHTGBM.get_params()).fit(FRAME, LABEL),
    "LightGBM, an ordered one": lambda: lightgbm.LGBMClassifier(**LIGHTGBM.get_params()).fit(
        ORDERED.drop(columns=["rooms", "floor"]), LABEL
    ),
    "LightGBM's ranks": lambda: lightgbm.LGBMRanker(n_estimators=4, min_child_samples=3, verbosity=-1, n_jobs=1).fit(
        FRAME, CODE, group=[ROWS]
    ),
    "LightGBM in a pipeline": lambda: make_pipeline(_passing(), LIGHTGBM).fit(FRAME, LABEL),
    "LightGBM calibrated": lambda: CalibratedClassifierCV(LIGHTGBM, cv=2).fit(FRAME, LABEL),
    "XGBoost": lambda: xgboost.XGBClassifier(**XGBOOST.get_params()).fit(FRAME, CODE),
    "XGBoost, dropping trees": lambda: xgboost.XGBRegressor(
        n_estimators=4, booster="dart", enable_categorical=True, n_jobs=1
    ).fit(FRAME, CODE),
    "XGBoost in a pipeline": lambda: make_pipeline(_passing(), XGBOOST).fit(FRAME, CODE),
    "both": lambda: VotingClassifier([("a", LIGHTGBM), ("b", XGBOOST)], voting="soft").fit(FRAME, CODE),
    "only whole categories": lambda: lightgbm.LGBMClassifier(**LIGHTGBM.get_params()).fit(
        FRAME[["weight", "rooms", "floor"]], LABEL
    ),
    "histogram trees": lambda: HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(FRAME, LABEL),
    "CatBoost": lambda: catboost.CatBoostClassifier(
        iterations=5, verbose=0, thread_count=1, allow_writing_files=False, cat_features=["plan", "rooms", "garden"]
    ).fit(FRAME[["weight", "plan", "rooms", "garden", "visits"]], LABEL),
}


@pytest.mark.parametrize("kind", ["CSV", "JSON"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_a_frame_answers_as_in_process(name, kind):
    model = MODELS[name]()
    frame = FRAME[list(getattr(model, "feature_names_in_", getattr(model, "feature_names_", None)))]
    wanted = expected(model, frame)
    sample = read_sample(samples(frame)[kind], "sample", picture=False)
    served = load(artifacts.as_joblib(model), "joblib", sample.columns)
    same(wanted, served.run(fit(sample, served.facts.signature)))
    for read, body in bodies(frame):
        same(wanted, served.run(read(served.facts.signature, body)))


@pytest.mark.parametrize("name", ["LightGBM", "LightGBM in a pipeline", "histogram trees"])
def test_a_category_that_training_did_not_know_is_a_missing_one(name):
    model = MODELS[name]()
    asked = FRAME.head(3).assign(plan=["basic", "unheard of", None], rooms=pd.array([99, 10, 30]))
    known = asked.assign(plan=pd.Categorical(["basic", None, None]), rooms=pd.Categorical([None, 10, 30]))
    served = load(artifacts.as_joblib(model), "joblib", read_sample(samples(FRAME)["CSV"], "sample", picture=False).columns)
    same(
        expected(model, known), served.run(fit(read_sample(samples(asked)["JSON"], "s", picture=False), served.facts.signature))
    )


@pytest.mark.parametrize("name", ["XGBoost", "XGBoost in a pipeline"])
def test_xgboost_refuses_a_category_that_training_did_not_know_and_takes_a_gap(name):
    model = MODELS[name]()
    served = load(artifacts.as_joblib(model), "joblib", read_sample(samples(FRAME)["CSV"], "sample", picture=False).columns)
    inputs = fit(read_sample(samples(FRAME)["JSON"], "s", picture=False), served.facts.signature)
    inputs["plan"][3] = "unheard of"
    with pytest.raises(ValueError, match=r"'unheard of' of 'plan' is not one of those"):
        served.run(inputs)
    inputs["plan"][3] = None
    frame = FRAME.assign(plan=FRAME["plan"].where(np.arange(ROWS) != 3))
    same(expected(model, frame), served.run(inputs))


GAPPY = pd.DataFrame(
    {
        "none": pd.Series([True, False, None, True, None, False] * 6, dtype=object),
        "nan": pd.Series([False, np.nan, True, True, False, False] * 6, dtype=object),
        "nullable": pd.array([True, None, False, False, None, True] * 6, dtype="boolean"),
        "age": RANDOM.normal(size=36),
    }
)
YES = np.array([1, 0, 0, 1, 1, 0] * 6)
GAPPY_MODELS = {
    "encoders": lambda: make_pipeline(
        make_column_transformer((OneHotEncoder(), ["none", "nan"]), ("passthrough", ["age"])), LogisticRegression()
    ).fit(GAPPY, YES),
    "LightGBM": lambda: lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=2, verbosity=-1, n_jobs=1).fit(
        GAPPY[["nullable", "age"]], YES
    ),
    "XGBoost": lambda: xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(GAPPY[["nullable", "age"]], YES),
    "CatBoost": lambda: catboost.CatBoostClassifier(iterations=4, verbose=0, thread_count=1, allow_writing_files=False).fit(
        GAPPY[["none", "age"]], YES
    ),
    "histogram trees": lambda: HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=3).fit(
        GAPPY[["nullable", "age"]], YES
    ),
}


@pytest.mark.parametrize("kind", ["CSV", "JSON"])
@pytest.mark.parametrize("name", GAPPY_MODELS)
def test_true_false_and_gaps_reach_a_model_as_it_was_fitted_on_them(name, kind):
    model = GAPPY_MODELS[name]()
    frame = GAPPY[list(getattr(model, "feature_names_in_", getattr(model, "feature_names_", None)))]
    sample = read_sample(samples(frame)[kind], "sample", picture=False)
    served = load(artifacts.as_joblib(model), "joblib", sample.columns)
    gappy = [one for one in served.facts.signature.inputs if one.name != "age"]
    assert {(one.dtype, one.kind, one.nullable) for one in gappy} == {(Dtype.FP64, BOOLEAN, True)}
    same(expected(model, frame), served.run(fit(sample, served.facts.signature)))
    for read, body in bodies(frame):
        same(expected(model, frame), served.run(read(served.facts.signature, body)))


def test_xgboost_s_categories_beyond_ascii_are_refused_in_words_as_it_keeps_them_only_in_part():
    frame = FRAME.assign(plan=FRAME["plan"].cat.rename_categories({"basic": "żółw"}))
    model = xgboost.XGBClassifier(**XGBOOST.get_params()).fit(frame, CODE)
    with pytest.raises(CannotLoad, match="beyond ASCII") as refused:
        load(artifacts.as_joblib(model), "joblib", read_sample(samples(frame)["CSV"], "s", picture=False).columns)
    assert refused.value.reason is Reason.SIGNATURE_UNSUPPORTED


def test_lightgbm_s_categories_are_of_any_letters():
    frame = FRAME.assign(plan=FRAME["plan"].cat.rename_categories({"basic": "żółw"}))
    model = lightgbm.LGBMClassifier(**LIGHTGBM.get_params()).fit(frame, LABEL)
    sample = read_sample(samples(frame)["CSV"], "s", picture=False)
    served = load(artifacts.as_joblib(model), "joblib", sample.columns)
    same(expected(model, frame), served.run(fit(sample, served.facts.signature)))


def test_the_signature_shows_the_categories_in_the_order_of_training():
    served = load(
        artifacts.as_joblib(MODELS["LightGBM"]()), "joblib", read_sample(samples(FRAME)["CSV"], "s", picture=False).columns
    )
    shown = {one.name: one.categories for one in served.facts.signature.inputs}
    assert (shown["plan"], shown["rooms"], shown["weight"]) == (("team", "basic", "pro, plus"), (30, 10, 20), ())


@pytest.mark.parametrize("name", ["LightGBM", "LightGBM in a pipeline", "XGBoost", "histogram trees", "CatBoost"])
def test_without_a_sample_it_is_refused_by_the_names_of_its_columns(name):
    with pytest.raises(CannotLoad, match="plan") as refused:
        load(artifacts.as_joblib(MODELS[name]()), "joblib", ())
    assert refused.value.reason is Reason.SAMPLE_NEEDED
