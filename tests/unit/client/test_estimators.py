"""An estimator that is pushed from a notebook: as skops where it can be, and as joblib where not."""

import io

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from modelkeep.client import Invalid
from modelkeep.client.estimators import TRUSTED
from modelkeep.plugins.runners.sklearn import artifact

ROWS, ANSWERS = np.arange(40.0).reshape(20, 2), [0, 1] * 10


class Own(LogisticRegression):
    """A class that only this program has."""


def test_the_client_trusts_what_servers_trust():
    assert TRUSTED == artifact._TRUSTED


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        RandomForestClassifier(3),
        HistGradientBoostingClassifier(max_iter=3),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_skops_trusts_travels_as_skops(client, standin, estimator):
    estimator.fit(ROWS, ANSWERS)
    version = client.push(estimator, "churn", wait=False)
    assert (version.filename, version.format) == ("model.skops", "skops")
    data = standin.files[version.id]
    assert set(skops.io.get_untrusted_types(data=data)) <= set(TRUSTED)
    assert (skops.io.loads(data, trusted=list(TRUSTED)).predict(ROWS) == estimator.predict(ROWS)).all()


@pytest.mark.parametrize(
    "estimator",
    [Own(), make_pipeline(FunctionTransformer(np.cbrt), Own())],
    ids=["own class", "inside a pipeline"],
)
def test_what_skops_does_not_trust_travels_as_joblib(client, standin, estimator, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(Own=Own))
    version = client.push(estimator.fit(ROWS, ANSWERS), "churn", wait=False)
    assert version.filename == "model.joblib"
    assert (joblib.load(io.BytesIO(standin.files[version.id])).predict(ROWS) == estimator.predict(ROWS)).all()


def test_the_form_may_be_said(client, standin):
    estimator = LogisticRegression().fit(ROWS, ANSWERS)
    assert client.push(estimator, "churn", format="joblib", wait=False).filename == "model.joblib"
    with pytest.raises(Invalid) as caught:
        client.push(Own().fit(ROWS, ANSWERS), "churn", format="skops", wait=False)
    assert caught.value.code == "not_skops"


def test_what_cannot_be_kept_at_all_is_refused_in_words(client, standin):
    estimator = LogisticRegression().fit(ROWS, ANSWERS)
    estimator.remember = lambda: None
    with pytest.raises(Invalid, match="cannot be pickled") as caught:
        client.push(estimator, "churn")
    assert caught.value.code == "not_picklable"
    assert standin.requests == []


def test_a_bar_is_shown_where_it_is_asked_for(client, standin, capsys, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights" * 1000)
    client.push(file, "churn", wait=False)
    assert capsys.readouterr().out == ""
    client.push(file, "churn", wait=False, progress=True)
    assert "Uploading model.onnx" in capsys.readouterr().out
    client.download("churn", 1, tmp_path / "copy.onnx", progress=True)
    assert "Downloading copy.onnx" in capsys.readouterr().out
