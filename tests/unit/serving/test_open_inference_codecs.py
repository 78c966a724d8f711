"""Content types of MLServer's codecs in requests and answers, over REST and gRPC, and as the history reads them again."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.rpcs import Rpcs, array_in, question, rpcs_of
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.serving.dialects.open_inference import body
from modelkeep.serving.dialects.open_inference import grpc as messages
from modelkeep.serving.protos import open_inference_pb2 as pb

INFER = "/v2/models/m/infer"
TEXTS = Signature((TensorSpec("x", Dtype.BYTES, (-1,), nullable=True),), (TensorSpec("y", Dtype.BYTES, (-1,)),))
NUMBERS = Signature((TensorSpec("x", Dtype.FP64, (-1, 2)),), (TensorSpec("y", Dtype.FP64, (-1, 2)),))
COLUMNS = Signature((TensorSpec("input", Dtype.FP64, (-1, 2), columns=("a", "b")),), (TensorSpec("y", Dtype.FP64, (-1, 2)),))
PAIR = Signature(
    (TensorSpec("a", Dtype.FP64, (-1,)), TensorSpec("b", Dtype.FP64, (-1,))), (TensorSpec("y", Dtype.FP64, (-1,)),)
)
KINDS = {
    Dtype.BYTES: st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    Dtype.BOOL: st.booleans(),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FP64: st.floats(allow_nan=False, allow_infinity=False),
}
ENCODED = {"name": "y", "parameters": {"content_type": "base64"}}


def echo(inputs: dict) -> dict:
    (array,) = inputs.values()
    return {"y": array}


def texts(values: list[Any], name: str = "x", **parameters: object) -> dict[str, Any]:
    return {"name": name, "shape": [len(values), 1], "datatype": "BYTES", "data": values, "parameters": parameters}


def rows(name: str) -> dict[str, Any]:
    return {"name": name, "shape": [1, 2], "datatype": "FP64", "data": [1.5, 2.5]}


async def post(house: Any, tensor: dict[str, Any], **rest: object) -> httpx.Response:
    return await house.client.post(INFER, json={"inputs": [tensor], **rest})


@pytest.fixture
async def rpcs(house) -> AsyncIterator[Rpcs]:
    await house.serve("m", TEXTS, echo)
    async with rpcs_of(house) as found:
        yield found


# ---- the only tensor of a request


@pytest.mark.parametrize("signature", [NUMBERS, COLUMNS])
@pytest.mark.parametrize("kind", ["np", "str"])
async def test_a_request_that_is_one_tensor_names_it_as_it_likes(house, signature: Signature, kind: str) -> None:
    await house.serve("m", signature, echo)
    answer = await post(house, rows("input-1"), parameters={"content_type": kind})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [1.5, 2.5]
    (record,) = house.records
    read = body.tensors_of(signature, record.content_type, record.inputs)
    assert read[signature.inputs[0].name].tolist() == [[1.5, 2.5]]


async def test_so_does_one_whose_tensor_is_bytes(house) -> None:
    await house.serve("m", NUMBERS, echo)
    sent = {"name": "input-1", "shape": [1, 2], "datatype": "FP64", "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [sent], "parameters": {"content_type": "np"}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = await house.client.post(INFER, content=head + np.array([1.5, np.nan]).tobytes(), headers=headers)
    assert answer.status_code == 400
    answer = await house.client.post(INFER, content=head + np.array([1.5, 2.5]).tobytes(), headers=headers)
    assert answer.json()["outputs"][0]["data"] == [1.5, 2.5]


@pytest.mark.parametrize("kind", [None, "pd", "base64", "other", ["np"], {"np": 1}, 1])
async def test_all_other_requests_name_the_models_inputs(house, kind: object) -> None:
    await house.serve("m", NUMBERS, echo)
    answer = await post(house, rows("input-1"), parameters={} if kind is None else {"content_type": kind})
    assert (answer.status_code, "The model takes x." in answer.json()["error"]) == (400, True)


async def test_a_tensor_is_no_other_than_it_says_where_a_model_has_several_inputs(house, ones) -> None:
    await house.serve("m", PAIR, ones)
    answer = await post(house, rows("input-1"), parameters={"content_type": "np"})
    assert answer.status_code == 400
    both = [{"name": name, "shape": [1], "datatype": "FP64", "data": [1.0]} for name in ("input-1", "x")]
    await house.serve("n", NUMBERS, echo)
    answer = await house.client.post("/v2/models/n/infer", json={"inputs": both, "parameters": {"content_type": "np"}})
    assert (answer.status_code, "inputs.input-1" in answer.json()["error"]) == (400, True)


async def test_a_column_that_is_the_only_one_keeps_its_name(house) -> None:
    one = Signature((TensorSpec("input", Dtype.FP64, (-1, 1), columns=("a",)),), (TensorSpec("y", Dtype.FP64, (-1, 1)),))
    await house.serve("m", one, echo)
    for shape in ([2], [2, 1]):
        tensor = {"name": "a", "shape": shape, "datatype": "FP64", "data": [1.5, 2.5]}
        answer = await post(house, tensor, parameters={"content_type": "np"})
        assert answer.json()["outputs"][0]["data"] == [1.5, 2.5]


async def test_over_grpc_too(rpcs: Rpcs) -> None:
    for bare in (True, False):
        asked = question(np.array(["a", "\u017c"], object), Dtype.BYTES, bare=bare, name="input-1")
        assert (await rpcs.refused("ModelInfer", asked)).code().name == "INVALID_ARGUMENT"
        asked.parameters["content_type"].string_param = "str"
        assert array_in(await rpcs.infer(asked)).tolist() == [b"a", "\u017c".encode()]
        assert messages.tensors_of(TEXTS, asked.SerializeToString())["x"].tolist() == ["a", "\u017c"]


# ---- columns of objects, as JSON


def column(dtype: Dtype) -> Signature:
    return Signature((TensorSpec("x", dtype, (-1,), nullable=True),), (TensorSpec("y", dtype, (-1,)),))


@given(
    st.sampled_from([Dtype.BYTES, Dtype.BOOL, Dtype.INT64, Dtype.FP64]).flatmap(
        lambda dtype: st.tuples(st.just(dtype), st.lists(KINDS[dtype], min_size=1, max_size=4))
    )
)
def test_a_column_of_objects_comes_as_json_and_is_what_it_was(case: tuple[Dtype, list[Any]]) -> None:
    dtype, values = case
    sent = {"inputs": [texts([json.dumps(value) for value in values], content_type="pd_json")]}
    read = body.tensors_of(column(dtype), "application/json", json.dumps(sent).encode())
    assert (read["x"].dtype.name, read["x"].tolist()) == (dtype.numpy, values)


@pytest.mark.parametrize(
    "values",
    [["1", '"a"'], ["true", "1"], ["[1]"], ['{"a": "b"}'], ["text"], [""], ['"open'], ['"\ud800"'], [None], ["1", "null"]],
)
@pytest.mark.parametrize("dtype", [Dtype.BYTES, Dtype.INT64])
async def test_a_column_of_several_types_or_of_none_is_refused(house, values: list[Any], dtype: Dtype) -> None:
    await house.serve("m", column(dtype), echo)
    answer = await house.client.post(INFER, content=json.dumps({"inputs": [texts(values, content_type="pd_json")]}))
    assert answer.status_code == 400
    assert answer.json()["error"]


# ---- answers in base64


async def test_an_output_is_written_in_base64_where_it_is_asked_for_so(house) -> None:
    await house.serve("m", TEXTS, lambda inputs: {"y": np.array([None, "\u017c", b"\xff\0"], dtype=object)})
    sent = texts(["", "a", "b"])
    plain = (await post(house, sent)).json()["outputs"]
    assert "parameters" not in plain[0]
    (output,) = (await post(house, sent, outputs=[ENCODED])).json()["outputs"]
    assert output["parameters"] == {"content_type": "base64"}
    assert output["data"] == [None, "xbw=", "/wA="]
    asked = [{"name": "y", "parameters": {"content_type": "base64", "binary_data": True}}]
    answer = await post(house, sent, outputs=asked)
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"content_type": "base64", "binary_data_size": 20}
    assert answer.content[length:] == b"\0\0\0\0\4\0\0\0xbw=\4\0\0\0/wA="
    texts_of = [body.answer_of(one.answer_type, one.outputs)["y"] for one in house.records]
    assert texts_of[1] == [None, "\u017c", "/wA="]
    assert texts_of[2] == ["", "\u017c", "/wA="]


@pytest.mark.parametrize("kind", ["str", "np", "pd", "datetime", "other", ["base64"], None, 1])
async def test_other_content_types_of_an_output_change_nothing(house, kind: object) -> None:
    await house.serve("m", TEXTS, echo)
    answer = await post(house, texts(["abcd"]), outputs=[{"name": "y", "parameters": {"content_type": kind}}])
    (output,) = answer.json()["outputs"]
    assert output["data"] == ["abcd"]
    assert "parameters" not in output


async def test_numbers_are_never_base64(house) -> None:
    await house.serve("m", NUMBERS, echo)
    (output,) = (await post(house, rows("x"), outputs=[ENCODED])).json()["outputs"]
    assert output == {"name": "y", "shape": [1, 2], "datatype": "FP64", "data": [1.5, 2.5]}


async def test_base64_goes_both_ways_over_grpc(rpcs: Rpcs) -> None:
    for bare in (True, False):
        asked = question(np.array([base64.b64encode(b"abcd")], object), Dtype.BYTES, bare=bare, name="x")
        asked.inputs[0].parameters["content_type"].string_param = "base64"
        assert array_in(await rpcs.infer(asked)).tolist() == [b"abcd"]
        asked.outputs.add(name="y").parameters["content_type"].string_param = "base64"
        answer = await rpcs.ask("ModelInfer", asked)
        found = pb.ModelInferResponse.FromString(answer)
        assert found.outputs[0].parameters["content_type"].string_param == "base64"
        assert array_in(found).tolist() == [b"YWJjZA=="]
        assert messages.answer_of(answer) == {"y": ["abcd"]}
