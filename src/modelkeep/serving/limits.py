"""How much may be asked: rates of keys, of people, of deployments and of addresses, and how many predictions at once.

One server keeps rates in its own memory (`infra/rates.py`); several keep them in one file (`infra/quotas.py`), for a limit is
one for all of them. Whose rate it is, is a name: a key's id, the bucket of a person with all they come by, a deployment,
an address. See docs/decisions/0012-limits-shared-by-servers.md.
"""

import time
from collections.abc import Callable
from typing import Protocol

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import Rate, ServedKey
from modelkeep.infra import addresses
from modelkeep.infra.rates import Headers, Rates, spacing, together, told
from modelkeep.infra.tally import Family
from modelkeep.serving.messages import Request

LIMITED = Family(
    "modelkeep_limited_total",
    "counter",
    "Requests to the predict door that a rate refused, by whose it is (key, user, deployment, address, failures).",
    ("by",),
)
_DEPLOYMENT = "deployment/"  # no key's id has a slash
_ADDRESS = "address/"
_UNLIMITED = Rate()
_SAYS = {
    "key": "This key may ask",
    "user": "Your sessions and keys may together ask",
    "deployment": "This deployment may be asked",
    "address": "Your address may ask",
}


class TooManyAtOnce(Limited):
    """This key has as many predictions under way as it may have: wait for one to end."""

    code = "too_many_at_once"


class Counts(Protocol):
    """Where what is under way is counted; `enter` is one step for all servers that share the counts."""

    def enter(self, name: str, most: int) -> bool:
        """Count one more, unless there are `most`; `leave` must follow."""
        ...

    def leave(self, name: str) -> None:
        """One that `enter` let in has ended."""
        ...


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
    """Checks requests against the limits that hold for them. `shared` is what several servers count together in.

    `address` is how often one address may ask, all keys together; None for any number. `limited` is told which kind of rate
    refused a request: key, user, deployment or address.
    """

    def __init__(
        self,
        rates: Rates,
        clock: Callable[[], float] = time.monotonic,
        *,
        shared: Counts | None = None,
        address: Rate | None = None,
        limited: Callable[[str], None] = lambda _by: None,
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._shared = shared
        self._counts = OwnCounts() if shared is None else shared
        self._address = address
        self._limited = limited

    def admit(self, request: Request, deployment: str = "", rate: Rate = _UNLIMITED) -> None:
        """Count a prediction of a deployment that begins, and have its answer say what is left of its rates.

        Raises `Limited` where key, deployment or address are at their limits. `release` must follow an admission.
        """
        key = request.key
        if key is not None and key.concurrency and not self._counts.enter(key.id, key.concurrency):
            raise TooManyAtOnce(retry_after_s=1)
        try:
            if rate.per_minute or self._address is not None:
                self._admit_by_all(request, deployment, rate)
            elif key is not None and key.rate is not None:
                request.beside += self._take("user" if key.bucket else "key", key.bucket or key.id, key.rate)
        except Limited:
            if key is not None:
                self.release(key)
            raise

    def check(self, request: Request) -> None:
        """Raise what `admit` would raise now for the request's key; nothing is counted."""
        key = request.key
        if key is None:
            return
        if key.concurrency:
            if not self._counts.enter(key.id, key.concurrency):
                raise TooManyAtOnce(retry_after_s=1)
            self._counts.leave(key.id)
        if key.rate is not None:
            self._look(*_of(key), key.rate)

    def _admit_by_all(self, request: Request, deployment: str, rate: Rate) -> None:
        """Look at all rates before any is counted, so that who is refused by one has used up nothing of the others."""
        key = request.key
        several: list[tuple[str, str, Rate]] = []
        if key is not None and key.rate is not None:
            several.append((*_of(key), key.rate))
        if self._address is not None:
            several.append(("address", _ADDRESS + addresses.shared(request.address), self._address))
        if rate.per_minute:
            several.append(("deployment", _DEPLOYMENT + deployment, rate.whole))
        if len(several) > 1:
            for one in several:
                self._look(*one)
        request.beside += together([self._take(*one) for one in several])

    def _take(self, by: str, name: str, rate: Rate) -> Headers:
        """Count a request against a rate, and return what its caller is told; raises `Limited`."""
        interval, burst = spacing(rate)
        taken = self._rates.take(name, interval, burst, self._clock())
        if taken > 0:
            raise self._refusal(by, rate, taken)
        return told(by, rate, taken)

    def _look(self, by: str, name: str, rate: Rate) -> None:
        taken = self._rates.take(name, 0.0, spacing(rate)[1], self._clock())
        if taken > 0:
            raise self._refusal(by, rate, taken)

    def _refusal(self, by: str, rate: Rate, wait: float) -> Limited:
        self._limited(by)
        headers = {name.decode(): value.decode() for name, value in told(by, rate, wait)}
        return Limited(f"{_SAYS[by]} {rate.per_minute} times a minute.", retry_after_s=wait, headers=headers)

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


def _of(key: ServedKey) -> tuple[str, str]:
    """Return whose rate a key's is, and its bucket."""
    return ("user", key.bucket) if key.bucket else ("key", key.id)
