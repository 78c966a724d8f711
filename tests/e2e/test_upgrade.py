"""Upgrades of the server while everybody asks: nobody notices, and whatever goes wrong, somebody answers."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import grpc
import httpx
import numpy as np
import onnx
import psutil
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.databases import new_postgres_database
from fixtures.installation import Installation, eventually, free_port, installed, took_over
from modelkeep.infra.certificates import Authority
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
                except Exception as error:
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


@contextmanager
def _house(folder: Path, *, authority: str | None = None, **environment: str) -> Iterator[Installation]:
    port = str(free_port())
    short = {"MODELKEEP_SERVER__GRPC_PORT": port, "MODELKEEP_SERVER__GRPC_CONNECTION_S": "2", "MODELKEEP_SERVER__IDLE_S": "5"}
    with installed(folder / "data", authority=authority, patience_s=90, **short, **environment) as installation:
        (folder / "same.onnx").write_bytes(onnx_identity(onnx.TensorProto.FLOAT))
        with installation.client() as client:
            client.push(folder / "same.onnx", "same")
        yield installation


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    with _house(tmp_path) as installation:
        yield installation


@pytest.fixture
def large_house(tmp_path: Path, postgres: str) -> Iterator[Installation]:
    """Two server processes, TLS, PostgreSQL."""
    Authority(tmp_path, datetime.now(UTC)).sign_server(["127.0.0.1", "localhost"], days=30, force=True)
    environment = {
        "MODELKEEP_SERVER__PROCESSES": "2",
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(tmp_path / "server.pem"),
        "MODELKEEP_SERVER__TLS_KEY": str(tmp_path / "server.key"),
        "MODELKEEP_DATABASE__URL": new_postgres_database(postgres),
    }
    with _house(tmp_path, authority=str(tmp_path / "ca.pem"), **environment) as installation:
        yield installation


def _predicts(http: httpx.Client) -> None:
    answer = http.post("/api/v1/predict/same", json={"inputs": [[1.0, 2.0]]})
    assert answer.status_code == 200, answer.text


def _kept(house: Installation) -> httpx.Client:
    return httpx.Client(base_url=house.url, headers={"X-API-Key": house.key}, timeout=30, verify=house.trust)


def _connects(house: Installation) -> None:
    with _kept(house) as http:
        _predicts(http)


def _question() -> bytes:
    x = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
    raw = np.ones((1, 2), np.float32).tobytes()
    return bytes(pb.ModelInferRequest(model_name="same", inputs=[x], raw_input_contents=[raw]).SerializeToString())


def _calls(house: Installation, channel: grpc.Channel) -> None:
    channel.unary_unary(_INFER)(_question(), metadata=(("x-api-key", house.key),), timeout=30)


def _channel(house: Installation, options: tuple[tuple[str, int], ...] = ()) -> grpc.Channel:
    where = f"127.0.0.1:{house.grpc_port}"
    if house.authority is None:
        return grpc.insecure_channel(where, options)
    return grpc.secure_channel(where, grpc.ssl_channel_credentials(Path(house.authority).read_bytes()), options)


def _dials(house: Installation) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    with _channel(house, options) as channel:
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
        verify=house.trust,
    )
    assert answer.status_code in {200, 201, 202}, answer.text


@contextmanager
def _everybody(house: Installation, content: bytes) -> Iterator[Callers]:
    callers = Callers()
    with ExitStack() as stack:
        for number in range(2):
            http = stack.enter_context(_kept(house))
            callers.ask(f"kept {number}", lambda http=http: _predicts(http))
        slow = stack.enter_context(_kept(house))
        callers.ask("now and then", lambda: _predicts(slow), pause_s=0.9)
        channel = stack.enter_context(_channel(house))
        callers.ask("grpc", lambda: _calls(house, channel))
        callers.ask("grpc anew", lambda: _dials(house), pause_s=0.02)
        callers.ask("anew", lambda: _connects(house), pause_s=0.01)
        callers.ask("upload", lambda: _uploads(house, content), pause_s=0.3)
        stack.enter_context(callers)
        yield callers


@pytest.mark.timeout(300)
def test_nobody_notices_upgrades(house: Installation, tmp_path: Path) -> None:
    _upgrade_unnoticed(house, tmp_path, UPGRADES)


@pytest.mark.timeout(300)
def test_nobody_notices_upgrades_of_several_servers_over_tls(large_house: Installation, tmp_path: Path) -> None:
    _upgrade_unnoticed(large_house, tmp_path, 2)


def _upgrade_unnoticed(house: Installation, tmp_path: Path, upgrades: int) -> None:
    with house.http() as http, _everybody(house, (tmp_path / "same.onnx").read_bytes()) as callers:
        for _ in range(upgrades):
            before = house.supervisor.pid
            code, said = house.upgrade()
            assert code == 0, said + house.log.read_text()[-6000:]
            assert house.supervisor.pid != before
        assert "modelkeep_predictions_total{" in http.get("/metrics").text
    assert not callers.failed, callers.failed[:10]
    assert all(callers.answered.values())


def _newest(house: Installation, old: psutil.Process) -> psutil.Process:
    """The supervisor that is taking over from `old`."""
    found: list[psutil.Process] = []

    def there() -> bool:
        found[:] = [one for one in old.children() if took_over(one)]
        return bool(found)

    eventually(there, "a new supervisor")
    return found[0]


def _serves(house: Installation) -> None:
    """Predictions are answered, and what people change reaches them."""
    with house.client() as client:
        assert client.predict("same", [[1.0, 2.0]]).outputs["y"][0] is not None
        number = client.push(house.data.parent / "same.onnx", "same").number
        client.promote("same", number)
        eventually(lambda: client.predict("same", [[1.0, 2.0]]).version == number, f"version {number} answers")


def _until(command: "subprocess.Popen[str]", word: str) -> None:
    assert command.stdout is not None
    for line in command.stdout:
        if word in line:
            return
    raise AssertionError(f"the command never said: {word}")


_STARTED, _READY, _TAKEN = "has been started", "is ready", "The new server answers"


def test_where_nothing_comes_of_an_upgrade_the_old_server_goes_on(house: Installation) -> None:
    settings, old = house.data.parent / "modelkeep.toml", house.supervisor
    callers = Callers()
    with httpx.Client(base_url=house.url, headers={"X-API-Key": house.key}, timeout=30) as http:
        callers.ask("kept", lambda: _predicts(http))
        callers.ask("api", lambda: http_ok(house))
        with callers:
            for broken, why in (("[server]\nprot = 1\n", "server.port"), ("[server]\nprocesses = 2\n", "number of server")):
                settings.write_text(broken)
                code, said = house.upgrade()
                assert code != 0
                assert why in " ".join(said.split())
            settings.unlink()
            with house.upgrading() as first:
                _until(first, _STARTED)
                code, said = house.upgrade()
                assert code != 0
                assert "Another upgrade is under way." in said
                _newest(house, old).kill()
                assert first.wait(90) != 0
            with house.upgrading() as command:
                _until(command, _READY)
                _newest(house, old).kill()
                assert command.wait(90) != 0
            _serves(house)
    assert house.supervisor == old
    assert not callers.failed, callers.failed[:5]


def http_ok(house: Installation) -> None:
    answer = httpx.get(f"{house.url}/api/v1/models", headers={"X-API-Key": house.key}, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("word", [_STARTED, _READY, _TAKEN])
def test_where_the_old_server_is_killed_the_new_one_has_everything(house: Installation, word: str) -> None:
    old = house.supervisor
    with house.upgrading() as command:
        _until(command, word)
        new = _newest(house, old)
        old.kill()
        command.wait(90)
    try:
        eventually(lambda: _answers(house), "the new server answers", 90)
        _serves(house)
    finally:
        if new.is_running():
            new.terminate()
            psutil.wait_procs([new], 30)


def _answers(house: Installation) -> bool:
    try:
        return httpx.get(f"{house.url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_process_that_was_started_first_stays_and_passes_on_what_it_is_told(house: Installation) -> None:
    first = house.supervisor
    for _ in range(2):
        code, said = house.upgrade()
        assert code == 0, said
    eventually(lambda: first.children() == [house.supervisor], "the tree between the two has ended", 60)
    assert house.stop() == 0
