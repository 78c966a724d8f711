"""What the control plane is asked for beside predictions: a large upload, a long list, again and again while a burst lasts.

It is asked from the generator's core and with the lowest priority there, so that only what it costs the server disturbs.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rig.machine import Tree, pinned

UPLOAD_BYTES = 2 << 30
LISTED = 10_000


class Beside:
    """Repeats a shell command until the block ends; `ended` has its exit status each time, the last, cut off, left out."""

    def __init__(self, command: str, environment: Mapping[str, str], log: Path, core: int | None = None) -> None:
        self._command = [*pinned(core), "nice", "-n", "29", "bash", "-c", f"while :; do {command}; echo $?; done"]
        self._environment = {"PATH": os.environ["PATH"], **environment}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ended(self) -> list[int]:
        """The exit statuses of all repetitions so far."""
        return [int(line) for line in self._log.read_text().split()] if self._log.exists() else []

    def __enter__(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=subprocess.DEVNULL)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            Tree(self._process.pid).end()
            self._process.wait()


def upload(port: int, key: str, folder: Path) -> tuple[str, dict[str, str]]:
    """Return the command that uploads 2 GiB which are no model, so that nothing is left of them, and its environment.

    The answer is 202: they are stored, and rejected once a runner has looked at them.
    """
    file = folder / "ballast.onnx"
    with file.open("wb") as ballast:
        ballast.truncate(UPLOAD_BYTES)
    url = f"http://127.0.0.1:{port}/api/v1/models/ballast/versions"
    command = 'curl --silent --fail --output /dev/null --header "X-API-Key: $KEY" --form "file=@$FILE" "$URL"'
    return command, {"KEY": key, "FILE": str(file), "URL": url}


def listing(python: str, port: int, key: str) -> tuple[str, dict[str, str]]:
    """Return the command that lists the newest 10,000 predictions, and its environment."""
    command = f'"$PYTHON" -m modelkeep.app.cli predictions --limit {LISTED} --json > /dev/null'
    return command, {"PYTHON": python, "MODELKEEP_URL": f"http://127.0.0.1:{port}", "MODELKEEP_API_KEY": key}
