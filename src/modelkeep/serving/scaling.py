"""How many runners a version wants: as many as keep up with its load, between the bounds of its deployment.

One more when the runners were busy nearly all the time and requests waited, twice in a row; one less when the rest would have
been less than half busy for half a minute. More than the cores have threads for is never of use by itself.
"""

import os
import time
from collections.abc import Callable

from modelkeep.contracts.snapshot import Replicas

_BUSY = 0.8
_IDLE = 0.5
_LOOKS_UP = 2
_LOOKS_DOWN = 30


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Scale:
    """The wanted number of one version's runners, each of which computes with so many threads."""

    def __init__(self, replicas: Replicas, clock: Callable[[], float] = time.monotonic, *, threads: int = 1) -> None:
        self._clock = clock
        self._threads = threads
        self._looked = clock()
        self._busy_s = 0.0
        self._up = self._down = 0
        self._least = self._most = 1
        self.wanted = 1
        self.configure(replicas)

    def configure(self, replicas: Replicas) -> None:
        """Take new bounds."""
        self._least = max(1, replicas.min)
        self._most = max(self._least, replicas.max or cores() // self._threads)
        self.wanted = min(max(self.wanted, self._least), self._most)

    def look(self, busy_s: float, waiting: int, replicas: int, *, spread: bool) -> bool:
        """Note the load since the last look; whether the wanted number changed.

        `busy_s`: seconds that all runners together have run so far. `spread`: whether more runners can help at all.
        """
        now = self._clock()
        since, self._looked = now - self._looked, now
        used, self._busy_s = busy_s - self._busy_s, busy_s
        if since <= 0 or not replicas:
            return False
        load = used / since
        self._up = self._up + 1 if spread and waiting and load >= _BUSY * replicas else 0
        self._down = self._down + 1 if load < _IDLE * (self.wanted - 1) else 0
        before = self.wanted
        if self._up >= _LOOKS_UP and replicas >= self.wanted:
            self.wanted, self._up = min(self.wanted + 1, self._most), 0
        elif self._down >= _LOOKS_DOWN or not spread:
            self.wanted, self._down = max(self.wanted - 1, self._least), 0
        return self.wanted != before
