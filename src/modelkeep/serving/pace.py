"""Callers that are slow, on purpose or not: how much time they have for a head, a body and for reading their answer.

Nothing is timed by the request: a connection notes in which part of a request it is and how many bytes came, and once a second
the watch looks at all of them. Time in which we ourselves do not read, since there is enough to do, does not count.
"""

from collections.abc import Iterable
from typing import Final, Protocol

HEADERS, BODY, ANSWER = 0, 1, 2
"""The parts of a request. A connection begins with one that is awaited; how long it idles after an answer, it counts itself."""

_READING_S: Final = 60
_PATIENCE_S: Final = 10


class Pace:
    """How far a connection's request is. The watch alone writes `counted` and what begins with `seen`."""

    __slots__ = ("counted", "phase", "received", "seen_phase", "seen_received", "seen_s", "seen_unread")

    def __init__(self) -> None:
        self.phase = HEADERS
        self.received = 0
        self.counted = 0  # bytes of ten seconds before: a burst is no pass for the time after
        self.seen_phase = HEADERS
        self.seen_received = 0
        self.seen_s = 0.0
        self.seen_unread = 0


class Watched(Protocol):
    """A connection."""

    pace: Pace

    @property
    def reading(self) -> bool:
        """Whether we take what it sends."""
        ...

    @property
    def unread(self) -> int:
        """Bytes of answers that its caller has yet to read."""
        ...

    def refuse_slow(self) -> None:
        """End it."""
        ...


class Watch:
    """Ends connections whose callers take longer than `headers_s` for a head, or send a body by less than `body_rate` a second.

    A body's rate is looked at every ten seconds, for those ten alone. Whoever reads nothing of an answer for a minute is gone.
    """

    def __init__(self, *, headers_s: float, body_rate: int) -> None:
        self._headers_s = headers_s
        self._body_rate = body_rate

    def look(self, connections: Iterable[Watched], passed_s: float) -> int:
        """Look at all connections, `passed_s` seconds after the last time; returns how many were ended."""
        slow = [one for one in connections if self._is_slow(one, passed_s)]
        for one in slow:
            one.refuse_slow()
        return len(slow)

    def _is_slow(self, one: Watched, passed_s: float) -> bool:
        pace = one.pace
        if pace.phase == ANSWER:
            unread = one.unread
            stuck = bool(unread) and pace.seen_phase == ANSWER and unread == pace.seen_unread
            pace.seen_s = pace.seen_s + passed_s if stuck else 0.0
            pace.seen_unread, pace.seen_phase = unread, ANSWER
            return pace.seen_s >= _READING_S
        if pace.phase != pace.seen_phase or pace.received < pace.seen_received:  # another part, or another request
            pace.seen_phase, pace.seen_s, pace.counted = pace.phase, 0.0, 0
        elif one.reading:
            pace.seen_s += passed_s
        pace.seen_received = pace.received
        if pace.phase == HEADERS:
            return pace.seen_s >= self._headers_s
        if pace.seen_s < _PATIENCE_S:
            return False
        slow = pace.received - pace.counted < self._body_rate * pace.seen_s
        pace.seen_s, pace.counted = 0.0, pace.received
        return slow
