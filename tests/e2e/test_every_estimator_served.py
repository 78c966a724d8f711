"""Estimators of scikit-learn, pushed to a whole installation, answer over HTTP what they answer in process.

ESTIMATORS says how many of them, spread over all (`make soak`: every one); each is pushed as joblib and as skops.
"""

import os
from pathlib import Path

import httpx
import numpy as np
import pytest

from fixtures import artifacts
from fixtures.estimators import NOT_SAVED, TAKEN, asked, fitted
from fixtures.installation import Installation, installed
from modelkeep.client import Rejected

COUNT = int(os.environ.get("ESTIMATORS", "8"))
SEED = int(os.environ.get("SEED", "0"))
CHOSEN = sorted(TAKEN if len(TAKEN) <= COUNT else np.random.default_rng(SEED).choice(TAKEN, COUNT, replace=False).tolist())
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # what a compiled form may differ by
FORMS = {"joblib": artifacts.as_joblib, "skops": artifacts.as_skops}

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120 + 30 * len(CHOSEN))]


def test_estimators_answer_over_http_as_in_process(tmp_path: Path) -> None:
    compiled = 0
    with installed(tmp_path / "data") as house, house.http() as http:
        for name in CHOSEN:
            estimator = fitted(name)
            for form in FORMS:
                if form == "joblib" or name not in NOT_SAVED:
                    compiled += served_equally(house, http, tmp_path, name, form, estimator)
    print(f"\n{len(CHOSEN)} estimators equal; {compiled} of their files are served compiled")


def served_equally(house: Installation, http: httpx.Client, folder: Path, name: str, form: str, estimator) -> bool:
    """Push one file, compare its answers, and archive it; returns whether it is served compiled."""
    rows, model = asked(name), f"{name}.{form}".lower()
    path = folder / f"{name}.{form}"
    path.write_bytes(FORMS[form](estimator))
    with house.client() as client:
        try:
            version = client.push(path, model, sample=rows.tolist())
        except Rejected as error:
            raise AssertionError(f"{model}: {error}") from error
        answer = http.post(f"/api/v1/predict/{model}", json={"inputs": rows.tolist()})
        assert answer.status_code == 200, (model, answer.text)
        report = version.report
        client.archive(model)
    outputs = answer.json()["outputs"]
    exact = not (report["compiled"] and report["compiled"]["used"])
    if hasattr(estimator, "predict"):
        first = outputs.get("label", outputs.get("value"))
        assert same(estimator.predict(rows), first, exact=exact or "label" in outputs), model
    else:
        assert same(estimator.transform(rows), outputs["values"], exact=exact), model
    if "probabilities" in outputs:
        assert same(estimator.predict_proba(rows), outputs["probabilities"], exact=exact), model
    for at, expected in enumerate(estimator.predict_proba(rows) if "probabilities_0" in outputs else ()):
        assert same(expected, outputs[f"probabilities_{at}"], exact=exact), model
    return not exact


def same(expected, found, *, exact: bool) -> bool:
    expected = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected)
    if expected.dtype.kind in "OUS":
        return expected.tolist() == found
    numbers = np.array(found, dtype=float)
    wanted = expected.astype(float)
    if wanted.shape != numbers.shape:
        return False
    if exact:
        return np.array_equal(wanted, numbers, equal_nan=True)
    return np.allclose(wanted, numbers, RELATIVE, ABSOLUTE, equal_nan=True)
