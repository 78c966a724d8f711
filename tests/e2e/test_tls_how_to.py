"""Every snippet of docs/how-to/tls.md works as it stands there, but for the ports."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.installation import Installation, free_port

PAGE = (Path(__file__).parents[2] / "docs/how-to/tls.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
MODELKEEP = [sys.executable, "-m", "modelkeep.app.cli"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with the certificates that the page has made, which wants them of its callers, too."""
    home = tmp_path_factory.mktemp("home")
    made = ["certificates make --host models.example.org --host 10.0.0.5", "certificates client nightly-scoring"]
    for command in made:
        assert f"modelkeep {command}" in PAGE
        subprocess.run([*MODELKEEP, *command.split()], cwd=home, check=True, capture_output=True)
    folder = home / ".modelkeep/tls"
    environment = {
        "MODELKEEP_SERVER__TLS_CERTIFICATE": str(folder / "server.pem"),
        "MODELKEEP_SERVER__TLS_KEY": str(folder / "server.key"),
        "MODELKEEP_SERVER__TLS_CLIENT_CA": str(folder / "ca.pem"),
        "MODELKEEP_SERVER__TLS_CLIENT": "optional",
        "MODELKEEP_SERVER__GRPC_PORT": str(free_port()),
    }
    installation = Installation(home / "data", **environment)
    installation.authority = str(folder / "ca.pem")
    try:
        yield installation.start().wait().set_up(allow_code=False)
    finally:
        installation.stop()


def here(house: Installation, text: str) -> str:
    return text.replace(":8080", f":{house.port}").replace(":8001", f":{house.grpc_port}")


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_snippet_in_python_runs(house: Installation, number: int) -> None:
    snippet = f"key = {house.key!r}\n{here(house, PYTHON[number])}"
    done = subprocess.run([sys.executable, "-c", snippet], cwd=house.data.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if "verify=" in snippet and "boto3" not in snippet:
        without = re.sub(r'(, )?verify=(context|"[^"]*")', "", snippet)
        refused = subprocess.run([sys.executable, "-c", without], cwd=house.data.parent, capture_output=True, timeout=60)
        assert refused.returncode != 0, "the control: it works without trust"


@pytest.mark.parametrize("number", range(len(SHELL)))
def test_a_snippet_of_the_shell_runs(house: Installation, number: int, tmp_path: Path) -> None:
    program = tmp_path / "modelkeep"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m modelkeep.app.cli "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "MODELKEEP_URL": house.url,
        "MODELKEEP_API_KEY": house.key,
    }
    if number:
        environment["MODELKEEP_CA_FILE"] = str(house.authority)
    command = ["sh", "-euc", here(house, SHELL[number])]
    done = subprocess.run(command, cwd=house.data.parent, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
