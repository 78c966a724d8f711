"""What validation found out about a version that is fit to serve."""

from typing import Literal

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One thing that was tried. `ok` is False where people should know, though the version may still serve."""

    name: str
    ok: bool
    detail: str = ""


class CompiledArtifact(msgspec.Struct, frozen=True):
    """The file that serves instead of the uploaded one: SHA-256, bytes, and the format and runner plugin that load it."""

    digest: str
    size: int
    format: str
    runner: str


class Compilation(msgspec.Struct, frozen=True):
    """What came of compiling a model to a faster form.

    `used` is whether it serves instead of the original, which otherwise does for this `reason`. `rows_compared` rows were
    answered by both; numbers of their answers differed by at most `largest_difference`, and were allowed
    `absolute_tolerance + relative_tolerance * |original|`; labels are never allowed to differ. `latency_ms` is the median
    time of one run of the compiled form, by the number of rows in it.
    """

    used: bool
    reason: str = ""
    rows_compared: int = 0
    largest_difference: float = 0.0
    relative_tolerance: float = 0.0
    absolute_tolerance: float = 0.0
    latency_ms: dict[str, float] = {}


class Report(msgspec.Struct, frozen=True):
    """Origin, cost and behaviour of a model, measured in a runner.

    `load_s` is seconds; `memory_bytes` is what the loaded model added to its process, with its unpacked
    files where they lie in memory, `peak_bytes` the process's highest
    resident memory. `sample` says whose rows were used: the uploader's, those that the
    artifact brought, or made-up ones. `latency_ms` is the median time of one run of the uploaded file, by
    the number of rows in it; `compiled` tells of the faster form, None where none was tried. `golden` is the SHA-256 of the
    file with golden rows, "" where there are none. `independent` is whether the answer to a row is the same whatever rows are
    beside it; where it is not, requests never share a run.
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
    sample: Literal["given", "brought", "made up"] = "made up"
    rows_tested: int = 0
    latency_ms: dict[str, float] = {}
    checks: tuple[Check, ...] = ()
    compiled: Compilation | None = None
    golden: str = ""
    independent: bool = True

    @property
    def cost_ms(self) -> dict[str, float]:
        """The median time of one run of what serves, by the number of rows in it."""
        return self.compiled.latency_ms if self.compiled is not None and self.compiled.used else self.latency_ms
