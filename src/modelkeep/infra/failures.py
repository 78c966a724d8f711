"""Slows down who fails to show who they are, by address.

Whoever brings what is good goes on, from whatever address: many callers may share one with somebody who is set up wrong, or
means ill. Where what is brought is found by its hash and cannot be guessed (keys, tokens), only those that fail are told to
wait. Where it can be guessed (passwords), an address beyond its rate is refused before anything is looked at. Each process
counts by itself: what strangers do must not fill what the servers share.
"""

import time
from collections.abc import Callable
from typing import Final

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import Rate
from modelkeep.infra.addresses import shared
from modelkeep.infra.rates import OwnRates, spacing, told

BY: Final = "failures"


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

    def look(self, address: str | None) -> None:
        """Raise `Limited` where the address has failed too often."""
        if self._rate is None:
            return
        wait = self._rates.take(shared(address), 0.0, spacing(self._rate)[1], self._clock())
        if wait > 0:
            self._limited(BY)
            headers = {field.decode(): value.decode() for field, value in told(BY, self._rate, wait)}
            raise Limited("Too many requests without a good key came from your address.", retry_after_s=wait, headers=headers)

    def bad(self, address: str | None) -> None:
        """A request that did not show who asks came from there."""
        if self._rate is not None:
            self._rates.take(shared(address), *spacing(self._rate), self._clock())
