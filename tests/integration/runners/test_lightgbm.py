"""LightGBM files answer exactly as LightGBM does in the process that trained them."""

import re

import lightgbm
import numpy as np
import pandas as pd
import pytest

from fixtures import trees
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Column, LoadOptions
from modelkeep.contracts.signature import Dtype, Layout
from modelkeep.plugins.runners.trees.lightgbm import LightgbmRunner

ROWS = trees.numbers()
FIRST = np.nan_to_num(ROWS[:, 0])
HALVES = (FIRST > 0).astype(int)
THIRDS = np.digitize(FIRST, [-0.4, 0.4])
TABLE = trees.mixed()


def load(data, **options):
    return LightgbmRunner().load(Artifact(data, "lightgbm"), LoadOptions(**options))


def served(booster, rows, **options):
    model = load(booster.model_to_string().encode(), **options)
    return model, model.run(trees.as_inputs(model.facts.signature, rows))


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"objective": "regression"}, FIRST),
        ({"objective": "regression", "reg_sqrt": True}, FIRST),
        ({"objective": "regression", "boosting": "dart"}, FIRST),
        ({"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, FIRST),
        ({"objective": "regression", "linear_tree": True}, FIRST),
        ({"objective": "regression_l1"}, FIRST),
        ({"objective": "huber"}, FIRST),
        ({"objective": "fair"}, FIRST),
        ({"objective": "quantile", "alpha": 0.9}, FIRST),
        ({"objective": "mape"}, FIRST),
        ({"objective": "poisson"}, np.exp(FIRST)),
        ({"objective": "gamma"}, np.exp(FIRST)),
        ({"objective": "tweedie"}, np.exp(FIRST)),
        ({"objective": "cross_entropy"}, HALVES),
        ({"objective": "cross_entropy_lambda"}, HALVES),
        ({"objective": "lambdarank"}, HALVES),
        ({"objective": "rank_xendcg"}, HALVES),
    ],
    ids=lambda one: "-".join(map(str, one.values())) if isinstance(one, dict) else "",
)
def test_objectives_of_numbers_answer_what_predict_answers(params, target):
    booster = trees.lightgbm_booster(ROWS, target, **params)
    model, answer = served(booster, ROWS)
    assert list(answer) == ["value"]
    np.testing.assert_array_equal(answer["value"], booster.predict(ROWS))
    assert model.facts.details["objective"].split()[0] == params["objective"]
    assert len(np.unique(answer["value"])) > 1


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({}, HALVES),
        ({"boosting_type": "dart"}, HALVES),
        ({}, THIRDS),
        ({"objective": "multiclassova"}, THIRDS),
        ({"is_unbalance": True}, HALVES),
    ],
)
def test_classifiers_answer_what_the_estimator_answers(params, target):
    estimator = lightgbm.LGBMClassifier(
        n_estimators=4, num_leaves=7, min_child_samples=3, n_jobs=1, verbosity=-1, **params
    ).fit(ROWS, target)
    model, answer = served(estimator.booster_, ROWS)
    np.testing.assert_array_equal(answer["label"], estimator.predict(ROWS))
    np.testing.assert_array_equal(answer["probabilities"], estimator.predict_proba(ROWS))
    assert model.facts.kind == "classifier"
    assert model.facts.signature.outputs[1].classes == tuple(str(one) for one in estimator.classes_)


def test_a_custom_objective_answers_its_raw_values():
    def squares(values, rows):
        return values - rows.get_label(), np.ones(len(values))

    booster = trees.lightgbm_booster(ROWS, FIRST, objective=squares)
    model, answer = served(booster, ROWS)
    np.testing.assert_array_equal(answer["value"], booster.predict(ROWS))
    assert model.facts.details["objective"] == "custom"


def test_training_that_stopped_early_answers_with_its_best_rounds():
    answers = np.where(np.random.default_rng(1).random(len(ROWS)) < 0.3, 1 - HALVES, HALVES)
    data = lightgbm.Dataset(ROWS[1::2], answers[1::2])
    booster = lightgbm.train(
        {"objective": "binary", "num_threads": 1, "verbosity": -1, "min_data_in_leaf": 2, "seed": 3},
        data,
        50,
        valid_sets=[lightgbm.Dataset(ROWS[::2], answers[::2], reference=data)],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    assert 1 < booster.best_iteration < 50
    _model, answer = served(booster, ROWS)
    np.testing.assert_array_equal(answer["probabilities"][:, 1], booster.predict(ROWS))


def test_columns_without_names_are_one_matrix():
    (only,) = load(trees.lightgbm_file()).facts.signature.inputs
    assert (only.name, only.dtype, only.shape, only.nullable, only.columns) == ("input", Dtype.FP64, (-1, 4), True, ())


def test_named_columns_of_numbers_are_one_matrix_with_names():
    table = TABLE[["weight", "rooms", "garden"]]
    booster = trees.lightgbm_booster(table, trees.score(TABLE))
    model, answer = served(booster, table)
    assert model.facts.signature.inputs[0].columns == ("weight", "rooms", "garden")
    np.testing.assert_array_equal(answer["value"], booster.predict(table))


def test_categories_of_texts_are_a_table_and_answer_as_a_data_frame():
    booster = trees.lightgbm_booster(TABLE, trees.score(TABLE))
    model, answer = served(booster, TABLE)
    kinds = {one.name: one.dtype for one in model.facts.signature.inputs}
    assert {name for name, dtype in kinds.items() if dtype is Dtype.BYTES} == {"colour", "street"}
    np.testing.assert_array_equal(answer["value"], booster.predict(TABLE))
    assert "num_cat=2" in booster.model_to_string()


def test_an_unknown_category_is_a_missing_one_as_lightgbm_has_it():
    booster = trees.lightgbm_booster(TABLE, trees.score(TABLE))
    other = TABLE.head(3).assign(colour=pd.Categorical(["red", "violet", None]))
    _model, answer = served(booster, other)
    np.testing.assert_array_equal(answer["value"], booster.predict(other))


def test_categories_of_whole_numbers_are_given_as_they_are():
    table = trees.mixed(texts=False)
    booster = trees.lightgbm_booster(table, trees.score(table))
    model, answer = served(booster, table.astype({"colour": "Float64"}).astype(float))
    assert model.facts.signature.layout is Layout.MATRIX
    np.testing.assert_array_equal(answer["value"], booster.predict(table))


def test_categories_of_an_array_are_its_codes():
    rows = np.column_stack((THIRDS, ROWS))
    booster = trees.lightgbm_booster(rows, FIRST, categorical=[0])
    _model, answer = served(booster, rows)
    np.testing.assert_array_equal(answer["value"], booster.predict(rows))


def test_where_the_file_does_not_say_which_columns_have_categories_the_sample_does():
    ordered = TABLE.assign(street=TABLE["street"].cat.as_ordered())  # has categories, and is compared as a number
    booster = trees.lightgbm_booster(ordered, trees.score(TABLE))
    with pytest.raises(CannotLoad) as refused:
        load(booster.model_to_string().encode())
    assert refused.value.reason is Reason.SAMPLE_NEEDED
    sample = tuple(Column(name, Dtype.BYTES if name in {"colour", "street"} else Dtype.FP64) for name in TABLE.columns)
    model, answer = served(booster, ordered, sample=sample)
    np.testing.assert_array_equal(answer["value"], booster.predict(ordered))
    _model, again = served(booster, ordered, signature=model.facts.signature)
    np.testing.assert_array_equal(again["value"], answer["value"])


def test_a_sample_of_other_columns_is_refused():
    with pytest.raises(CannotLoad) as refused:
        load(trees.lightgbm_file(), sample=(Column("a", Dtype.FP64),))
    assert refused.value.reason is Reason.SAMPLE_MISMATCH


def test_a_file_without_parameters_or_categories_as_other_tools_write_it_is_loaded():
    data = trees.lightgbm_file()
    expected = load(data).run({"input": ROWS})["probabilities"]
    for text in (data[: data.index(b"\npandas_categorical")], re.sub(rb"(?s)parameters:.*end of parameters\n", b"", data)):
        np.testing.assert_array_equal(load(text).run({"input": ROWS})["probabilities"], expected)


CONTRADICTIONS = {
    "a circle": (rb"left_child=\d+", b"left_child=0"),
    "a branch to nowhere": (rb"right_child=\S+", b"right_child=77"),
    "a leaf that is none": (rb"right_child=\S+", b"right_child=-77"),
    "a column that is none": (rb"split_feature=\d+", b"split_feature=9"),
    "fewer leaves": (rb"leaf_value=\S+ ", b"leaf_value="),
    "a category that is none": (rb"decision_type=\d+", b"decision_type=1"),
    "other counts": (rb"num_leaves=\d+", b"num_leaves=900000000"),
    "no number": (rb"threshold=\S+", b"threshold=abc"),
    "more columns": (rb"max_feature_idx=3", b"max_feature_idx=8"),
    "more classes": (rb"num_class=1", b"num_class=7"),
    "more trees a round": (rb"num_tree_per_iteration=1", b"num_tree_per_iteration=3"),
    "no objective that fits": (rb"objective=binary sigmoid:1", b"objective=multiclass num_class:3"),
    "trees in another order": (rb"Tree=1", b"Tree=2"),
}


def edited(pattern, text):
    """The file with one part changed, and the lengths of its trees put right."""
    data, count = re.subn(pattern, text, trees.lightgbm_file(), count=1)
    assert count == 1
    starts = [one.start() for one in re.finditer(rb"^Tree=\d+$", data, re.MULTILINE)]
    ends = [*starts[1:], data.index(b"end of trees")]
    sizes = b" ".join(str(end - start).encode() for start, end in zip(starts, ends, strict=True))
    return re.sub(rb"tree_sizes=.*", b"tree_sizes=" + sizes, data)


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_file_that_contradicts_itself_never_reaches_lightgbm(what):
    with pytest.raises(CannotLoad, match="The file is damaged") as refused:
        load(edited(*CONTRADICTIONS[what]))
    assert refused.value.reason is Reason.LOAD_FAILED


def test_trees_of_other_lengths_than_the_head_says_are_refused():
    with pytest.raises(CannotLoad, match="other lengths"):
        load(re.sub(rb"tree_sizes=\d", b"tree_sizes=9", trees.lightgbm_file()))
