"""Measures the predict path of a whole installation on this machine, against what the bare model can do in the same run.

Starts `modelkeep serve` on a free port in a temporary folder, pushes a 100-tree forest (30 features) twice, as scikit-learn
and as ONNX, and sends one row a request over keep-alive connections, closed loop, 1, 16 and 64 at a time. Figures are
medians of three bursts. Ratios to the bare model are steadier than rates: machines are shared.

    make bench            (or: python bench/predict.py --seconds 3)
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from modelkeep.client import Client, ModelkeepError

PORT = 21877
LEVELS = (1, 16, 64)


async def burst(path: str, key: str, bodies: list[bytes], callers: int, seconds: float) -> tuple[float, list[float]]:
    """Return requests a second and each request's seconds."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def call(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
        requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
        while (started := time.perf_counter()) < end:
            writer.write(requests[number % len(requests)])
            number += callers
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(callers)))
    return len(took) / (time.perf_counter() - started), took


def bare(run: Callable[[np.ndarray], object], rows: np.ndarray, size: int, seconds: float) -> float:
    """Return rows a second of the model itself, called with `size` rows at a time in this process."""
    run(rows[:size])
    count = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        run(rows[:size])
        count += size
    return count / (time.perf_counter() - started)


def measure(name: str, key: str, bodies: list[bytes], limit: float, seconds: float) -> dict[str, object]:
    """Print and return one model's row for each number of callers."""
    row: dict[str, object] = {}
    for callers in LEVELS:
        bursts = [asyncio.run(burst(f"/api/v1/predict/{name}", key, bodies, callers, seconds)) for _ in range(3)]
        rate = statistics.median(one for one, _took in bursts)
        took = sorted(second * 1000 for _rate, seconds_ in bursts for second in seconds_)
        p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
        line = f"{name:10} {callers:3} callers  {rate:8.0f}/s  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms"
        print(f"{line}  {rate / limit:6.3f} of the bare model")
        row[str(callers)] = {"per_second": rate, "p50_ms": p50, "p99_ms": p99, "of_bare": rate / limit}
    return row


def main() -> None:
    """Run everything and print the figures; `--json FILE` keeps them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a burst")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    data = load_breast_cancer()
    rows = data.data.astype(np.float64)
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(rows, data.target)
    bodies = [json.dumps({"inputs": [row]}).encode() for row in rows[:64].tolist()]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        joblib.dump(forest, home / "forest.joblib")
        limits = {"sklearn": bare(forest.predict_proba, rows, 64, 2.0)}
        onnx = _onnx(forest, home / "forest.onnx")
        if onnx:
            os.environ["ORT_DISABLE_TELEMETRY"] = "1"
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(str(home / "forest.onnx"), options, providers=["CPUExecutionProvider"])
            limits["onnx"] = bare(
                lambda part: session.run(None, {session.get_inputs()[0].name: part}), rows.astype(np.float32), 64, 2.0
            )
        command = [sys.executable, "-m", "modelkeep.app.cli", "serve", "--port", str(PORT), "--data", str(home / "data")]
        environment = {"PATH": os.environ["PATH"], "MODELKEEP_LOG__LEVEL": "warning"}
        with subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.DEVNULL) as server:
            try:
                key = _key(home / "data" / "setup-token")
                with Client(f"http://127.0.0.1:{PORT}", key) as client:
                    for kind in limits:
                        client.push(home / f"forest.{'joblib' if kind == 'sklearn' else 'onnx'}", kind)
                figures = {kind: measure(kind, key, bodies, limit, arguments.seconds) for kind, limit in limits.items()}
            finally:
                server.terminate()
    if arguments.json:
        arguments.json.write_text(json.dumps({"bare_rows_per_second": limits, "served": figures}, indent=1))


def _onnx(forest: RandomForestClassifier, path: Path) -> bool:
    """Convert, where the converter is installed."""
    try:
        from skl2onnx import to_onnx
    except ImportError:
        print("skl2onnx is not installed: the ONNX rows are left out")
        return False
    path.write_bytes(
        to_onnx(forest, np.zeros((1, 30), np.float32), options={"zipmap": False}, target_opset=18).SerializeToString()
    )
    return True


def _key(token: Path) -> str:
    """Wait for the server, and become its first admin."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if token.exists():
            try:
                with Client(f"http://127.0.0.1:{PORT}") as client:
                    return str(client.setup(token.read_text().strip()).secret)
            except ModelkeepError:
                pass
        time.sleep(0.1)
    raise SystemExit("the server did not come up")


if __name__ == "__main__":
    main()
