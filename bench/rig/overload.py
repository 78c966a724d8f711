"""What happens when ten times more is asked than can be answered: what is good, how refusals feel, how soon it is over."""

import argparse
import statistics
import threading
from collections.abc import Sequence
from typing import Any

from rig.contestants import Contestant
from rig.modelkeep import Modelkeep

_LOOK_S = 0.25
_PEAK_S = 3
_CALM_SHARE = 0.5
_CALM_S = 10
_CONNECTIONS = 1024
_NORMAL = 2.0  # times the calm p99
_NORMAL_SLICES = 5  # so many slices in a row must be normal


def run(modelkeep: Modelkeep, one: Contestant, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure the peak, the calm before, the storm and the calm after; print and return the figures."""
    peak = statistics.median(one.closed(asked.callers, _PEAK_S)["per_second"] for _ in range(3))
    one.server.index = modelkeep.asking(extra={"X-Request-Timeout": f"{asked.deadline:g}"}).write(one.server.home / "hurried")
    before = one.open(_CALM_SHARE * peak, _CALM_S)
    memory = _Memory(one)
    with memory:
        seconds = max(asked.seconds, _PEAK_S)
        storm = one.open(asked.times * peak, seconds, _CONNECTIONS, drain_s=0.0, deadline_s=asked.deadline)
        after = one.open(_CALM_SHARE * peak, _CALM_S)
    pause = after["started_at"] - storm["started_at"] - seconds  # until the calm load has begun
    back = normal_after(after["timeline"], before["good"].get("p99_ms", 0.0))
    figures = {
        "peak_per_second": peak,
        "offered_in_peaks": storm["sent_per_second"] / peak,
        "goodput_of_peak": storm["in_time_per_second"] / peak,
        "refusals_p99_ms": storm["refused_from_sent"].get("p99_ms", 0.0),
        "memory_before_mb": before["rss_mb"],
        "memory_most_mb": max(memory.seen, default=0.0),
        "memory_after_mb": after["rss_mb"],
        "normal_again_s": back if back < 0 else pause + back,
        "by_status": storm["by_status"],
    }
    print(f"\n{one.name}:")
    for name, value in figures.items():
        print(f"  {name:20} {value if isinstance(value, dict) else format(value, '.3f')}")
    if storm["sent_per_second"] < 0.9 * asked.times * peak:
        print("  The load generator could not send what was wanted: what was offered is above.")
    return {**figures, "before": before, "storm": storm, "after": after, "memory_mb": memory.seen}


def normal_after(timeline: Sequence[dict[str, float]], calm_p99_ms: float) -> float:
    """Return seconds until answers are all good and as fast as in the calm before, for some slices; -1 when never."""
    normal = 0
    for piece in timeline:
        if not (piece["good"] or piece["refused"] or piece["failed"]):
            continue  # nothing was due
        fine = not piece["refused"] and not piece["failed"] and 0 < piece["p99_ms"] <= _NORMAL * calm_p99_ms
        normal = normal + 1 if fine else 0
        if normal == _NORMAL_SLICES:
            return piece["at_s"] - (_NORMAL_SLICES - 1) * (timeline[1]["at_s"] - timeline[0]["at_s"])
    return -1.0


class _Memory:
    """Looks at the server's memory while something else goes on."""

    def __init__(self, one: Contestant) -> None:
        self.seen: list[float] = []
        self._one = one
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.seen.append(self._one.server.tree.memory_mb()["rss_mb"])
