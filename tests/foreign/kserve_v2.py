"""Asks an installation with KServe's own clients by version 2 of the protocol, over REST and gRPC; prints what came as JSON.

`python kserve_v2.py TASK.json`: the task names `url`, `grpc`, `key`, `echoes` (for each datatype a model that answers `y` =
`x`), the `rows` to send it, `columns` (a model with an input and an output for each datatype), and the `id` to send.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import to_np_dtype

BINARY = {"binary_data_output": True}
NOT_FINITE = [[float("nan"), float("inf")], [float("-inf"), 1.5]]


def listed(array: np.ndarray) -> Any:
    """An array's values; byte strings as the texts they are."""
    if array.dtype != object:
        return [array.dtype.name, array.tolist()]
    texts = [value.decode() if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()]
    return ["object", np.array(texts, dtype=object).reshape(array.shape).tolist()]


def given(name: str, datatype: str, rows: Any, *, binary: bool, flat: bool = False) -> InferInput:
    array = np.array(rows, dtype=to_np_dtype(datatype)).reshape(-1 if flat else np.shape(rows))
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


class Asker:
    """Both clients, and the task."""

    def __init__(self, task: dict[str, Any], rest: InferenceRESTClient, rpcs: InferenceGRPCClient) -> None:
        self.task = task
        self._rest = rest
        self._rpcs = rpcs

    async def rest(self, model: str, *inputs: InferInput, key: str | None = None, **request: Any) -> InferResponse:
        headers = {"x-api-key": self.task["key"] if key is None else key}
        asked = InferRequest(model, list(inputs), **request)
        return await self._rest.infer(self.task["url"], asked, model_name=model, headers=headers)

    async def rpc(self, model: str, *inputs: InferInput, key: str | None = None, **request: Any) -> InferResponse:
        headers = (("x-api-key", self.task["key"] if key is None else key),)
        return await self._rpcs.infer(InferRequest(model, list(inputs), **request), headers=headers)

    async def datatype(self, datatype: str) -> dict[str, Any]:
        """What comes back of one datatype's values, in each way that the clients have to send and to ask for them."""
        model, rows = self.task["echoes"][datatype], self.task["rows"][datatype]
        answers = {
            "bytes": await self.rest(model, given("x", datatype, rows, binary=True), parameters=BINARY),
            "bytes for json": await self.rest(model, given("x", datatype, rows, binary=True)),
            "raw": await self.rpc(model, given("x", datatype, rows, binary=True)),
        }
        if datatype != "FP16":  # which both refuse to send as numbers
            asked = [RequestedOutput("y", {"binary_data": True})]
            answers["json"] = await self.rest(model, given("x", datatype, rows, binary=False))
            answers["json for bytes"] = await self.rest(model, given("x", datatype, rows, binary=False), request_outputs=asked)
            shape = list(np.shape(rows))
            answers["nested"] = await self.rest(model, InferInput("x", shape, datatype, data=rows))
            answers["typed"] = await self.rpc(model, given("x", datatype, rows, binary=False))
        return {way: listed(answer.outputs[0].as_numpy()) for way, answer in answers.items()}

    async def not_finite(self, datatype: str) -> list[Any]:
        """What comes back of what is no finite number, which only bytes can say."""
        model, tensor = self.task["echoes"][datatype], given("x", datatype, NOT_FINITE, binary=True)
        answers = [await self.rest(model, tensor, parameters=BINARY), await self.rpc(model, tensor)]
        return [listed(answer.outputs[0].as_numpy()) for answer in answers]

    async def columns(self, ask: Any) -> dict[str, Any]:
        """What comes back of two columns of a table of all datatypes, asked for by name."""
        rows = self.task["rows"]
        inputs = [given(name.lower(), name, rows[name], binary=True, flat=True) for name in rows]
        wanted = [RequestedOutput("bytes_out"), RequestedOutput("uint64_out")]
        known = {"request_id": self.task["id"], "parameters": {"mine": "x", "priority": 3, "traced": True}}
        answer = await ask(self.task["columns"], *inputs, request_outputs=wanted, **known)
        return {
            "id": answer.id,
            "parameters": sorted(answer.parameters),
            "outputs": {one.name: listed(one.as_numpy()) for one in answer.outputs},
        }

    async def errors(self) -> dict[str, Any]:
        model = self.task["echoes"]["FP64"]
        rows = [[1.0, 2.0]]
        found: dict[str, Any] = {}
        for way, ask in (("rest", self.rest), ("grpc", self.rpc)):
            for name, call in (
                ("unknown", ask("nobody", given("x", "FP64", rows, binary=True))),
                ("shape", ask(model, given("x", "FP64", [[1.0, 2.0, 3.0]], binary=True))),
                ("datatype", ask(model, given("x", "BYTES", [["a", "b"]], binary=True))),
                ("input", ask(model, given("z", "FP64", rows, binary=True))),
                ("output", ask(model, given("x", "FP64", rows, binary=True), request_outputs=[RequestedOutput("z")])),
                ("keyless", ask(model, given("x", "FP64", rows, binary=True), key="")),
            ):
                found[f"{name} {way}"] = await refused(call)
        return found

    async def health(self) -> dict[str, Any]:
        url, headers = self.task["url"], {"x-api-key": self.task["key"]}
        metadata = tuple(headers.items())
        return {
            "live": [await self._rest.is_server_live(url), await self._rpcs.is_server_live()],
            "ready": [await self._rest.is_server_ready(url), await self._rpcs.is_server_ready()],
            "model": [
                await self._rest.is_model_ready(url, self.task["columns"], headers=headers),
                await self._rpcs.is_model_ready(self.task["columns"], headers=metadata),
            ],
            "nobody": [
                await self._rest.is_model_ready(url, "nobody", headers=headers),
                await refused(self._rpcs.is_model_ready("nobody", headers=metadata)),
            ],
        }


async def refused(call: Any) -> list[Any] | None:
    """How the client says that a call was refused; None where it was not."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return None


async def main(file: str) -> dict[str, Any]:
    task = json.loads(Path(file).read_text(encoding="utf-8"))
    config = RESTConfig(protocol="v2", timeout=30)
    async with InferenceRESTClient(config) as rest, InferenceGRPCClient(task["grpc"], timeout=30) as rpcs:
        asker = Asker(task, rest, rpcs)
        many = np.arange(10_000).reshape(-1, 2).tolist()
        counted = [
            (await ask(task["echoes"]["INT64"], given("x", "INT64", many, binary=True))).outputs[0].as_numpy().tolist() == many
            for ask in (asker.rest, asker.rpc)
        ]
        return {
            "datatypes": {name: await asker.datatype(name) for name in task["rows"]},
            "not finite": {name: await asker.not_finite(name) for name in ("FP16", "FP32", "FP64")},
            "columns": [await asker.columns(asker.rest), await asker.columns(asker.rpc)],
            "many": counted,
            "errors": await asker.errors(),
            "health": await asker.health(),
        }


print(json.dumps(asyncio.run(main(sys.argv[1]))))
