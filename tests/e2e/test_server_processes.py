"""Two server processes on one port: they share the runners, and one's end is nobody else's business."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
from sklearn.dummy import DummyRegressor

from fixtures.installation import Installation, eventually, installed


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Installation]:
    """An installation with two server processes and a model."""
    with installed(tmp_path / "data", MODELKEEP_SERVER__PROCESSES="2") as installation:
        artifact = tmp_path / "three.pkl"
        artifact.write_bytes(pickle.dumps(DummyRegressor(strategy="constant", constant=3.0).fit([[0.0]], [0.0])))
        with installation.client() as client:
            client.push(artifact, "three")
        yield installation


def _callers(process: psutil.Process, port: int) -> set[int]:
    """The other ends' ports of the connections that a server process has accepted."""
    return {one.raddr.port for one in process.net_connections("tcp") if one.raddr and one.laddr.port == port}


class Caller:
    """Asks again and again over one connection; knows which server process it got, and what failed."""

    def __init__(self, house: Installation) -> None:
        self.http = house.http()
        self.answered = 0
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def once(self) -> int:
        """Ask once; returns the local port of the connection."""
        answer = self.http.post("/api/v1/predict/three", json={"inputs": [[0.0]]})
        assert answer.status_code == 200, answer.text
        return int(answer.extensions["network_stream"].get_extra_info("client_addr")[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.once()
                self.answered += 1
            except (httpx.HTTPError, AssertionError) as error:
                self.failed.append(repr(error))

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.http.close()


def _caller_of(house: Installation, process: psutil.Process) -> Caller:
    """Return a caller whose connection this process has accepted."""
    for _attempt in range(200):
        caller = Caller(house)
        if caller.once() in _callers(process, house.port):
            return caller
        caller.http.close()
    raise AssertionError("two hundred connections, and all went to the other process")


def test_a_killed_server_takes_no_runner_and_no_request_of_the_other_with_it(pair: Installation) -> None:
    victim, other = pair.role("server-1"), pair.role("server-2")
    assert victim is not None
    assert other is not None
    runners = {one.pid for one in pair.runners()}
    assert len(runners) == 1
    with _caller_of(pair, other) as caller:
        eventually(lambda: caller.answered > 20, "answers before")
        victim.send_signal(signal.SIGKILL)
        eventually(lambda: pair.role("server-1") not in {None, victim}, "the server is started again")
        again = pair.role("server-1")
        assert again is not None
        returned: list[Caller] = []

        def answers() -> bool:
            one = Caller(pair)
            mine = one.once() in _callers(again, pair.port)
            one.http.close()
            if mine:
                returned.append(one)
            return mine

        eventually(answers, "the new server answers")
        before = caller.answered
        eventually(lambda: caller.answered > before + 20, "answers afterwards")
    assert caller.failed == []
    assert {one.pid for one in pair.runners()} == runners


def test_both_servers_say_what_they_serve(pair: Installation) -> None:
    def names() -> set[str]:
        with pair.http() as http:
            (one,) = http.get("/api/v1/deployments").json()["items"]
        return {said["server"].rpartition("-")[2] for said in one["serving"]}

    eventually(lambda: names() == {"1", "2"}, "both servers in the heartbeats")


def test_connections_spread_over_the_servers(pair: Installation) -> None:
    servers = [pair.role("server-1"), pair.role("server-2")]
    callers = [Caller(pair) for _ in range(64)]
    try:
        ports = {one.once() for one in callers}
        shares = [len(ports & _callers(server, pair.port)) for server in servers if server is not None]
    finally:
        for one in callers:
            one.http.close()
    assert sum(shares) == 64
    assert min(shares) >= 13, "less likely than one in a million"


def test_a_port_that_is_shared_by_servers_is_taken_for_others(pair: Installation, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelkeep.app.cli", "serve", "--port", str(pair.port), "--data", str(tmp_path / "other")],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MODELKEEP_SERVER__PROCESSES": "2"},
    )
    assert done.returncode == 7
    assert f"Port {pair.port}" in done.stderr
