"""The same rows in every dialect: what comes back is equal, bit by bit."""

import asyncio
import base64
import csv
import io
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.rpcs import array_in, question, rpcs_of
from modelkeep.contracts.signature import FLOATS, Dtype, Signature, TensorSpec
from modelkeep.serving.dialects.open_inference import raw
from modelkeep.serving.protos import open_inference_pb2 as pb

COLUMNS = ["a", "b"]
INFER_LENGTH = "inference-header-content-length"


def echoing(dtype: Dtype) -> Signature:
    columns = tuple(TensorSpec(name, dtype, (-1,)) for name in COLUMNS)
    return Signature(columns, (TensorSpec("y", dtype, (-1, 2)),))


def stacked(inputs: dict) -> dict:
    return {"y": np.stack([inputs[name] for name in COLUMNS], axis=1)}


def model_of(dtype: Dtype) -> str:
    return dtype.value.lower()


class Asking:
    """Asks a model by each dialect; the answer is its output as an array."""

    def __init__(self, house: Any, rpcs: Any) -> None:
        self._house = house
        self._rpcs = rpcs

    async def _post(self, path: str, body: object, content_type: str = "application/json", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given_headers = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = await self._house.client.post(path, content=content, headers=given_headers)
        assert answer.status_code == 200, answer.text
        return answer

    async def native(self, dtype: Dtype, inputs: object) -> Any:
        return (await self._post(f"/api/v1/predict/{model_of(dtype)}", {"inputs": inputs})).json()["outputs"]["y"]

    async def rows(self, dtype: Dtype, values: list) -> Any:
        return await self.native(dtype, values)

    async def records(self, dtype: Dtype, values: list) -> Any:
        return await self.native(dtype, [dict(zip(COLUMNS, row, strict=True)) for row in values])

    async def columns(self, dtype: Dtype, values: list) -> Any:
        return await self.native(dtype, {name: [row[at] for row in values] for at, name in enumerate(COLUMNS)})

    async def _scored(self, dtype: Dtype, body: object, content_type: str = "application/json") -> Any:
        path = f"/serving-endpoints/{model_of(dtype)}/invocations"
        return (await self._post(path, body, content_type)).json()["predictions"]

    async def split(self, dtype: Dtype, values: list) -> Any:
        return await self._scored(dtype, {"dataframe_split": {"columns": COLUMNS, "data": values}})

    async def dataframe_records(self, dtype: Dtype, values: list) -> Any:
        return await self._scored(dtype, {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in values]})

    async def csv(self, dtype: Dtype, values: list) -> Any:
        return await self._scored(dtype, _as_csv(values), "text/csv")

    async def sagemaker_csv(self, dtype: Dtype, values: list) -> Any:
        path = f"/endpoints/{model_of(dtype)}/invocations"
        return (await self._post(path, _as_csv(values), "text/csv")).json()["predictions"]

    async def instances(self, dtype: Dtype, values: list) -> Any:
        rows = [{name: _b64(value) for name, value in zip(COLUMNS, row, strict=True)} for row in values]
        return (await self._post(f"/v1/models/{model_of(dtype)}:predict", {"instances": rows})).json()["predictions"]

    async def inputs(self, dtype: Dtype, values: list) -> Any:
        columns = {name: [row[at] for row in values] for at, name in enumerate(COLUMNS)}
        return (await self._post(f"/v1/models/{model_of(dtype)}:predict", {"inputs": columns})).json()["outputs"]

    async def v2(self, dtype: Dtype, values: list) -> Any:
        told = (await self._post(f"/v2/models/{model_of(dtype)}/infer", {"inputs": _tensors(dtype, values)})).json()["outputs"][
            0
        ]
        return np.array(told["data"], dtype.numpy).reshape(told["shape"]).tolist()

    async def v2_binary(self, dtype: Dtype, values: list) -> Any:
        tensors, pieces = _tensors(dtype, values), []
        for one in tensors:
            pieces.append(bytes(raw.bytes_of(_array(dtype, one.pop("data")))))
            one["parameters"] = {"binary_data_size": len(pieces[-1])}
        head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
        path, octets = f"/v2/models/{model_of(dtype)}/infer", "application/octet-stream"
        answer = await self._post(path, head + b"".join(pieces), octets, **{INFER_LENGTH: str(len(head))})
        length = int(answer.headers[INFER_LENGTH])
        told = json.loads(answer.content[:length])["outputs"][0]
        array = raw.array_of(dtype, tuple(told["shape"]), answer.content[length:], "y")
        return [[one.decode() if isinstance(one, bytes) else one for one in row] for row in array.tolist()]

    async def rpc(self, dtype: Dtype, values: list, *, bare: bool) -> Any:
        asked = pb.ModelInferRequest(model_name=model_of(dtype))
        for at, name in enumerate(COLUMNS):
            column = question(_array(dtype, [row[at] for row in values]), dtype, bare=bare, name=name)
            asked.inputs.extend(column.inputs)
            asked.raw_input_contents.extend(column.raw_input_contents)
        found = array_in(await self._rpcs.infer(asked))
        return [[one.decode() if isinstance(one, bytes) else one for one in row] for row in found.tolist()]


def _as_csv(values: list) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([[str(one).lower() if isinstance(one, bool) else one for one in row] for row in values])
    return text.getvalue().encode()


def _b64(value: object) -> object:
    return {"b64": base64.b64encode(value.encode()).decode()} if isinstance(value, str) else value


def _array(dtype: Dtype, values: list) -> np.ndarray:
    array = np.empty(len(values), dtype.numpy)
    array[:] = values
    return array


def _tensors(dtype: Dtype, values: list) -> list[dict]:
    return [
        {"name": name, "datatype": dtype.value, "shape": [len(values)], "data": [row[at] for row in values]}
        for at, name in enumerate(COLUMNS)
    ]


@pytest.fixture(scope="module")
def ask(module_house, tmp_path_factory) -> Iterator[Callable[[Callable[[Asking], Awaitable[Any]]], Any]]:
    """Ask again and again, without an event loop of the test's own."""
    with asyncio.Runner() as runner:

        async def make() -> tuple[Any, Any, Asking]:
            house = module_house(tmp_path_factory.mktemp("run"))
            for dtype in Dtype:
                await house.serve(model_of(dtype), echoing(dtype), stacked)
            served = rpcs_of(house)
            return house, served, Asking(house, await served.__aenter__())

        house, served, asking = runner.run(make())
        yield lambda begin: runner.run(begin(asking))

        async def end() -> None:
            await served.__aexit__(None, None, None)
            await house.close()

        runner.run(end())


def values(dtype: Dtype) -> st.SearchStrategy:
    if dtype is Dtype.BOOL:
        return st.booleans()
    if dtype is Dtype.BYTES:
        return st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)  # in CSV, an empty text is a gap
    if dtype in FLOATS:
        return st.floats(width={"FP16": 16, "FP32": 32, "FP64": 64}[dtype.value], allow_nan=False, allow_infinity=False)
    limits = np.iinfo(dtype.numpy)
    return st.integers(int(limits.min), int(limits.max))


FORMS: dict[str, Callable[[Asking, Dtype, list], Awaitable[Any]]] = {
    "records": Asking.records,
    "columns": Asking.columns,
    "dataframe_split": Asking.split,
    "dataframe_records": Asking.dataframe_records,
    "csv": Asking.csv,
    "csv for SageMaker": Asking.sagemaker_csv,
    "instances": Asking.instances,
    "inputs": Asking.inputs,
    "V2": Asking.v2,
    "V2, binary": Asking.v2_binary,
    "gRPC, raw": lambda asking, dtype, rows: asking.rpc(dtype, rows, bare=True),
    "gRPC, typed": lambda asking, dtype, rows: asking.rpc(dtype, rows, bare=dtype is Dtype.FP16),
}


@given(st.data())
@pytest.mark.parametrize("dtype", list(Dtype))
def test_the_same_rows_are_answered_alike_whoever_asks(ask, dtype: Dtype, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(values(dtype), min_size=2, max_size=2), min_size=1, max_size=5))
    expected = np.array(ask(lambda asking: asking.rows(dtype, rows)), dtype.numpy)
    assert expected.tolist() == rows
    for form, begin in FORMS.items():
        found = np.array(ask(lambda asking, begin=begin: begin(asking, dtype, rows)), dtype.numpy)
        if dtype is Dtype.BYTES:
            assert found.tolist() == expected.tolist(), form
        else:
            assert found.tobytes() == expected.tobytes(), form
