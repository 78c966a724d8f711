"""Golden rows: a few rows and the answers to them at validation, to be asked again at every load and now and then.

A file is two frames, one after the other: a run's inputs, and its result.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from modelkeep.sandbox import frames
from modelkeep.sandbox.agreement import Differs, differing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

ROWS = 8
MAX_BYTES = 1 << 20
INSTEAD = "where its answers change with the day, or are to change, set golden=warn for the deployment"
"""What to do about a version whose runners answer otherwise than at validation and are meant to."""

_FRAMES, _PREFIX = 2, 4


class Golden(msgspec.Struct, frozen=True):
    """Rows by input name, and the answers to them, run together, by output name."""

    inputs: "dict[str, NDArray[np.generic]]"
    outputs: "dict[str, NDArray[np.generic]]"


def pack(inputs: "Arrays", outputs: "Arrays") -> bytes:
    """Return the file of these rows and answers; raises `frames.FrameError` where it would be larger than MAX_BYTES."""
    pieces = [*frames.encode(frames.Run(0), inputs), *frames.encode(frames.Result(0, 0.0), outputs)]
    data = b"".join(pieces)
    if len(data) > MAX_BYTES:
        raise frames.FrameError("the rows are too large to be kept")
    return data


def unpack(data: bytes) -> Golden:
    """Read a file; raises `frames.FrameError` for anything else."""
    parts = list(frames.Splitter(MAX_BYTES).feed(data))
    if len(parts) != _FRAMES or sum(map(len, parts)) + _FRAMES * _PREFIX != len(data):
        raise frames.FrameError("these are no golden rows")
    (asked, inputs), (result, outputs) = map(frames.decode, parts)
    if not (isinstance(asked, frames.Run) and isinstance(result, frames.Result)):
        raise frames.FrameError("these are no golden rows")
    return Golden(dict(inputs), dict(outputs))


def check(golden: Golden, message: frames.Message, outputs: "Arrays") -> None:
    """Raise `Differs` unless what a runner answered to the golden rows is what was answered at validation."""
    if isinstance(message, frames.RunFailed):
        raise Differs(f"It fails over rows that it answered: {message.detail}")
    differing(golden.outputs, outputs)
