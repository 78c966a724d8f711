"""Measures whether a shadow costs the promoted version's callers anything: p99 with it by p99 without, in pairs of bursts.

Starts `modelkeep serve` in a temporary folder with one model and, in turn, shadows that answer the same, sleep 30 s, and crash.
Each round has a burst without and a burst with, in an order that changes; the shadow is asked everything. The load is a steady
one, at a rate well below what the machine can do: whoever fills the machine measures the machine. A pair without a shadow in
both bursts tells how much chance there is in a ratio. Told are the ratio of all bursts together, between which ratios it lies
when rounds are drawn anew, and the median of the rounds.

    python bench/shadow.py --rounds 10 --seconds 5 --rate 200
"""

import argparse
import asyncio
import io
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from modelkeep.client import Client, ModelkeepError

SHADOWS = {"none": "", "same": "pass", "sleeps": "time.sleep(30)", "crashes": "os._exit(3)"}
MODEL = """
import os, time
class Model:
    signature = [{{"name": "x", "datatype": "FP64", "shape": [-1]}}]
    def load(self, path):
        pass
    def predict(self, inputs):
        if (inputs["x"] > 100).any():  # what validation asks is answered
            {does}
        return {{"y": inputs["x"] * 2.0}}
"""
SETTLES_S = 3.0
DRAWINGS = 1000
CALLERS = 8
BODY = b'{"instances": [{"x": 200.0}]}'


async def burst(port: int, key: str, rate: float, seconds: float) -> tuple[list[float], int]:
    """Return each request's milliseconds from when it was due, and how many failed, at a steady rate."""
    head = f"POST /v1/models/m:predict HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
    request = head.encode() + f"content-length: {len(BODY)}\r\n\r\n".encode() + BODY
    took: list[float] = []
    failed = 0
    begin = time.perf_counter()

    async def call(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = begin + number / rate
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            took.append((time.perf_counter() - due) * 1000)
            failed += not answer.startswith(b"HTTP/1.1 200")
            due += CALLERS / rate
        writer.close()

    await asyncio.gather(*(call(number) for number in range(CALLERS)))
    return took, failed


def p99(took: list[float]) -> float:
    """Return the milliseconds that all but one in a hundred are within."""
    return statistics.quantiles(took, n=100)[98]


@contextmanager
def serving(data: Path) -> Iterator[tuple[int, Client, str]]:
    """Run an installation; yields its port, a client and its key."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    log = (data.parent / "log").open("wb")
    command = [sys.executable, "-m", "modelkeep.app.cli", "serve", "--port", str(port), "--data", str(data)]
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "MODELKEEP_LOG__LEVEL": "warning"})
    try:
        token = data / "setup-token"
        while not token.exists():
            time.sleep(0.1)
        with Client(f"http://127.0.0.1:{port}") as stranger:
            while True:
                try:
                    key = str(stranger.setup(token.read_text().strip()).secret)
                    break
                except ModelkeepError:
                    time.sleep(0.2)
        with Client(f"http://127.0.0.1:{port}", key) as client:
            yield port, client, key
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def push(client: Client, folder: Path, name: str, does: str) -> int:
    """Push a model that does this; returns its version's number."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("model.py", MODEL.format(does=does))
    path = folder / f"{name}.zip"
    path.write_bytes(packed.getvalue())
    return client.push(path, name, format="python").number


def shadow(client: Client, name: str, version: int | None) -> None:
    """Have a version shadow the promoted one for all requests, None for none."""
    client.set_traffic(name, {"shadow": version and {"version": version, "share": 100}})
    time.sleep(SETTLES_S)


def chance(pairs: list[tuple[list[float], list[float]]]) -> tuple[float, float, float]:
    """Return p99 with by p99 without over all bursts, and between what it lies in 95 of 100 drawings of the rounds."""

    def ratio(drawn: list[tuple[list[float], list[float]]]) -> float:
        with_it, without = (p99([one for pair in drawn for one in pair[at]]) for at in (0, 1))
        return with_it / without

    rolls = random.Random(0)
    ratios = statistics.quantiles((ratio(rolls.choices(pairs, k=len(pairs))) for _ in range(DRAWINGS)), n=40)
    return ratio(pairs), ratios[0], ratios[-1]


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--shadows", nargs="*", choices=SHADOWS, help="which of them; all, unless said")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with serving(data) as (port, client, key):
            client.allow_code(reason="to measure")
            push(client, Path(folder), "m", "pass")
            numbers = {name: push(client, Path(folder), "m", does) for name, does in SHADOWS.items() if name != "none"}
            client.promote("m", 1)
            for name in asked.shadows or SHADOWS:
                pairs, failures = [], 0
                for number in range(asked.rounds):
                    found = {}
                    for beside in (False, True) if number % 2 else (True, False):
                        shadow(client, "m", numbers.get(name) if beside else None)
                        found[beside], failed = asyncio.run(burst(port, key, asked.rate, asked.seconds))
                        failures += failed
                    pairs.append((found[True], found[False]))
                ratio, low, high = chance(pairs)
                each = statistics.median(p99(one) / p99(other) for one, other in pairs)
                said = f"p99 with by without: {ratio:.3f} of all, 95 % of drawings {low:.3f} to {high:.3f}, median {each:.3f}"
                print(f"{name:8} {said}, {failures} failed; shadows heard of: {len(client.shadows('m'))}", flush=True)


if __name__ == "__main__":
    main()
