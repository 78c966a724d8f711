"""Closed loop: so many callers, each asking again as soon as it is answered. By wrk, which costs next to nothing.

wrk corrects its latencies for coordinated omission by the mean interval between requests.
"""

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

from rig.machine import pinned

_SCRIPT = Path(__file__).with_name("requests.lua")


class NoLoadGenerator(Exception):
    """wrk is not installed: apt-get install -y wrk."""


def available() -> None:
    """Raise `NoLoadGenerator` when it is not there."""
    if shutil.which("wrk") is None:
        raise NoLoadGenerator(NoLoadGenerator.__doc__)


def burst(port: int, index: Path, *, callers: int, seconds: int, core: int | None) -> dict[str, float]:
    """Return requests a second, latencies in ms, errors, and the seconds of processor that wrk took itself."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*pinned(core), "wrk", "--threads", "1", "--connections", str(callers), "--duration", f"{seconds}s"]
    command += ["--timeout", "20s", "--script", str(_SCRIPT), f"http://127.0.0.1:{port}", "--", str(index)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds + 60, env={"PATH": os.environ["PATH"]}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    if not found:
        raise RuntimeError(f"wrk failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    said = json.loads(found[0].removeprefix("JSON "))
    return {
        "requests": said["requests"],
        "per_second": said["requests"] / said["seconds"],
        **{f"{name}_ms": said[name] / 1000 for name in ("p50", "p90", "p99", "p999", "max")},
        "errors": sum(said[name] for name in ("connect", "read", "write", "status", "timeout")),
        "client_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }
