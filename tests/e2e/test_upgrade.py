"""Upgrades of the server while everybody asks: nobody notices, and whatever goes wrong, somebody answers."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import grpc
import httpx
import numpy as np
import onnx
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import Installation, eventually, free_port, installed
from modelkeep.serving.protos import open_inference_pb2 as pb

UPGRADES = int(os.environ.get("UPGRADES", "3"))
_INFER = "/inference.GRPCInferenceService/ModelInfer"


class Callers:
    """Threads that ask again and again, each in its own way, until the block ends; nobody may fail."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.answered: dict[str, int] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def ask(self, name: str, once: Callable[[], object], pause_s: float = 0.005) -> None:
        self.answered[name] = 0

        def again() -> None:
            while not self._stop.is_set():
                try:
                    once()
                except Exception as error:  # noqa: BLE001 - whatever a caller would see
                    self.failed.append(f"{time.strftime('%X')} {name}: {type(error).__name__}: {str(error)[:300]}")
                else:
                    self.answered[name] += 1
                self._stop.wait(pause_s)

        self._threads.append(threading.Thread(target=again))

    def __enter__(self) -> Self:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for one in self._threads:
            one.join(60)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    port = str(free_port())
    short = {"MODELKEEP_SERVER__GRPC_PORT": port, "MODELKEEP_SERVER__GRPC_CONNECTION_S": "2", "MODELKEEP_SERVER__IDLE_S": "5"}
    with installed(tmp_path / "data", **short) as installation:
        (tmp_path / "same.onnx").write_bytes(onnx_identity(onnx.TensorProto.FLOAT))
        with installation.client() as client:
            client.push(tmp_path / "same.onnx", "same")
        yield installation


def _predicts(http: httpx.Client) -> None:
    answer = http.post("/api/v1/predict/same", json={"inputs": [[1.0, 2.0]]})
    assert answer.status_code == 200, answer.text


def _connects(house: Installation) -> None:
    answer = httpx.post(
        f"{house.url}/api/v1/predict/same", json={"inputs": [[1.0, 2.0]]}, headers={"X-API-Key": house.key}, timeout=30
    )
    assert answer.status_code == 200, answer.text


def _question() -> bytes:
    x = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
    raw = np.ones((1, 2), np.float32).tobytes()
    return bytes(pb.ModelInferRequest(model_name="same", inputs=[x], raw_input_contents=[raw]).SerializeToString())


def _calls(house: Installation, channel: grpc.Channel) -> None:
    channel.unary_unary(_INFER)(_question(), metadata=(("x-api-key", house.key),), timeout=30)


def _dials(house: Installation) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}", options) as channel:
        _calls(house, channel)


def _uploads(house: Installation, content: bytes) -> None:
    """Send a file piece by piece, for three seconds."""
    edge = b"--edge\r\n"
    head = edge + b'content-disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n'

    def pieces() -> Iterator[bytes]:
        yield head
        step = max(1, len(content) // 30)
        for at in range(0, len(content), step):
            yield content[at : at + step]
            time.sleep(0.1)
        yield b"\r\n--edge--\r\n"

    answer = httpx.post(
        f"{house.url}/api/v1/models/same/versions",
        content=pieces(),
        headers={"X-API-Key": house.key, "Content-Type": "multipart/form-data; boundary=edge"},
        timeout=60,
    )
    assert answer.status_code in {200, 201, 202}, answer.text


@contextmanager
def _everybody(house: Installation, content: bytes) -> Iterator[Callers]:
    callers = Callers()
    with ExitStack() as stack:
        for number in range(2):
            http = stack.enter_context(httpx.Client(base_url=house.url, headers={"X-API-Key": house.key}, timeout=30))
            callers.ask(f"kept {number}", lambda http=http: _predicts(http))
        slow = stack.enter_context(httpx.Client(base_url=house.url, headers={"X-API-Key": house.key}, timeout=30))
        callers.ask("now and then", lambda: _predicts(slow), pause_s=0.9)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}"))
        callers.ask("grpc", lambda: _calls(house, channel))
        callers.ask("grpc anew", lambda: _dials(house), pause_s=0.02)
        callers.ask("anew", lambda: _connects(house), pause_s=0.01)
        callers.ask("upload", lambda: _uploads(house, content), pause_s=0.3)
        stack.enter_context(callers)
        yield callers


def test_nobody_notices_upgrades(house: Installation, tmp_path: Path) -> None:
    with house.http() as http, _everybody(house, (tmp_path / "same.onnx").read_bytes()) as callers:
        for _ in range(UPGRADES):
            before = house.supervisor.pid
            done = house.upgrade()
            assert done.returncode == 0, done.stdout + done.stderr + house.log.read_text()[-6000:]
            assert house.supervisor.pid != before
    assert not callers.failed, callers.failed[:10]
    assert all(callers.answered.values())
    print(callers.answered)
