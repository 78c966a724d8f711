"""MLServer's codecs and its `infer` command against a real installation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fixtures.artifacts import PEOPLE, as_joblib, onnx_identity, people_classifier
from fixtures.foreign import Foreign, foreign
from fixtures.installation import Installation
from fixtures.limits import TEXTS, at_its_limits
from modelkeep.contracts.signature import Dtype

COLUMNS = {dtype.value: np.ravel(at_its_limits(dtype)).tolist() for dtype in Dtype}


@pytest.fixture(scope="module")
def mlserver() -> Foreign:
    """An environment with MLServer."""
    return foreign("mlserver")


# ---- codecs


@pytest.fixture(scope="module")
def found(
    house: Installation,
    echoes: dict[Dtype, str],
    columns: str,
    mlserver: Foreign,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mlserver")
    (folder / "texts.onnx").write_bytes(onnx_identity(onnx.TensorProto.STRING, ("n",)))
    (folder / "people.joblib").write_bytes(as_joblib(people_classifier()))
    with house.client() as client:
        client.push(folder / "texts.onnx", "mlserver-texts")
        client.push(folder / "people.joblib", "mlserver-people", sample=PEOPLE)
    task = {
        "url": house.url,
        "grpc": f"127.0.0.1:{house.grpc_port}",
        "key": house.key,
        "echoes": echoes,
        "rows": {dtype.value: at_its_limits(dtype).tolist() for dtype in Dtype},
        "columns": columns,
        "texts": "mlserver-texts",
        "model": "mlserver-people",
        "people": people().to_dict(orient="list"),
    }
    (folder / "task.json").write_text(json.dumps(task))
    answer: dict[str, Any] = mlserver.run("mlserver_codecs.py", str(folder / "task.json"), timeout_s=100)
    return answer


def people() -> Any:
    """The table without the texts that are missing, which MLServer's codec does not write."""
    return PEOPLE.fillna({"city": "Bern"})


@pytest.mark.parametrize("dtype", list(Dtype))
def test_arrays_come_back_alone_and_as_the_whole_request(found: dict[str, Any], dtype: Dtype) -> None:
    answers = found["arrays"][dtype.value]
    assert len(answers) == {Dtype.BYTES: 2, Dtype.FP16: 4}.get(dtype, 5)
    for way, (name, values) in answers.items():
        assert json.dumps(values) == json.dumps(at_its_limits(dtype).tolist()), way
        assert name == dtype.numpy or name.startswith("str")


def test_a_frame_of_all_datatypes_comes_back_with_its_types(found: dict[str, Any]) -> None:
    sent = {f"{dtype.value.lower()}_out": [dtype.numpy, COLUMNS[dtype.value]] for dtype in Dtype}
    for way in ("rest", "raw"):
        assert json.dumps(found["frame"][way], sort_keys=True) == json.dumps(sent, sort_keys=True)


def test_a_table_with_gaps_and_a_row_of_objects_are_asked_about(found: dict[str, Any]) -> None:
    labels = people_classifier().predict(people()).tolist()
    assert found["people"]["kinds"] == ["pd_json", "str"]
    assert found["people"]["rest"] == {"label": ["object", labels]}
    assert found["people"]["one"] == {"label": ["object", labels[:1]]}


@pytest.mark.parametrize("way", ["rest", "typed", "raw"])
def test_texts_dates_and_bytes_are_decoded_by_the_codec_that_wrote_them(found: dict[str, Any], way: str) -> None:
    answers = found["texts"][way]
    assert answers.pop("said") == "base64"
    assert answers == dict.fromkeys(("strings", "whole", "days", "base64", "plain"), True)


@pytest.mark.parametrize("way", ["rest", "typed", "raw"])
def test_the_id_comes_back_and_parameters_do_no_harm(found: dict[str, Any], way: str) -> None:
    assert found["known"][way] == ["\u017c 42", "1", ["prediction_id"]]


@pytest.mark.parametrize(
    ("what", "status", "code", "said"),
    [
        ("unknown", 404, "NOT_FOUND", "No deployment of this name answers here."),
        ("shape", 400, "INVALID_ARGUMENT", "shape"),
        ("datatype", 400, "INVALID_ARGUMENT", "BYTES"),
        ("lists", 400, "INVALID_ARGUMENT", "pd_json"),
    ],
)
def test_a_refusal_is_read_as_mlservers_own(found: dict[str, Any], what: str, status: int, code: str, said: str) -> None:
    assert [found["errors"][f"{what} {way}"][0] for way in ("rest", "grpc")] == [status, code]
    for way in ("rest", "grpc"):
        assert said in found["errors"][f"{what} {way}"][1]


def test_metadata_are_read_as_mlservers_own(found: dict[str, Any]) -> None:
    assert found["metadata"] == {dtype.value.lower(): dtype.value for dtype in Dtype}


# ---- mlserver infer


def line(*columns: str, **rest: object) -> dict[str, Any]:
    """A request of two rows with these columns of the table of all datatypes."""
    inputs = [
        {"name": name.lower(), "datatype": name, "shape": [len(COLUMNS[name])], "data": COLUMNS[name]} for name in columns
    ]
    return {"inputs": inputs, **rest}


def inferred(house: Installation, mlserver: Foreign, folder: Path, model: str, lines: list[Any], *options: str) -> list[Any]:
    """What the command writes for these lines, in their order."""
    (folder / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    header = f"X-API-Key: {house.key}"
    files = ("-i", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"))
    mlserver.command("mlserver", "infer", "-u", f"127.0.0.1:{house.port}", "-m", model, "-H", header, *files, *options)
    found = [json.loads(one) for one in (folder / "out.jsonl").read_text().splitlines()]
    return sorted(found, key=lambda one: one["parameters"]["batch_index"])


@pytest.mark.parametrize("options", [("-b",), ("-b", "--batch-size", "3")])
def test_every_datatype_is_inferred_in_bytes(
    house: Installation, columns: str, mlserver: Foreign, tmp_path: Path, options: tuple[str, ...]
) -> None:
    lines = [line(*COLUMNS, id=f"line-{number}") for number in range(4)]
    found = inferred(house, mlserver, tmp_path, columns, lines, *options)
    assert [one["id"] for one in found] == [one["id"] for one in lines]
    for one in found:
        assert one["model_name"] == columns
        assert json.dumps({output["name"]: output["data"] for output in one["outputs"]}) == json.dumps(
            {f"{name.lower()}_out": values for name, values in COLUMNS.items()}
        )


def test_requests_of_one_batch_are_told_apart_in_json(
    house: Installation, echoes: dict[Dtype, str], mlserver: Foreign, tmp_path: Path
) -> None:
    rows = [[[number, -number]] * (1 + number % 3) for number in range(10)]
    lines = [
        {
            "inputs": [{"name": "x", "datatype": "INT64", "shape": [len(some), 2], "data": np.ravel(some).tolist()}],
            "outputs": [{"name": "y"}],
            "parameters": {"content_type": "np"},
        }
        for some in rows
    ]
    found = inferred(house, mlserver, tmp_path, echoes[Dtype.INT64], lines, "--batch-size", "4", "--workers", "2")
    assert [one["outputs"][0]["data"] for one in found] == [np.ravel(some).tolist() for some in rows]
    texts = [{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2, 2], "data": TEXTS}]}]
    (one,) = inferred(house, mlserver, tmp_path, echoes[Dtype.BYTES], texts)
    assert one["outputs"][0]["data"] == TEXTS


def test_what_is_refused_is_told_in_its_line(
    house: Installation, echoes: dict[Dtype, str], mlserver: Foreign, tmp_path: Path
) -> None:
    fine = {"name": "x", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}
    lines = [{"inputs": [fine]}, {"inputs": [fine | {"shape": [2, 1]}]}, {"outputs": []}, {"inputs": [fine]}]
    found = inferred(house, mlserver, tmp_path, echoes[Dtype.INT64], lines, "--retries", "1")
    assert [found[at]["outputs"][0]["data"] for at in (0, 3)] == [[1, 2], [1, 2]]
    assert "shape" in found[1]["error"]["msg"]
    assert found[2]["error"]["msg"][0]["loc"] == ["inputs"]
    (unknown,) = inferred(house, mlserver, tmp_path, "nobody", lines[:1], "--retries", "1")
    assert "No deployment of this name" in unknown["error"]["msg"]
