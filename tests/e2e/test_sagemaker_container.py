"""The one word `serve`, as SageMaker starts a container: it listens where it is told, and answers without a key, with the model
that was pushed into the image or the one that the platform unpacks into its folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest

from fixtures.artifacts import onnx_identity
from fixtures.installation import eventually, free_port, installed

pytestmark = pytest.mark.timeout(300)


CSV = {"content-type": "text/csv"}


def make_image(folder: Path, *models: Path, allow_code: bool = True) -> Path:
    """Make a data directory that holds these models, and the key that stands for the platform."""
    with installed(folder / "data") as house, house.client() as client, house.http() as http:
        for model in models:
            client.push(model, "loans")
        if not allow_code:
            client.allow_code(allowed=False, reason="this image takes no code")
        key = http.post("/api/v1/keys", json={"name": "sagemaker", "scopes": ["predict"], "rate": "unlimited"})
        assert key.status_code == 201, key.text
        (folder / "key").write_text(key.json()["secret"])
    return folder


@contextmanager
def container(image: Path, **environment: str) -> Iterator[str]:
    """Run an image as the platform does, and yield its address; what it logs is added to `serve.log`."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "MODELKEEP_DATA": str(image / "data"),
        "MODELKEEP_SERVING__STAND_IN_KEY_FILE": str(image / "key"),
        **environment,
    }
    with (image / "serve.log").open("ab") as out:
        command = [sys.executable, "-m", "modelkeep.app.cli", "serve"]
        process = subprocess.Popen(command, env=environment, cwd=image, stdout=out, stderr=out)
    try:
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def logged(image: Path) -> str:
    return (image / "serve.log").read_text()


def ping(url: str) -> int:
    try:
        return httpx.get(f"{url}/ping", timeout=2).status_code
    except httpx.TransportError:
        return 0


def ask(url: str, rows: str) -> tuple[list[Any], str]:
    """Return what is answered, and by which version."""
    asked = httpx.post(f"{url}/invocations", content=rows, headers=CSV, timeout=30)
    assert asked.status_code == 200, asked.text
    return asked.json()["predictions"], asked.headers["x-model-version"]


def test_serve_alone_is_what_the_platform_expects(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_identity(onnx.TensorProto.DOUBLE))
    image = make_image(tmp_path, tmp_path / "model.onnx")
    with container(image) as url:
        eventually(lambda: ping(url) == 200, "a ping that is answered")
        assert ask(url, "1,2\n3,4.5\n") == ([[1, 2], [3, 4.5]], "1")
        assert httpx.post(f"{url}/endpoints/loans/invocations", json={"instances": [[1, 2]]}).status_code == 401
    assert f"http://0.0.0.0:{url.rpartition(':')[2]}" in logged(image)


def test_the_model_that_the_platform_unpacks_answers_once_a_content(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    place = tmp_path / "opt" / "ml" / "model"
    place.mkdir(parents=True)
    file = place / "model.onnx"
    first, second = onnx_identity(onnx.TensorProto.DOUBLE), onnx_identity(onnx.TensorProto.FLOAT)
    for content, version in ((first, "1"), (first, "1"), (second, "2"), (first, "1")):
        file.write_bytes(content)
        with container(image, MODELKEEP_SERVER__MODEL_FOLDER=str(place)) as url:
            eventually(lambda: ping(url) == 200 and ask(url, "1,2\n")[1] == version, f"version {version} answers")  # noqa: B023
            assert ask(url, "1,2\n3,4.5\n")[0] == [[1, 2], [3, 4.5]]


def test_a_format_that_runs_code_is_not_taken_up_without_the_administrators_word(tmp_path: Path) -> None:
    image = make_image(tmp_path, allow_code=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.joblib").write_bytes(b"whatever")
    with container(image, MODELKEEP_SERVER__MODEL_FOLDER=str(tmp_path / "model")) as url:
        eventually(lambda: "cannot be taken up" in logged(image), "a word in the log")
        assert ping(url) == 404
    assert "can run code when it is loaded" in logged(image)
