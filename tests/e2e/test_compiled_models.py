"""A pushed forest is served in its compiled form, and everything else about it is as uploaded."""

import io

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from fixtures.installation import Installation


@pytest.mark.parametrize(("compile_", "used"), [("auto", True), ("off", False)])
def test_a_forest_is_compiled_unless_it_must_not_be(house: Installation, compile_: str, used: bool) -> None:
    data = load_breast_cancer(as_frame=True)
    model = RandomForestClassifier(100, random_state=0).fit(data.data, data.target)
    rows = data.data.head(100)
    file = io.BytesIO()
    joblib.dump(model, file)
    name = f"forest-{compile_}"
    with house.client() as client:
        version = client.push(model, name, sample=data.data.head(), compile=compile_)
        answer = client.predict(name, rows)
    assert version.report["compiled"]["used"] is used, version.report["compiled"]
    assert list(answer.outputs["label"]) == list(model.predict(rows))
    np.testing.assert_allclose(answer.outputs["probabilities"], model.predict_proba(rows), rtol=0, atol=1e-15)
    with house.http() as http:
        download = http.get(f"/api/v1/models/{name}/versions/1/artifact")
        refused = http.post(f"/api/v1/models/{name}/versions", data={"compile": "maybe"}, files={"file": ("m.joblib", b"x")})
    assert download.content == file.getvalue()
    assert refused.status_code == 400
    assert "auto, off" in refused.json()["detail"]
