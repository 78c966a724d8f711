"""One byte range of a download, as RFC 9110 has it: `bytes=0-99`, `bytes=100-`, `bytes=-50`."""

import re
from typing import Final

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_DIGITS: Final = 18


class Unsatisfiable(Exception):
    """The range begins after the end of the file."""


def wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """Return start and end (not included) of the wanted bytes; None for the whole file.

    What is no single range is ignored, as the standard allows. Raises `Unsatisfiable`.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or max(len(part) for part in found.groups()) > _DIGITS:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start == end:
        raise Unsatisfiable
    return start, end
