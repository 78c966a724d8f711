"""Answers of every type: wide labels, dates, sparse ones, several at once."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from modelkeep.plugins.runners.sklearn.answers import answers
from modelkeep.sandbox import frames

ROWS = np.arange(12.0).reshape(6, 2)


def answered(model, rows):
    """What serving gets of the model, after it went through a frame."""
    outputs = answers(model)[2](model, rows)
    _message, arrived = frames.decode(b"".join(frames.encode(frames.Result(1, 0.0), outputs))[4:])
    return arrived


@pytest.mark.parametrize("labels", [[2**53 + 1, 2**53 + 3], [2**63 + 1, 2**64 - 1], [-(2**63), 2**63 - 1]])
def test_labels_keep_every_digit(labels):
    target = np.array([labels[at % 2] for at in range(6)])
    for model in (LogisticRegression(), KNeighborsClassifier(1)):
        model.fit(ROWS, target)
        assert answered(model, ROWS)["label"].tolist() == model.predict(ROWS).tolist()


def test_a_sparse_answer_is_made_dense():
    texts = ["a b", "b c", "a"]
    model = CountVectorizer().fit([f"{one} x{at}" for at, one in enumerate(texts)])
    assert answered(model, texts)["values"].tolist() == model.transform(texts).toarray().tolist()


def test_a_sparse_answer_that_is_too_large_is_refused_with_its_size():
    model = HashingVectorizer()
    assert sparse.issparse(model.transform(["a"]))
    with pytest.raises(ValueError, match=r"\[64, 1048576\].* 512 MiB"):
        answered(model, ["a b"] * 64)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_are_answered_as_texts_and_gaps_as_none(zone):
    dates = pd.to_datetime(["2026-05-17T08:30:00.5", None, "2024-02-29"], format="ISO8601").tz_localize(zone)
    frame = pd.DataFrame({"d": dates})

    class Passing:
        def transform(self, rows):
            return rows

    found = answered(Passing(), frame)["values"]
    assert [None if one is None else pd.Timestamp(one) for one in found[:, 0].tolist()] == [
        None if one is pd.NaT else one for one in dates.tolist()
    ]
