"""A pushed forest is served in its compiled form, and everything else about it is as uploaded."""

import io
import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from fixtures import table_models, tables
from fixtures.installation import Installation
from modelkeep.app.cli.rows import from_file


@pytest.mark.parametrize(("compile_", "used"), [("auto", True), ("off", False)])
def test_a_forest_is_compiled_unless_it_must_not_be(house: Installation, compile_: str, used: bool) -> None:
    data = load_breast_cancer(as_frame=True)
    model = RandomForestClassifier(100, random_state=0).fit(data.data, data.target)
    rows = data.data.head(100)
    file = io.BytesIO()
    joblib.dump(model, file)
    name = f"forest-{compile_}"
    with house.client() as client:
        version = client.push(model, name, sample=data.data.head(), compile=compile_, format="joblib")
        answer = client.predict(name, rows)
    assert version.report["compiled"]["used"] is used, version.report["compiled"]
    assert (version.report["compiled"]["speed"] > 1) is used
    assert list(answer.outputs["label"]) == list(model.predict(rows))
    np.testing.assert_allclose(answer.outputs["probabilities"], model.predict_proba(rows), rtol=0, atol=1e-15)
    with house.http() as http:
        download = http.get(f"/api/v1/models/{name}/versions/1/artifact")
        refused = http.post(f"/api/v1/models/{name}/versions", data={"compile": "maybe"}, files={"file": ("m.joblib", b"x")})
    assert download.content == file.getvalue()
    assert refused.status_code == 400
    assert "auto, off" in refused.json()["detail"]


COLUMNS = ["age", "income", "city", "plan", "shop", "member"]


def mixed() -> Pipeline:
    """A forest behind gaps to fill and texts to encode."""
    return make_pipeline(clone(table_models.MIXED), RandomForestClassifier(30, random_state=0)).fit(
        tables.TABLE[COLUMNS], tables.LABEL
    )


@pytest.mark.filterwarnings("ignore")
def test_records_of_a_table_are_answered_by_the_compiled_form_as_in_process(house: Installation) -> None:
    model, rows = mixed(), tables.ASKED[COLUMNS]
    records = json.loads(rows.to_json(orient="records", double_precision=15))
    stranger = rows.head(1).assign(city="Atlantis", shop=np.array([np.nan], dtype=object))
    with house.client() as client:
        version = client.push(model, "table", sample=rows)
        assert version.report["compiled"]["used"], version.report["compiled"]
        answer = client.predict("table", records)
        unknown = client.predict("table", [records[0] | {"city": "Atlantis", "shop": None}])
    assert list(answer.outputs["label"]) == model.predict(rows).tolist()
    np.testing.assert_allclose(answer.outputs["probabilities"], model.predict_proba(rows), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(unknown.outputs["probabilities"], model.predict_proba(stranger), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_csv_is_answered_by_the_compiled_form_as_in_process(house: Installation, tmp_path: Path) -> None:
    model, rows = mixed(), tables.ASKED[COLUMNS].iloc[::-1]
    tables.ASKED[COLUMNS].to_csv(tmp_path / "sample.csv", index=False)
    rows.to_csv(tmp_path / "asked.csv", index=False)
    with house.client() as client:
        version = client.push(model, "table-csv", sample=tmp_path / "sample.csv")
        assert version.report["compiled"]["used"], version.report["compiled"]
        answer = client.predict("table-csv", from_file(tmp_path / "asked.csv"))
    assert list(answer.outputs["label"]) == model.predict(rows).tolist()
    np.testing.assert_allclose(answer.outputs["probabilities"], model.predict_proba(rows), rtol=1e-4, atol=1e-5)
