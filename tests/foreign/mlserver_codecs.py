"""Encodes requests with MLServer's codecs, asks an installation over REST and gRPC, and has the codecs decode the answers.

`python mlserver_codecs.py TASK.json`: the task names `url`, `grpc`, `key`, `echoes` (for each datatype a model that answers
`y` = `x`), the `rows` to send it, `columns` (a model with an input and an output for each datatype), `texts` (a model of one
text a row), and `model` with `people` (one that answers `label`, and a table for it). Prints what came as JSON.
"""

import datetime as dt
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
from mlserver.codecs import (
    Base64Codec,
    DatetimeCodec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
    StringRequestCodec,
)
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    Parameters,
    RequestOutput,
)

NUMPY = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "str"}
TEXTS = ["", "za\u017c\u00f3\u0142\u0107 \U0001f600", "abcd", "YWJjZA==", "a\x00b"]
DAYS = [
    dt.datetime.fromisoformat("2026-05-17T08:30:00.123456"),
    dt.datetime(1969, 12, 31, tzinfo=dt.timezone(dt.timedelta(hours=-3))),
]

Ask = Callable[..., InferenceResponse]


def numpy_of(datatype: str) -> str:
    return NUMPY.get(datatype, datatype.lower())


class Asker:
    """Sends MLServer's requests as its users do, and reads the answers as its types."""

    def __init__(self, task: dict[str, Any], channel: grpc.Channel) -> None:
        self.task = task
        self._stub = GRPCInferenceServiceStub(channel)

    def get(self, path: str) -> bytes:
        asked = urllib.request.Request(self.task["url"] + path, headers={"X-API-Key": self.task["key"]})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.read()

    def rest(self, model: str, request: InferenceRequest) -> InferenceResponse:
        headers = {"X-API-Key": self.task["key"], "Content-Type": "application/json"}
        url = f"{self.task['url']}/v2/models/{model}/infer"
        asked = urllib.request.Request(url, request.model_dump_json().encode(), headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return InferenceResponse.model_validate_json(answer.read())

    def typed(self, model: str, request: InferenceRequest) -> InferenceResponse:
        return self._rpc(ModelInferRequestConverter.from_types(request.model_copy(deep=True), model))

    def raw(self, model: str, request: InferenceRequest) -> InferenceResponse:
        return self._rpc(ModelInferRequestConverter.from_types(request.model_copy(deep=True), model, use_raw=True))

    def _rpc(self, message: Any) -> InferenceResponse:
        metadata = (("x-api-key", self.task["key"]),)
        return ModelInferResponseConverter.to_types(self._stub.ModelInfer(message, metadata=metadata, timeout=30))

    def arrays(self, datatype: str) -> dict[str, Any]:
        """One datatype's values as an array, alone and as the whole request."""
        model, array = self.task["echoes"][datatype], np.array(self.task["rows"][datatype], numpy_of(datatype))
        one = InferenceRequest(inputs=[NumpyCodec.encode_input("x", array)], outputs=[RequestOutput(name="y")])
        whole = NumpyRequestCodec.encode_request(array)
        found = {
            "one": NumpyCodec.decode_output(self.rest(model, one).outputs[0]),
            "whole": NumpyRequestCodec.decode_response(self.rest(model, whole)),
        }
        if datatype != "BYTES":  # of which the codec reads bytes as an array of single ones
            found["raw"] = NumpyCodec.decode_output(self.raw(model, one).outputs[0])
            found["raw whole"] = NumpyRequestCodec.decode_response(self.raw(model, whole))
        if datatype not in {"BYTES", "FP16"}:  # which MLServer's messages have no numbers for
            found["typed"] = NumpyCodec.decode_output(self.typed(model, one).outputs[0])
        return {way: [value.dtype.name, value.tolist()] for way, value in found.items()}

    def frame(self) -> dict[str, Any]:
        """A frame with a column of each datatype, and one of which MLServer sends all columns as objects."""
        rows = self.task["rows"]
        columns = {name.lower(): np.ravel(np.array(rows[name], numpy_of(name))) for name in rows if name != "BYTES"}
        frame = pd.DataFrame({**columns, "bytes": np.ravel(rows["BYTES"]).tolist()})
        whole = PandasCodec.encode_request(frame)
        found = {"rest": self.rest(self.task["columns"], whole), "raw": self.raw(self.task["columns"], whole)}
        return {way: framed(PandasCodec.decode_response(answer)) for way, answer in found.items()}

    def people(self) -> dict[str, Any]:
        """A table for an estimator: gaps among numbers, texts, booleans; and one row of it as objects."""
        frame = pd.DataFrame(self.task["people"])
        wanted = [RequestOutput(name="label")]
        whole = PandasCodec.encode_request(frame)
        whole.outputs = wanted
        objects = PandasCodec.encode_request(frame.drop(columns="member").iloc[0].to_frame().T)
        flag = PandasCodec.encode_request(frame[["member"]].head(1))
        one = InferenceRequest(inputs=[*objects.inputs, *flag.inputs], parameters=objects.parameters, outputs=wanted)
        kinds = sorted({tensor.parameters.content_type for tensor in objects.inputs})
        asked = {"rest": self.rest(self.task["model"], whole), "one": self.rest(self.task["model"], one)}
        return {"kinds": kinds} | {way: framed(PandasCodec.decode_response(answer)) for way, answer in asked.items()}

    def texts(self, ask: Ask) -> dict[str, Any]:
        """Texts, dates and bytes as the codecs of single columns write them."""
        model = self.task["texts"]
        encoded = [RequestOutput(name="y", parameters=Parameters(content_type=Base64Codec.ContentType))]
        secrets = [text.encode() for text in TEXTS]
        strings = InferenceRequest(inputs=[StringCodec.encode_input("x", TEXTS)])
        days = InferenceRequest(inputs=[DatetimeCodec.encode_input("x", DAYS)])
        coded = InferenceRequest(inputs=[Base64Codec.encode_input("x", secrets)], outputs=encoded)
        plain = InferenceRequest(inputs=[Base64Codec.encode_input("x", secrets)])
        back = ask(model, coded).outputs[0]
        return {
            "strings": StringCodec.decode_output(ask(model, strings).outputs[0]) == TEXTS,
            "whole": StringRequestCodec.decode_response(ask(model, StringRequestCodec.encode_request(TEXTS))) == TEXTS,
            "days": DatetimeCodec.decode_output(ask(model, days).outputs[0]) == DAYS,
            "base64": Base64Codec.decode_output(back) == secrets,
            "said": back.parameters.content_type,
            "plain": StringCodec.decode_output(ask(model, plain).outputs[0]) == TEXTS,
        }

    def known(self, ask: Ask) -> list[Any]:
        """The id and the parameters of a request, and those of its answer."""
        said = Parameters(content_type="np", headers={"x-mine": "1"}, mine="x", priority=3)
        inputs = [NumpyCodec.encode_input("x", np.array([[1, 2]]))]
        answer = ask(self.task["echoes"]["INT64"], InferenceRequest(id="\u017c 42", inputs=inputs, parameters=said))
        return [answer.id, answer.model_version, sorted(answer.parameters.model_dump(exclude_none=True))]

    def errors(self) -> dict[str, Any]:
        one = InferenceRequest(inputs=[NumpyCodec.encode_input("x", np.array([[1.0, 2.0]]))])
        wide = InferenceRequest(inputs=[NumpyCodec.encode_input("x", np.array([[1.0, 2.0, 3.0]]))])
        lists = PandasCodec.encode_request(pd.DataFrame({"x": [[1, 2], [3]]}))
        asked = {
            "unknown": ("nobody", one),
            "shape": (self.task["echoes"]["FP64"], wide),
            "datatype": (self.task["echoes"]["BYTES"], one),
            "lists": (self.task["texts"], lists),
        }
        found: dict[str, Any] = {}
        for name, (model, request) in asked.items():
            try:
                self.rest(model, request)
            except urllib.error.HTTPError as error:
                found[f"{name} rest"] = [error.code, InferenceErrorResponse.model_validate_json(error.read()).error]
            try:
                self.typed(model, request)
            except grpc.RpcError as error:
                found[f"{name} grpc"] = [error.code().name, error.details()]
        return found

    def metadata(self) -> Any:
        server = MetadataServerResponse.model_validate_json(self.get("/v2"))
        model = MetadataModelResponse.model_validate_json(self.get(f"/v2/models/{self.task['columns']}"))
        assert server.extensions
        return {tensor.name: tensor.datatype for tensor in model.inputs}


def framed(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame's columns: the type, and the values, byte strings as the texts they are."""
    texts = {
        name: [value.decode() if isinstance(value, bytes) else value for value in column.tolist()]
        for name, column in frame.items()
    }
    return {name: [column.dtype.name, texts[name]] for name, column in frame.items()}


def main(file: str) -> dict[str, Any]:
    task = json.loads(Path(file).read_text(encoding="utf-8"))
    with grpc.insecure_channel(task["grpc"]) as channel:
        asker = Asker(task, channel)
        ways: dict[str, Ask] = {"rest": asker.rest, "typed": asker.typed, "raw": asker.raw}
        return {
            "arrays": {name: asker.arrays(name) for name in task["rows"]},
            "frame": asker.frame(),
            "people": asker.people(),
            "texts": {name: asker.texts(ask) for name, ask in ways.items()},
            "known": {name: asker.known(ask) for name, ask in ways.items()},
            "errors": asker.errors(),
            "metadata": asker.metadata(),
        }


print(json.dumps(main(sys.argv[1])))
