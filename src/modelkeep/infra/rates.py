"""Rates by the generic cell rate algorithm (ITU-T I.371), and how a caller is told of them.

One number a bucket is kept: the time at which its next request would be due if it were asked evenly. A request is let through
while that time is no further ahead than the burst allows. What a caller is told are the header fields `RateLimit-Policy` and
`RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): `"key";q=100;w=60` is the rate of one minute, `"key";r=15;t=1` that 15
more would be let through at this moment. `t` is when the whole burst is there again, and where `r` is 0 when one request is, as
`Retry-After` says it.
"""

import math
from typing import Final, Protocol

from modelkeep.contracts.snapshot import Rate

TINY_S: Final = 1e-5
"""How far a due time may be off: the sum of a large burst is off by less, after months of the clock."""

_FEW: Final = 1024

Headers = tuple[tuple[bytes, bytes], ...]


class Rates(Protocol):
    """Where the due times are kept; `take` is one step for all servers that share them."""

    def take(self, name: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request.

        Returns above 0 the seconds until one would be let through, and it has not been counted; else, negated, the seconds
        until the whole burst is there again.
        """
        ...


class OwnRates:
    """Due times of this process alone. Those that have passed are forgotten now and then: they say nothing any more."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._many = _FEW

    def take(self, name: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request, as `Rates` has it."""
        due = max(self._due.get(name, 0.0), now)
        early = due - now - burst_s
        if early > TINY_S:
            return early
        self._due[name] = due + interval_s
        if len(self._due) > self._many:
            self._due = {one: at for one, at in self._due.items() if at > now}
            self._many = max(_FEW, 2 * len(self._due))
        return now - due - interval_s


def spacing(rate: Rate) -> tuple[float, float]:
    """Return the seconds between even requests, and how far ahead of them a burst may be."""
    interval = 60.0 / rate.per_minute
    return interval, interval * (max(1, rate.burst) - 1)


def told(label: str, rate: Rate, taken: float) -> Headers:
    """Return what a caller is told of a rate after `take` returned `taken`."""
    interval = 60.0 / rate.per_minute
    left = 0 if taken > 0 else int((interval * max(1, rate.burst) + taken + TINY_S) / interval)
    # where none is left, the next is let through when the due time is no further ahead than the burst
    seconds = taken if taken > 0 else -taken if left else -taken - interval * (max(1, rate.burst) - 1)
    by = label.encode()
    return (
        (b"ratelimit-policy", b'"%s";q=%d;w=60' % (by, rate.per_minute)),
        (b"ratelimit", b'"%s";r=%d;t=%d' % (by, left, max(1, math.ceil(seconds - TINY_S)))),
    )


def together(several: list[Headers]) -> Headers:
    """Return what a caller is told of several rates that hold for it, as the lists that the fields are."""
    if len(several) < 2:  # noqa: PLR2004 - nothing to put together
        return several[0] if several else ()
    policies, states = zip(*several, strict=True)
    return (
        (b"ratelimit-policy", b", ".join(value for _name, value in policies)),
        (b"ratelimit", b", ".join(value for _name, value in states)),
    )
