"""CatBoost files answer exactly as the estimators do that were trained."""

import struct

import catboost
import numpy as np
import pandas as pd
import pytest

from fixtures import trees
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Column, LoadOptions
from modelkeep.contracts.signature import Dtype
from modelkeep.plugins.runners.trees.catboost import CatboostRunner

ROWS = trees.numbers()
FIRST = np.nan_to_num(ROWS[:, 0])
HALVES = (FIRST > 0).astype(int)
THIRDS = np.digitize(FIRST, [-0.4, 0.4])
TABLE = trees.without_gaps(trees.mixed())
SCORE = trees.score(trees.mixed())
CATEGORIES = ["colour", "street"]


def load(data, **options):
    return CatboostRunner().load(Artifact(data, "catboost"), LoadOptions(**options))


def served(estimator, rows, **options):
    model = load(trees.catboost_file(estimator), **options)
    return model, model.run(trees.as_inputs(model.facts.signature, rows))


def with_categories(**params):
    """Categories are counted in tables (a column of few is compared directly)."""
    return trees.catboost_model(
        catboost.CatBoostRegressor, TABLE, SCORE, cat_features=CATEGORIES, **{"one_hot_max_size": 2, "iterations": 10, **params}
    )


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        ("RMSE", FIRST),
        ("MAE", FIRST),
        ("Quantile:alpha=0.9", FIRST),
        ("MAPE", np.exp(FIRST)),
        ("Huber:delta=1.0", FIRST),
        ("Poisson", np.exp(FIRST)),
        ("Tweedie:variance_power=1.5", np.exp(FIRST)),
        ("RMSEWithUncertainty", FIRST),
        ("MultiRMSE", np.stack((FIRST, -FIRST), axis=1)),
        ("MultiQuantile:alpha=0.1,0.5,0.9", FIRST),
        ("SurvivalAft", np.stack((np.exp(FIRST), np.exp(FIRST) + 1), axis=1)),
    ],
)
def test_regressors_answer_what_predict_answers(loss, target):
    estimator = trees.catboost_model(catboost.CatBoostRegressor, ROWS, target, loss_function=loss)
    model, answer = served(estimator, ROWS)
    assert list(answer) == ["value"]
    np.testing.assert_array_equal(answer["value"], estimator.predict(ROWS))
    assert model.facts.details["loss"] == loss.partition(":")[0]


@pytest.mark.parametrize("loss", ["YetiRank", "QueryRMSE"])
def test_rankers_answer_what_predict_answers(loss):
    groups = np.arange(len(ROWS)) // 10
    estimator = trees.catboost_model(catboost.CatBoostRanker, ROWS, HALVES, loss_function=loss, group_id=groups)
    model, answer = served(estimator, ROWS)
    assert model.facts.kind == "ranker"
    np.testing.assert_array_equal(answer["value"], estimator.predict(ROWS))


@pytest.mark.parametrize(
    ("target", "dtype", "params"),
    [
        (HALVES, Dtype.INT64, {}),
        (HALVES == 1, Dtype.BOOL, {}),
        (HALVES + 0.5, Dtype.FP64, {}),
        (np.where(HALVES, "yes", "no"), Dtype.BYTES, {}),
        (np.array(["a", "b", "c"])[THIRDS], Dtype.BYTES, {}),
        (THIRDS * 10, Dtype.INT64, {"loss_function": "MultiClassOneVsAll"}),
        (1 / (1 + np.exp(-FIRST)), Dtype.INT64, {"loss_function": "CrossEntropy"}),
        (HALVES, Dtype.INT64, {"loss_function": "Focal:focal_alpha=0.4;focal_gamma=2.0"}),
    ],
)
def test_classifiers_answer_what_the_estimator_answers(target, dtype, params):
    estimator = trees.catboost_model(catboost.CatBoostClassifier, ROWS, target, **params)
    model, answer = served(estimator, ROWS)
    label, probabilities = model.facts.signature.outputs
    assert label.dtype is dtype
    assert probabilities.classes == tuple(str(one) for one in estimator.classes_.tolist())
    expected = estimator.predict(ROWS)
    np.testing.assert_array_equal(answer["label"], expected.reshape(len(expected)))
    np.testing.assert_array_equal(answer["probabilities"], estimator.predict_proba(ROWS))
    assert len(np.unique(answer["label"].astype(str))) > 1


def test_a_moved_threshold_of_the_label_is_kept():
    estimator = trees.catboost_model(catboost.CatBoostClassifier, ROWS, HALVES)
    before = estimator.predict(ROWS)
    estimator.set_probability_threshold(0.8)
    _model, answer = served(estimator, ROWS)
    np.testing.assert_array_equal(answer["label"], estimator.predict(ROWS))
    assert (answer["label"] != before).any()


def test_several_labels_a_row_have_their_own_probabilities():
    target = np.stack((HALVES, 1 - HALVES, THIRDS == 1), axis=1).astype(int)
    estimator = trees.catboost_model(catboost.CatBoostClassifier, ROWS, target, loss_function="MultiLogloss")
    model, answer = served(estimator, ROWS)
    np.testing.assert_array_equal(answer["label"], estimator.predict(ROWS))
    for at, expected in enumerate(estimator.predict_proba(ROWS).T):
        np.testing.assert_array_equal(answer[f"probabilities_{at}"][:, 1], expected)
    assert [one.shape for one in model.facts.signature.outputs] == [(-1, 3), (-1, 2), (-1, 2), (-1, 2)]


def test_training_that_stopped_early_answers_with_its_best_rounds():
    estimator = catboost.CatBoostClassifier(
        iterations=60, depth=3, thread_count=1, verbose=0, allow_writing_files=False, learning_rate=0.9
    )
    estimator.fit(ROWS[::2], THIRDS[::2], eval_set=(ROWS[1::2], THIRDS[1::2]), early_stopping_rounds=3)
    assert estimator.tree_count_ < 60
    _model, answer = served(estimator, ROWS)
    np.testing.assert_array_equal(answer["probabilities"], estimator.predict_proba(ROWS))


def test_columns_without_names_are_one_matrix():
    (only,) = load(trees.catboost_file()).facts.signature.inputs
    assert (only.name, only.dtype, only.shape, only.nullable, only.columns) == ("input", Dtype.FP32, (-1, 4), True, ())


def test_named_columns_of_numbers_are_one_matrix_with_names():
    table = TABLE[["weight", "rooms", "garden"]]
    estimator = trees.catboost_model(catboost.CatBoostRegressor, table, SCORE)
    model, answer = served(estimator, table)
    assert model.facts.signature.inputs[0].columns == ("weight", "rooms", "garden")
    np.testing.assert_array_equal(answer["value"], estimator.predict(table))


@pytest.mark.parametrize("params", [{}, {"one_hot_max_size": 100}, {"max_ctr_complexity": 1}])
def test_categories_are_a_table_and_answer_as_a_data_frame(params):
    estimator = with_categories(**params)
    model, answer = served(estimator, TABLE)
    kinds = {one.name: (one.dtype, one.nullable) for one in model.facts.signature.inputs}
    assert kinds == dict.fromkeys(["weight", "height", "rooms", "garden"], (Dtype.FP32, True)) | dict.fromkeys(
        CATEGORIES, (Dtype.BYTES, False)
    )
    np.testing.assert_array_equal(answer["value"], estimator.predict(TABLE))
    assert len(np.unique(answer["value"])) > 5


def test_an_unknown_category_is_answered_as_catboost_answers_it():
    estimator = with_categories()
    other = TABLE.head(3).assign(colour=["red", "violet", "pink"])
    _model, answer = served(estimator, other)
    np.testing.assert_array_equal(answer["value"], estimator.predict(other))


def test_the_sample_tells_categories_that_are_whole_numbers_from_texts():
    table = pd.DataFrame({"size": FIRST, "floor": THIRDS, "lift": HALVES == 1})
    estimator = trees.catboost_model(
        catboost.CatBoostRegressor, table, FIRST + THIRDS, cat_features=["floor", "lift"], one_hot_max_size=1
    )
    sample = (Column("size", Dtype.FP64), Column("floor", Dtype.INT64), Column("lift", Dtype.BOOL))
    model, answer = served(estimator, table, sample=sample)
    assert [one.dtype for one in model.facts.signature.inputs] == [Dtype.FP32, Dtype.INT64, Dtype.BOOL]
    np.testing.assert_array_equal(answer["value"], estimator.predict(table))
    texts = table.assign(floor=table["floor"].astype(str), lift=table["lift"].astype(int).astype(str))
    _model, again = served(estimator, texts)
    np.testing.assert_array_equal(again["value"], answer["value"])


def test_columns_of_texts_are_refused():
    table = pd.DataFrame({"a": FIRST, "said": ["good day", "bad night", "so so"] * 30})
    estimator = trees.catboost_model(catboost.CatBoostClassifier, table, HALVES, text_features=["said"])
    with pytest.raises(CannotLoad, match="columns of texts") as refused:
        load(trees.catboost_file(estimator))
    assert refused.value.reason is Reason.SIGNATURE_UNSUPPORTED


def test_a_file_cut_within_its_tables_of_categories_never_reaches_catboost():
    data = trees.catboost_file(with_categories())
    core_end = 8 + struct.unpack_from("<I", data, 4)[0]
    assert core_end < len(data)
    for size in (6, 40, core_end - 1, core_end + 2, core_end + 6, core_end + 60, len(data) - 1):
        with pytest.raises(CannotLoad) as refused:
            load(data[:size])
        assert refused.value.reason is Reason.TRUNCATED
    with pytest.raises(CannotLoad, match="more follows") as refused:
        load(data + b"\0")


def test_a_sample_of_other_columns_is_refused():
    with pytest.raises(CannotLoad) as refused:
        load(trees.catboost_file(), sample=(Column("a", Dtype.FP64),))
    assert refused.value.reason is Reason.SAMPLE_MISMATCH
