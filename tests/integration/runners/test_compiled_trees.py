"""Boosted trees as ONNX answer as their frameworks do: on thresholds and beside them, at zero, without values, far out."""

import json

import catboost
import numpy as np
import onnx
import pytest
import xgboost

from fixtures import trees
from modelkeep.contracts.runner import Artifact, CannotCompile, Column, LoadOptions
from modelkeep.contracts.signature import Dtype
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.plugins.runners.trees import lightgbm_onnx, xgboost_onnx
from modelkeep.plugins.runners.trees.catboost import CatboostRunner
from modelkeep.plugins.runners.trees.lightgbm import LightgbmRunner
from modelkeep.plugins.runners.trees.xgboost import XgboostRunner
from modelkeep.sandbox.agreement import differing

ROWS = trees.numbers()
FIRST = np.nan_to_num(ROWS[:, 0])
SECOND = np.nan_to_num(ROWS[:, 1])
HALVES = (FIRST > 0).astype(int)
THIRDS = np.digitize(FIRST, [-0.4, 0.4])
BOTH = np.stack((FIRST, -SECOND), axis=1)
TABLE = trees.mixed()
ZERO = 1.0000000180025095e-35
ANYWHERE = (np.nan, 0.0, -0.0, ZERO, -ZERO, 2 * ZERO, -2 * ZERO, 1e-30, -1e-30, 1.0, -1e6, 3e38, -3e38)
WITH_ZEROS = np.where(np.abs(ROWS) < 0.5, 0.0, ROWS)
WHOLE = np.nan_to_num(ROWS)


def of_xgboost(booster, **options):
    return XgboostRunner().load(Artifact(trees.xgboost_file("ubj", booster), "xgboost-ubj"), LoadOptions(**options))


def of_lightgbm(booster, **options):
    return LightgbmRunner().load(Artifact(trees.lightgbm_file(booster), "lightgbm"), LoadOptions(**options))


def of_catboost(estimator, **options):
    return CatboostRunner().load(Artifact(trees.catboost_file(estimator), "catboost"), LoadOptions(**options))


def around(edges, dtype):
    """Rows of ours with one value changed: to each threshold, the numbers next to it, what FP32 makes of it, and the utmost."""
    found = [ROWS]
    for column, values in enumerate(edges):
        known = np.array(values, dtype=np.float64)
        near = [np.nextafter(known.astype(kind), kind(side * 1e38)) for kind in (np.float32, np.float64) for side in (1, -1)]
        tried = np.concatenate([known, known.astype(np.float32), *near, ANYWHERE])
        rows = ROWS[np.arange(len(tried)) % len(ROWS)].copy()
        rows[:, column] = tried
        found.append(rows)
    found.append(np.full((1, ROWS.shape[1]), np.nan))
    return np.concatenate(found).astype(dtype)


def same(model, largest):
    """Compare the model with its compiled form, and return that. Numbers may be apart by `largest` of their size, and of 1."""
    found = model.compiled()
    assert (found.format, found.runner) == ("onnx", "onnx")
    signature = model.facts.signature
    other = OnnxRunner().load(Artifact(found.data, "onnx"), LoadOptions(signature=signature))
    assert any(found.edges)
    rows = around(found.edges, signature.inputs[0].dtype.numpy)
    wanted, given = model.run({"input": rows}), other.run({"input": rows})
    differing(wanted, given)
    assert [(one.name, one.dtype) for one in other.facts.signature.outputs] == [
        (one.name, one.dtype) for one in signature.outputs
    ]
    for name, answer in wanted.items():
        assert len(np.unique(answer.astype(str))) > 1
        if answer.dtype.kind == "f" and name != "label":
            np.testing.assert_allclose(given[name], answer, rtol=largest, atol=largest)
    return found


def named(one):
    return "-".join(map(str, one.values())) if isinstance(one, dict) else ""


XGBOOST = [
    ({"objective": "reg:squarederror"}, FIRST),
    ({"objective": "reg:squarederror", "base_score": 3.5}, FIRST),
    ({"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.5}, FIRST),
    ({"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5}, FIRST),
    ({"objective": "reg:squarederror"}, BOTH),
    ({"objective": "reg:squarederror", "grow_policy": "lossguide", "tree_method": "approx"}, FIRST),
    ({"objective": "reg:squaredlogerror"}, np.exp(FIRST)),
    ({"objective": "reg:absoluteerror"}, FIRST),
    ({"objective": "reg:pseudohubererror"}, FIRST),
    ({"objective": "reg:logistic"}, HALVES),
    ({"objective": "reg:gamma"}, np.exp(FIRST)),
    ({"objective": "reg:tweedie"}, np.exp(FIRST)),
    ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, FIRST),
    ({"objective": "count:poisson"}, np.exp(FIRST).round()),
    ({"objective": "survival:cox"}, np.exp(FIRST)),
    ({"objective": "rank:pairwise"}, HALVES),
    ({"objective": "rank:ndcg"}, HALVES),
    ({"objective": "rank:map"}, HALVES),
    ({"objective": "binary:logitraw"}, HALVES),
    ({"objective": "binary:hinge"}, HALVES),
    ({"objective": "binary:logistic"}, HALVES),
    ({"objective": "binary:logistic", "base_score": 0.9}, HALVES),
    ({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5}, HALVES),
    ({"objective": "binary:logistic"}, (BOTH > 0).astype(int)),
    ({"objective": "multi:softprob", "num_class": 3}, THIRDS),
    ({"objective": "multi:softmax", "num_class": 3}, THIRDS),
    ({"objective": "multi:softprob", "num_class": 3, "base_score": 0.2}, THIRDS),
]


@pytest.mark.parametrize(("params", "target"), XGBOOST, ids=named)
def test_xgboost_answers_the_same(params, target):
    same(of_xgboost(trees.xgboost_booster(ROWS, target, **params)), 2e-6)


RARELY = {"base_score": 1e-8, "min_child_weight": 0, "eta": 0.01}
RARE = {
    "xgboost": lambda: of_xgboost(trees.xgboost_booster(ROWS, HALVES, objective="binary:logistic", **RARELY)),
    "xgboost-numbers": lambda: of_xgboost(trees.xgboost_booster(ROWS, HALVES, objective="reg:logistic", **RARELY)),
    "lightgbm": lambda: of_lightgbm(
        trees.lightgbm_booster(ROWS, HALVES * 1e-8, objective="cross_entropy", min_sum_hessian_in_leaf=0)
    ),
    "catboost": lambda: of_catboost(rare_catboost()),
}


def rare_catboost():
    model = trees.catboost_model(rows=ROWS, target=HALVES)
    model.set_scale_and_bias(1.0, -18.0)
    return model


@pytest.mark.parametrize("name", RARE)
def test_what_is_rare_keeps_its_digits_and_its_order(name):
    model = RARE[name]()
    found = model.compiled()
    other = OnnxRunner().load(Artifact(found.data, "onnx"), LoadOptions(signature=model.facts.signature))
    rows = {"input": around(found.edges, model.facts.signature.inputs[0].dtype.numpy)}
    wanted, given = (list(one.run(rows).values())[-1].reshape(len(rows["input"]), -1)[:, -1] for one in (model, other))
    assert 0 < wanted.min() < wanted.max() < 1e-5
    np.testing.assert_allclose(given, wanted, rtol=2e-6 if "xgboost" in name else 1e-12, atol=0)


def test_xgboost_survival_with_bounds_answers_the_same():
    matrix = xgboost.DMatrix(ROWS, nthread=1)
    matrix.set_float_info("label_lower_bound", np.exp(FIRST))
    matrix.set_float_info("label_upper_bound", np.exp(FIRST) + 1)
    same(of_xgboost(xgboost.train({"objective": "survival:aft", "nthread": 1}, matrix, 3)), 2e-6)


def test_an_xgboost_estimator_answers_with_its_best_rounds_and_a_booster_with_all():
    estimator = xgboost.XGBClassifier(n_estimators=30, n_jobs=1, early_stopping_rounds=2, max_depth=3)
    estimator.fit(ROWS[:60], THIRDS[:60], eval_set=[(ROWS[60:], THIRDS[60:])], verbose=False)
    booster = estimator.get_booster()
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()
    every = same(of_xgboost(booster), 2e-6)
    booster.set_attr(scikit_learn="{}")  # as an estimator's save_model does
    best = same(of_xgboost(booster), 2e-6)
    assert len(every.data) > len(best.data)


def test_rounds_that_found_no_split_answer_the_same():
    booster = trees.xgboost_booster(ROWS, FIRST, rounds=2)
    stump = xgboost.train(
        {"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 2, "gamma": 1e9, "nthread": 1},
        xgboost.DMatrix(ROWS, FIRST),
        2,
        xgb_model=booster,
    )
    same(of_xgboost(stump), 2e-6)


LIGHTGBM = [
    ({"objective": "regression"}, FIRST),
    ({"objective": "regression", "reg_sqrt": True}, FIRST),
    ({"objective": "regression", "boosting": "dart"}, FIRST),
    ({"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, FIRST),
    ({"objective": "regression_l1"}, FIRST),
    ({"objective": "huber"}, FIRST),
    ({"objective": "fair"}, FIRST),
    ({"objective": "quantile", "alpha": 0.9}, FIRST),
    ({"objective": "mape"}, FIRST),
    ({"objective": "poisson"}, np.exp(FIRST)),
    ({"objective": "gamma"}, np.exp(FIRST)),
    ({"objective": "tweedie"}, np.exp(FIRST)),
    ({"objective": "cross_entropy"}, 1 / (1 + np.exp(-FIRST))),
    ({"objective": "lambdarank"}, HALVES),
    ({"objective": "rank_xendcg"}, HALVES),
    ({"objective": "binary"}, HALVES),
    ({"objective": "binary", "sigmoid": 2.5}, HALVES),
    ({"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, HALVES),
    ({"objective": "multiclass", "num_class": 3}, THIRDS),
    ({"objective": "multiclassova", "num_class": 3, "sigmoid": 0.5}, THIRDS),
]


@pytest.mark.parametrize(("params", "target"), LIGHTGBM, ids=named)
def test_lightgbm_answers_the_same(params, target):
    same(of_lightgbm(trees.lightgbm_booster(ROWS, target, **params)), 1e-12)


@pytest.mark.parametrize("rows", [ROWS, WHOLE, WITH_ZEROS, np.nan_to_num(WITH_ZEROS)], ids=["gaps", "whole", "zeros", "sparse"])
@pytest.mark.parametrize("params", [{}, {"zero_as_missing": True}, {"use_missing": False}], ids=["nan", "zero", "none"])
def test_every_kind_of_missing_value_of_lightgbm_goes_its_way(rows, params):
    booster = trees.lightgbm_booster(rows, np.nan_to_num(rows[:, 0]) - rows[:, 1] ** 2 + SECOND, rounds=20, **params)
    same(of_lightgbm(booster), 1e-12)


def test_an_objective_of_ones_own_answers_the_sums():
    booster = trees.lightgbm_booster(ROWS, FIRST, objective=lambda given, data: (given - data.get_label(), np.ones(len(given))))
    same(of_lightgbm(booster), 1e-12)


def test_missing_values_of_every_kind_are_in_these_tests():
    kinds = set()
    for rows, params in ((ROWS, {}), (WHOLE, {}), (WITH_ZEROS, {"zero_as_missing": True})):
        text = trees.lightgbm_booster(rows, SECOND, rounds=20, **params).model_to_string()
        lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("decision_type=")]
        kinds |= {int(one) for line in lines for one in line.split()}
    assert {kind >> 2 for kind in kinds} == {0, 1, 2}
    assert {kind & 2 for kind in kinds if kind >> 2} == {0, 2}  # to the left, and to the right


CATBOOST = [
    ({}, FIRST),
    ({"nan_mode": "Max"}, FIRST),
    ({"grow_policy": "Lossguide"}, FIRST),
    ({"grow_policy": "Lossguide", "nan_mode": "Max", "iterations": 20, "depth": 6, "min_data_in_leaf": 3}, FIRST),
    ({"grow_policy": "Depthwise"}, FIRST),
    ({"loss_function": "MultiRMSE"}, BOTH),
    ({"loss_function": "MultiRMSE", "boost_from_average": False}, BOTH),
    ({"loss_function": "MAE"}, FIRST),
    ({"loss_function": "Poisson"}, np.exp(FIRST)),
    ({"loss_function": "Tweedie:variance_power=1.5"}, np.exp(FIRST)),
    ({"loss_function": "Quantile:alpha=0.9"}, FIRST),
]
CATBOOST_CLASSES = [
    ({}, HALVES),
    ({"nan_mode": "Max"}, HALVES),
    ({"loss_function": "CrossEntropy"}, HALVES),
    ({}, HALVES.astype(bool)),
    ({}, np.array(["ham", "eggs"])[HALVES]),
    ({}, np.array([0.5, 1.5])[HALVES]),
    ({}, np.array(["ham", "eggs", "spam"])[THIRDS]),
    ({}, np.array([10, 20, 30])[THIRDS]),
    ({"loss_function": "MultiClass", "grow_policy": "Lossguide"}, THIRDS),
    ({"loss_function": "MultiClass"}, HALVES),
    ({"loss_function": "MultiClassOneVsAll"}, THIRDS),
    ({"loss_function": "MultiLogloss"}, (BOTH > 0).astype(int)),
]


@pytest.mark.parametrize(("params", "target"), CATBOOST, ids=named)
def test_catboost_regressors_answer_the_same(params, target):
    same(of_catboost(trees.catboost_model(catboost.CatBoostRegressor, ROWS, target, **params)), 1e-12)


@pytest.mark.parametrize(("params", "target"), CATBOOST_CLASSES, ids=named)
def test_catboost_classifiers_answer_the_same(params, target):
    same(of_catboost(trees.catboost_model(catboost.CatBoostClassifier, ROWS, target, **params)), 1e-12)


def test_catboost_rankers_and_scaled_models_answer_the_same():
    ranker = trees.catboost_model(catboost.CatBoostRanker, ROWS, FIRST, group_id=np.arange(len(ROWS)) // 9)
    same(of_catboost(ranker), 1e-12)
    scaled = trees.catboost_model(catboost.CatBoostRegressor, ROWS, FIRST)
    scaled.set_scale_and_bias(2.5, -1.25)
    same(of_catboost(scaled), 1e-12)


@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.0, 1.0])
def test_a_threshold_of_probability_decides_of_two_classes(threshold):
    estimator = trees.catboost_model()
    estimator.set_probability_threshold(threshold)
    model = of_catboost(estimator)
    other = OnnxRunner().load(Artifact(model.compiled().data, "onnx"), LoadOptions(signature=model.facts.signature))
    rows = {"input": ROWS.astype(np.float32)}
    np.testing.assert_array_equal(other.run(rows)["label"], model.run(rows)["label"])


def test_the_inputs_and_outputs_are_the_declared_ones():
    model = of_xgboost(trees.xgboost_booster(ROWS, THIRDS, objective="multi:softprob", num_class=3))
    graph = onnx.load_from_string(model.compiled().data).graph
    assert [one.name for one in graph.input] == ["input"]
    assert [one.name for one in graph.output] == ["label", "probabilities"]
    assert [one.op_type for one in graph.node].count("TreeEnsemble") == 1


def test_edges_are_the_thresholds_by_column():
    booster = trees.xgboost_booster(ROWS, FIRST)
    document = json.loads(bytes(booster.save_raw("json")))
    wanted = [set() for _ in range(4)]
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        for column, value, left in zip(tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True):
            if left != -1:
                wanted[column].add(float(np.float32(value)))
    assert [set(one) for one in of_xgboost(booster).compiled().edges] == wanted


def test_zero_must_be_missing_in_all_splits_of_a_column_or_in_none():
    booster = trees.lightgbm_booster(WITH_ZEROS, SECOND, rounds=20, zero_as_missing=True)
    signature = of_lightgbm(booster).facts.signature
    lines = booster.model_to_string().splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("decision_type="))
    first, *rest = lines[at].removeprefix("decision_type=").split()
    lines[at] = "decision_type=" + " ".join([str(int(first) & 3 | 8), *rest])
    with pytest.raises(CannotCompile, match="do not agree"):
        lightgbm_onnx.compiled("\n".join(lines).encode(), "regression", signature)


class Renamed:
    """A booster of an objective that XGBoost may have one day."""

    def __init__(self, booster):
        document = json.loads(bytes(booster.save_raw("json")))
        document["learner"]["objective"]["name"] = "reg:unheard"
        self._data = json.dumps(document).encode()

    def save_raw(self, raw_format):
        assert raw_format == "ubj"
        return self._data


def test_an_unknown_objective_is_not_guessed():
    booster = trees.xgboost_booster(ROWS, FIRST)
    with pytest.raises(CannotCompile, match="reg:unheard"):
        xgboost_onnx.compiled(Renamed(booster), (0, 0), of_xgboost(booster).facts.signature)


def columns(table):
    kinds = {"f": Dtype.FP64, "i": Dtype.INT64, "b": Dtype.BOOL}
    return {"sample": tuple(Column(name, kinds.get(table[name].dtype.kind, Dtype.BYTES), nullable=True) for name in table)}


def with_codes(**options):
    table = trees.mixed(texts=False)
    return of_xgboost(trees.xgboost_booster(table, trees.score(table)), **options)


GAPLESS = trees.without_gaps(TABLE)
NOT_CONVERTED = {
    "texts as categories": (
        lambda: of_xgboost(trees.xgboost_booster(TABLE, trees.score(TABLE)), **columns(TABLE)),
        "categories",
    ),
    "numbers as categories": (with_codes, "categories"),
    "a linear booster": (lambda: of_xgboost(trees.xgboost_booster(ROWS, FIRST, booster="gblinear")), "no trees"),
    "leaves of several numbers": (
        lambda: of_xgboost(trees.xgboost_booster(ROWS, BOTH, multi_strategy="multi_output_tree")),
        "several numbers",
    ),
    "texts in LightGBM": (
        lambda: of_lightgbm(trees.lightgbm_booster(TABLE, trees.score(TABLE)), **columns(TABLE)),
        "categories",
    ),
    "numbers as categories in LightGBM": (
        lambda: of_lightgbm(trees.lightgbm_booster(np.abs(np.nan_to_num(ROWS * 3)).round(), FIRST, categorical=[0, 1])),
        "categories",
    ),
    "linear leaves": (
        lambda: of_lightgbm(trees.lightgbm_booster(ROWS, FIRST, objective="regression", linear_tree=True)),
        "linear models",
    ),
    "a logarithm of one more": (
        lambda: of_lightgbm(trees.lightgbm_booster(ROWS, HALVES, objective="cross_entropy_lambda")),
        "cross_entropy_lambda",
    ),
    "texts in CatBoost": (
        lambda: of_catboost(
            trees.catboost_model(catboost.CatBoostRegressor, GAPLESS, trees.score(TABLE), cat_features=["colour", "street"])
        ),
        "categories",
    ),
    "uncertainty": (
        lambda: of_catboost(trees.catboost_model(catboost.CatBoostRegressor, ROWS, FIRST, loss_function="RMSEWithUncertainty")),
        "RMSEWithUncertainty",
    ),
}


@pytest.mark.parametrize("what", NOT_CONVERTED)
def test_what_is_not_converted_is_said(what):
    made, word = NOT_CONVERTED[what]
    model = made()
    with pytest.raises(CannotCompile, match=word):
        model.compiled()
