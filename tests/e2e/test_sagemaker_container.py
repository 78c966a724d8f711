"""The one word `serve`, as SageMaker starts a container: it listens where it is told, and answers without a key."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import onnx
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import eventually, free_port, installed

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with a data directory that holds a model, and the key that stands for the platform."""
    (tmp_path / "model.onnx").write_bytes(onnx_identity(onnx.TensorProto.DOUBLE))
    with installed(tmp_path / "data") as house, house.client() as client, house.http() as http:
        client.push(tmp_path / "model.onnx", "loans")
        key = http.post("/api/v1/keys", json={"name": "sagemaker", "scopes": ["predict"]})
        assert key.status_code == 201, key.text
        (tmp_path / "key").write_text(key.json()["secret"])
    return tmp_path


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ping", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_serve_alone_is_what_the_platform_expects(image: Path) -> None:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "MODELKEEP_DATA": str(image / "data"),
        "MODELKEEP_SERVING__STAND_IN_KEY_FILE": str(image / "key"),
    }
    url = f"http://127.0.0.1:{port}"
    log = image / "serve.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "modelkeep.app.cli", "serve"]
        container = subprocess.Popen(command, env=environment, cwd=image, stdout=out, stderr=out)
    try:
        eventually(lambda: answers(url), "a ping that is answered")
        asked = httpx.post(f"{url}/invocations", content="1,2\n3,4.5\n", headers={"content-type": "text/csv"}, timeout=30)
        assert (asked.status_code, asked.json()) == (200, {"predictions": [[1, 2], [3, 4.5]]})
        assert httpx.post(f"{url}/endpoints/loans/invocations", json={"instances": [[1, 2]]}).status_code == 401
        container.terminate()
        assert container.wait(30) == 0
    finally:
        container.kill()
    assert f"http://0.0.0.0:{port}" in log.read_text()
