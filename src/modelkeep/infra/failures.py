"""Slows down who asks without a good key, by address, so that keys cannot be guessed at speed.

An address beyond its rate is refused before its key is looked at: the answer says nothing about the key. Keys that have been
good there since its first failure are let through all the same, for many callers may share an address with one that is set up
wrong. As long as nobody fails, there is nothing to look at. Each process counts by itself: what strangers do must not fill what
the servers share.
"""

import time
from collections.abc import Callable
from typing import Final

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import Rate
from modelkeep.infra.addresses import shared
from modelkeep.infra.rates import OwnRates, spacing, told

BY: Final = "failures"
_MOST: Final = 65_536
_REMEMBERED_S: Final = 600.0


class Failures:
    """Counts failures by address; `rate` is how many there may be, None for any number.

    `limited` is told `BY` of each request that is refused. Times are of the monotonic clock.
    """

    def __init__(
        self,
        rate: Rate | None,
        clock: Callable[[], float] = time.monotonic,
        limited: Callable[[str], None] = lambda _by: None,
    ) -> None:
        self._rate = rate
        self._limited = limited
        self._clock = clock
        self._rates = OwnRates()
        self._until: dict[str, float] = {}
        self.suspects: dict[str, set[bytes]] = {}
        """The keys that have been good there lately, by address, of addresses that failed lately."""

    def look(self, address: str | None, digest: bytes) -> None:
        """Raise `Limited` where the address has failed too often, unless the key of this SHA-256 has been good there."""
        if self._rate is None:
            return
        name = shared(address)
        good = self.suspects.get(name)
        if good is None or digest in good:
            return
        now = self._clock()
        if self._until[name] <= now:
            del self._until[name], self.suspects[name]
            return
        wait = self._rates.take(name, 0.0, spacing(self._rate)[1], now)
        if wait > 0:
            self._limited(BY)
            headers = {field.decode(): value.decode() for field, value in told(BY, self._rate, wait)}
            raise Limited("Too many requests without a good key came from your address.", retry_after_s=wait, headers=headers)

    def good(self, address: str | None, digest: bytes) -> None:
        """A key was good there."""
        found = self.suspects.get(shared(address))
        if found is not None and len(found) < _MOST:
            found.add(digest)

    def bad(self, address: str | None) -> None:
        """A request without a good key came from there."""
        if self._rate is None:
            return
        name, now = shared(address), self._clock()
        interval, burst = spacing(self._rate)
        self._rates.take(name, interval, burst, now)
        if name not in self.suspects and len(self.suspects) >= _MOST:
            oldest = next(iter(self.suspects))
            del self.suspects[oldest], self._until[oldest]
        self._until[name] = now + _REMEMBERED_S + interval + burst
        self.suspects.setdefault(name, set())

    def tend(self) -> None:
        """Forget addresses that have not failed for long; to be called now and then."""
        if self.suspects:
            now = self._clock()
            for name in [one for one, until in self._until.items() if until <= now]:
                del self._until[name], self.suspects[name]
