"""Node tests of the `onnx` wheel as models of an installation, asked by REST in JSON, by REST in bytes, and by gRPC.

All three must give the same bits, and those are what the data set says, within its tolerance. A model whose rows depend on each
other, or whose inputs are of types that are not served, is refused when it is pushed; another takes its place. How many:
PAIRS (300 in `make soak`).
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.case.node import collect_testcases
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http
from tritonclient.utils import np_to_triton_dtype

from fixtures.installation import Installation
from fixtures.onnx_cases import EQUAL, as_texts, reason, same, served_types, with_rows
from modelkeep.client import Rejected

PAIRS = int(os.environ.get("PAIRS", "8"))

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(60 + 10 * PAIRS)]


def candidates() -> Iterator[tuple[Any, dict[str, np.ndarray], list[np.ndarray]]]:
    """Cases that can be answered by what is known before they are pushed, from all over the list."""
    cases = collect_testcases()
    stride = 37  # no divisor of their number: all are met, and neighbours, which are alike, are far apart
    for at in range(len(cases)):
        case = cases[at * stride % len(cases)]
        if not served_types(case.model.graph):  # a list of sequences is no array
            continue
        names = [value.name for value in case.model.graph.input]
        given, expected = case.data_sets[0]
        inputs = {name: as_texts(array) for name, array in zip(names, given, strict=True)}
        outputs = [as_texts(array) for array in expected]
        if reason(case, case.model.SerializeToString(), inputs, outputs) == EQUAL:
            yield case, inputs, with_rows(outputs)


def as_strings(array: np.ndarray) -> np.ndarray:
    """Texts as every door sends and tells them."""
    if array.dtype != object:
        return array
    return np.array([one.decode() if isinstance(one, bytes) else one for one in array.reshape(-1)], object).reshape(array.shape)


def datatype(array: np.ndarray) -> str:
    return "BYTES" if array.dtype == object else str(np_to_triton_dtype(array.dtype))


def by_client(module: Any, client: Any, name: str, inputs: dict[str, np.ndarray], **headers: Any) -> dict[str, np.ndarray]:
    """Ask with Triton's client, tensors as bytes both ways."""
    tensors = []
    for key, array in inputs.items():
        sent = array
        if array.dtype == object:
            sent = np.array([str(one).encode() for one in array.reshape(-1)], object).reshape(array.shape)
        tensors.append(module.InferInput(key, list(array.shape), datatype(array)))
        tensors[-1].set_data_from_numpy(sent)
    answer = client.infer(name, tensors, **headers)
    response = answer.get_response()
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    named = [one["name"] if isinstance(one, dict) else one.name for one in outputs]
    return {one: as_strings(answer.as_numpy(one)) for one in named}


def by_json(house: Installation, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tensors = [
        {
            "name": key,
            "shape": list(array.shape),
            "datatype": datatype(array),
            "data": array.reshape(-1).tolist(),
        }
        for key, array in inputs.items()
    ]
    with house.http() as http:
        answer = http.post(f"/v2/models/{name}/infer", json={"inputs": tensors})
    assert answer.status_code == 200, answer.text
    found = {}
    for one in answer.json()["outputs"]:
        numpy = {"BOOL": "bool", "BYTES": "object"}.get(one["datatype"]) or one["datatype"].lower().replace("fp", "float")
        values = [float(value) if isinstance(value, str) and numpy != "object" else value for value in one["data"]]
        found[one["name"]] = np.array(values, numpy).reshape(one["shape"])
    return found


def bits(outputs: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], object]]:
    """Outputs as what must be equal. One NaN is as good as another."""
    told = {}
    for name, array in outputs.items():
        plain = np.where(np.isnan(array), np.nan, array).astype(array.dtype) if array.dtype.kind == "f" else array
        told[name] = (array.dtype.str, array.shape, plain.tolist() if array.dtype == object else plain.tobytes())
    return told


def is_json(inputs: dict[str, np.ndarray]) -> bool:
    """Whether JSON has numbers for all of it."""
    return all(np.isfinite(array).all() for array in inputs.values() if array.dtype.kind == "f")


def test_node_tests_are_answered_with_the_same_bits_by_every_door(house: Installation, tmp_path: Path):
    asked = 0
    plain = triton_http.InferenceServerClient(house.url.removeprefix("http://"))
    rpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{house.grpc_port}")
    with house.client() as client:
        for number, (case, inputs, expected) in enumerate(itertools.islice(candidates(), 2 * PAIRS + 20)):
            if asked == PAIRS:
                break
            file, name = tmp_path / f"{number}.onnx", f"node-{number}"
            file.write_bytes(case.model.SerializeToString())
            try:
                client.push(file, name)
            except Rejected:
                continue
            client.configure(name, {"not_finite": "text"})
            in_bytes = by_client(triton_http, plain, name, inputs, headers={"x-api-key": house.key})
            over_rpc = by_client(triton_grpc, rpc, name, inputs, headers={"x-api-key": house.key})
            assert bits(over_rpc) == bits(in_bytes), case.name
            if is_json(inputs):
                assert bits(by_json(house, name, inputs)) == bits(in_bytes), case.name
            assert same([as_strings(one) for one in expected], list(in_bytes.values()), case), case.name
            client.archive(name)
            asked += 1
    plain.close()
    rpc.close()
    assert asked == PAIRS
