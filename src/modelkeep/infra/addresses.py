"""From which address a request comes: the one place that decides it.

A connection's own address is beyond doubt. What `X-Forwarded-For` or `Forwarded` (RFC 7239) say is read only where that address
is a trusted proxy's, and from the right: each trusted proxy vouches for the entry that it added, and the first entry that is no
trusted proxy's is the caller. Whatever stands left of it anybody may have written. Where both fields come and say different
things, one of them passed a proxy that does not know it: then the address is not known, and nothing is granted for it.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

FORWARDED_TO_API: Final = b"x-modelkeep-address"
"""The header in which a server tells the api process the caller's address; one that comes from outside is dropped."""

_FORWARDED_FOR: Final = b"x-forwarded-for"
_FORWARDED: Final = b"forwarded"
_PAIR: Final = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s;,\"]*)\s*(;|,|$)")
_PORT: Final = re.compile(r":[0-9]{1,5}")
_LONGEST: Final = 1024
_LONGEST_ADDRESS: Final = 64  # with brackets, zone and port
_SHARED_V6_BITS: Final = 64

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]


class Proxies:
    """Tells callers' addresses behind the proxies of `networks` (CIDRs), which are trusted."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._trusted = tuple(networks)

    def caller(self, peer: str | None, fields: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the address of who asks, None where it is not known; `peer` is the connection's, `fields` its headers."""
        if peer is None:
            return None
        address = read(peer)
        if address is None or not self._trusted or not within(str(address), self._trusted):
            return None if address is None else str(address)
        given = list(fields)
        told = []
        listed = _joined(given, _FORWARDED_FOR)
        if listed is not None:
            told.append(self._first_stranger(_from_the_right(listed), address))
        forwarded = _joined(given, _FORWARDED)
        if forwarded is not None:
            told.append(self._first_stranger(reversed(_for(forwarded)), address))
        if not told:
            return str(address)
        return told[0] if all(one == told[0] for one in told) else None

    def _first_stranger(self, entries: Iterable[str | None], peer: Address) -> str | None:
        """Return the first of these entries, from the right, that is no trusted proxy's; None where it is no address.

        What stands left of it anybody may have written, and it is not looked at.
        """
        last = peer
        for text in entries:
            entry = None if text is None else read(text)
            if entry is None:
                return None
            last = entry
            if not within(str(entry), self._trusted):
                break
        return str(last)


def read(text: str) -> Address | None:
    """Return the address that a text names, with or without port, brackets and zone; None where it names none."""
    plain = text.strip()
    return None if len(plain) > _LONGEST_ADDRESS else _read(plain)


@lru_cache(maxsize=65_536)
def _read(plain: str) -> Address | None:
    if plain.startswith("["):
        plain, bracket, port = plain[1:].partition("]")
        if not bracket or (port and not _PORT.fullmatch(port)):
            return None
    elif plain.count(":") == 1:
        plain, _colon, port = plain.partition(":")
        if not _PORT.fullmatch(f":{port}"):
            return None
    try:
        address = ip_address(plain.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=65_536)
def within(address: str | None, networks: tuple[str, ...]) -> bool:
    """Whether an address lies in one of some networks; one that is not known lies in none."""
    found = None if address is None else read(address)
    return found is not None and any(found in network for network in _networks(networks))


@lru_cache(maxsize=65_536)
def shared(address: str | None) -> str:
    """Return what an address is counted as: of IPv6 the network of 64 bits, for who has one of its addresses has them all."""
    if address is None:
        return "unknown"
    found = read(address)
    return str(ip_network((found, _SHARED_V6_BITS), strict=False)) if isinstance(found, IPv6Address) else address


def networks_in(text: str) -> tuple[str, ...] | None:
    """Return the networks of a list with commas, None where something in it is none."""
    try:
        return tuple(str(ip_network(one.strip())) for one in text.split(",") if one.strip())
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _networks(texts: tuple[str, ...]) -> Networks:
    return tuple(ip_network(text) for text in texts)


def _joined(fields: list[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Return a field that may come on several lines, as the one list that it is."""
    values = [value for one, value in fields if one == name]
    text = b",".join(values).decode("latin-1")
    if len(text) > _LONGEST:
        text = text[-_LONGEST:].partition(",")[2]  # whole elements
    return text if values else None


def _from_the_right(text: str) -> Iterator[str]:
    comma = ","
    while comma:
        text, comma, last = text.rpartition(",")
        yield last


def _for(text: str) -> list[str | None]:
    """Return where the elements of `Forwarded` say they come from; None where one says nothing, or the rest is unclear."""
    entries: list[str | None] = []
    current: str | None = None
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return [*entries, None]
        if pair[1].lower() == "for":
            current = re.sub(r"\\(.)", r"\1", pair[2][1:-1]) if pair[2].startswith('"') else pair[2]
        at = pair.end()
        if pair[3] != ";":
            entries.append(current)
            current = None
    return entries
