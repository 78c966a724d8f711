"""How often the control plane may be asked: by one person, and by one address without a good key. Health is never refused.

One process answers for the control plane, and keeps this in its own memory.
"""

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
        failures = None if settings is None else rates.read(settings.failure_rate)
        self._guessable, self._random = Failures(failures, clock), Failures(failures, clock)
        self._rates = OwnRates()
        self._clock = clock

    def look(self, address: str | None) -> None:
        """Raise `Limited` where too many logins from this address have failed: no password is looked at."""
        self._guessable.look(address)

    def failed_login(self, address: str | None) -> None:
        """A login failed, or whatever else stands in its place: the next is refused, where there were too many."""
        self._guessable.bad(address)

    def failed(self, address: str | None) -> None:
        """What was presented is no good key or token, or nothing was; raises `Limited` where that happened too often."""
        self._random.look(address)
        self._random.bad(address)

    def take(self, actor: Actor, *, all_servers: bool = False) -> Headers:
        """Count a request of who is let in, and return what its answer says of the rate; raises `Limited`.

        No key is unlimited for what `all_servers` have to learn.
        """
        if self._rate is None or not (actor.limited or all_servers):
            return ()
        taken = self._rates.take(actor.user, *spacing(self._rate), self._clock())
        says = told(_BY, self._rate, taken)
        if taken > 0:
            headers = {name.decode(): value.decode() for name, value in says}
            sentence = f"You may ask the control plane {self._rate.per_minute} times a minute."
            raise Limited(sentence, retry_after_s=taken, headers=headers)
        return says
