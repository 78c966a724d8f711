"""TensorFlow Serving's calls as its clients write them, and KServe's own client, against a real installation."""

import base64
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.artifacts import as_joblib, classifier, numbers, onnx_half_plus_three
from fixtures.foreign import foreign
from fixtures.installation import Installation
from modelkeep.contracts.signature import Dtype

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "tensorflow-serving.md"


@pytest.fixture(scope="module")
def half(house: Installation, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("half") / "half_plus_three.onnx"
    file.write_bytes(onnx_half_plus_three())
    with house.client() as client:
        assert client.push(file, "half_plus_three").state == "ready"
    return "half_plus_three"


def asked(house: Installation, path: str, body: object) -> Any:
    with house.http() as http:
        answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_the_how_to_shows_is_what_is_answered(house: Installation, half: str) -> None:
    shown = re.findall(r"^\$ (curl .*)\n(.*)$", HOW_TO.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) == 5
    with house.http() as http:
        for line, expected in shown:
            words = shlex.split(line.replace("$URL", house.url).replace("$KEY", house.key))
            assert words[:3] == ["curl", "-H", f"X-API-Key: {house.key}"]
            if "-d" in words:  # curl says this of a body when it is told nothing
                form = {"content-type": "application/x-www-form-urlencoded"}
                answer = http.post(words[-1], content=words[words.index("-d") + 1], headers=form)
            else:
                answer = http.get(words[-1])
            assert answer.text == expected
            assert (answer.status_code == 200) == ("error" not in answer.json())


def test_kserves_own_client_asks_and_is_refused_as_it_expects(house: Installation, echoes: dict[Dtype, str]) -> None:
    found = foreign("kserve").run("kserve_v1.py", house.url, house.key, echoes[Dtype.FP32])
    assert found["ready"] is True
    assert found["lists"] == [[1.5, 2.0], [3.0, -4.0]]
    assert found["one"] == [[0.0, 0.5]]
    assert {name: found[name][0] for name in ("unknown", "wrong", "explain", "keyless")} == {
        "unknown": 404,
        "wrong": 400,
        "explain": 404,
        "keyless": 401,
    }


@pytest.mark.parametrize("dtype", sorted(set(Dtype) - {Dtype.BYTES}))
def test_every_datatype_is_answered_by_row_and_by_column_as_natively(
    house: Installation, echoes: dict[Dtype, str], dtype: Dtype
) -> None:
    name = echoes[dtype]
    if dtype is Dtype.BOOL:
        rows: list[list[Any]] = [[True, False]]
    else:
        limits = np.finfo(dtype.numpy) if dtype.value.startswith("FP") else np.iinfo(dtype.numpy)
        kind = float if dtype.value.startswith("FP") else int
        rows = [[kind(limits.min), kind(limits.max)], [0, 1]]
    native = asked(house, f"/api/v1/predict/{name}", {"inputs": rows})["outputs"]["y"]
    assert json.dumps(asked(house, f"/v1/models/{name}:predict", {"instances": rows})["predictions"]) == json.dumps(native)
    assert json.dumps(asked(house, f"/v1/models/{name}:predict", {"inputs": {"x": rows}})["outputs"]) == json.dumps(native)


def test_byte_strings_reach_a_real_model_and_come_back_as_texts(house: Installation, echoes: dict[Dtype, str]) -> None:
    ada = {"b64": base64.b64encode("Ada ż".encode()).decode()}
    answer = asked(house, f"/v1/models/{echoes[Dtype.BYTES]}:predict", {"instances": [[ada, "Bob"]]})
    assert answer == {"predictions": [["Ada ż", "Bob"]]}


def test_labels_that_are_texts_come_back_as_texts(house: Installation, tmp_path: Path) -> None:
    file = tmp_path / "animals.joblib"
    file.write_bytes(as_joblib(classifier(labels=("cat", "dog"))))
    row = {name: float(value) for name, value in numbers().iloc[0].items()}
    with house.client() as client:
        assert client.push(file, "animals", sample=numbers().head(8)).state == "ready"
    told = asked(house, "/v1/models/animals:predict", {"instances": [row]})["predictions"][0]
    assert told["label"] in {"cat", "dog"}
    ((first, second),) = asked(house, "/v1/models/animals:classify", {"examples": [row]})["results"]
    assert [first[0], second[0]] == ["cat", "dog"]
    assert [first[1], second[1]] == told["probabilities"]
