"""The Open Inference Protocol through the whole door: what real clients send, and what they can read."""

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.signature import Dtype, Signature, TensorSpec

INFER = "/v2/models/m/infer"
LIMITS: dict[Dtype, list[Any]] = {
    Dtype.BOOL: [True, False, False, True],
    Dtype.UINT8: [0, 1, 127, 255],
    Dtype.UINT16: [0, 1, 255, 65535],
    Dtype.UINT32: [0, 1, 65536, 4294967295],
    Dtype.UINT64: [0, 1, 2**53 + 1, 2**64 - 1],
    Dtype.INT8: [-128, -1, 0, 127],
    Dtype.INT16: [-32768, -1, 0, 32767],
    Dtype.INT32: [-(2**31), -1, 0, 2**31 - 1],
    Dtype.INT64: [-(2**63), -(2**53) - 1, 2**53 + 1, 2**63 - 1],
    Dtype.FP16: [0.0, -1.5, 65504.0, 6.103515625e-05],
    Dtype.FP32: [0.1, -3.4028234663852886e38, 1.401298464324817e-45, 16777217.0],
    Dtype.FP64: [0.1, 1.7976931348623157e308, 5e-324, -0.0],
    Dtype.BYTES: ["", "plain", "zażółć 中文 😀", 'quote" back\\slash \n tab\t'],
}
BEYOND: dict[Dtype, list[Any]] = {
    Dtype.BOOL: [2, "true", 0.5],
    Dtype.UINT8: [256, -1, 1.5, True, "1", None],
    Dtype.UINT16: [65536, -1],
    Dtype.UINT32: [2**32, -1],
    Dtype.UINT64: [2**64, -1, 1e300],
    Dtype.INT8: [128, -129],
    Dtype.INT16: [32768, -32769],
    Dtype.INT32: [2**31, -(2**31) - 1],
    Dtype.INT64: [2**63, -(2**63) - 1, 10**30],
    Dtype.FP16: [65520.0, "1", True],
    Dtype.FP32: [3.5e38, "1", False],
    Dtype.FP64: ["1", True, [1], {"a": 1}],
    Dtype.BYTES: [1, True, ["x"]],
}


def identity(dtype: Dtype) -> Signature:
    return Signature(
        (TensorSpec("x", dtype, (-1, 2), nullable=dtype in {Dtype.FP64, Dtype.BYTES}),), (TensorSpec("y", dtype, (-1, 2)),)
    )


def echo(inputs: dict) -> dict:
    return {"y": inputs["x"]}


def tensor(data: object, shape: list[int], datatype: str = "FP64", name: str = "input") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


ONE = {"inputs": [tensor([[1, 2]], [1, 2])]}


def error(answer: httpx.Response, status: int = 400) -> str:
    """The text of a refusal in the protocol's own shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    assert answer.headers["x-request-id"]
    text = answer.json()["error"]
    assert isinstance(text, str)
    assert text
    return text


# ---- health and metadata


async def test_health_is_told_in_bodies_that_clients_read(house) -> None:
    async def told(*, ready: bool) -> None:
        for path, status in (("/v2/health/live", 200), ("/v2/health/ready", 200 if ready else 503)):
            answer = await house.client.get(path)
            assert (answer.status_code, answer.json()) == (status, {"live": True, "ready": ready})

    await told(ready=False)  # no news from the control plane yet
    await house.serve("m")
    await told(ready=True)
    await house.serve("cold", wait=False)
    await told(ready=False)


async def test_who_is_about_to_end_is_not_ready(house) -> None:
    await house.serve("m")
    house.door.drain()
    assert (await house.client.get("/v2/health/ready")).status_code == 503


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_describes_itself(house, path: str) -> None:
    body = (await house.client.get(path)).json()
    extensions = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "statistics"]
    assert body == {"name": "modelkeep", "version": "9.9", "extensions": extensions}


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/versions/4"])
async def test_a_model_describes_itself(house, path: str) -> None:
    await house.serve("m", number=4)
    assert (await house.client.get(path)).json() == {
        "name": "m",
        "versions": ["4"],
        "platform": "fake_onnx",
        "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}],
        "outputs": [
            {"name": "sum", "datatype": "FP64", "shape": [-1]},
            {"name": "echo", "datatype": "FP64", "shape": [-1, 2]},
        ],
    }


@pytest.mark.parametrize("path", ["/v2/models/m/ready", "/v2/models/m/versions/1/ready"])
async def test_a_model_says_whether_it_is_ready(house, path: str) -> None:
    version = await house.serve("m", wait=False)
    answer = await house.client.get(path)
    assert (answer.status_code, answer.json()) == (503, {"name": "m", "ready": False})
    await house.connect(version)
    answer = await house.client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"name": "m", "ready": True})


# ---- inference


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("nested", [False, True])
async def test_every_datatype_goes_in_and_comes_out_at_its_limits(house, dtype: Dtype, nested: bool) -> None:
    await house.serve("m", identity(dtype), echo)
    values = LIMITS[dtype]
    data = [values[:2], values[2:]] if nested else values
    answer = await house.client.post(INFER, json={"inputs": [tensor(data, [2, 2], dtype.value, "x")]})
    assert answer.status_code == 200, answer.text
    body = json.loads(answer.content)
    assert isinstance(body.pop("parameters")["prediction_id"], str)
    (output,) = body.pop("outputs")
    assert body == {"model_name": "m", "model_version": "1"}
    assert (output["name"], output["datatype"], output["shape"]) == ("y", dtype.value, [2, 2])
    if dtype is Dtype.BYTES:
        assert output["data"] == values
    else:
        assert np.array(output["data"], dtype=dtype.numpy).tobytes() == np.array(values, dtype=dtype.numpy).tobytes()
    if "INT" in dtype.value:
        assert output["data"] == values
        assert all(type(value) is int for value in output["data"])


@pytest.mark.parametrize(("dtype", "value"), [(dtype, value) for dtype, values in BEYOND.items() for value in values])
async def test_what_a_datatype_cannot_hold_is_refused(house, dtype: Dtype, value: object) -> None:
    await house.serve("m", identity(dtype), echo)
    answer = await house.client.post(INFER, json={"inputs": [tensor([LIMITS[dtype][0], value], [1, 2], dtype.value, "x")]})
    assert "inputs.x" in error(answer)


@pytest.mark.parametrize(
    ("want", "given", "values"),
    [
        (Dtype.FP32, "INT64", [1, 2]),
        (Dtype.FP64, "FP32", [0.5, 2]),
        (Dtype.FP32, "FP64", [0.5, 2]),
        (Dtype.INT64, "INT32", [1, -2]),
        (Dtype.INT8, "INT64", [1, -2]),
        (Dtype.INT32, "FP32", [1.0, 2.0]),
        (Dtype.BOOL, "UINT8", [0, 1]),
    ],
)
async def test_a_datatype_that_holds_the_same_values_is_taken_as_the_models(
    house, want: Dtype, given: str, values: list
) -> None:
    await house.serve("m", identity(want), echo)
    answer = await house.client.post(INFER, json={"inputs": [tensor(values, [1, 2], given, "x")]})
    (output,) = answer.json()["outputs"]
    assert (output["datatype"], output["data"]) == (want.value, values)


@pytest.mark.parametrize(
    ("want", "given", "values"),
    [
        (Dtype.INT64, "FP64", [1.5, 2]),
        (Dtype.INT8, "INT64", [128, 0]),
        (Dtype.UINT8, "INT8", [-1, 0]),
        (Dtype.FP32, "FP64", [1e300, 0]),
        (Dtype.FP32, "BOOL", [True, False]),
        (Dtype.FP32, "BYTES", ["1", "2"]),
        (Dtype.BYTES, "INT64", [1, 2]),
        (Dtype.BOOL, "INT64", [0, 2]),
    ],
)
async def test_no_datatype_is_taken_for_another_where_a_value_would_change(
    house, want: Dtype, given: str, values: list
) -> None:
    await house.serve("m", identity(want), echo)
    error(await house.client.post(INFER, json={"inputs": [tensor(values, [1, 2], given, "x")]}))


@pytest.mark.parametrize("request_id", ["42", "", "zażółć 中文 😀", 'quote" \n \\', "x" * 5000, "\u0000"])
async def test_the_id_comes_back_as_it_was_sent(house, request_id: str) -> None:
    await house.serve("m")
    answer = await house.client.post(INFER, json=ONE | {"id": request_id})
    assert answer.status_code == 200
    assert answer.json()["id"] == request_id


async def test_without_an_id_there_is_none(house) -> None:
    await house.serve("m")
    for body in (ONE, ONE | {"id": None}):
        assert "id" not in (await house.client.post(INFER, json=body)).json()


async def test_requested_outputs_restrict_and_order_what_comes_back(house) -> None:
    await house.serve("m")

    async def names(*outputs: str) -> list[str]:
        body = ONE | {"outputs": [{"name": name, "parameters": {"binary_data": False}} for name in outputs]}
        answer = await house.client.post(INFER, json=body)
        return [one["name"] for one in answer.json()["outputs"]]

    assert await names("echo") == ["echo"]
    assert await names("echo", "sum") == ["echo", "sum"]
    assert await names() == ["sum", "echo"]


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "text/plain", "multipart/form-data"])
async def test_the_body_is_json_whatever_its_type_says(house, kind: str | None) -> None:
    await house.serve("m")
    answer = await house.client.post(INFER, content=json.dumps(ONE), headers={"content-type": kind} if kind else {})
    assert answer.status_code == 200


async def test_what_is_not_a_number_is_null_both_ways(house) -> None:
    await house.serve("m", identity(Dtype.FP64), echo)
    answer = await house.client.post(INFER, json={"inputs": [tensor([None, 1], [1, 2], "FP64", "x")]})
    assert answer.json()["outputs"][0]["data"] == [None, 1.0]
    await house.serve("n", compute=lambda inputs: {"sum": np.array([math.inf]), "echo": inputs["input"] * np.nan})
    answer = await house.client.post("/v2/models/n/infer", json=ONE)
    assert [one["data"] for one in answer.json()["outputs"]] == [[None], [None, None]]


async def test_a_missing_value_is_refused_where_the_model_takes_none(house) -> None:
    await house.serve("m")
    for datatype in ("FP64", "FP32"):
        assert "missing" in error(await house.client.post(INFER, json={"inputs": [tensor([None, 1], [1, 2], datatype)]}))


async def test_a_named_version_is_asked_by_its_text(house) -> None:
    await house.serve("m", number=3)
    answer = await house.client.post("/v2/models/m/versions/3/infer", json=ONE)
    assert answer.json()["model_version"] == "3"
    for other in ("1", "03", "three"):
        error(await house.client.post(f"/v2/models/m/versions/{other}/infer", json=ONE), 404)


async def test_a_prediction_is_named_in_the_headers_too(house) -> None:
    await house.serve("m")
    answer = await house.client.post(INFER, json=ONE)
    assert answer.headers["x-prediction-id"] == answer.json()["parameters"]["prediction_id"]


# ---- layouts


@pytest.mark.parametrize("tall", [False, True])
async def test_a_matrix_with_named_columns_is_sent_as_one_tensor_a_column_too(house, tall: bool) -> None:
    await house.serve("m")
    shape = [2, 1] if tall else [2]
    columns = [tensor([1, 3], shape, "INT64", "a"), tensor([2, 4], shape, "FP32", "b")]
    answer = await house.client.post(INFER, json={"inputs": columns})
    assert answer.json()["outputs"][0]["data"] == [3.0, 7.0]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
async def test_a_table_is_sent_a_column_a_tensor(house, shape: list[int], ones) -> None:
    signature = Signature(
        (TensorSpec("n", Dtype.INT64, (-1, 1)), TensorSpec("t", Dtype.BYTES, (-1,), nullable=True)),
        (TensorSpec("y", Dtype.FP64, (-1,)),),
    )
    await house.serve("m", signature, ones)
    columns = [tensor([1, 2], shape, "INT32", "n"), tensor(["x", None], shape, "BYTES", "t")]
    assert (await house.client.post(INFER, json={"inputs": columns})).json()["outputs"][0]["shape"] == [2]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
async def test_pictures_are_base64_texts(house, images, shape: list[int]) -> None:
    await house.serve("m", images.signature, images.compute)
    pictures = tensor(["YQ==", "Yg=="], shape, "BYTES", "image")
    answer = await house.client.post(INFER, json={"inputs": [pictures]})
    assert answer.json()["outputs"][0] == {
        "name": "scores",
        "datatype": "FP32",
        "shape": [2, 4],
        "data": [1, 0, 0, 0, 0, 1, 0, 0],
    }


# ---- what is refused

REFUSED: dict[str, tuple[Any, str]] = {
    "an empty body": (b"", "not valid JSON"),
    "malformed JSON": (b"{", "not valid JSON"),
    "bytes that are no text": (b"\xff\xfe", "not valid JSON"),
    "a bare NaN": (b'{"inputs": [{"name": "input", "shape": [1], "datatype": "FP64", "data": [NaN]}]}', "not valid JSON"),
    "brackets without end": (b"[" * 1_000_000, "protocol"),
    "data without end": (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ' + b"[" * 500_000, "JSON"),
    "no object": ([], "protocol"),
    "no inputs": ({}, "inputs"),
    "inputs that are no list": ({"inputs": {}}, "inputs"),
    "an input without a name": ({"inputs": [{"shape": [1], "datatype": "FP64", "data": [1]}]}, "name"),
    "an input without a shape": ({"inputs": [{"name": "input", "datatype": "FP64", "data": [1]}]}, "shape"),
    "an input without a datatype": ({"inputs": [{"name": "input", "shape": [1], "data": [1]}]}, "datatype"),
    "an input without data": ({"inputs": [{"name": "input", "shape": [1], "datatype": "FP64"}]}, "data"),
    "an id that is no text": (ONE | {"id": 42}, "id"),
    "nothing in inputs": ({"inputs": []}, "missing"),
    "an unknown input": ({"inputs": [*ONE["inputs"], tensor([1], [1], name="other")]}, "inputs.other"),
    "another input's name": ({"inputs": [tensor([1], [1], name="other")]}, "inputs.a"),
    "an input twice": ({"inputs": ONE["inputs"] * 2}, "twice"),
    "an unknown output": (ONE | {"outputs": [{"name": "other"}]}, "sum, echo"),
    "an unknown datatype": ({"inputs": [tensor([1, 2], [1, 2], "FP128")]}, "datatype"),
    "a datatype for binary data only": ({"inputs": [tensor([1, 2], [1, 2], "BF16")]}, "datatype"),
    "a datatype in small letters": ({"inputs": [tensor([1, 2], [1, 2], "fp64")]}, "datatype"),
    "a shape the model has not": ({"inputs": [tensor([1, 2, 3], [1, 3])]}, "shape"),
    "a flat shape": ({"inputs": [tensor([1, 2], [2])]}, "shape"),
    "no shape": ({"inputs": [tensor([1, 2], [])]}, "shape"),
    "a negative shape": ({"inputs": [tensor([1, 2], [-1, 2])]}, "shape"),
    "a shape of texts": ({"inputs": [tensor([1, 2], ["1", "2"])]}, "shape"),
    "too many axes": ({"inputs": [tensor([1, 2], [1] * 40)]}, "shape"),
    "a shape beyond any memory": ({"inputs": [tensor([], [0, 2**62, 4])]}, "shape"),
    "a shape beyond any number": ({"inputs": [tensor([], [0, 10**4000, 10**4000])]}, "shape"),
    "fewer values than the shape": ({"inputs": [tensor([1], [1, 2])]}, "shape"),
    "more values than the shape": ({"inputs": [tensor([1, 2, 3], [1, 2])]}, "shape"),
    "a nested shape other than the shape": ({"inputs": [tensor([[1], [2]], [1, 2])]}, "shape"),
    "ragged data": ({"inputs": [tensor([[1, 2], [3]], [2, 2])]}, "lengths"),
    "data that is no list": ({"inputs": [tensor(1, [1, 2])]}, "list"),
    "data that is a text": ({"inputs": [tensor("12", [1, 2])]}, "list"),
    "data that is null": ({"inputs": [tensor(None, [1, 2])]}, "list"),
    "no rows": ({"inputs": [tensor([], [0, 2])]}, "rows"),
    "columns of different lengths": ({"inputs": [tensor([1], [1], name="a"), tensor([1, 2], [2], name="b")]}, "rows"),
    "a column of two axes": ({"inputs": [tensor([1, 2], [1, 2], name="a"), tensor([1], [1], name="b")]}, "shape"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_is_an_error_text_and_names_its_reason(house, case: str) -> None:
    sent, word = REFUSED[case]
    await house.serve("m")
    answer = await house.client.post(INFER, content=sent if isinstance(sent, bytes) else json.dumps(sent))
    assert word in error(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", INFER),
        ("PUT", INFER),
        ("DELETE", "/v2/models/m"),
        ("POST", "/v2"),
        ("POST", "/v2/models/m/ready"),
        ("GET", "/v2/models"),
        ("GET", "/v2/models/m/other"),
        ("POST", "/v2/models/m/infer/"),
        ("POST", "/v2/models/m/versions/1"),
        ("GET", "/v2/repository/index"),
        ("POST", "/v2/repository/models/m/other"),
        ("GET", "/v2/models/none/stats"),
        ("GET", "/v2/models/none/config"),
        ("GET", "/v2/models/m/versions/7/stats"),
        ("GET", "/v2/models/none"),
        ("GET", "/v2/models/none/ready"),
        ("POST", "/v2/models/none/infer"),
        ("POST", "/v2/models//infer"),
        ("POST", "/v2/health/live/other"),
    ],
)
async def test_what_the_protocol_has_not_is_not_found_in_its_own_shape(house, method: str, path: str) -> None:
    await house.serve("m")
    error(await house.client.request(method, path), 404)


async def test_errors_of_the_model_and_the_server_have_the_same_shape(house, refuse) -> None:
    def fail(inputs: dict) -> dict:
        raise refuse({1: "model_failed", 2: "memory"}.get(int(inputs["input"][0, 0]), "refused"), "detail")

    await house.serve("m", compute=fail)
    for value, status in ((1, 500), (2, 503), (3, 400)):
        answer = await house.client.post(INFER, json={"inputs": [tensor([value, 0], [1, 2])]})
        assert "detail" not in error(answer, status)
        assert ("retry-after" in answer.headers) == (status == 503)


async def test_a_passed_deadline_has_the_same_shape(house) -> None:
    await house.serve("m", wait=False)
    error(await house.client.post(INFER, json=ONE, headers={"x-request-timeout": "0.01"}), 504)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3),
    max_leaves=8,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["input", "a", "b", "x"]),
        "shape": st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**63]), max_size=3) | ANYTHING,
        "datatype": st.sampled_from([*[dtype.value for dtype in Dtype], "BF16"]) | ANYTHING,
        "data": ANYTHING | st.lists(st.integers(0, 3), max_size=6),
    }
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=3) | ANYTHING},
    optional={"id": ANYTHING, "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["sum", "x"])})) | ANYTHING},
)


@given(BODIES)
def test_any_request_at_all_is_answered_or_refused_but_never_our_fault(served_once, body: dict) -> None:
    status, _headers, content = served_once("POST", INFER, json.dumps(body).encode())
    assert status in {200, 400}, content
    answer = json.loads(content)
    if status == 400:
        assert answer.keys() == {"error"}
    else:
        for output in answer["outputs"]:
            assert len(output["data"]) == math.prod(output["shape"])


@given(ANYTHING, st.sampled_from(["inputs", "top_k", "version", "outputs"]))
def test_nor_is_any_native_request(served_once, value: object, field: str) -> None:
    body = {"inputs": [[1, 2]]} | {field: value}
    status, _headers, content = served_once("POST", "/api/v1/predict/m", json.dumps(body).encode())
    assert status in {200, 400, 404}, content
