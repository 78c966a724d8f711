"""How often the control plane may be asked: by one person, and by one address without a good key. Health is never refused.

One process answers for the control plane, and keeps this in its own memory.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Final

from modelkeep.contracts import rates
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Limited
from modelkeep.infra.failures import Failures
from modelkeep.infra.rates import Headers, OwnRates, spacing, told
from modelkeep.infra.settings import LimitSettings

_BY: Final = "api"


class Pace:
    """Counts what is asked; without settings there is no limit."""

    def __init__(self, settings: LimitSettings | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = None if settings is None else rates.read(settings.api_rate)
        self._failures = Failures(None if settings is None else rates.read(settings.failure_rate), clock)
        self._rates = OwnRates()
        self._clock = clock

    def look(self, address: str | None, secret: str) -> None:
        """Raise `Limited` where too many requests without a good key came from this address."""
        self._failures.look(address, _digest(secret))

    def failed(self, address: str | None) -> None:
        """What was presented is no good key."""
        self._failures.bad(address)
        self._failures.tend()

    def take(self, actor: Actor, address: str | None, secret: str) -> Headers:
        """Count a request of who is let in, and return what its answer says of the rate; raises `Limited`."""
        self._failures.good(address, _digest(secret))
        if self._rate is None or not actor.limited:
            return ()
        taken = self._rates.take(actor.user, *spacing(self._rate), self._clock())
        says = told(_BY, self._rate, taken)
        if taken > 0:
            headers = {name.decode(): value.decode() for name, value in says}
            sentence = f"You may ask the control plane {self._rate.per_minute} times a minute."
            raise Limited(sentence, retry_after_s=taken, headers=headers)
        return says


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
