"""Content codings: bodies that come as gzip or deflate, and answers that go out so where that pays.

A body is unpacked in pieces, never beyond the limit for bodies, and never to many times its length: what took a moment to send
must not take a minute to read. An answer is packed where its caller asks for a coding, and it is long enough. A caller that
names one coding alone means it, so it gets it from a packet's length on. A list is what Python's requests, httpx and browsers
always send, whether their link is slow or not: on a network of 1 Gbit/s a packed answer arrives sooner only if packing is
faster than some 100 MB/s, which zlib is not, so such answers are packed from 256 KiB on, where a slow link gains most. Long
ones are packed in a thread: the event loop is held for a millisecond at most.
"""

import asyncio
import re
import zlib
from typing import Final, Literal

from modelkeep.contracts.errors import Invalid, TooLarge

Coding = Literal["gzip", "deflate"]
ASKED_FROM: Final = 1400
"""Shorter answers are never packed: they fit into one packet as they are."""

_GZIP: Final = 31
_ZLIB: Final = 15
_BARE: Final = -15
_DEFLATED: Final = 8
_LEVEL: Final = 1  # half the time of the default level, for a tenth more bytes
_UNASKED_FROM: Final = 256 * 1024
_AT_ONCE: Final = 32 * 1024
_BLOWN_UP: Final = 4 * 1024  # can become 4 MiB at most
_PIECE: Final = 256 * 1024
_ANY_RATIO_TO: Final = 1024 * 1024  # zeros pack a thousandfold, and may, as long as what they become is small
_MOST_TIMES: Final = 50
_BLOWN: Final = "Beyond a mebibyte, a packed body may become fifty times as long as it came: send it in parts."
_MOST_MEMBERS: Final = 100  # of gzip, which may follow one another; each takes its time, however little is in it
_NAME: Final = re.compile(rb"\s*([a-z]+)\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?")


class UnknownCoding(Invalid):
    """Bodies come as they are, or as `Content-Encoding: gzip` or `deflate`; never as several codings at once."""

    code = "unsupported_encoding"


class DamagedBody(Invalid):
    """The body is not what its `Content-Encoding` says, or not the whole of it."""

    code = "damaged_body"


async def unpacked(coding: bytes, body: bytes, max_bytes: int, too_large: TooLarge) -> bytes:
    """Return a body without its coding; raises `TooLarge` as soon as it is, `DamagedBody`, `UnknownCoding`."""
    name = coding.strip().lower()
    if not body or name in {b"", b"identity"}:
        return body
    if name not in {b"gzip", b"x-gzip", b"deflate"}:
        raise UnknownCoding
    if len(body) <= _BLOWN_UP:
        return _unpacked(name, body, max_bytes, too_large)
    return await asyncio.to_thread(_unpacked, name, body, max_bytes, too_large)


def _unpacked(name: bytes, body: bytes, max_bytes: int, too_large: TooLarge) -> bytes:
    window = _deflate_window(body) if name == b"deflate" else _GZIP
    view, at, size = memoryview(body), 0, 0
    most = min(max_bytes, max(_ANY_RATIO_TO, _MOST_TIMES * len(body)))
    pieces: list[bytes] = []
    try:
        for _ in range(_MOST_MEMBERS):
            reader = zlib.decompressobj(wbits=window)
            while not reader.eof:
                rest: bytes | memoryview = reader.unconsumed_tail
                if not rest:
                    rest = view[at : at + _PIECE]
                    at += len(rest)
                piece = reader.decompress(rest, _PIECE)
                if not piece and not rest:
                    raise DamagedBody
                size += len(piece)
                if size > most:
                    raise too_large if size > max_bytes else TooLarge(_BLOWN)
                pieces.append(piece)
            at -= len(reader.unused_data)
            if at == len(body):
                return b"".join(pieces)
            if window != _GZIP:
                break
    except zlib.error as error:
        raise DamagedBody from error
    raise DamagedBody


def _deflate_window(body: bytes) -> int:
    """Return how to read "deflate": zlib's form, as HTTP has it, or without a head, as some clients send it."""
    head = int.from_bytes(body[:2])
    return _ZLIB if len(body) > 1 and body[0] & 0x0F == _DEFLATED and head % 31 == 0 else _BARE


def wished(accepted: bytes | None, length: int) -> Coding | None:
    """Return the coding in which an answer of this length is to go out, if any, by the request's `Accept-Encoding`."""
    if accepted is None or length < ASKED_FROM:
        return None
    names = [found[1] for one in accepted.lower().split(b",") if (found := _NAME.fullmatch(one)) and _quality(found[2]) > 0]
    if length < (ASKED_FROM if len(names) == 1 else _UNASKED_FROM):
        return None
    return "gzip" if b"gzip" in names else "deflate" if b"deflate" in names else None


def _quality(quality: bytes | None) -> float:
    """Return a quality of `Accept-Encoding`, 1 where it is not given, 0 where it is none."""
    try:
        return 1.0 if quality is None else float(quality)
    except ValueError:
        return 0.0


def is_long(body: bytes) -> bool:
    """Whether packing this would hold the event loop for longer than a millisecond."""
    return len(body) > _AT_ONCE


def packed(coding: Coding, body: bytes) -> bytes:
    """Return a body in this coding."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if coding == "gzip" else _ZLIB)
    return packer.compress(body) + packer.flush()
