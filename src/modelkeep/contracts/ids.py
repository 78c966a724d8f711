"""Prefixed ids that sort by the time of their making: `ver_01J9Z...` (a ULID behind a noun's prefix).

Source of the layout: the ULID specification (48 bits of milliseconds, 80 bits of randomness, Crockford base 32).
"""

import os
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


def ulid(now_ms: int, randomness: bytes) -> str:
    """Return the 26 characters for `now_ms` milliseconds since 1970 and ten random bytes."""
    number = (now_ms << _RANDOM_BITS) | int.from_bytes(randomness, "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def new_id(prefix: str) -> str:
    """Return a fresh id such as `mdl_01J9Z3K6T2Q8W4V5R7X0Y1B2C3`."""
    return f"{prefix}_{ulid(time.time_ns() // 1_000_000, os.urandom(10))}"
