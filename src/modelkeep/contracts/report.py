"""What validation found out about a version that is fit to serve."""

from typing import Literal

import msgspec

from modelkeep.contracts.runner import Precision


class Check(msgspec.Struct, frozen=True):
    """One thing that was tried. `ok` is False where people should know, though the version may still serve."""

    name: str
    ok: bool
    detail: str = ""


class CompiledArtifact(msgspec.Struct, frozen=True):
    """What serves instead of the uploaded file as it is: SHA-256, bytes, and the format and runner plugin that load it.

    `precision` is what it computes in, `threads` how many it computes with (0: as many as the installation says). The file may
    be the uploaded one, run by another plugin, in another precision or with more threads.
    """

    digest: str
    size: int
    format: str
    runner: str
    precision: Precision = "f32"
    threads: int = 0


class Compilation(msgspec.Struct, frozen=True):
    """What came of compiling a model to a faster form.

    `used` is whether it serves instead of the original, which otherwise does for this `reason`. `rows_compared` rows were
    answered by both; numbers of their answers differed by at most `largest_difference`, and were allowed
    `absolute_tolerance + relative_tolerance * |original|`; labels are never allowed to differ. `latency_ms` is the median
    time of one run of the compiled form, by the number of rows in it, `speed` how many times faster a row is than with the
    original: 0 where that one serves, and in reports of before it was kept.
    """

    used: bool
    reason: str = ""
    rows_compared: int = 0
    largest_difference: float = 0.0
    relative_tolerance: float = 0.0
    absolute_tolerance: float = 0.0
    latency_ms: dict[str, float] = {}
    speed: float = 0.0


Optimise = Literal["auto", "off", "openvino", "bf16", "int8", "threads"]
"""How a version is made faster for the host: whichever way is best ("auto"), not at all, or this way or not at all.

"threads" is the number of threads that answers fastest, which may be the installation's own.
"""


class Candidate(msgspec.Struct, frozen=True):
    """One way to run a model that was tried for speed.

    `name` is as in `Optimise`, with "-ends" where the first and last layers stayed in floats, and threads with their number;
    `provider` is the runner plugin.
    `rows` were answered by it and by the original. `measure` is how far the answers are apart, as `worker.heldout.measure` has
    it (a share), None where it was not measured; `largest_difference` is between numbers. `latency_ms` is the median time of
    one run by the number of rows in it, `speed` how many times faster a row is than otherwise. `reason` says why it does not
    serve.
    """

    name: str
    provider: str
    precision: Precision
    used: bool = False
    reason: str = ""
    rows: int = 0
    measure: float | None = None
    largest_difference: float = 0.0
    latency_ms: dict[str, float] = {}
    speed: float = 0.0


class Optimisation(msgspec.Struct, frozen=True):
    """What came of making a model faster for the host.

    `budget` is the user's, a share from 0 to 1. `measured` says in words what `measure` of the candidates is. Of the
    calibration rows, `rows_calibrated` gave the ranges of integers and `rows_held_out` others were compared on. `before_ms` is
    the median time of one run of what would serve otherwise, `latency_ms` of what serves, by the number of rows in it;
    `memory_bytes` is what loading that added to a runner.
    """

    asked: Optimise
    used: bool
    reason: str = ""
    budget: float = 0.0
    measured: str = ""
    rows_calibrated: int = 0
    rows_held_out: int = 0
    before_ms: dict[str, float] = {}
    latency_ms: dict[str, float] = {}
    memory_bytes: int = 0
    candidates: tuple[Candidate, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """Origin, cost and behaviour of a model, measured in a runner.

    `load_s` is seconds; `memory_bytes` is what the loaded model added to its process, with its unpacked files where they lie
    in memory, `peak_bytes` the process's highest resident memory. `sample` says whose rows were used: the uploader's, those
    that the artifact brought, or made-up ones. `latency_ms` is the median time of one run of the uploaded file, by the number
    of rows in it; `compiled` tells of the faster form and `optimised` of what was tried for this host, None where nothing was.
    `golden` is the SHA-256 of the file with golden rows, "" where there are none. `independent` is whether the answer to a row
    is the same whatever rows are beside it; where it is not, requests never share a run. `hooked`: what loading took and
    `latency_ms` are those of what serves, with its hooks around it; `compiled` and `optimised` are of the model inside.
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
    optimised: Optimisation | None = None
    hooked: bool = False

    @property
    def cost_ms(self) -> dict[str, float]:
        """The median time of one run of what serves, by the number of rows in it."""
        if self.hooked:
            return self.latency_ms
        if self.optimised is not None and self.optimised.used:
            return self.optimised.latency_ms
        return self.compiled.latency_ms if self.compiled is not None and self.compiled.used else self.latency_ms

    @property
    def served_bytes(self) -> int:
        """What loading what serves adds to a runner, 0 where that is not known."""
        if self.hooked:
            return self.memory_bytes
        return self.optimised.memory_bytes if self.optimised is not None and self.optimised.used else self.memory_bytes
