"""Boosted trees are compiled in the runners that hold them, and serve as ONNX; or the report says why they do not."""

import itertools

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost

from fixtures import trees
from fixtures.inspection import accepted
from modelkeep.worker.trial import Trial

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = trees.numbers(8)
FIRST = np.nan_to_num(ROWS[:, 0])
THIRDS = np.digitize(FIRST, [-0.4, 0.4])
NAMES = np.array(["ham", "eggs", "spam"])[THIRDS]
TABLE = trees.mixed()
CSV = trees.without_gaps(TABLE).head(8).dropna().query("colour != 'none'").to_csv(index=False).encode()


@pytest.fixture
def inspect(inspect_and_compile):
    return inspect_and_compile


PLAIN = {
    "xgboost classifier": (
        "xgboost-ubj",
        lambda: trees.xgboost_file("ubj", xgboost.XGBClassifier(n_estimators=50, n_jobs=1).fit(ROWS, THIRDS).get_booster()),
    ),
    "xgboost regressor": (
        "xgboost-json",
        lambda: trees.xgboost_file("json", xgboost.XGBRegressor(n_estimators=50, n_jobs=1).fit(ROWS, FIRST).get_booster()),
    ),
    "lightgbm classifier": (
        "lightgbm",
        lambda: trees.lightgbm_file(
            lightgbm.LGBMClassifier(n_estimators=50, n_jobs=1, verbosity=-1).fit(ROWS, THIRDS).booster_
        ),
    ),
    "lightgbm regressor": (
        "lightgbm",
        lambda: trees.lightgbm_file(lightgbm.LGBMRegressor(n_estimators=50, n_jobs=1, verbosity=-1).fit(ROWS, FIRST).booster_),
    ),
    "catboost classifier": (
        "catboost",
        lambda: trees.catboost_file(trees.catboost_model(rows=ROWS, target=NAMES, iterations=50)),
    ),
    "catboost regressor": (
        "catboost",
        lambda: trees.catboost_file(trees.catboost_model(catboost.CatBoostRegressor, ROWS, FIRST, iterations=50)),
    ),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_trees_serve_compiled(inspect, name, monkeypatch):
    form, made = PLAIN[name]
    times = itertools.count(1000.0, -1.0)

    async def sooner_each_time(trial, tensors):
        """As on a machine where whatever is timed later is faster: how fast they are is for `bench/tree_rows.py`."""
        await trial.run(tensors)
        return next(times)

    monkeypatch.setattr(Trial, "median_ms", sooner_each_time)
    found = await accepted(inspect, made(), form)
    compilation = found.report.compiled
    assert compilation.used, compilation.reason
    assert found.compiled.format == found.compiled.runner == "onnx"
    assert compilation.rows_compared >= 256


TABLES = {
    "xgboost": ("xgboost-ubj", lambda: trees.xgboost_file("ubj", trees.xgboost_booster(TABLE, trees.score(TABLE)))),
    "lightgbm": ("lightgbm", lambda: trees.lightgbm_file(trees.lightgbm_booster(TABLE, trees.score(TABLE)))),
    "catboost": (
        "catboost",
        lambda: trees.catboost_file(
            trees.catboost_model(
                catboost.CatBoostRegressor,
                trees.without_gaps(TABLE),
                trees.score(TABLE),
                cat_features=["colour", "street"],
            )
        ),
    ),
}


@pytest.mark.parametrize("name", TABLES)
async def test_trees_of_categories_serve_as_they_are_and_the_report_says_so(inspect, name):
    form, made = TABLES[name]
    found = await accepted(inspect, made(), form, CSV)
    assert found.report.compiled.reason == "It has columns of categories, which are not converted."
    assert found.compiled is None
