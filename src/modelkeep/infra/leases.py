"""Rates that several installations keep together, as one process has them: in blocks that it has taken of what is due to all.

Nothing here waits or knows where the shared state is kept (`infra/redis_rates.py` does). A request is let through by what the
process holds; what it has used, and what it would like to hold next, is collected from time to time, and the answer says what
it may use, for how long, and how far the shared rate is used up. Nobody else is let through by what is held, and what is not
used in time goes back by itself. A process that knows nothing of a rate lets a few requests through on credit, which are
counted as soon as it is answered. While the shared state does not answer, the process's own rates hold instead.
See docs/decisions/0031-limits-over-replicas.md.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from modelkeep.infra.rates import TINY_S, Rates

HELD_S: Final = 1.0
"""For how long the shared state keeps a block for a process."""
VALID_S: Final = 0.5
"""For how long the process uses it, from the moment it asked: it reports the last use in time."""
CREDIT_S: Final = 3.0
"""On credit, all processes together let through what is due in this time, a twentieth of a minute, but each one request."""
_SOON_S: Final = 0.05  # when to come again where more may be due, but is not here yet
_LEAST_S: Final = 0.01  # between two questions for what was not to be had
_FEW: Final = 1024


class Asked(NamedTuple):
    """What a process reports of a rate, and asks for."""

    name: str
    interval_s: float
    burst_s: float
    used: int
    want: int
    ahead_s: float
    """How far, by what this process knows, the rate is used up at least: the shared state may have been lost."""


class Answer(NamedTuple):
    """What a process may use, how far the rate is used up, in seconds, and when one request more is due, if none is."""

    got: int
    ahead_s: float
    wait_s: float


class _Bucket:
    """What this process knows of one rate."""

    __slots__ = (
        "burst_s",
        "credit",
        "due",
        "interval_s",
        "marked",
        "name",
        "scarce",
        "shut",
        "tokens",
        "tried",
        "until",
        "used",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.interval_s = self.burst_s = 0.0
        self.tokens = 0
        self.until = 0.0  # until then the tokens are good, and no credit is needed
        self.shut = 0.0  # until then it is of no use to ask for more
        self.scarce = False  # there was nothing to be had
        self.due = 0.0  # by what the shared state said: what `infra/rates.py` calls so
        self.used = 0  # not reported, or not answered
        self.tried = 0
        self.credit = 0
        self.marked = False


class Leases:
    """Rates as `Rates` in `infra/rates.py` has them; `own` are those that hold while the shared state is away.

    `wake` is called when there is something to report, with True where requests wait for the answer. Not for several threads.
    """

    def __init__(self, own: Rates, wake: Callable[[bool], None]) -> None:
        self._own = own
        self._wake = wake
        self._buckets: dict[str, _Bucket] = {}
        self._many = _FEW
        self._marked: list[_Bucket] = []
        self.away = True
        self.sharers = 1
        """How many processes share the rates now."""

    def take(self, name: str, interval_s: float, burst_s: float, now: float) -> float:
        """Count a request, as `Rates` has it; with an interval of 0 only look."""
        if self.away:
            return self._own.take(name, interval_s, burst_s, now)
        bucket = self._buckets.get(name)
        if bucket is None:
            if not interval_s:
                return 0.0
            bucket = self._new(name, now)
        if interval_s:
            bucket.interval_s, bucket.burst_s = interval_s, burst_s
        wait = self._wait(bucket, now)
        if wait or interval_s:
            self._mark(bucket, now)
        if wait or not interval_s:
            return wait
        if now < bucket.until:
            bucket.tokens -= 1
        else:
            bucket.credit += 1
        bucket.used += 1
        ahead = max(bucket.due - now, 0.0) + bucket.used * interval_s
        return -min(ahead, burst_s + interval_s)

    def _wait(self, bucket: _Bucket, now: float) -> float:
        """Return in how many seconds one request is let through; 0 for now."""
        if now < bucket.until:
            return 0.0 if bucket.tokens else max(bucket.shut - now, _SOON_S)
        if bucket.shut - now > TINY_S:
            return bucket.shut - now
        return 0.0 if bucket.credit < self._most_on_credit(bucket) else _SOON_S

    def _most_on_credit(self, bucket: _Bucket) -> int:
        if bucket.scarce:
            return 1
        interval = bucket.interval_s
        return max(1, int(min(CREDIT_S, bucket.burst_s + interval) / interval / self.sharers))

    def _mark(self, bucket: _Bucket, now: float) -> None:
        """Have it asked for: at once where it holds nothing that may be used, unless nothing is due."""
        if bucket.shut > now:
            return
        bucket.tried += 1
        if not bucket.marked:
            bucket.marked = True
            self._marked.append(bucket)
            self._wake(now >= bucket.until or bucket.tokens <= 1)
        elif bucket.tokens <= 1:
            self._wake(True)

    def _new(self, name: str, now: float) -> _Bucket:
        if len(self._buckets) >= self._many:
            kept = (one for one in self._buckets.values() if one.marked or one.used or max(one.due, one.shut, one.until) > now)
            self._buckets = {one.name: one for one in kept}
            self._many = max(_FEW, 2 * len(self._buckets))
        bucket = self._buckets[name] = _Bucket(name)
        return bucket

    def collect(self, most: int, now: float) -> list[Asked]:
        """Return what is to be reported and asked for, of at most so many rates; `answered` or `lost` must follow."""
        taken, self._marked = self._marked[:most], self._marked[most:]
        asked = []
        for one in taken:
            want = 2 * (one.tried + 1)
            one.tokens = min(one.tokens, want)  # the rest may go to others from now on
            asked.append(Asked(one.name, one.interval_s, one.burst_s, one.used, want, max(0.0, one.due - now)))
            one.marked, one.tried = False, 0
        return asked

    def answered(self, asked: list[Asked], answers: list[Answer], at: float) -> None:
        """Take what the shared state answers to what was asked at `at`."""
        for (name, _interval, _burst, reported, *_), (got, ahead_s, wait_s) in zip(asked, answers, strict=True):
            bucket = self._buckets.get(name)
            if bucket is None:  # nothing was used of it, and there was no room
                continue
            bucket.used -= reported
            bucket.tokens = max(0, got - bucket.used)  # what was used meanwhile is in what was asked for
            bucket.until = at + (VALID_S if got or not wait_s else min(VALID_S, wait_s))
            bucket.due = at + ahead_s
            bucket.shut = 0.0 if got else at + max(wait_s, _LEAST_S)
            bucket.scarce = not got
            bucket.credit = 0

    def lost(self, asked: list[Asked]) -> None:
        """Nobody answered: what was reported may have been counted, and is not reported again."""
        for one in asked:
            if one.used:
                self._buckets[one.name].used -= one.used

    def remind(self, now: float) -> None:
        """Have all reported that is used up: the shared state may have been lost."""
        for bucket in self._buckets.values():
            if bucket.due > now and not bucket.marked:
                bucket.marked = True
                self._marked.append(bucket)

    @property
    def pending(self) -> bool:
        """Whether there is something to report."""
        return bool(self._marked)
