"""Every estimator of scikit-learn that takes a matrix of numbers answers, saved either way, what it answers in process.

`NOT_SERVED` and `NOT_SAVED` list the others by name, with the reason that people are told.
"""

import hashlib
import os

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import all_estimators

from fixtures import artifacts
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotCompile, CannotLoad, Column
from modelkeep.contracts.signature import Dtype
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import loader

COLUMNS = 6
RNG = np.random.default_rng(0)
ROWS, CLASSES = make_classification(120, COLUMNS, n_informative=4, n_classes=3, random_state=0)
ROWS = np.abs(ROWS) + 0.1  # some take no negative numbers
VALUES = ROWS @ np.arange(COLUMNS) + 1.0
ONE_TO_ONE = ROWS[:, :1]
ASKED = ROWS[:15]

KINDS = ("classifier", "regressor", "cluster", "transformer")
ALL = {name: cls for kind in KINDS for name, cls in all_estimators(kind)}
OTHER_INPUT = {
    *("DictVectorizer", "FeatureHasher", "HashingVectorizer"),  # records or texts
    "PatchExtractor",  # pictures
    "KernelCenterer",  # a square matrix
    *("LabelBinarizer", "LabelEncoder", "MultiLabelBinarizer"),  # targets
}
NOT_SERVED = {
    **dict.fromkeys(
        ("AgglomerativeClustering", "DBSCAN", "HDBSCAN", "OPTICS", "SpectralClustering", "TSNE"),
        "has no predict()",
    ),
}
NOT_SAVED = {"Birch": "skops does not know how to write it"}
MADE_WITH = {
    "ClassifierChain": {"estimator": LogisticRegression()},
    "ColumnTransformer": {"transformers": [("a", PCA(2), [0, 1, 2]), ("b", "passthrough", [3])]},
    "FeatureUnion": {"transformer_list": [("a", PCA(2))]},
    "FixedThresholdClassifier": {"estimator": LogisticRegression()},
    "GaussianRandomProjection": {"n_components": 2},
    "GridSearchCV": {"estimator": LogisticRegression(), "param_grid": {"C": [1.0, 2.0]}},
    "MultiOutputClassifier": {"estimator": LogisticRegression()},
    "MultiOutputRegressor": {"estimator": Ridge()},
    "OneVsOneClassifier": {"estimator": LogisticRegression()},
    "OneVsRestClassifier": {"estimator": LogisticRegression()},
    "OutputCodeClassifier": {"estimator": LogisticRegression()},
    "Pipeline": {"steps": [("a", PCA(2)), ("b", Ridge())]},
    "RFE": {"estimator": Ridge()},
    "RFECV": {"estimator": Ridge()},
    "RandomizedSearchCV": {"estimator": LogisticRegression(), "param_distributions": {"C": [1.0, 2.0]}, "n_iter": 2},
    "RegressorChain": {"estimator": Ridge()},
    "SelectFromModel": {"estimator": Ridge()},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "SequentialFeatureSelector": {"estimator": Ridge()},
    "SparseCoder": {"dictionary": np.eye(COLUMNS)},
    "SparseRandomProjection": {"n_components": 2},
    "StackingClassifier": {"estimators": [("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))]},
    "StackingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2.0))]},
    "TunedThresholdClassifierCV": {"estimator": LogisticRegression()},
    "VotingClassifier": {"estimators": [("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))]},
    "VotingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2.0))]},
}
BINARY = {"ClassifierChain", "FixedThresholdClassifier", "TunedThresholdClassifierCV"}
MANY = {"ClassifierChain", "MultiOutputClassifier", "MultiOutputRegressor", "RegressorChain", "CCA", "PLSCanonical", "PLSSVD"}
MANY |= {name for name in ALL if name.startswith("MultiTask")}
BY_VALUE = {name for name, _cls in all_estimators("regressor")}
BY_VALUE |= {"RFE", "RFECV", "SelectFromModel", "SequentialFeatureSelector"}
ONE_COLUMN = {"IsotonicRegression"}

pytestmark = pytest.mark.filterwarnings("ignore")


def fitted(name):
    cls = ALL[name]
    estimator = cls(**MADE_WITH.get(name, {}))
    if "random_state" in estimator.get_params(deep=False):
        estimator.set_params(random_state=0)
    classes = (CLASSES > 0).astype(int) if name in BINARY else CLASSES
    target = VALUES if name in BY_VALUE else classes
    if name in MANY:
        target = np.stack((target, RNG.permutation(target)), axis=1)
    return estimator.fit(ONE_TO_ONE if name in ONE_COLUMN else ROWS, target)


def served(data, form, columns):
    """Load it as a runner does."""
    digest = hashlib.sha256(data).hexdigest()
    file = os.memfd_create("artifact")
    try:
        os.write(file, data)
        sample = tuple(Column("", Dtype.FP64) for _ in range(columns))
        return loader.load(RunnerSpec("ver_1", digest, len(data), form, "sklearn"), sample, file)
    finally:
        os.close(file)


def same(expected, found):
    expected = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected)
    assert expected.shape == found.shape
    if expected.dtype.kind in "OUS":
        return expected.tolist() == found.tolist()
    return np.array_equal(expected.astype(float), found.astype(float), equal_nan=True)


@pytest.mark.parametrize("name", sorted(ALL.keys() - OTHER_INPUT - NOT_SERVED.keys()))
def test_it_answers_as_in_process(name):
    estimator = fitted(name)
    rows = ASKED[:, :1] if name in ONE_COLUMN else ASKED
    forms = {"joblib": artifacts.as_joblib} | ({} if name in NOT_SAVED else {"skops": artifacts.as_skops})
    for form, save in forms.items():
        model = served(save(estimator), form, rows.shape[1])
        answer = model.run({one.name: rows for one in model.facts.signature.inputs})
        assert list(answer) == [one.name for one in model.facts.signature.outputs]
        if not hasattr(estimator, "predict"):
            assert same(estimator.transform(rows), answer["values"])
            continue
        assert same(estimator.predict(rows), answer.get("label", answer.get("value")))
        if "probabilities" in answer:
            assert same(estimator.predict_proba(rows), answer["probabilities"])
        elif "probabilities_0" in answer:
            for at, expected in enumerate(estimator.predict_proba(rows)):
                assert same(expected, answer[f"probabilities_{at}"])


@pytest.mark.parametrize("name", NOT_SERVED)
def test_what_cannot_answer_is_refused_with_the_reason(name):
    with pytest.raises(CannotLoad) as refused:
        served(artifacts.as_joblib(ALL[name]().fit(ROWS[:40])), "joblib", COLUMNS)
    assert refused.value.reason is Reason.NOT_A_MODEL
    assert NOT_SERVED[name] in refused.value.detail


@pytest.mark.parametrize("name", NOT_SAVED)
def test_what_skops_cannot_write_is_known(name):
    with pytest.raises(Exception, match="not supported"):
        artifacts.as_skops(fitted(name))


def test_most_of_those_that_need_no_arguments_are_converted():
    names = [name for kind in ("classifier", "regressor") for name, _cls in all_estimators(kind) if name not in MADE_WITH]
    refused = {}
    for name in names:
        model = served(artifacts.as_joblib(fitted(name)), "joblib", 1 if name in ONE_COLUMN else COLUMNS)
        try:
            model.compiled()
        except CannotCompile as error:
            refused[name] = str(error)
    assert len(refused) <= len(names) / 4, refused
    assert all(refused.values())
    print(f"{len(names) - len(refused)} of {len(names)}; not: {refused}")
