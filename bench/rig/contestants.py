"""Who takes part, and one burst of each kind for any of them."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig import artifacts, closed_loop, open_loop
from rig.machine import Moment, Tree, favour, pinned
from rig.paths import BENCH
from rig.servers import Server

OPEN_CONNECTIONS = 256


@dataclass
class Contestant:
    """A server that takes part, and where the load comes from."""

    server: Server
    client_core: int | None
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the tables call it."""
        return self.server.name

    def closed(self, callers: int, seconds: int) -> dict[str, Any]:
        """Return what wrk says of one burst, and what the server used."""
        before, used = Moment.now(), self.server.tree.cpu_s()
        said = closed_loop.burst(
            self.server.asking.port, self.server.index, callers=callers, seconds=seconds, core=self.client_core
        )
        return said | self._spent(before, used, said["client_cpu_s"], said["requests"])

    def open(self, rate: float, seconds: float, connections: int = OPEN_CONNECTIONS, **limits: float) -> dict[str, Any]:
        """Return what the generator says of one open-loop burst, and what the server used. `limits`: of `open_loop.measure`."""
        before, used = Moment.now(), self.server.tree.cpu_s()
        said = open_loop.measure(
            self.server.asking.port,
            self.server.index,
            rate=rate,
            seconds=seconds,
            connections=connections,
            core=self.client_core,
            **limits,
        )
        return said | self._spent(before, used, said["client_cpu_s"], said["good_per_second"] * seconds)

    def _spent(self, before: Moment, used: float, client_s: float, requests: float) -> dict[str, float]:
        spent, now = self.server.tree.cpu_s() - used, Moment.now()
        wall = now.at - before.at
        return {
            "server_cores": round(spent / wall, 3),
            "server_us_a_request": round(spent * 1e6 / requests, 1) if requests else 0.0,
            **now.others_since(before, spent + client_s),
            **self.server.tree.memory_mb(),
        }


class BareLoop:
    """Decode, prepare and run pictures in one process: what any server of them can reach at most."""

    def __init__(self, recipe: str, core: int | None) -> None:
        self.name = f"bare loop, {recipe}"
        self._recipe = recipe
        self._core = core
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until its model is loaded."""
        artifacts.build()
        command = [*pinned(self._core), sys.executable, str(BENCH / "bare_loop.py"), "--recipe", self._recipe]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        favour(self._process.pid)
        self._said()

    def burst(self, seconds: float) -> dict[str, Any]:
        """Return pictures a second, and the median and p99 of one in ms."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("not started")
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._said()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            Tree(self._process.pid).end()
            self._process.wait()
            self._process = None

    def _said(self) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("not started")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended by itself")
        said: dict[str, Any] = json.loads(line)
        return said


def save(path: Path, results: object) -> None:
    """Write all that was measured so far, at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(results, indent=1, default=str))
    draft.rename(path)
