"""`make demo` as it really runs: the real server, both models, a real end."""

import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import grpc
import pytest
from access import read_env

from fixtures.installation import eventually, free_port

DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo"


@cache
def grpc_port(_port):
    """The port of gRPC beside a port of HTTP."""
    return free_port()


@contextmanager
def running(data, cache, port, folder):
    """Run the demo; yields the process, whose words are in demo.log and problems in demo.err."""
    command = [sys.executable, str(DEMO / "run.py"), "--port", str(port), "--data", str(data), "--cache", str(cache)]
    command += ["--grpc-port", str(grpc_port(port))]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONUNBUFFERED": "1"}
    with (folder / "demo.log").open("w") as log, (folder / "demo.err").open("w") as problems:
        process = subprocess.Popen(command, stdout=log, stderr=problems, cwd=folder, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def until_ready(process, data, folder):
    def ready():
        assert process.poll() is None, (folder / "demo.err").read_text()
        return (data / "demo.env").exists() and "Ctrl-C" in (folder / "demo.log").read_text()

    eventually(ready, "the demo's screen", 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def port():
    return free_port()


def test_a_first_run_serves_both_models_and_says_how_to_ask_them(folder, port, demo_models, demo_cache):
    data = folder / "data"
    with running(data, demo_cache, port, folder) as process:
        until_ready(process, data, folder)
        env = read_env(data / "demo.env")
        assert env["MODELKEEP_URL"] == f"http://127.0.0.1:{port}"
        assert env["MODELKEEP_GRPC"] == f"127.0.0.1:{grpc_port(port)}"
        with grpc.insecure_channel(env["MODELKEEP_GRPC"]) as channel:
            assert channel.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=10) == b"\x08\x01"
        assert set(env) == {
            *("MODELKEEP_URL", "MODELKEEP_GRPC", "MODELKEEP_API_KEY"),
            *("MODELKEEP_ADMIN_EMAIL", "MODELKEEP_ADMIN_PASSWORD"),
        }
        assert stat.S_IMODE((data / "demo.env").stat().st_mode) == 0o600
        screen = (folder / "demo.log").read_text()
        lines = screen.partition("in another terminal:\n")[2].partition("The administrator's key")[0]
        pasted = subprocess.run(["bash", "-e"], input=lines, capture_output=True, text=True, check=True, cwd=folder, timeout=60)
        assert '"breast-cancer"' in pasted.stdout
        assert '"daisy"' in pasted.stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_a_second_run_finds_everything_in_place(folder, port, demo_models, demo_cache):
    data = folder / "data"
    before = read_env(data / "demo.env")
    with running(data, demo_cache, port, folder) as process:
        until_ready(process, data, folder)
        assert read_env(data / "demo.env") == before
        assert "Pushing" not in (folder / "demo.log").read_text()
        process.terminate()
        assert process.wait(60) == 0
    assert not (data / "demo.env.aside").exists()


def test_a_taken_port_is_named_and_nothing_is_changed(folder, demo_models, demo_cache):
    data = folder / "data"
    before = (data / "demo.env").read_text()
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        running(data, demo_cache, other.getsockname()[1], folder) as process,
    ):
        assert process.wait(30) == 1
    assert "in use by another program" in (folder / "demo.err").read_text()
    assert (data / "demo.env").read_text() == before


def test_taken_data_are_named_and_their_environment_stays(folder, port, demo_models, demo_cache, tmp_path):
    data = folder / "data"
    with running(data, demo_cache, port, folder) as process:
        until_ready(process, data, folder)
        before = (data / "demo.env").read_text()
        with running(data, demo_cache, free_port(), tmp_path) as second:
            assert second.wait(30) == 7
        assert "Another Modelkeep" in (tmp_path / "demo.err").read_text()
        assert (data / "demo.env").read_text() == before


def test_the_server_ends_with_the_demo_even_when_that_is_killed(folder, port, demo_models, demo_cache):
    data = folder / "data"
    with running(data, demo_cache, port, folder) as process:
        until_ready(process, data, folder)
        process.kill()
        process.wait(10)

        def gone():
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) != 0

        eventually(gone, "the end of the server", 40)


def test_a_demo_that_is_stopped_while_it_starts_ends_at_once(demo_models, demo_cache, tmp_path):
    with running(tmp_path / "data", demo_cache, free_port(), tmp_path) as process:
        eventually((tmp_path / "data" / "lock").exists, "the start of the server")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in {0, 130}
    assert "Stopping" in (tmp_path / "demo.log").read_text()
    assert "Traceback" not in (tmp_path / "demo.err").read_text()
    assert not (tmp_path / "data" / "demo.env").exists()
