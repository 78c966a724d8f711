"""Open Inference tensors as bytes through the door: the same answers as JSON gives, and refusals of what does not fit."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from modelkeep.contracts.prediction import mixed_type
from modelkeep.contracts.signature import FLOATS, Dtype, Signature, TensorSpec
from modelkeep.serving.codec import Tensors
from modelkeep.serving.dialects.open_inference import body, raw

INFER = "/v2/models/m/infer"
LENGTH = "inference-header-content-length"
ONE = np.array([[1.0, 2.0]])


def tensor(name: str, array: np.ndarray, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    """A tensor as a request names it, and its bytes."""
    dtype = next(one for one in Dtype if one.numpy == array.dtype.name)
    said: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": dtype.value}
    if not binary:
        return said | {"data": array.reshape(-1).tolist()}, b""
    data = raw.bytes_of(array)
    return said | {"parameters": {"binary_data_size": len(data)}}, data


def message(*tensors: tuple[dict[str, Any], bytes], **rest: object) -> tuple[bytes, int]:
    """A whole body, and the length of its JSON."""
    head = json.dumps({"inputs": [one for one, _data in tensors], **rest}).encode()
    return head + b"".join(data for _one, data in tensors), len(head)


async def post(house: Any, content: bytes, length: object, path: str = INFER, **headers: str) -> httpx.Response:
    return await house.client.post(path, content=content, headers={LENGTH: str(length), **headers})


def outputs(answer: httpx.Response) -> dict[str, np.ndarray]:
    """The outputs of an answer, bytes or JSON."""
    assert answer.status_code == 200, answer.text
    length = answer.headers.get(LENGTH)
    head = json.loads(answer.content[: int(length)] if length else answer.content)
    rest, found = answer.content[int(length) :] if length else b"", {}
    for one in head["outputs"]:
        dtype = Dtype(one["datatype"])
        if "data" in one:
            assert "parameters" not in one
            array = np.array(one["data"], dtype=dtype.numpy)
        else:
            size = one["parameters"]["binary_data_size"]
            array, rest = raw.array_of(dtype, (int(np.prod(one["shape"])),), rest[:size], one["name"]), rest[size:]
        found[one["name"]] = array.reshape(one["shape"])
    assert not rest
    return found


# ---- reading


def values(dtype: Dtype) -> st.SearchStrategy[Any]:
    if dtype is Dtype.BYTES:
        return st.text(max_size=6)
    floats = {"allow_nan": False, "allow_infinity": False} if dtype in FLOATS else {}
    return nps.from_dtype(np.dtype(dtype.numpy), **floats)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Signature, dict[str, np.ndarray]]:
    rows = draw(st.integers(1, 3))
    specs, arrays = [], {}
    for at in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from(list(Dtype)))
        shape = (rows, *draw(st.lists(st.integers(1, 3), max_size=2)))
        array = draw(
            nps.arrays(object if dtype is Dtype.BYTES else dtype.numpy, shape, elements=values(dtype), fill=st.nothing())
        )
        specs.append(TensorSpec(f"x{at}", dtype, (-1, *shape[1:])))
        arrays[f"x{at}"] = array
    return Signature(tuple(specs)), arrays


@given(requests(), st.data())
def test_tensors_are_the_same_in_json_in_bytes_and_mixed(case: tuple[Signature, dict], data: st.DataObject) -> None:
    signature, arrays = case
    read: list[Tensors] = []
    for ways in ([False] * len(arrays), [True] * len(arrays), [data.draw(st.booleans()) for _ in arrays]):
        content, length = message(
            *(tensor(name, one, binary=way) for way, (name, one) in zip(ways, arrays.items(), strict=True))
        )
        read.append(body.tensors_of(signature, mixed_type(length), content))
    for name, array in arrays.items():
        for tensors in read:
            assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
            assert tensors[name].tolist() == array.tolist()


@pytest.mark.parametrize("dtype", list(Dtype))
async def test_every_datatype_goes_both_ways(house, dtype: Dtype) -> None:
    spec = TensorSpec("x", dtype, (-1, 2))
    await house.serve("m", Signature((spec,), (TensorSpec("y", dtype, (-1, 2)),)), lambda inputs: {"y": inputs["x"]})
    texts = np.array([["a", "\u017c"]], dtype=object)
    array = texts if dtype is Dtype.BYTES else np.array([[0, 1]], dtype=dtype.numpy)
    content, length = message(tensor("x", array, binary=True), parameters={"binary_data_output": True})
    answer = await post(house, content, length)
    assert answer.headers["content-type"] == "application/octet-stream"
    found = outputs(answer)["y"].tolist()
    assert found == ([[b"a", "\u017c".encode()]] if dtype is Dtype.BYTES else array.tolist())


# ---- answers


@pytest.mark.parametrize(
    ("everywhere", "sums", "echoes", "wanted"),
    [
        (True, None, None, {"sum", "echo"}),
        (None, True, None, {"sum"}),
        (True, False, None, {"echo"}),
        (False, True, False, {"sum"}),
        (None, None, None, set()),
    ],
)
async def test_what_an_output_says_of_itself_wins(house, everywhere, sums, echoes, wanted) -> None:
    await house.serve("m")

    def said(name: str, value: bool | None) -> dict[str, bool]:
        return {} if value is None else {name: value}

    asked = [{"name": name, "parameters": said("binary_data", value)} for name, value in (("sum", sums), ("echo", echoes))]
    sent, _data = tensor("input", ONE, binary=False)
    request = {"inputs": [sent], "outputs": asked, "parameters": said("binary_data_output", everywhere), "id": "\u017c"}
    answer = await house.client.post(INFER, json=request)
    assert {name: one.tolist() for name, one in outputs(answer).items()} == {"sum": [3.0], "echo": [[1.0, 2.0]]}
    head = json.loads(answer.content[: int(answer.headers.get(LENGTH, len(answer.content)))])
    assert {one["name"] for one in head["outputs"] if "parameters" in one} == wanted
    assert (LENGTH in answer.headers) == bool(wanted)
    assert head["id"] == "\u017c"


async def test_what_is_not_finite_is_as_it_is_in_bytes_unless_it_is_refused(house) -> None:
    from modelkeep.contracts.snapshot import DeploymentSettings

    await house.serve("m", compute=lambda inputs: {"sum": np.array([np.inf]), "echo": inputs["input"] * np.nan})
    sent = tensor("input", ONE, binary=True)
    asked = [message(sent), message(sent, parameters={"binary_data_output": True})]
    found = outputs(await post(house, *asked[1]))
    assert np.isinf(found["sum"]).all()
    assert np.isnan(found["echo"]).all()
    house.settings["m"] = DeploymentSettings(not_finite="refuse")
    house.publish()
    assert [(await post(house, *one)).status_code for one in asked] == [500, 500]


@pytest.mark.parametrize(("framework", "taken"), [("onnxruntime", True), ("scikit-learn", False)])
async def test_nan_is_a_number_to_a_graph_and_a_gap_to_an_estimator(house, framework: str, taken: bool) -> None:
    import msgspec

    version = await house.serve("m", wait=False)
    house.versions[version] = msgspec.structs.replace(house.versions[version], framework=framework, id="m-2")
    house.versions["m-2"], house.deployments["m"] = house.versions.pop(version), "m-2"
    house.publish()
    await house.connect("m-2")
    for value in (np.nan, np.inf):
        content, length = message(tensor("input", np.array([[value, 1.0]]), binary=True))
        assert (await post(house, content, length)).status_code == (200 if taken else 400)


async def test_the_best_classes_are_named(house) -> None:
    signature = Signature(
        (TensorSpec("x", Dtype.FP32, (-1, 3)),), (TensorSpec("p", Dtype.FP32, (-1, 3)), TensorSpec("n", Dtype.UINT8, (-1, 3)))
    )
    await house.serve(
        "m", signature, lambda inputs: {"p": inputs["x"], "n": inputs["x"].astype(np.uint8)}, labels=("a", "b", "c"), scores="p"
    )
    sent, _data = tensor("x", np.array([[1, 9, 5], [7, 7, 0]], np.float32), binary=False)

    async def classes(name: str, count: object) -> httpx.Response:
        asked = [{"name": name, "parameters": {"classification": count}}]
        return await house.client.post(INFER, json={"inputs": [sent], "outputs": asked})

    (output,) = (await classes("p", 2)).json()["outputs"]
    assert output == {"name": "p", "shape": [2, 2], "datatype": "BYTES", "data": ["9.0:1:b", "5.0:2:c", "7.0:0:a", "7.0:1:b"]}
    (output,) = (await classes("n", 99)).json()["outputs"]
    assert output["data"] == ["9:1", "5:2", "1:0", "7:0", "7:1", "0:2"]
    for wrong in (-1, True, "2", 1.5, 10**9, None, [1]):
        assert "classification" in (await classes("p", wrong)).json()["error"]


async def test_an_output_without_classes_has_no_best_ones(house) -> None:
    await house.serve("m")
    sent, _data = tensor("input", ONE, binary=False)
    asked = {"inputs": [sent], "outputs": [{"name": "sum", "parameters": {"classification": 1}}]}
    assert "outputs.sum" in (await house.client.post(INFER, json=asked)).json()["error"]


# ---- a body that is bytes alone


@pytest.mark.parametrize("rows", [1, 3])
async def test_a_body_may_be_the_bytes_of_the_only_input(house, rows: int) -> None:
    await house.serve("m")
    array = np.arange(rows * 2.0).reshape(rows, 2)
    found = outputs(await post(house, array.tobytes(), 0))
    assert found["echo"].tolist() == array.tolist()
    for wrong in (b"", b"1234567", array.tobytes()[:-1]):
        assert (await post(house, wrong, 0)).status_code == 400


async def test_a_picture_may_be_the_whole_body(house, images) -> None:
    await house.serve("m", images.signature, images.compute)
    assert outputs(await post(house, b"aab", 0))["scores"].tolist() == [[2, 1, 0, 0]]


async def test_pictures_come_as_bytes_and_as_base64(house, images) -> None:
    await house.serve("m", images.signature, images.compute)
    content, length = message(tensor("image", np.array([b"a", b"bb"], dtype=object), binary=True))
    assert outputs(await post(house, content, length))["scores"].tolist() == [[1, 0, 0, 0], [0, 2, 0, 0]]
    sent, data = tensor("image", np.array([b"YQ==", b"YmI="], dtype=object), binary=True)
    sent["parameters"]["content_type"] = "base64"
    content, length = message((sent, data))
    assert outputs(await post(house, content, length))["scores"].tolist() == [[1, 0, 0, 0], [0, 2, 0, 0]]
    sent["parameters"]["content_type"] = "str"
    content, length = message((sent, b"\4\0\0\0YQ==\4\0\0\0*!?="), parameters={"content_type": "base64"})
    assert outputs(await post(house, content, length))["scores"].shape == (2, 4)


async def test_a_request_of_several_inputs_is_not_bytes_alone(house, ones) -> None:
    signature = Signature(
        (TensorSpec("a", Dtype.INT8, (-1,)), TensorSpec("b", Dtype.INT8, (-1,))), (TensorSpec("y", Dtype.FP64, (-1,)),)
    )
    await house.serve("m", signature, ones)
    assert (await post(house, b"12", 0)).status_code == 400


# ---- what is refused


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "", "99999", "9" * 40, "\u0663"])
async def test_a_length_that_is_none_is_refused(house, length: str) -> None:
    await house.serve("m")
    content, _length = message(tensor("input", ONE, binary=True))
    answer = await house.client.post(INFER, content=content, headers={LENGTH: length.encode()})
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}


@pytest.mark.parametrize(
    ("size", "data"),
    [(16, b""), (16, b"x" * 15), (16, b"x" * 17), (15, b"x" * 15), (0, b""), (-16, b"x" * 16)]
    + [(size, b"x" * 16) for size in ("16", 16.0, True, None, 2**70, [16])],
)
async def test_sizes_that_do_not_fit_are_refused(house, size: object, data: bytes) -> None:
    await house.serve("m")
    sent = {"name": "input", "shape": [1, 2], "datatype": "FP64", "parameters": {"binary_data_size": size}}
    content, length = message((sent, data))
    answer = await post(house, content, length)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_data_and_bytes_together_or_neither_or_without_a_length_are_refused(house) -> None:
    await house.serve("m")
    sent, data = tensor("input", ONE, binary=True)
    for wrong in (sent | {"data": [1, 2]}, {**sent, "parameters": {}}):
        content, length = message((wrong, data))
        assert (await post(house, content, length)).status_code == 400
    assert (await house.client.post(INFER, json={"inputs": [sent]})).status_code == 400


@given(st.data())
def test_a_damaged_binary_body_is_answered_or_refused_but_never_our_fault(served_once, data: st.DataObject) -> None:
    content, length = message(tensor("input", ONE, binary=True), parameters={"binary_data_output": True})
    at = data.draw(st.integers(0, len(content)))
    damage = data.draw(st.binary(max_size=8))
    content = content[:at] + damage + content[at + data.draw(st.integers(0, 8)) :]
    length = data.draw(st.just(length) | st.integers(0, len(content) + 3))
    status, headers, answer = served_once("POST", INFER, content, None, [(LENGTH.encode(), str(length).encode())])
    assert status in {200, 400}, answer
    if status == 400:
        assert json.loads(answer).keys() == {"error"}
    else:
        assert int(headers.get(LENGTH.encode(), len(answer))) <= len(answer)


# ---- deadline and history


@pytest.mark.parametrize("given_us", [-1, "1", 1.5, True, 2**60, None, [1]])
async def test_a_timeout_that_is_no_number_of_microseconds_is_refused(house, given_us: object) -> None:
    await house.serve("m")
    sent, _data = tensor("input", ONE, binary=False)
    answer = await house.client.post(INFER, json={"inputs": [sent], "parameters": {"timeout": given_us}})
    assert (answer.status_code, "timeout" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(("given_us", "status"), [(1000, 504), (0, 200), (60_000_000, 200)])
async def test_a_timeout_brings_the_deadline_forward(house, given_us: int, status: int) -> None:
    version = await house.serve("m", wait=False)
    if status == 200:
        await house.connect(version)
    sent, _data = tensor("input", ONE, binary=False)
    known = {"timeout": given_us, "priority": 3, "sequence_id": 0, "mine": "x"}
    answer = await house.client.post(INFER, json={"inputs": [sent], "parameters": known})
    assert answer.status_code == status


async def test_the_history_keeps_what_can_be_read_again(house) -> None:
    await house.serve("m")
    content, length = message(tensor("input", ONE, binary=True), parameters={"binary_data_output": True})
    answer = await post(house, content, length)
    await post(house, ONE.tobytes(), 0)
    mixed, bare = house.records
    assert (mixed.inputs, mixed.outputs) == (content, answer.content)
    for record in (mixed, bare):
        read = body.tensors_of(house.versions["m-1"].signature, record.content_type, record.inputs)
        assert read["input"].tolist() == ONE.tolist()
        assert body.answer_of(record.answer_type, record.outputs) == {"sum": [3.0], "echo": [[1.0, 2.0]]}


async def test_a_type_that_claims_a_length_is_not_kept_for_a_body_of_json(house) -> None:
    await house.serve("m")
    sent, _data = tensor("input", ONE, binary=False)
    claims = {"content-type": f"application/octet-stream; {LENGTH}=1"}
    assert (await house.client.post(INFER, content=json.dumps({"inputs": [sent]}), headers=claims)).status_code == 200
    assert house.records[0].content_type == "application/json"


async def test_a_missing_text_is_null_in_json_and_an_empty_one_in_bytes(house) -> None:
    texts = Signature((TensorSpec("x", Dtype.FP64, (-1, 1)),), (TensorSpec("y", Dtype.BYTES, (-1,)),))
    await house.serve("texts", texts, lambda inputs: {"y": np.array([None, "", "a"], dtype=object)[: len(inputs["x"])]})
    question = {"inputs": [{"name": "x", "shape": [3, 1], "datatype": "FP64", "data": [1, 2, 3]}]}
    told = await house.client.post("/v2/models/texts/infer", json=question)
    assert told.json()["outputs"][0]["data"] == [None, "", "a"]
    binary = {**question, "parameters": {"binary_data_output": True}}
    told = await house.client.post("/v2/models/texts/infer", json=binary)
    head = int(told.headers["inference-header-content-length"])
    assert told.content[head:] == raw.packed(["", "", "a"])
    kept = body.answer_of(mixed_type(head), told.content)
    assert kept == {"y": ["", "", "a"]}
