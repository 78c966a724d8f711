"""An installation that was told of Vertex AI's routes by Vertex AI's variables, and asked as the how-to shows."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.artifacts import onnx_half_plus_three
from fixtures.installation import Installation

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "vertex.md"
PREDICT = "/v1/endpoints/1/deployedModels/2:predict"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One model, a key that may only predict, made as the how-to says, and then a start with its file."""
    folder = tmp_path_factory.mktemp("vertex")
    key_file = folder / "key"
    house = Installation(folder / "data", AIP_HTTP_PORT="1", AIP_PREDICT_ROUTE=PREDICT, AIP_HEALTH_ROUTE=PREDICT[:-8])
    house.start()
    try:
        house.wait(90).set_up()
        file = folder / "m.onnx"
        file.write_bytes(onnx_half_plus_three())
        with house.client() as client:
            assert client.push(file, "m").state == "ready"
        (line,) = re.findall(r"^\$ modelkeep (keys create .*?) *#", HOW_TO.read_text(encoding="utf-8"), re.MULTILINE)
        made = json.loads(house.command(*line.split(), cwd=folder))
        with httpx.Client() as http:
            assert http.post(house.url + PREDICT, json={"instances": [1]}).status_code == 401  # none stands in yet
        house.stop()
        key_file.write_text(made["secret"])
        house._environment["MODELKEEP_SERVING__STAND_IN_KEY_FILE"] = str(key_file)
        yield house.start().wait(90)
    finally:
        house.stop()


def curl(house: Installation, line: str) -> httpx.Response:
    """What `curl` would be answered; of its options only those that the how-to has."""
    words = shlex.split(line.replace("$URL", house.url))[1:]
    headers = {"content-type": "application/x-www-form-urlencoded"} if "-d" in words else {}
    body = words[words.index("-d") + 1] if "-d" in words else None
    return httpx.request("POST" if body else "GET", words[-1], content=body, headers=headers, timeout=30)


def test_the_platform_asks_as_the_how_to_shows_and_shows_no_key(container: Installation) -> None:
    text = HOW_TO.read_text(encoding="utf-8")
    asked = re.findall(r"^\$ (curl .*)$", text, re.MULTILINE)
    assert len(asked) == 2
    for line in asked:
        expected = text[text.index(line) + len(line) + 1 :].partition("\n")[0]
        answer = curl(container, line)
        assert answer.status_code == 200
        assert answer.text.startswith(expected.removesuffix(" ...}"))


def test_what_it_asked_is_in_the_history_under_the_key_and_nothing_else_is_open(container: Installation) -> None:
    answer = httpx.post(container.url + PREDICT, json={"instances": [{"x": 2.0}], "parameters": {}}, timeout=30)
    assert answer.json() == {"predictions": [4.0]}
    wrong = httpx.post(container.url + PREDICT, json={"instances": [1]}, headers={"x-api-key": "mk_wrong"}, timeout=30)
    assert wrong.status_code == 401
    others = ("/v1/models/m:predict", "/predict", "/api/v1/predict/m", "/serving-endpoints/m/invocations", "/v2/models/m/infer")
    for path in others:
        closed = httpx.post(container.url + path, content=json.dumps({"instances": [1.0]}), timeout=30)
        assert closed.status_code in {401, 404}, path
