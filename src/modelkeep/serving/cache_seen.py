"""What became of the requests of one deployment where answers are kept, over the last minutes: what is told upwards.

The counters of `/metrics` only grow. Here each of a few moments is remembered with the counts as they were then, so that what
is told is what has come since the one five minutes ago.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from modelkeep.contracts.prediction import CacheSeen

SPAN_S: Final = 300.0
_STEP_S: Final = 10.0
_AROUND: Final = 8  # bytes that a name and what is told of it take in a message, beside themselves
_RESULTS: Final = {"hit": 0, "shared": 1, "miss": 2, "bypassed": 3}


class Lately:
    """Counts what becomes of one deployment's requests, as a cache tells it."""

    __slots__ = ("_counts", "_marks")

    def __init__(self, now: float) -> None:
        self._counts = [0] * len(_RESULTS)
        self._marks: deque[tuple[float, tuple[int, ...]]] = deque([(now, tuple(self._counts))])

    def count(self, result: str) -> None:
        """Count one request: hit, shared, miss or bypassed."""
        self._counts[_RESULTS[result]] += 1

    def told(self, now: float, held: int) -> CacheSeen:
        """Return what has come in the last five minutes, and remember this moment. `held` are the bytes of its answers."""
        marks = self._marks
        if now - marks[-1][0] >= _STEP_S:
            marks.append((now, tuple(self._counts)))
        while len(marks) > 1 and now - marks[1][0] >= SPAN_S:
            marks.popleft()
        hits, shared, misses, bypassed = (count - before for count, before in zip(self._counts, marks[0][1], strict=True))
        return CacheSeen("", hits, shared, misses, bypassed, held)


def fitting(seen: Iterable[tuple[str, CacheSeen]], room: int) -> dict[str, CacheSeen]:
    """Return what is told of deployments, as many as fit into so many bytes of a message: those first that are asked most."""
    found: dict[str, CacheSeen] = {}
    for name, one in sorted(seen, key=lambda each: (-_requests(each[1]), bool(each[1].why), each[0])):
        room -= _AROUND + len(name.encode()) + len(msgspec.msgpack.encode(one))
        if room < 0:
            break
        found[name] = one
    return found


def _requests(seen: CacheSeen) -> int:
    return seen.hits + seen.shared + seen.misses + seen.bypassed
