"""What a deployment's cache did lately, on all servers together, and in words where there is nothing to count."""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from modelkeep.contracts.prediction import CacheSeen
from modelkeep.contracts.snapshot import Caching

SECONDS: Final = 300
"""Of how many seconds servers tell."""

State = Literal["on", "off", "not_needed", "unsure", "no_room", "unknown"]

_SAID: Final[dict[State, str]] = {
    "off": "off",
    "not_needed": "auto: not needed, the model answers faster than the look-up",
    "unsure": "auto: off, for nobody knows that the version repeats itself",
    "no_room": "no room: serving.cache_mb is 0",
    "unknown": "no server has told of it",
}
_STATES: Final[dict[str, State]] = {"": "on", "off": "off", "fast": "not_needed", "unsure": "unsure", "no_room": "no_room"}


class Cached(msgspec.Struct, frozen=True):
    """Requests of the last `seconds` by what became of them, the share of those that the model was not asked for, and bytes.

    `said` is all of that in a few words. `ratio` is None where there were no requests.
    """

    state: State
    said: str
    seconds: int = SECONDS
    hits: int = 0
    shared: int = 0
    misses: int = 0
    bypassed: int = 0
    bytes: int = 0
    ratio: float | None = None


def cached(caching: Caching, told: Iterable[CacheSeen]) -> Cached:
    """Put together what servers have told of one deployment. One that keeps answers counts more than others that do not."""
    if caching.mode == "off":
        return Cached("off", _SAID["off"])
    seen = list(told)
    keeping = [one for one in seen if not one.why]
    if not keeping:
        state = _STATES.get(seen[0].why, "unknown") if seen else "unknown"
        return Cached(state, _SAID[state])
    hits, shared = sum(one.hits for one in keeping), sum(one.shared for one in keeping)
    misses, bypassed = sum(one.misses for one in keeping), sum(one.bypassed for one in keeping)
    every = hits + shared + misses + bypassed
    ratio = (hits + shared) / every if every else None
    said = "no requests" if ratio is None else f"{ratio:.0%} of {every} {'request' if every == 1 else 'requests'}"
    counts = (hits, shared, misses, bypassed, sum(one.bytes for one in keeping))
    return Cached("on", f"{said} in the last {SECONDS // 60} minutes", SECONDS, *counts, ratio)
