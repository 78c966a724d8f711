"""What a scanner of pickles says of a file that may run code: advice for people, never what decides.

A scanner can be fooled, and names much that is harmless; what holds is the lock-down. So its words stand among the warnings of
a version, and beside the reason where one is refused.
"""

import bz2
import io
import logging
import lzma
import zlib
from collections.abc import Callable, Iterable, Mapping

MOST_BYTES = 2 << 20
"""How much of each file is looked at: a second's work at most."""

_MOST_FILES = 20
_MOST_NAMES = 5
_LONGEST_NAME = 80
_WINDOW = 47  # zlib's or gzip's head, whichever is there
_COMPRESSED: tuple[tuple[bytes, Callable[[], "bz2.BZ2Decompressor | lzma.LZMADecompressor"]], ...] = (
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lzma.LZMADecompressor),
    (b"\x5d\x00", lzma.LZMADecompressor),
)


def advice(data: bytes, files: Mapping[str, memoryview | bytes]) -> str:
    """Return a sentence on what a scanner calls dangerous in a file, or in those of an archive; "" where that is nothing."""
    try:
        from picklescan import scanner
    except ImportError:
        return ""
    logging.getLogger("picklescan").disabled = True  # it tells its findings on stderr as well
    names: set[str] = set()
    for piece in _pieces(data, files):
        try:
            found = scanner.scan_pickle_bytes(io.BytesIO(_plain(piece)), "file")
        except Exception:  # noqa: BLE001, S112 - a file made to break a scanner says no more than one that it cannot read
            continue
        names |= {f"{one.module}.{one.name}" for one in found.globals if one.safety is scanner.SafetyLevel.Dangerous}
    if not names:
        return ""
    shown = ", ".join(one[:_LONGEST_NAME] for one in sorted(names)[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"A scanner of pickles (picklescan) calls what this file names dangerous: {shown}{more}. That is advice only."


def _pieces(data: bytes, files: Mapping[str, memoryview | bytes]) -> Iterable[bytes]:
    if not files:
        yield data[:MOST_BYTES]
    for name in sorted(files)[:_MOST_FILES]:
        yield bytes(files[name][:MOST_BYTES])


def _plain(data: bytes) -> bytes:
    """The beginning of what was compressed, as joblib does; the bytes themselves where nothing was, or it is damaged."""
    try:
        if data[:1] == b"\x78" or data[:2] == b"\x1f\x8b":
            return zlib.decompressobj(_WINDOW).decompress(data, MOST_BYTES)
        for magic, unpacking in _COMPRESSED:
            if data.startswith(magic):
                return unpacking().decompress(data, MOST_BYTES)
    except (OSError, zlib.error, lzma.LZMAError):
        return data
    return data
