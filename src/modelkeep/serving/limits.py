"""How much one key may ask: a rate, and how many predictions at once.

The rate is kept by the generic cell rate algorithm (ITU-T I.371): one number a key, the time at which its next request would
be due if it asked evenly. A request is let through while that time is no further ahead than the burst allows.

One server keeps this in its own memory; several keep it in one file (`infra/quotas.py`), for a limit is one for all of them.
"""

import time
from collections.abc import Callable
from typing import Protocol

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import Rate, ServedKey
from modelkeep.infra.quotas import TINY_S

_DEPLOYMENT = "deployment/"  # no key's id has a slash


class TooManyAtOnce(Limited):
    """This key has as many predictions under way as it may have: wait for one to end."""

    code = "too_many_at_once"


class Rates(Protocol):
    """Where the due times are kept; `take` is one step for all servers that share them."""

    def take(self, key_id: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request, and return 0, or the seconds until one would be let through."""
        ...


class Counts(Protocol):
    """Where what is under way is counted; `enter` is one step for all servers that share the counts."""

    def enter(self, name: str, most: int) -> bool:
        """Count one more, unless there are `most`; `leave` must follow."""
        ...

    def leave(self, name: str) -> None:
        """One that `enter` let in has ended."""
        ...


class OwnRates:
    """Due times of this process alone."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def take(self, key_id: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request, and return 0, or the seconds until one would be let through."""
        due = max(self._due.get(key_id, 0.0), now)
        early = due - now - burst_s
        if early > TINY_S:
            return early
        self._due[key_id] = due + interval_s
        return 0.0


class OwnCounts:
    """What is under way in this process alone."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}

    def enter(self, name: str, most: int) -> bool:
        """Count one more, unless there are `most`; `leave` must follow."""
        under_way = self.count.get(name, 0)
        if under_way >= most:
            return False
        self.count[name] = under_way + 1
        return True

    def leave(self, name: str) -> None:
        """One that `enter` let in has ended."""
        self.count[name] -= 1
        if not self.count[name]:
            del self.count[name]


class Limits:
    """Checks keys against their limits, and deployments where several servers answer: `shared` is what those count in."""

    def __init__(self, rates: Rates, clock: Callable[[], float] = time.monotonic, *, shared: Counts | None = None) -> None:
        self._rates = rates
        self._clock = clock
        self._shared = shared
        self._counts = OwnCounts() if shared is None else shared

    def admit(self, key: ServedKey) -> None:
        """Count a prediction that begins; raises `Limited` when the key may not. `release` must follow an admission."""
        if key.concurrency and not self._counts.enter(key.id, key.concurrency):
            raise TooManyAtOnce(retry_after_s=1)
        if key.rate is not None:
            interval, burst = spacing(key.rate)
            try:
                self._take(key, key.rate, interval, burst)
            except Limited:
                self.release(key)
                raise

    def check(self, key: ServedKey) -> None:
        """Raise what `admit` would raise now; nothing is counted."""
        if key.concurrency:
            if not self._counts.enter(key.id, key.concurrency):
                raise TooManyAtOnce(retry_after_s=1)
            self._counts.leave(key.id)
        if key.rate is not None:
            self._take(key, key.rate, 0.0, spacing(key.rate)[1])

    def _take(self, key: ServedKey, rate: Rate, interval_s: float, burst_s: float) -> None:
        wait = self._rates.take(key.id, interval_s, burst_s, self._clock())
        if wait > 0:
            raise Limited(f"This key may ask {rate.per_minute} times a minute.", retry_after_s=wait)

    def release(self, key: ServedKey) -> None:
        """A prediction has ended."""
        if key.concurrency:
            self._counts.leave(key.id)

    def enter(self, deployment: str, most: int) -> bool:
        """Count a prediction of a deployment that begins, unless `most` are under way in all servers; `leave` must follow.

        A server that is alone has counted by itself, and is let in.
        """
        return self._shared is None or self._shared.enter(_DEPLOYMENT + deployment, most)

    def leave(self, deployment: str) -> None:
        """A prediction that `enter` let in has ended."""
        if self._shared is not None:
            self._shared.leave(_DEPLOYMENT + deployment)


def spacing(rate: Rate) -> tuple[float, float]:
    """Return the seconds between even requests, and how far ahead of them a burst may be."""
    interval = 60.0 / rate.per_minute
    return interval, interval * (max(1, rate.burst) - 1)
