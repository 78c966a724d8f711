"""Pickled boosters without an estimator around them: they answer what their own predict() does, or say what to save."""

import pickle

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost

from fixtures import trees
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotCompile, CannotLoad, Column, LoadOptions
from modelkeep.contracts.signature import Dtype
from modelkeep.plugins.runners.sklearn.runner import SklearnRunner
from modelkeep.plugins.runners.trees.xgboost import XgboostRunner

ROWS = np.random.default_rng(0).normal(size=(60, 3))
HALVES, THIRDS = (ROWS[:, 0] > 0).astype(int), np.digitize(ROWS[:, 0], [-0.5, 0.5])
SAMPLE = tuple(Column("", Dtype.FP64) for _ in range(3))


def load(model, sample=SAMPLE):
    return SklearnRunner().load(Artifact(pickle.dumps(model), "pickle"), LoadOptions(sample=sample))


def lightgbm_booster(target, **params):
    quiet = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3}
    return lightgbm.train({**quiet, **params}, lightgbm.Dataset(ROWS, target), 4)


def catboost_model(target, **params):
    quiet = {"verbose": 0, "thread_count": 1, "allow_writing_files": False}
    return catboost.CatBoost({"iterations": 4, **quiet, **params}).fit(ROWS, target)


MODELS = {
    "LightGBM, numbers": lambda: lightgbm_booster(ROWS[:, 0], objective="regression"),
    "LightGBM, two classes": lambda: lightgbm_booster(HALVES, objective="binary"),
    "LightGBM, three classes": lambda: lightgbm_booster(THIRDS, objective="multiclass", num_class=3),
    "CatBoost, numbers": lambda: catboost_model(ROWS[:, 0]),
    "CatBoost, two classes": lambda: catboost_model(HALVES, loss_function="Logloss"),
    "CatBoost, three classes": lambda: catboost_model(THIRDS, loss_function="MultiClass"),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_what_its_own_predict_answers(name):
    booster = MODELS[name]()
    model = load(booster)
    (answer,) = model.run({one.name: ROWS for one in model.facts.signature.inputs}).items()
    expected = booster.predict(ROWS)
    assert len(np.unique(expected)) > 1
    assert answer[0] == ("value" if name.startswith("CatBoost") else "output")
    assert answer[1].tolist() == expected.tolist()
    assert [(one.name, one.dtype) for one in model.facts.signature.outputs] == [(answer[0], Dtype.FP64)], (
        "no labels: these are scores"
    )
    with pytest.raises(CannotCompile, match="not of scikit-learn"):
        model.compiled()


def test_one_that_does_not_tell_its_columns_wants_a_sample():
    with pytest.raises(CannotLoad) as refused:
        load(MODELS["LightGBM, two classes"](), sample=())
    assert refused.value.reason is Reason.SAMPLE_NEEDED


@pytest.mark.parametrize("sample", [(), SAMPLE])
def test_one_that_takes_no_rows_is_refused_and_what_is_said_to_be_saved_instead_is_served(sample):
    booster = trees.xgboost_booster(ROWS, HALVES, objective="binary:logistic")
    with pytest.raises(CannotLoad) as refused:
        load(booster, sample)
    assert refused.value.reason is Reason.NOT_A_MODEL
    assert "save_model('model.ubj')" in refused.value.detail
    instead = XgboostRunner().load(Artifact(bytes(booster.save_raw("ubj")), "xgboost-ubj"), LoadOptions())
    answer = instead.run(trees.as_inputs(instead.facts.signature, ROWS))
    assert answer["probabilities"][:, 1] == pytest.approx(booster.predict(xgboost.DMatrix(ROWS)))
