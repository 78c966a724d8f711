"""Prefixed ids that sort by the time of their making: `ver_01J9Z...` (a ULID behind a noun's prefix).

Source of the layout: the ULID specification (48 bits of milliseconds, 80 bits of randomness, Crockford base 32), and its
monotonic variant: within a millisecond a process counts on from a random start. Every prediction gets one, so it costs little.
"""

import os
import random
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_PAIR = 1023
_RANDOM_BITS = 80
_COUNT_BITS = 20
_COUNTS = 1 << _COUNT_BITS


def ulid(now_ms: int, bits: int) -> str:
    """Return the 26 characters for `now_ms` milliseconds since 1970 and eighty random bits."""
    pairs = _PAIRS
    time_part = (
        pairs[now_ms >> 40 & _PAIR]
        + pairs[now_ms >> 30 & _PAIR]
        + pairs[now_ms >> 20 & _PAIR]
        + pairs[now_ms >> 10 & _PAIR]
        + pairs[now_ms & _PAIR]
    )
    return (
        time_part
        + pairs[bits >> 70]
        + pairs[bits >> 60 & _PAIR]
        + pairs[bits >> 50 & _PAIR]
        + pairs[bits >> 40 & _PAIR]
        + pairs[bits >> 30 & _PAIR]
        + pairs[bits >> 20 & _PAIR]
        + pairs[bits >> 10 & _PAIR]
        + pairs[bits & _PAIR]
    )


class _Maker:
    """Makes ULIDs: time and sixty random bits are drawn for each millisecond, twenty bits count on from a random start."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew: a forked process must not count on where its parent does."""
        self._now_ms = -1
        self._left = 0
        self._count = 0
        self._prefix = ""
        self._random = random.Random(os.urandom(32))  # noqa: S311 - ids are no secrets, and are made for every prediction

    def make(self) -> str:
        """Return the next one."""
        now_ms = time.time_ns() // 1_000_000
        if now_ms != self._now_ms or not self._left:
            bits = self._random.getrandbits(_RANDOM_BITS)
            self._now_ms, self._prefix = now_ms, ulid(now_ms, bits)[:-4]
            self._count = bits & _COUNTS - 1
            self._left = _COUNTS - self._count
        count = self._count
        self._count = count + 1
        self._left -= 1
        return self._prefix + _PAIRS[count >> 10] + _PAIRS[count & _PAIR]


new_ulid = _Maker().make
"""Return a fresh ULID, without a prefix."""


def new_id(prefix: str) -> str:
    """Return a fresh id such as `mdl_01J9Z3K6T2Q8W4V5R7X0Y1B2C3`."""
    return f"{prefix}_{new_ulid()}"
