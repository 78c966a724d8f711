"""XGBoost files answer exactly as XGBoost does in the process that trained them."""

import json

import numpy as np
import pandas as pd
import pytest
import xgboost

from fixtures import trees
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotLoad, Column, LoadOptions
from modelkeep.contracts.signature import Dtype, Layout
from modelkeep.plugins.runners.trees.xgboost import XgboostRunner

ROWS = trees.numbers()
FIRST = np.nan_to_num(ROWS[:, 0])
HALVES = (FIRST > 0).astype(int)
THIRDS = np.digitize(FIRST, [-0.4, 0.4])
TABLE = trees.mixed()
FORMS = {"json": "xgboost-json", "ubj": "xgboost-ubj"}


def load(data, form="xgboost-json", **options):
    return XgboostRunner().load(Artifact(bytes(data), form), LoadOptions(**options))


def served(booster, rows, form="json"):
    model = load(booster.save_raw(form), FORMS[form])
    return model, model.run(trees.as_inputs(model.facts.signature, rows))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"objective": "reg:squarederror"}, FIRST),
        ({"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.5}, FIRST),
        ({"objective": "reg:squarederror", "booster": "gblinear"}, FIRST),
        ({"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5}, FIRST),
        ({"objective": "reg:squarederror"}, np.stack((FIRST, -FIRST), axis=1)),
        ({"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"}, np.stack((FIRST, -FIRST), axis=1)),
        ({"objective": "reg:absoluteerror"}, FIRST),
        ({"objective": "reg:pseudohubererror"}, FIRST),
        ({"objective": "reg:logistic"}, HALVES),
        ({"objective": "reg:gamma"}, np.exp(FIRST)),
        ({"objective": "reg:tweedie"}, np.exp(FIRST)),
        ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, FIRST),
        ({"objective": "count:poisson"}, np.exp(FIRST).round()),
        ({"objective": "binary:logitraw"}, HALVES),
        ({"objective": "survival:cox"}, np.exp(FIRST)),
        ({"objective": "rank:pairwise"}, HALVES),
        ({"objective": "rank:ndcg"}, HALVES),
    ],
    ids=lambda one: "-".join(map(str, one.values())) if isinstance(one, dict) else "",
)
def test_objectives_of_numbers_answer_what_predict_answers(form, params, target):
    booster = trees.xgboost_booster(ROWS, target, **params)
    model, answer = served(booster, ROWS, form)
    expected = booster.predict(xgboost.DMatrix(ROWS))
    assert list(answer) == ["value"]
    assert answer["value"].dtype == expected.dtype
    np.testing.assert_array_equal(answer["value"], expected)
    assert model.facts.details["objective"] == params["objective"]


def test_survival_with_bounds_answers_what_predict_answers():
    matrix = xgboost.DMatrix(ROWS, nthread=1)
    matrix.set_float_info("label_lower_bound", np.exp(FIRST))
    matrix.set_float_info("label_upper_bound", np.exp(FIRST) + 1)
    booster = xgboost.train({"objective": "survival:aft", "nthread": 1}, matrix, 3)
    _model, answer = served(booster, ROWS)
    np.testing.assert_array_equal(answer["value"], booster.predict(xgboost.DMatrix(ROWS)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"objective": "binary:logistic"}, HALVES),
        ({"objective": "binary:logistic", "booster": "dart"}, HALVES),
        ({"objective": "binary:logistic", "booster": "gblinear"}, HALVES),
        ({"objective": "multi:softprob"}, THIRDS),
        ({"objective": "multi:softmax"}, THIRDS),
    ],
)
def test_classifiers_answer_what_the_estimator_answers(form, params, target, tmp_path):
    estimator = xgboost.XGBClassifier(n_estimators=4, n_jobs=1, **params).fit(ROWS, target)
    path = tmp_path / f"model.{form}"
    estimator.save_model(path)
    model = load(path.read_bytes(), FORMS[form])
    answer = model.run({"input": ROWS.astype(np.float32)})
    assert list(answer) == ["label", "probabilities"]
    np.testing.assert_array_equal(answer["label"], estimator.predict(ROWS))
    np.testing.assert_array_equal(answer["probabilities"], estimator.predict_proba(ROWS))
    assert answer["label"].dtype == np.int64
    assert model.facts.kind == "classifier"
    assert model.facts.signature.outputs[1].classes == tuple(str(one) for one in estimator.classes_)


def test_a_hinge_answers_labels_only():
    booster = trees.xgboost_booster(ROWS, HALVES, objective="binary:hinge")
    _model, answer = served(booster, ROWS)
    assert list(answer) == ["label"]
    np.testing.assert_array_equal(answer["label"], booster.predict(xgboost.DMatrix(ROWS)))


def test_several_labels_a_row_have_their_own_probabilities():
    target = np.stack((HALVES, 1 - HALVES, THIRDS == 1), axis=1).astype(int)
    estimator = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(ROWS, target)
    model, answer = served(estimator.get_booster(), ROWS)
    np.testing.assert_array_equal(answer["label"], estimator.predict(ROWS))
    for at, expected in enumerate(estimator.predict_proba(ROWS).T):
        np.testing.assert_array_equal(answer[f"probabilities_{at}"][:, 1], expected)
    assert [one.shape for one in model.facts.signature.outputs] == [(-1, 3), (-1, 2), (-1, 2), (-1, 2)]


def test_a_custom_objective_answers_its_raw_values():
    matrix = xgboost.DMatrix(ROWS, FIRST, nthread=1)
    booster = xgboost.train(
        {"nthread": 1}, matrix, 3, obj=lambda values, rows: (values - rows.get_label(), np.ones(len(values)))
    )
    _model, answer = served(booster, ROWS)
    np.testing.assert_array_equal(answer["value"], booster.predict(xgboost.DMatrix(ROWS)))


def early_stopped():
    random = np.random.default_rng(1)
    estimator = xgboost.XGBClassifier(n_estimators=40, n_jobs=1, early_stopping_rounds=2, learning_rate=1.0)
    estimator.fit(ROWS, random.integers(0, 2, len(ROWS)), eval_set=[(ROWS[::2], HALVES[::2])], verbose=False)
    assert estimator.best_iteration + 1 < estimator.get_booster().num_boosted_rounds()
    return estimator


def test_an_estimator_that_stopped_early_answers_with_its_best_rounds(tmp_path):
    estimator = early_stopped()
    estimator.save_model(tmp_path / "model.ubj")
    model = load((tmp_path / "model.ubj").read_bytes(), "xgboost-ubj")
    answer = model.run({"input": ROWS})
    np.testing.assert_array_equal(answer["probabilities"], estimator.predict_proba(ROWS))
    assert model.facts.warnings == ()


def test_a_booster_that_stopped_early_answers_with_all_rounds_and_says_so():
    booster = early_stopped().get_booster()
    model, answer = served(booster, ROWS)
    np.testing.assert_array_equal(answer["probabilities"][:, 1], booster.predict(xgboost.DMatrix(ROWS)))
    assert "best after round" in model.facts.warnings[0]


def test_columns_without_names_are_one_matrix():
    signature = load(trees.xgboost_file()).facts.signature
    (only,) = signature.inputs
    assert (only.name, only.dtype, only.shape, only.nullable, only.columns) == ("input", Dtype.FP32, (-1, 4), True, ())


def test_named_columns_of_numbers_are_one_matrix_with_names():
    table = TABLE[["weight", "rooms", "garden"]]
    booster = trees.xgboost_booster(table, trees.score(TABLE))
    model, answer = served(booster, table)
    assert model.facts.signature.inputs[0].columns == ("weight", "rooms", "garden")
    np.testing.assert_array_equal(answer["value"], booster.predict(xgboost.DMatrix(table)))


@pytest.mark.parametrize("form", FORMS)
def test_categories_of_texts_are_a_table_and_answer_as_a_data_frame(form):
    booster = trees.xgboost_booster(TABLE, trees.score(TABLE), max_cat_to_onehot=2)
    model, answer = served(booster, TABLE, form)
    kinds = {one.name: one.dtype for one in model.facts.signature.inputs}
    assert kinds == dict.fromkeys(["weight", "height", "rooms", "garden"], Dtype.FP32) | {
        "colour": Dtype.BYTES,
        "street": Dtype.BYTES,
    }
    np.testing.assert_array_equal(answer["value"], booster.predict(xgboost.DMatrix(TABLE, enable_categorical=True)))
    assert len(np.unique(answer["value"])) > 5


def test_categories_of_whole_numbers_are_given_as_they_are():
    table = trees.mixed(texts=False)
    booster = trees.xgboost_booster(table, trees.score(table))
    model, answer = served(booster, table.astype({"colour": "Float64"}).astype(float))
    assert model.facts.signature.layout is Layout.MATRIX
    np.testing.assert_array_equal(answer["value"], booster.predict(xgboost.DMatrix(table, enable_categorical=True)))


def test_categories_of_an_array_are_its_codes():
    rows = np.column_stack((THIRDS, ROWS))
    types = ["c", "q", "q", "q", "float"]
    matrix = xgboost.DMatrix(rows, FIRST, feature_types=types, enable_categorical=True, nthread=1)
    booster = xgboost.train({"nthread": 1}, matrix, 3)
    _model, answer = served(booster, rows)
    np.testing.assert_array_equal(answer["value"], booster.predict(matrix))


def test_an_unknown_category_is_refused_as_xgboost_refuses_it():
    booster = trees.xgboost_booster(TABLE, trees.score(TABLE))
    other = TABLE.head(2).assign(colour=pd.Categorical(["red", "violet"]))
    with pytest.raises(xgboost.core.XGBoostError):
        booster.predict(xgboost.DMatrix(other, enable_categorical=True))
    with pytest.raises(ValueError, match=r"'violet' of 'colour'"):
        served(booster, other)


def test_the_sample_decides_between_numbers_and_yes_or_no_in_a_table():
    sample = tuple(Column(name, Dtype.BOOL if name == "garden" else Dtype.FP64) for name in TABLE.columns)
    model = load(trees.xgboost_booster(TABLE, trees.score(TABLE)).save_raw("json"), sample=sample)
    kinds = {one.name: (one.dtype, one.nullable) for one in model.facts.signature.inputs}
    assert kinds["garden"] == (Dtype.BOOL, False)
    assert kinds["rooms"] == (Dtype.FP32, True)


@pytest.mark.parametrize("names", [("a", "b"), ("", "")])
def test_a_sample_of_other_columns_is_refused(names):
    data = trees.xgboost_booster(TABLE[["weight", "rooms", "garden"]], trees.score(TABLE)).save_raw("json")
    with pytest.raises(CannotLoad) as refused:
        load(data, sample=tuple(Column(name, Dtype.FP64) for name in names))
    assert refused.value.reason is Reason.SAMPLE_MISMATCH


OLD_BINARY = bytes(136) + (16).to_bytes(8, "little") + b"reg:squarederror" + (6).to_bytes(8, "little") + b"gbtree"


@pytest.mark.parametrize("data", [b"binf" + bytes(200), b"bs64\tAAAA", OLD_BINARY])
def test_the_old_binary_format_is_refused_with_advice(data):
    assert XgboostRunner.recognise(data, data) == "xgboost-ubj"
    with pytest.raises(CannotLoad) as refused:
        load(data, "xgboost-ubj")
    assert refused.value.reason is Reason.MISMATCH
    assert "save it as .json or .ubj" in refused.value.detail


def test_json_with_words_for_numbers_is_read():
    document = trees.xgboost_file().replace(b'"sum_hessian":[', b'"sum_hessian":[Infinity,', 1)
    with pytest.raises(CannotLoad, match="different lengths"):
        load(document)
    with pytest.raises(CannotLoad) as refused:
        load(document[:-30])
    assert refused.value.reason is Reason.TRUNCATED


def edited(change):
    document = json.loads(trees.xgboost_file())
    learner = document["learner"]
    change(learner, learner["gradient_booster"]["model"])
    return json.dumps(document).encode()


CONTRADICTIONS = {
    "a circle": lambda _learner, model: model["trees"][0]["left_children"].__setitem__(1, 1),
    "a branch to nowhere": lambda _learner, model: model["trees"][0]["right_children"].__setitem__(0, 10_000),
    "a column that is none": lambda _learner, model: model["trees"][0]["split_indices"].__setitem__(0, 4),
    "another parent": lambda _learner, model: model["trees"][0]["parents"].__setitem__(1, 2),
    "fewer leaves": lambda _learner, model: model["trees"][0]["base_weights"].pop(),
    "more trees": lambda _learner, model: model["gbtree_model_param"].__setitem__("num_trees", "5"),
    "trees in another order": lambda _learner, model: model["trees"][0].__setitem__("id", 3),
    "leaves of several outputs": lambda _learner, model: model["trees"][0]["tree_param"].__setitem__("size_leaf_vector", "3"),
    "a tree of another class": lambda _learner, model: model["tree_info"].__setitem__(0, 7),
    "rounds of other trees": lambda _learner, model: model["iteration_indptr"].__setitem__(-1, 9),
    "more columns": lambda learner, _model: learner["learner_model_param"].__setitem__("num_feature", "9"),
    "no columns": lambda learner, _model: learner["learner_model_param"].__setitem__("num_feature", "0"),
    "names of other columns": lambda learner, _model: learner.__setitem__("feature_names", ["a"]),
    "another booster": lambda learner, _model: learner["gradient_booster"].__setitem__("name", "forest"),
    "no trees": lambda _learner, model: model.pop("trees"),
    "no objective": lambda learner, _model: learner.pop("objective"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_file_that_contradicts_itself_never_reaches_xgboost(what):
    with pytest.raises(CannotLoad, match="The file is damaged") as refused:
        load(edited(CONTRADICTIONS[what]))
    assert refused.value.reason is Reason.LOAD_FAILED


def test_what_xgboost_refuses_is_said_in_its_words_without_its_stack():
    def change(learner, _model):
        learner["objective"]["name"] = "reg:unheard"

    with pytest.raises(CannotLoad) as refused:
        load(edited(change))
    assert refused.value.detail.startswith("Unknown objective function: `reg:unheard`")
    assert "Stack" not in refused.value.detail
