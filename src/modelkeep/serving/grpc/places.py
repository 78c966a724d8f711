"""How many RPCs each caller has under way, so that nobody takes the places of all others.

A caller is a person or a service, whichever of their keys and sessions they come with; where there is no key, the address from
which it calls. Those without a key have few places, which those with one never take, and neither have all of the server's: some
are left for what is refused.
"""

import ipaddress
from asyncio import Semaphore
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self
from urllib.parse import unquote

from modelkeep.contracts.errors import Limited
from modelkeep.contracts.snapshot import ServedKey

MOST_AT_ONCE: Final = 2048
_MOST_UNKNOWN: Final = 128
_MOST_KNOWN: Final = MOST_AT_ONCE - 2 * _MOST_UNKNOWN
_MOST_OF_ADDRESS: Final = 16
_MOST_OF_USER: Final = 256
_READING: Final = 32
_NETWORK: Final = 64


class TooManyRpcs(Limited):
    """This caller has as many RPCs under way as it may have: wait for one to end."""

    code = "too_many_rpcs"


class Place:
    """A caller's place. `leave` gives it back, as the end of a `with` does."""

    __slots__ = ("_caller", "_places")

    def __init__(self, places: "Places", caller: "_Caller") -> None:
        self._places = places
        self._caller = caller

    @property
    def reading(self) -> Semaphore:
        """What is to be held while a message is read: so many of one caller are at once, and no more."""
        return self._caller.reading

    def leave(self) -> None:
        """The RPC is done."""
        self._places.left(self._caller)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.leave()


class _Caller:
    __slots__ = ("name", "reading", "under_way")

    def __init__(self, name: tuple[bool, str]) -> None:
        self.name = name
        self.under_way = 0
        self.reading = Semaphore(_READING)


class Places:
    """The places of one server process."""

    def __init__(self) -> None:
        self._callers: dict[tuple[bool, str], _Caller] = {}
        self._under_way = {True: 0, False: 0}

    def take(self, key: ServedKey | None, peer: Callable[[], str]) -> Place:
        """Return a place, to be left; raises `TooManyRpcs`. `peer` tells the address of who has no key."""
        known = key is not None
        name = known, key.standing.user if key is not None else host_of(peer())
        caller = self._callers.get(name)
        of_all, of_one = (_MOST_KNOWN, _MOST_OF_USER) if known else (_MOST_UNKNOWN, _MOST_OF_ADDRESS)
        if self._under_way[known] >= of_all or (caller is not None and caller.under_way >= of_one):
            raise TooManyRpcs(retry_after_s=1)
        if caller is None:
            caller = self._callers[name] = _Caller(name)
        caller.under_way += 1
        self._under_way[known] += 1
        return Place(self, caller)

    def left(self, caller: _Caller) -> None:
        """A place of this caller is free again."""
        self._under_way[caller.name[0]] -= 1
        caller.under_way -= 1
        if not caller.under_way:
            del self._callers[caller.name]


def host_of(peer: str) -> str:
    """Return who calls from a gRPC address (`ipv4:192.0.2.1:4711`): one of IPv6 by its network, of which a host has it all."""
    host = unquote(peer).rpartition(":")[0]
    with suppress(ValueError):
        address = ipaddress.IPv6Address(host.removeprefix("ipv6:").strip("[]"))
        if address.ipv4_mapped is not None:
            return f"ipv4:{address.ipv4_mapped}"
        return str(ipaddress.IPv6Network((int(address), _NETWORK), strict=False))
    return host
