"""Estimators of scikit-learn, pushed to a whole installation, answer over HTTP what they answer in process.

ESTIMATORS says how many of them, spread over all (`make soak`: every one); each is pushed as joblib and as skops. Of plain
classifiers and regressors at least three of four are served compiled; TABLE names a file to write all of that to.
"""

import os
from pathlib import Path

import httpx
import numpy as np
import pytest

from fixtures import artifacts
from fixtures.estimators import NOT_COMPILED, NOT_SAVED, PLAIN, TAKEN, asked, fitted
from fixtures.installation import Installation, installed
from modelkeep.client import Rejected

COUNT = int(os.environ.get("ESTIMATORS", "8"))
SEED = int(os.environ.get("SEED", "0"))
TABLE = os.environ.get("TABLE")
COMPILED = sorted(PLAIN - NOT_COMPILED.keys())
MOST = 0.75
SLOWER = "It is not faster"
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # what a compiled form may differ by
FORMS = {"joblib": artifacts.as_joblib, "skops": artifacts.as_skops}


def chosen() -> list[str]:
    """All, or so many; half of them are to be compiled."""
    if len(TAKEN) <= COUNT:
        return TAKEN
    some = np.random.default_rng(SEED)
    compiled = some.choice(COMPILED, min(len(COMPILED), -(-COUNT // 2)), replace=False).tolist()
    others = sorted(set(TAKEN) - set(COMPILED))
    return sorted(compiled + some.choice(others, min(len(others), COUNT - len(compiled)), replace=False).tolist())


CHOSEN = chosen()
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120 + 30 * len(CHOSEN))]


def test_estimators_answer_over_http_as_in_process(tmp_path: Path) -> None:
    seen: dict[tuple[str, str], dict[str, object]] = {}
    with installed(tmp_path / "data") as house, house.http() as http:
        for name in CHOSEN:
            estimator = fitted(name)
            for form in FORMS:
                if form == "joblib" or name not in NOT_SAVED:
                    seen[name, form] = served_equally(house, http, tmp_path, name, form, estimator)
    if TABLE:
        write(Path(TABLE), seen)
    most_are_compiled({name: str(one["reason"]) for (name, form), one in seen.items() if form == "joblib"})


def most_are_compiled(reasons: dict[str, str]) -> None:
    """Check that what is to be compiled is; a form that was not faster this time counts as not compiled, and is no fault."""
    plain = {name: reason for name, reason in reasons.items() if name in PLAIN}
    as_it_is = {name: reason for name, reason in plain.items() if reason}
    share = 1 - len(as_it_is) / len(plain)
    told = f"{share:.0%} of {len(plain)} plain classifiers and regressors are served compiled; not: {as_it_is}"
    expected = [name for name in plain if name in COMPILED]
    assert len(expected) >= min(len(COMPILED), COUNT // 2) > 0
    assert sum(not plain[name] for name in expected) >= MOST * len(expected), told
    assert share >= MOST or len(CHOSEN) < len(TAKEN), told  # of a few, those that are not may happen to be many
    listed = {name: NOT_COMPILED.get(name, SLOWER) for name in as_it_is}
    assert {name: reason for name, reason in as_it_is.items() if listed[name] not in reason} == {}, told
    assert not {name for name in NOT_COMPILED if name in plain} - as_it_is.keys(), "compiled by now: strike them from the list"


def write(file: Path, seen: dict[tuple[str, str], dict[str, object]]) -> None:
    """Write what serves which file, how many times faster, or why not."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ["| estimator | file | times as fast | or as it is, because |", "|---|---|---|---|"]
    for (name, form), one in seen.items():
        faster = f"{one['speed']:.1f}" if one["used"] else ""
        lines.append(f"| {name} | {form} | {faster} | {' '.join(str(one['reason']).split())} |")
    file.write_text("\n".join(lines) + "\n")


def served_equally(house: Installation, http: httpx.Client, folder: Path, name: str, form: str, estimator) -> dict[str, object]:
    """Push one file, compare its answers, and archive it; returns what came of compiling it."""
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
    assert report["compiled"], (model, "compiling was not tried")
    exact = not report["compiled"]["used"]
    if hasattr(estimator, "predict"):
        first = outputs.get("label", outputs.get("value"))
        assert same(estimator.predict(rows), first, exact=exact or "label" in outputs), model
    else:
        assert same(estimator.transform(rows), outputs["values"], exact=exact), model
    if "probabilities" in outputs:
        assert same(estimator.predict_proba(rows), outputs["probabilities"], exact=exact), model
    for at, expected in enumerate(estimator.predict_proba(rows) if "probabilities_0" in outputs else ()):
        assert same(expected, outputs[f"probabilities_{at}"], exact=exact), model
    return report["compiled"]


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
