"""What one prediction costs the server over gRPC, beside the same prediction over REST: processor time, in turns, in one run.

    python bench/rpcs.py

An identity in ONNX, 30 floats a row, is asked one after another over one connection: as JSON and as bytes over REST, raw and
typed over gRPC. What is printed is the median of the turns: microseconds of processor time that the server process spent on a
question, with all its threads, what that is beside JSON over REST, and the median milliseconds that the caller waited.
"""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnx
import psutil

from modelkeep.client import Client, ModelkeepError
from modelkeep.serving.protos import open_inference_pb2 as pb

PORT, GRPC_PORT = 21897, 21898
TURNS, WIDTH = 9, 30
SIZES = ((1, 300), (4096, 20))
JSON = "JSON over REST"


def identity(file: Path) -> None:
    """Write a model that answers `y` = `x`."""
    shape = ["n", WIDTH]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), file)


def question(rows: np.ndarray, *, typed: bool) -> bytes:
    """Return the message that asks for these rows."""
    asked = pb.ModelInferRequest(model_name="same")
    one = asked.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    if typed:
        one.contents.fp32_contents.extend(rows.reshape(-1).tolist())
    else:
        asked.raw_input_contents.append(rows.tobytes())
    return bytes(asked.SerializeToString())


def ways(key: str, rows: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return what asks once, for each way."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    one = {"name": "x", "datatype": "FP32", "shape": list(rows.shape)}
    as_json = json.dumps({"inputs": [one | {"data": rows.reshape(-1).tolist()}]}).encode()
    sized = one | {"parameters": {"binary_data_size": rows.nbytes}}
    head = json.dumps({"inputs": [sized], "parameters": {"binary_data_output": True}}).encode()
    headers = {"x-api-key": key, "content-type": "application/json"}
    ask = grpc.insecure_channel(f"127.0.0.1:{GRPC_PORT}").unary_unary("/inference.GRPCInferenceService/ModelInfer")
    metadata = (("x-api-key", key),)

    def rest(body: bytes, more: dict[str, str]) -> None:
        connection.request("POST", "/v2/models/same/infer", body, headers | more)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RuntimeError(answer.read().decode())
        answer.read()

    raw, typed = question(rows, typed=False), question(rows, typed=True)
    return {
        JSON: lambda: rest(as_json, {}),
        "bytes over REST": lambda: rest(head + rows.tobytes(), {"inference-header-content-length": str(len(head))}),
        "raw over gRPC": lambda: ask(raw, metadata=metadata),
        "typed over gRPC": lambda: ask(typed, metadata=metadata),
    }


def spent(server: psutil.Process) -> float:
    """Return the seconds of processor time that a process has had."""
    times = server.cpu_times()
    return float(times.user + times.system)


def compare(server: psutil.Process, asks: dict[str, Callable[[], object]], times: int) -> None:
    """Print one line a way."""
    used: dict[str, list[float]] = {name: [] for name in asks}
    waited: dict[str, list[float]] = {name: [] for name in asks}
    for turn in range(TURNS + 1):
        for name, ask in asks.items():
            before = spent(server)
            for _ in range(times):
                began = time.perf_counter()
                ask()
                waited[name].append(time.perf_counter() - began)
            if turn:  # the first warms up
                used[name].append((spent(server) - before) / times * 1e6)
    for name in asks:
        ratios = [mine / theirs for mine, theirs in zip(used[name], used[JSON], strict=True)]
        micro, ratio = statistics.median(used[name]), statistics.median(ratios)
        print(f"  {name:<16} {micro:9.0f} us  {ratio:5.2f} x  caller waits {statistics.median(waited[name]) * 1000:8.2f} ms")


def main() -> None:
    """Start an installation, ask it, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder) / "data", Path(folder) / "same.onnx"
        identity(file)
        command = [sys.executable, "-m", "modelkeep.app.cli", "serve", "--data", str(data), "--log-level", "error"]
        serving = subprocess.Popen([*command, "--port", str(PORT), "--grpc-port", str(GRPC_PORT)], stdout=subprocess.DEVNULL)
        try:
            key = set_up(data, file)
            server = next(one for one in psutil.Process(serving.pid).children() if {"server", "server-1"} & {*one.cmdline()})
            for rows, times in SIZES:
                print(f"{rows} x {WIDTH} floats")
                array = np.random.default_rng(0).random((rows, WIDTH), dtype=np.float32)
                compare(server, ways(key, array), times)
        finally:
            serving.terminate()
            serving.wait()


def set_up(data: Path, file: Path) -> str:
    """Wait for the server, push the model, and return a key."""
    url, token = f"http://127.0.0.1:{PORT}", data / "setup-token"
    for _ in range(600):
        try:
            with Client(url) as client:
                key = str(client.setup(token.read_text().strip()).secret)
            break
        except (ModelkeepError, FileNotFoundError):
            time.sleep(0.1)
    with Client(url, key) as client:
        client.push(file, "same")
    return key


if __name__ == "__main__":
    main()
