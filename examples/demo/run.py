"""`make demo`: starts Modelkeep, brings two real models to it, says how to ask them, and stays until Ctrl-C.

    python examples/demo/run.py --port 8080 --grpc-port 8001 --data .modelkeep

What a program needs to use the demo is in DATA/demo.env, written at once and whole when both models answer, and moved aside
while they do not. A second run finds everything in place and changes nothing.
"""

import argparse
import ctypes
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from access import NoWayIn, demo_key, read_env, write_whole
from models import DemoModel, build
from publish import WrongAnswer, curl_lines, publish

from modelkeep.client import Client, ModelkeepError, Unavailable

HOST = "127.0.0.1"
START_S = 60.0
PR_SET_PDEATHSIG = 1
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "demo"


class ServerEnded(RuntimeError):
    """The server has ended, by itself or because it was told to."""


class NotReady(RuntimeError):
    """The server runs, but does not become ready."""


def main() -> int:
    """Run the demo until it is told to end; return the exit code."""
    arguments = _arguments()
    if not _free(arguments.port):
        print(f"Port {arguments.port} is in use by another program. Choose another: make demo PORT=8090", file=sys.stderr)
        return 1
    env = arguments.data / "demo.env"
    aside = arguments.data / "demo.env.aside"
    if env.exists():
        env.replace(aside)
    server = _start(arguments.port, arguments.data)

    def end(received: int, _frame: object) -> None:
        print("\nStopping ...", flush=True)
        server.send_signal(received)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        _set_up(server, arguments)
    except ServerEnded:
        if aside.exists():  # it may describe another run of the demo on this data
            aside.replace(env)
    except (ModelkeepError, NoWayIn, NotReady, WrongAnswer) as error:
        print(f"The demo could not be set up: {error}", file=sys.stderr)
        server.terminate()
        server.wait()
        return 1
    else:
        aside.unlink(missing_ok=True)
    code = server.wait()
    return code if code >= 0 else 128 - code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve two real models with Modelkeep.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--data", type=Path, default=Path(".modelkeep"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where built models are kept")
    return parser.parse_args()


def _free(port: int) -> bool:
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((HOST, port))
        except OSError:
            return False
    return True


def _start(port: int, data: Path) -> "subprocess.Popen[bytes]":
    """Start the server in a process group of its own, so that Ctrl-C reaches it once, through us.

    Its stdout is left out: what it says to a newcomer there is done below. Problems go to stderr.
    """
    libc = ctypes.CDLL(None)

    def end_with_us() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    command = [sys.executable, "-m", "modelkeep.app.cli", "serve", "--host", HOST, "--port", str(port), "--data", str(data)]
    command += ["--log-level", "warning"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0, preexec_fn=end_with_us)  # noqa: PLW1509 - no threads yet


def _set_up(server: "subprocess.Popen[bytes]", arguments: argparse.Namespace) -> None:
    url, data = f"http://{HOST}:{arguments.port}", arguments.data
    print("Starting Modelkeep ...", flush=True)
    models = build(arguments.cache)
    try:
        _wait_until_it_answers(server, url)
        key = demo_key(url, data, read_env(data / "demo.env.aside").get("MODELKEEP_API_KEY", ""))
        with Client(url, key, timeout=60) as client:
            publish(client, models, lambda text: print(text, flush=True))
    except Unavailable as error:
        if _ends(server):
            raise ServerEnded from error
        raise
    values = {"MODELKEEP_URL": url, "MODELKEEP_GRPC": f"{HOST}:{arguments.grpc_port}", "MODELKEEP_API_KEY": key}
    write_whole(data / "demo.env", "".join(f"{name}={value}\n" for name, value in values.items()))
    print(_screen(url, data, models), flush=True)


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until it is ready; raise `ServerEnded` when it ends instead."""
    deadline = time.monotonic() + START_S
    with Client(url, timeout=5) as client:
        while True:
            if server.poll() is not None:
                raise ServerEnded
            why = _why_not_ready(client)
            if not why:
                return
            if time.monotonic() >= deadline:
                raise NotReady(f"It is not ready after {START_S:.0f} s: {why}.")
            time.sleep(0.03)


def _why_not_ready(client: Client) -> str:
    try:
        readiness = client.readiness()
    except Unavailable as error:
        return error.message.rstrip(".")
    return "" if readiness.get("ready") else ", ".join(readiness.get("reasons", ["no reason given"]))


def _ends(server: "subprocess.Popen[bytes]") -> bool:
    """Whether the server is ending: it no longer answers, so give it a moment to."""
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        return False
    return True


def _screen(url: str, data: Path, models: list[DemoModel]) -> str:
    lines = [f"\nModelkeep answers at {url}, its API is described at {url}/docs. Ctrl-C ends it.\n"]
    lines += [f"  {model.name:<14} {model.description}" for model in models]
    lines += ["\nAsk both, in another terminal:\n", f"set -a; . {data / 'demo.env'}; set +a\n", curl_lines(url, models)]
    lines += [f"\nThe administrator's key is in {data / 'admin-key'}.\n"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
