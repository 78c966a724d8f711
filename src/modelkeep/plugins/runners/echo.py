"""The plain runner: a JSON file that says what its "model" takes, and how it misbehaves. For tests of everything around models.

    {"echo": 1, "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 2]}], "run_error": "no"}

It answers with its inputs, and does only what the fields of `Behaviour` say.
"""

import random
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import msgspec

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Artifact, CannotCompile, CannotLoad, Compiled, Format, LoadOptions, Manifest, ModelFacts
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_START = b'{"echo"'
_DEFAULT = (TensorSpec("input", Dtype.FP64, (-1, 2)),)


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"version": "echo"}):
    """What an echo file may declare. Seconds to take, signals to die of, MiB to allocate; `run_*` happens on each run.

    `fail_on`: a run fails while any value of the first input equals this one. `lose_rows`: answers so many rows too few.
    `leak_mb` more are held after each run. `noise`: adds a random number to the floats of each answer. `factor` multiplies all
    numbers, so versions can be told apart; after `drifts_after` runs they are doubled.
    `compiles_to`: the echo file that it compiles to, called one of the format `compiles_as`.
    """

    version: int
    inputs: tuple[TensorSpec, ...] = _DEFAULT
    outputs: tuple[TensorSpec, ...] = ()
    load_s: float = 0.0
    load_signal: int = 0
    load_mb: int = 0
    load_error: str = ""
    run_s: float = 0.0
    run_signal: int = 0
    run_mb: int = 0
    leak_mb: int = 0
    drifts_after: int = 0
    run_error: str = ""
    fail_on: float | str | None = None
    lose_rows: int = 0
    noise: float = 0.0
    factor: float = 1.0
    print: str = ""
    compile_s: float = 0.0
    compile_signal: int = 0
    compile_mb: int = 0
    compiles_to: "Behaviour | None" = None
    compiles_as: str = "echo"


class EchoRunner:
    """Loads `.echo` files."""

    manifest: ClassVar[Manifest] = Manifest(
        name="echo", formats=(Format("echo", (".echo",), "data", for_tests=True),), preload=("msgspec", "numpy")
    )

    @staticmethod
    def recognise(head: bytes, tail: bytes) -> str | None:
        """Return "echo" for JSON whose first key is `echo`."""
        del tail
        return "echo" if head.lstrip().startswith(_START) else None

    def load(self, artifact: Artifact, options: LoadOptions) -> "EchoModel":
        """Read the behaviour, and behave so while loading."""
        del options
        try:
            behaviour = msgspec.json.decode(artifact.data, type=Behaviour)
        except msgspec.DecodeError as error:
            truncated = not artifact.data.rstrip().endswith(b"}")
            raise CannotLoad(Reason.TRUNCATED if truncated else Reason.LOAD_FAILED, str(error)) from error
        ballast = _behave(behaviour.load_s, behaviour.load_signal, behaviour.load_mb)
        if behaviour.load_error:
            raise ValueError(behaviour.load_error)
        return EchoModel(behaviour, ballast)


class EchoModel:
    """Answers with its inputs."""

    def __init__(self, behaviour: Behaviour, ballast: bytearray) -> None:
        self._behaviour = behaviour
        self._ballast = ballast
        self._runs = 0
        outputs = behaviour.outputs or behaviour.inputs
        self._names = dict(zip((one.name for one in behaviour.inputs), (one.name for one in outputs), strict=False))
        self.facts = ModelFacts(Signature(behaviour.inputs, outputs), "echo", str(behaviour.version), "echo")

    def run(self, inputs: "Mapping[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """Behave as declared, then answer."""
        how = self._behaviour
        _behave(how.run_s, how.run_signal, how.run_mb)
        self._ballast += b"m" * (how.leak_mb << 20)
        self._runs += 1
        if how.print:
            print(how.print, flush=True)  # noqa: T201 - what a model prints goes to its runner's pipe
        first = next(iter(inputs.values()))
        if how.run_error or (how.fail_on is not None and bool((first == how.fail_on).any())):
            raise ValueError(how.run_error or "a value of this batch is the one to fail on")
        rows = len(first) - how.lose_rows
        return {out: self._changed(inputs[name])[:rows] for name, out in self._names.items() if name in inputs}

    def compiled(self) -> Compiled:
        """Behave as declared, then return the echo file that it compiles to."""
        how = self._behaviour
        _behave(how.compile_s, how.compile_signal, how.compile_mb)
        if how.compiles_to is None:
            raise CannotCompile("An echo has no faster form unless it names one.")
        return Compiled(msgspec.json.encode(how.compiles_to), how.compiles_as, how.compiles_as)

    def _changed(self, array: "np.ndarray") -> "np.ndarray":
        if array.dtype.kind not in "fiu":
            return array
        noise = random.random() * self._behaviour.noise if array.dtype.kind == "f" else 0  # noqa: S311 - no secret
        drift = 2.0 if 0 < self._behaviour.drifts_after < self._runs else 1.0
        return (array * self._behaviour.factor * drift + noise).astype(array.dtype)


def _behave(seconds: float, number: int, mebibytes: int) -> bytearray:
    if number:
        signal.raise_signal(signal.Signals(number))
    if seconds:
        time.sleep(seconds)
    return bytearray(b"m") * (mebibytes * 1024 * 1024)  # written, and so resident
