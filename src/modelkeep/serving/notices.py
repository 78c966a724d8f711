"""What every answer of a version says of it: its number and, where it is deprecated, that, as RFC 9745 and RFC 8594 name it.

It is made once for each version and snapshot; an answer costs no more for it.
"""

from email.utils import formatdate
from urllib.parse import quote

from modelkeep.contracts.snapshot import ServedVersion


def said_of(version: ServedVersion) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers."""
    number = (b"x-model-version", str(version.number).encode())
    if version.deprecated_at is None:
        return (number,)
    said = [number, (b"deprecation", f"@{int(version.deprecated_at)}".encode())]
    if version.sunset_at is not None:
        said.append((b"sunset", formatdate(version.sunset_at, usegmt=True).encode()))
    if version.successor:
        target = f"/api/v1/models/{quote(version.model, safe='')}/versions/{version.successor}"
        said.append((b"link", f'<{target}>; rel="successor-version"'.encode()))
    return tuple(said)
