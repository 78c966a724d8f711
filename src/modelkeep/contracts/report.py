"""What validation found out about a version that is fit to serve."""

from typing import Literal

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One thing that was tried. `ok` is False where people should know, though the version may still serve."""

    name: str
    ok: bool
    detail: str = ""


class Report(msgspec.Struct, frozen=True):
    """Origin, cost and behaviour of a model, measured in a runner.

    `load_s` is seconds; `memory_bytes` is what the loaded model added to its process, `peak_bytes` the process's highest
    resident memory. `sample` says whose rows were used. `latency_ms` is the median time of one run, by the number of rows
    in it.
    """

    framework: str
    framework_version: str
    kind: str = ""
    details: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    load_s: float = 0.0
    memory_bytes: int = 0
    peak_bytes: int = 0
    deterministic: bool = True
    sample: Literal["given", "made up"] = "made up"
    rows_tested: int = 0
    latency_ms: dict[str, float] = {}
    checks: tuple[Check, ...] = ()
