"""Boosted trees in real runners: locked down, without a file to write, found to be what they are."""

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from fixtures import artifacts, trees
from fixtures.inspection import accepted
from modelkeep.contracts.signature import Dtype

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = trees.numbers()
HALVES = (np.nan_to_num(ROWS[:, 0]) > 0).astype(int)
TABLE = trees.mixed()
FILES = {
    "xgboost-json": trees.xgboost_file("json"),
    "xgboost-ubj": trees.xgboost_file("ubj"),
    "lightgbm": trees.lightgbm_file(),
    "catboost": trees.catboost_file(),
}
TABLES = {
    "xgboost-ubj": trees.xgboost_file("ubj", trees.xgboost_booster(TABLE, trees.score(TABLE))),
    "lightgbm": trees.lightgbm_file(trees.lightgbm_booster(TABLE, trees.score(TABLE))),
    "catboost": trees.catboost_file(
        trees.catboost_model(
            catboost.CatBoostRegressor,
            trees.without_gaps(TABLE),
            trees.score(TABLE),
            cat_features=["colour", "street"],
            one_hot_max_size=2,
        )
    ),
}


@pytest.mark.parametrize("name", FILES)
async def test_it_is_accepted_without_a_sample_and_takes_missing_values(inspect, name):
    found = await accepted(inspect, FILES[name], name)
    assert found.report.kind == "classifier"
    assert found.report.deterministic
    assert found.signature.inputs[0].nullable
    assert [one.name for one in found.signature.outputs] == ["label", "probabilities"]
    assert found.scores == "probabilities"


@pytest.mark.parametrize("name", TABLES)
async def test_a_table_is_accepted_with_a_sample_of_its_rows(inspect, name):
    sample = trees.without_gaps(TABLE).head(8).dropna()
    sample = sample[(sample["colour"] != "none")].to_csv(index=False).encode()
    found = await accepted(inspect, TABLES[name], name, sample)
    assert {one.name: one.dtype for one in found.signature.inputs}["street"] is Dtype.BYTES
    assert all(check.ok for check in found.report.checks)


@pytest.mark.parametrize("name", FILES)
async def test_a_runner_that_may_write_nothing_answers_what_the_framework_answers(warm_bench, name):
    expected = {
        "lightgbm": lambda: trees.lightgbm_booster(objective="binary").predict(ROWS),
        "catboost": lambda: trees.catboost_model().predict_proba(ROWS)[:, 1],
    }.get(name, lambda: trees.xgboost_booster(objective="binary:logistic").predict(xgboost.DMatrix(ROWS)))
    async with warm_bench.start(warm_bench.spec(FILES[name], name)) as runner:
        loaded = await runner.load()
        (only,) = loaded.facts.signature.inputs
        _result, outputs = await runner.run(input=ROWS.astype(only.dtype.numpy))
        np.testing.assert_array_equal(outputs["probabilities"][:, 1], expected())


ESTIMATORS = {
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=4, n_jobs=1),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=4, n_jobs=1, verbosity=-1),
    "catboost": lambda: catboost.CatBoostClassifier(iterations=4, thread_count=1, verbose=0, allow_writing_files=False),
}


@pytest.mark.parametrize("framework", ESTIMATORS)
@pytest.mark.parametrize("named", [True, False])
async def test_a_pickled_estimator_is_served_as_well(warm_bench, framework, named):
    rows = pd.DataFrame(ROWS, columns=list("abcd")) if named else ROWS
    estimator = ESTIMATORS[framework]().fit(rows, HALVES)
    async with warm_bench.start(warm_bench.spec(artifacts.as_joblib(estimator), "joblib")) as runner:
        loaded = await runner.load()
        assert loaded.facts.framework == framework
        (only,) = loaded.facts.signature.inputs
        numbered = tuple("0123") if framework == "catboost" else ()  # the names that it gives by itself
        assert only.columns == (tuple("abcd") if named else numbered)
        _result, outputs = await runner.run(input=ROWS)
        np.testing.assert_array_equal(outputs["label"], estimator.predict(rows))
        np.testing.assert_array_equal(outputs["probabilities"], estimator.predict_proba(rows).astype(np.float64))
