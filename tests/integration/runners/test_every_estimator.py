"""Every estimator of scikit-learn that takes a matrix of numbers answers, saved either way, what it answers in process.

`NOT_SERVED` and `NOT_SAVED` list the others by name, with the reason that people are told.
"""

import hashlib
import os

import numpy as np
import pytest

from fixtures import artifacts
from fixtures.estimators import (
    ALL,
    COLUMNS,
    NOT_COMPILED,
    NOT_SAVED,
    NOT_SERVED,
    ONE_COLUMN,
    PLAIN,
    ROWS,
    TAKEN,
    asked,
    fitted,
)
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotCompile, CannotLoad, Column
from modelkeep.contracts.signature import Dtype
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox import loader

pytestmark = pytest.mark.filterwarnings("ignore")


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


@pytest.mark.parametrize("name", TAKEN)
def test_it_answers_as_in_process(name):
    estimator = fitted(name)
    rows = asked(name)
    forms = {"joblib": artifacts.as_joblib} | ({} if name in NOT_SAVED else {"skops": artifacts.as_skops})
    for form, save in forms.items():
        model = served(save(estimator), form, rows.shape[1])
        answer = model.run({one.name: rows for one in model.facts.signature.inputs})
        assert list(answer) == [one.name for one in model.facts.signature.outputs]
        if not hasattr(estimator, "predict"):
            assert same(estimator.transform(rows), answer["values"])
            alone = model.run({one.name: rows[:1] for one in model.facts.signature.inputs})["values"]
            assert alone.shape == (1, *answer["values"].shape[1:]), "a single row is a row"
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
    refused = {}
    for name in sorted(PLAIN):
        model = served(artifacts.as_joblib(fitted(name)), "joblib", 1 if name in ONE_COLUMN else COLUMNS)
        try:
            model.compiled()
        except CannotCompile as error:
            refused[name] = str(error)
    assert len(NOT_COMPILED) <= len(PLAIN) / 4
    assert {name: reason for name, reason in refused.items() if NOT_COMPILED.get(name, "not listed") not in reason} == {}
