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
from pathlib import Path

HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "demo"


def main() -> int:
    """Run the demo until it is told to end; return the exit code."""
    arguments = _arguments()
    for port, example in ((arguments.port, "PORT=8090"), (arguments.grpc_port, "GRPC_PORT=8091")):
        if not _free(port):
            print(f"Port {port} is in use by another program. Choose another: make demo {example}", file=sys.stderr)
            return 1
    env, aside = arguments.data / "demo.env", arguments.data / "demo.env.aside"
    if env.exists():
        env.replace(aside)
    print("Starting Modelkeep ...", flush=True)
    server = _start(arguments)
    told_to_end = _pass_signals_on(server)

    def has_ended(seconds: float) -> bool:
        try:
            server.wait(None if told_to_end else seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    from set_up import DemoFailed, ServerEnded, set_up  # after the start: while we import, the server comes up

    try:
        set_up(arguments, HOST, has_ended)
    except ServerEnded:
        if aside.exists():  # it may describe another run of the demo on this data
            aside.replace(env)
    except DemoFailed as error:
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


def _start(arguments: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Start the server in a process group of its own, so that Ctrl-C reaches it once, through us.

    Its stdout is left out: what it says to a newcomer there is done for them. Problems go to stderr.
    """
    libc = ctypes.CDLL(None)

    def end_with_us() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so would it while it starts

    command = [sys.executable, "-m", "modelkeep.app.cli", "serve", "--host", HOST, "--port", str(arguments.port)]
    command += ["--grpc-port", str(arguments.grpc_port), "--data", str(arguments.data), "--log-level", "warning"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0, preexec_fn=end_with_us)  # noqa: PLW1509 - no threads here


def _pass_signals_on(server: "subprocess.Popen[bytes]") -> list[int]:
    """Hand SIGINT, SIGTERM and SIGHUP to the server; returns the list that they are noted in."""
    received: list[int] = []

    def hand_on(number: int, _frame: object) -> None:
        received.append(number)
        print("\nStopping ...", flush=True)
        server.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    return received


if __name__ == "__main__":
    sys.exit(main())
