"""KServe's own clients, REST and gRPC, by version 2 of the protocol against a real installation."""

import json
from typing import Any

import numpy as np
import pytest

from fixtures.foreign import foreign
from fixtures.installation import Installation
from fixtures.limits import TEXTS, at_its_limits
from modelkeep.contracts.signature import FLOATS, Dtype

ID = "za\u017c\u00f3\u0142\u0107 42"


@pytest.fixture(scope="module")
def found(
    house: Installation, echoes: dict[Dtype, str], columns: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    task = {
        "url": house.url,
        "grpc": f"127.0.0.1:{house.grpc_port}",
        "key": house.key,
        "id": ID,
        "echoes": echoes,
        "rows": {dtype.value: at_its_limits(dtype).tolist() for dtype in Dtype},
        "columns": columns,
    }
    file = tmp_path_factory.mktemp("kserve") / "task.json"
    file.write_text(json.dumps(task))
    answer: dict[str, Any] = foreign("kserve").run("kserve_v2.py", str(file))
    return answer


@pytest.mark.parametrize("dtype", list(Dtype))
def test_every_datatype_comes_back_in_every_way_of_both_clients(found: dict[str, Any], dtype: Dtype) -> None:
    answers = found["datatypes"][dtype.value]
    assert len(answers) == (3 if dtype is Dtype.FP16 else 7)
    sent = [dtype.numpy, at_its_limits(dtype).tolist()]
    for way, answer in answers.items():
        assert json.dumps(answer) == json.dumps(sent), way


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_what_is_not_finite_is_a_number_in_bytes(found: dict[str, Any], dtype: Dtype) -> None:
    sent = json.dumps([dtype.numpy, [[float("nan"), float("inf")], [float("-inf"), 1.5]]])
    assert [json.dumps(answer) for answer in found["not finite"][dtype.value]] == [sent, sent]


def test_columns_are_asked_for_by_name_and_the_id_comes_back(found: dict[str, Any]) -> None:
    uint64 = np.ravel(at_its_limits(Dtype.UINT64)).tolist()
    for answer in found["columns"]:
        assert answer["outputs"] == {"bytes_out": ["object", TEXTS], "uint64_out": ["uint64", uint64]}
        assert answer["id"] == ID
        assert answer["parameters"] == ["prediction_id"]


def test_many_rows_come_back_in_order(found: dict[str, Any]) -> None:
    assert found["many"] == [True, True]


def test_the_clients_know_who_is_there(found: dict[str, Any]) -> None:
    health = found["health"]
    assert (health["live"], health["ready"], health["model"]) == ([True, True], [True, True], [True, True])
    rest, (code, message) = health["nobody"]
    assert rest is False
    assert code == "NOT_FOUND"
    assert message


@pytest.mark.parametrize(
    ("what", "status", "code", "said"),
    [
        ("unknown", 404, "NOT_FOUND", "No deployment of this name answers here."),
        ("shape", 400, "INVALID_ARGUMENT", "shape"),
        ("datatype", 400, "INVALID_ARGUMENT", "FP64"),
        ("input", 400, "INVALID_ARGUMENT", "The model takes x."),
        ("output", 400, "INVALID_ARGUMENT", "it has y"),
        ("keyless", 401, "UNAUTHENTICATED", "key"),
    ],
)
def test_a_refusal_is_the_clients_own_error_with_our_words(
    found: dict[str, Any], what: str, status: int, code: str, said: str
) -> None:
    assert found["errors"][f"{what} rest"][0] == status
    assert found["errors"][f"{what} grpc"][0] == code
    for way in ("rest", "grpc"):
        assert said in found["errors"][f"{what} {way}"][1]
