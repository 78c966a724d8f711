"""A server under test: started in a folder of its own, waited for, favoured, measured, ended."""

import http.client
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rig.calls import Asking, WrongAnswer
from rig.machine import Tree, favour, pinned
from rig.paths import CACHE

START_S = 120.0
_LOOK_S = 0.1


class DidNotStart(Exception):
    """A server did not answer in time; the text has the end of its log."""


class Server:
    """One server with all its processes. `prepare` makes it ready and says how to ask it; it is called until it succeeds."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        environment: Mapping[str, str],
        prepare: Callable[["Server"], Asking],
        core: int | None,
        start_s: float = START_S,
    ) -> None:
        self.name = name
        self.home = CACHE / "scratch" / name.replace("/", "_")
        self.log = CACHE / "logs" / f"{self.home.name}.log"
        self._command = [*pinned(core), *command]
        self._environment = environment
        self._prepare = prepare
        self._patience_s = start_s
        self._process: subprocess.Popen[bytes] | None = None
        self._asking: Asking | None = None
        self._tree: Tree | None = None
        self.index = Path()
        self.start_s = 0.0

    @property
    def asking(self) -> Asking:
        """How it is asked."""
        if self._asking is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._asking

    @property
    def tree(self) -> Tree:
        """Its processes."""
        if self._tree is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._tree

    def start(self) -> None:
        """Start it and wait for a first right answer; raises `DidNotStart` or `WrongAnswer`."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.home,
                env={**_outside(), **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        favour(self._process.pid)
        self._tree = Tree(self._process.pid)
        self._asking = self._await(started + self._patience_s)
        self._asking.check()
        self.start_s = round(time.monotonic() - started, 1)
        self.index = self._asking.write(self.home / "requests")
        self._tree.favour()

    def _await(self, deadline: float) -> Asking:
        last: object = None
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise DidNotStart(f"{self.name} ended by itself.\n{self.last_words()}")
            try:
                asking = self._prepare(self)
                asking.first()
            except (OSError, http.client.HTTPException, WrongAnswer) as error:
                last = error
                time.sleep(_LOOK_S)  # nobody can be asked to tell when a foreign server answers
                continue
            return asking
        raise DidNotStart(f"{self.name} did not answer in {self._patience_s:.0f} s ({last}).\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""

    def stop(self) -> None:
        """End it with all its processes, and remove its folder."""
        if self._process is None:
            return
        if self._tree is not None:
            self._tree.end()
        self._process.wait()
        self._process = None
        shutil.rmtree(self.home, ignore_errors=True)


def _outside() -> dict[str, str]:
    """Return the environment without settings of Modelkeep, which would change what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MODELKEEP_", "BENCH_", "PYTHON"))}
