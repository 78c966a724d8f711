"""How much one key may ask: a rate, and how many predictions at once.

The rate is kept by the generic cell rate algorithm (ITU-T I.371): one number a key, the time at which its next request would
be due if it asked evenly. A request is let through while that time is no further ahead than the burst allows.
"""

import time
from collections.abc import Callable
from typing import Protocol

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import Rate, ServedKey

_TINY_S = 1e-5  # the sum of a large burst is off by less, after months of the clock


class TooManyAtOnce(Limited):
    """This key has as many predictions under way as it may have: wait for one to end."""

    code = "too_many_at_once"


class Rates(Protocol):
    """Where the due times are kept; `take` is one step for all servers that share them."""

    def take(self, key_id: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request, and return 0, or the seconds until one would be let through."""
        ...


class OwnRates:
    """Due times of this process alone."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def take(self, key_id: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request, and return 0, or the seconds until one would be let through."""
        due = max(self._due.get(key_id, 0.0), now)
        early = due - now - burst_s
        if early > _TINY_S:
            return early
        self._due[key_id] = due + interval_s
        return 0.0


class Limits:
    """Checks keys against their limits."""

    def __init__(self, rates: Rates, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._clock = clock
        self._inflight: dict[str, int] = {}

    def admit(self, key: ServedKey) -> None:
        """Count a prediction that begins; raises `Limited` when the key may not. `release` must follow an admission."""
        under_way = self._inflight.get(key.id, 0)
        if key.concurrency and under_way >= key.concurrency:
            raise TooManyAtOnce(retry_after_s=1)
        if key.rate is not None:
            wait = self._rates.take(key.id, *spacing(key.rate), self._clock())
            if wait > 0:
                raise Limited(f"This key may ask {key.rate.per_minute} times a minute.", retry_after_s=wait)
        if key.concurrency:
            self._inflight[key.id] = under_way + 1

    def release(self, key: ServedKey) -> None:
        """A prediction has ended."""
        if key.concurrency and key.id in self._inflight:
            self._inflight[key.id] -= 1
            if not self._inflight[key.id]:
                del self._inflight[key.id]


def spacing(rate: Rate) -> tuple[float, float]:
    """Return the seconds between even requests, and how far ahead of them a burst may be."""
    interval = 60.0 / rate.per_minute
    return interval, interval * (max(1, rate.burst) - 1)
