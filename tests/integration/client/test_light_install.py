"""`pip install modelkeep[client]` in a fresh environment: what it brings, what works there, and what is said of the rest."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.standin import KEY, running_standin, standin

__all__ = ["running_standin", "standin"]

ROOT = Path(__file__).parents[3]
OF_THE_SERVER = (
    *("fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "dbos", "psycopg", "cryptography"),
    *("onnxruntime", "numpy", "pandas", "PIL", "sklearn", "torch", "openvino"),
)
MOST_MEGABYTES = 30
WALK = """
import asyncio, sys
from modelkeep.client import AsyncClient, Client
with Client(sys.argv[1], sys.argv[2]) as client:
    client.push(sys.argv[3], "churn")
    answer = client.predict("churn", [[1, 2]])
    assert answer.outputs["label"] == [1], answer.outputs
    assert client.models()[0].name == "churn"
async def main():
    async with AsyncClient(sys.argv[1], sys.argv[2]) as client:
        assert (await client.predict("churn", [[1, 2]])).version == 1
asyncio.run(main())
"""


def uv(*arguments: str) -> None:
    """Run uv: from its cache alone where that suffices, as behind a firewall, else with the index."""
    program = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program is not None, "uv is needed: `make setup` installs it"
    for offline in (["--offline"], []):
        done = subprocess.run(
            [program, *offline, "--system-certs", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100
        )
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """Return the programs of an environment with the client and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT))
    wheel = next((folder / "dist").glob("*.whl"))
    uv("venv", "--quiet", "--python", sys.executable, str(folder / "env"))
    python = str(folder / "env/bin/python")
    uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--constraint",
        "constraints.txt",
        f"modelkeep[client] @ {wheel.as_uri()}",
    )
    return folder / "env/bin"


def run(program, *arguments, **environment):
    return subprocess.run(
        [str(program), *arguments], env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=60
    )


def test_it_brings_nothing_of_the_server_and_little_at_all(light):
    code = f"from importlib.util import find_spec; print(*(name for name in {OF_THE_SERVER!r} if find_spec(name)))"
    assert run(light / "python", "-c", code).stdout.split() == []
    files = [path for path in (light.parent / "lib").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_MEGABYTES * 1_000_000


def test_the_client_walks_there(light, standin, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights")
    done = run(light / "python", "-W", "error", "-c", WALK, standin.url, KEY, str(file))
    assert done.returncode == 0, done.stderr


def test_the_commands_work_there(light, standin):
    there = {"MODELKEEP_URL": standin.url, "MODELKEEP_API_KEY": KEY}
    assert "push" in run(light / "modelkeep", "--help").stdout
    assert run(light / "modelkeep", "version").returncode == 0
    assert json.loads(run(light / "modelkeep", "models", "--json", **there).stdout) == []
    missing = run(light / "modelkeep", "models", "nowhere", **there)
    assert (missing.returncode, "Traceback" in missing.stderr) == (3, False)


@pytest.mark.parametrize(
    "command", [["serve"], ["doctor"], ["storage", "new-key"], ["storage", "rotate-key"], ["storage", "collect"]], ids=" ".join
)
def test_what_needs_the_server_says_the_line_that_installs_it(light, command):
    done = run(light / "modelkeep", *command)
    assert done.returncode == 2
    assert f"`modelkeep {command[0]}` needs the server" in done.stderr
    assert "pip install 'modelkeep[server]'" in done.stderr
    assert "Traceback" not in done.stderr
