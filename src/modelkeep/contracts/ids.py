"""Prefixed ids that sort by the time of their making: `ver_01J9Z...` (a ULID behind a noun's prefix).

Source of the layout: the ULID specification (48 bits of milliseconds, 80 bits of randomness, Crockford base 32). Every
prediction gets one, so the characters are looked up in pairs and randomness is taken from the system in larger pieces.
"""

import os
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_PAIR = 1023
_RANDOM = 10
_POOL = 400 * _RANDOM


class _Pool:
    """Random bytes in store; a forked process throws away what it inherited."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self) -> bytes:
        at = self._at
        if at >= len(self._bytes):
            self._bytes = os.urandom(_POOL)
            at = 0
        self._at = at + _RANDOM
        return self._bytes[at : at + _RANDOM]


_take = _Pool().take


def ulid(now_ms: int, randomness: bytes) -> str:
    """Return the 26 characters for `now_ms` milliseconds since 1970 and ten random bytes."""
    pairs, bits = _PAIRS, int.from_bytes(randomness, "big")
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


def new_ulid() -> str:
    """Return a fresh ULID, without a prefix."""
    return ulid(time.time_ns() // 1_000_000, _take())


def new_id(prefix: str) -> str:
    """Return a fresh id such as `mdl_01J9Z3K6T2Q8W4V5R7X0Y1B2C3`."""
    return f"{prefix}_{new_ulid()}"
