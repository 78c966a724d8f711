"""MLflow's own code against a real installation: its payloads, its clients, and what its scoring server answers to the same."""

import json
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from fixtures.artifacts import onnx_columns
from fixtures.foreign import Foreign, foreign
from fixtures.installation import Installation
from fixtures.pages import programs
from modelkeep.contracts.signature import Dtype
from modelkeep.serving.dialects.mlflow import ERROR_CODES

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "mlflow.md"
KINDS = {
    "whole": onnx.TensorProto.INT64,
    "number": onnx.TensorProto.DOUBLE,
    "text": onnx.TensorProto.STRING,
    "day": onnx.TensorProto.STRING,
    "flag": onnx.TensorProto.BOOL,
}


@pytest.fixture(scope="module")
def mlflow() -> Foreign:
    """An environment with MLflow."""
    return foreign("mlflow")


@pytest.fixture(scope="module")
def found(
    house: Installation, echoes: dict[Dtype, str], mlflow: Foreign, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "kinds.onnx").write_bytes(onnx_columns(KINDS))
    with house.client() as client:
        client.push(folder / "kinds.onnx", "mlflow-kinds")
    task = {
        "url": house.url,
        "key": house.key,
        "port": house.port,
        "folder": str(folder / "echo"),
        "matrix": echoes[Dtype.FP64],
        "table": "mlflow-kinds",
        "codes": sorted(set(ERROR_CODES.values())),
    }
    (folder / "task.json").write_text(json.dumps(task))
    databricks = {"DATABRICKS_HOST": house.url, "DATABRICKS_TOKEN": house.key}
    answer: dict[str, Any] = mlflow.run("mlflow_calls.py", str(folder / "task.json"), timeout_s=100, **databricks)
    return answer


def test_a_matrix_is_answered_as_mlflow_answers_it_in_every_form(found: dict[str, Any]) -> None:
    assert len(found["compared"]) == 7
    for ours, theirs in found["compared"]:
        assert ours == theirs
        assert ours["predictions"]


def test_a_frame_of_all_kinds_of_columns_keeps_its_values(found: dict[str, Any]) -> None:
    *answers, gap, gap_too = found["framed"]
    assert len(answers) == 3
    for answer in answers:
        first, second = answer["predictions"]
        assert (first["whole_out"], second["whole_out"]) == (2**53 + 1, -5)
        assert (first["number_out"], second["number_out"]) == (0.1, 1 / 3)
        assert (first["text_out"], second["text_out"]) == ("Żółw", 'a, "b"')
        assert first["day_out"].replace(" ", "T") == "2026-05-17T08:30:00"
        assert (first["flag_out"], second["flag_out"]) == (True, False)
    for refusal in (gap, gap_too):
        assert refusal["error_code"] == "BAD_REQUEST"
        assert "missing" in refusal["message"]


def test_databricks_client_is_answered_and_told_of_errors(found: dict[str, Any]) -> None:
    predictions, status, message = found["databricks"]
    assert predictions == [[1.0, 2.0]]
    assert status == 404
    assert "RESOURCE_DOES_NOT_EXIST" in message


def test_every_error_code_is_one_of_mlflows(found: dict[str, Any]) -> None:
    assert found["known"]
    assert found["codes"] == []
    assert found["version"]


def test_the_guides_program_is_answered(house: Installation, mlflow: Foreign, tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": [2.5, 9.0, 3.0, 8.0], "debts": [3.0, 0.5, 4.0, 1.0]})
    with house.client() as client:
        version = client.push(LogisticRegression().fit(frame, [1, 0, 1, 0]), "loans", sample=frame)
    assert version.state == "ready", version.rejection
    ((file, _program),) = programs(PAGE, tmp_path).items()
    assert mlflow.run(str(file), MODELKEEP_URL=house.url, MODELKEEP_API_KEY=house.key) == [1, 0]
