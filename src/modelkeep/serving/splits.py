"""Which version a request is for: rules before splits, and of splits the same one for the same unit, on every server.

A unit is whoever's requests stay together: a caller, a key, or the value of a header. It is hashed to one of 2**64 places on
a line, on which each version has a stretch as long as its share. The first split's stretch begins at the lower end and the
second one's at the upper end, with the promoted version's between them: so a split that grows takes units from the promoted
version alone. Further ones go beside these in turn, and move when those grow.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from modelkeep.contracts.snapshot import ServedKey
from modelkeep.contracts.traffic import Rule, Split, Traffic

PLACES: Final = 1 << 64
_BYTES: Final = 8
_BITS: Final = 64
_WHOLE: Final = 100.0

Headers = Mapping[bytes, bytes]


def _drawn() -> int:
    """Return a place by chance. Processes that were forked draw their own."""
    return random.getrandbits(_BITS)


class Splitter:
    """Shares out the requests of one deployment. `versions`: the ids of what may answer, "" for the promoted version.

    `draw` gives each request without a unit a place by chance.
    """

    __slots__ = ("_bounds", "_draw", "_hash", "_rules", "_stretches", "_unit", "versions")

    def __init__(self, deployment: str, traffic: Traffic, draw: Callable[[], int] = _drawn) -> None:
        self._draw = draw
        self._unit = _unit_of(traffic.sticky)
        self._hash = blake2b(f"split\0{deployment}\0".encode(), digest_size=_BYTES)
        self._rules = tuple(_Condition(deployment, rule, _unit_of(traffic.sticky or "caller")) for rule in traffic.rules)
        first = len(self._rules)
        order, self._bounds = _line(traffic.splits)
        self._stretches = tuple(first + at for at in range(len(order)))
        self.versions = (*(rule.version_id for rule in traffic.rules), *order)

    @property
    def by_rules(self) -> int:
        """How many of the first `versions` are those of rules."""
        return len(self._rules)

    def choose(self, key: ServedKey | None, headers: Headers) -> tuple[int, int | None]:
        """Return which of `versions` a request is for, and where its unit is on the line, None without one."""
        for at, rule in enumerate(self._rules):
            if rule.holds(key, headers, self._draw):
                return at, None
        unit = self._unit(key, headers)
        if unit is None:
            return self._stretches[bisect_right(self._bounds, self._draw())], None
        place = _place(self._hash, unit)
        return self._stretches[bisect_right(self._bounds, place)], place


class _Condition:
    """A rule, made ready to be asked about requests."""

    __slots__ = ("_bound", "_callers", "_hash", "_header", "_unit", "_values")

    def __init__(self, deployment: str, rule: Rule, unit: "Unit") -> None:
        self._callers = frozenset(rule.callers)
        self._header = rule.header.lower().encode()
        self._values = frozenset(value.encode() for value in rule.values)
        self._bound = _places(rule.percent)
        self._hash = blake2b(f"rule\0{deployment}\0{rule.name}\0".encode(), digest_size=_BYTES)
        self._unit = unit

    def holds(self, key: ServedKey | None, headers: Headers, draw: Callable[[], int]) -> bool:
        """Whether all that it names is so. Of those for which it is, always the same ones are within its percentage."""
        if self._callers and (key is None or not self._names(key)):
            return False
        if self._header:
            value = headers.get(self._header)
            if value is None or (self._values and value not in self._values):
                return False
        if self._bound >= PLACES:
            return True
        unit = self._unit(key, headers)
        return (draw() if unit is None else _place(self._hash, unit)) < self._bound

    def _names(self, key: ServedKey) -> bool:
        """Whether it names the caller, what they ask with, or a group by which they have a role."""
        callers, standing = self._callers, key.standing
        return key.id in callers or standing.user in callers or any(one.through in callers for one in standing.grants)


Unit = Callable[[ServedKey | None, Headers], bytes | None]


def _unit_of(sticky: str) -> Unit:
    """Return what finds a request's unit; it finds None where the request has none."""
    if sticky == "caller":
        return lambda key, _headers: key.standing.user.encode() if key is not None and key.standing.user else None
    if sticky == "key":
        return lambda key, _headers: key.id.encode() if key is not None else None
    if sticky.startswith("header:"):
        name = sticky.removeprefix("header:").strip().lower().encode()
        return lambda _key, headers: headers.get(name) or None
    return lambda _key, _headers: None


def _place(begun: "blake2b", unit: bytes) -> int:
    """Return a unit's place on the line; `begun` is the hash of whose line it is."""
    hashing = begun.copy()
    hashing.update(unit)
    return int.from_bytes(hashing.digest())


def _places(percent: float) -> int:
    """Return how many places a share in percent is."""
    return min(PLACES, max(0, round(percent / _WHOLE * PLACES)))


def _line(splits: Sequence[Split]) -> tuple[tuple[str, ...], list[int]]:
    """Return the versions in the order of their stretches, the promoted one as "", and where each but the last one ends."""
    lower, upper = splits[::2], splits[1::2]
    ends, taken = [], 0.0
    for split in lower:
        taken += split.share
        ends.append(_places(taken))
    begins, taken = [], 0.0
    for split in upper:
        taken += split.share
        begins.append(max(ends[-1], PLACES - _places(taken)))
    order = (*(one.version_id for one in lower), "", *(one.version_id for one in reversed(upper)))
    return order, [*ends, *reversed(begins)]
