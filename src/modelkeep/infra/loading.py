"""What the courier says of its way with the prediction history, for the servers to show: how far behind it is, what was lost.

One small file that the courier replaces about once a second. A courier that does not run says nothing any more, so the age
of what it said last counts as lag, too.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

_SILENT_S: Final = 5.0


class Loading(msgspec.Struct, frozen=True):
    """`at`: when this was said; `behind_since`: the time of the oldest prediction that waits, 0 for none (Unix seconds).

    `lost`: predictions that could not be read, or were retired before their time, since the courier's start.
    """

    at: float
    behind_since: float
    lost: int

    def lag_s(self, now: float) -> float:
        """Return by how many seconds the history is behind at `now` (Unix seconds)."""
        since = self.behind_since or now
        if now - self.at > _SILENT_S:
            since = min(since, self.at)
        return max(0.0, now - since)


def say(path: Path, loading: Loading) -> None:
    """Say this instead of what was said before."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(msgspec.msgpack.encode(loading))
    fresh.replace(path)


def hear(path: Path, clock: Callable[[], float] = time.time) -> tuple[float, int] | None:
    """Return the lag in seconds and how many were lost; None before the courier has first spoken."""
    try:
        loading = msgspec.msgpack.decode(path.read_bytes(), type=Loading)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return loading.lag_s(clock()), loading.lost
