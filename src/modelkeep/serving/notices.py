"""What the answers of a deprecated version say of that, in the headers that RFC 9745 and RFC 8594 name.

It is made once for each version and snapshot; an answer of any other version costs nothing for it.
"""

from email.utils import formatdate
from urllib.parse import quote

from modelkeep.contracts.snapshot import ServedVersion


def notices(version: ServedVersion) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers, none for a version that is not deprecated."""
    if version.deprecated_at is None:
        return ()
    said = [(b"deprecation", f"@{int(version.deprecated_at)}".encode())]
    if version.sunset_at is not None:
        said.append((b"sunset", formatdate(version.sunset_at, usegmt=True).encode()))
    if version.successor:
        target = f"/api/v1/models/{quote(version.model, safe='')}/versions/{version.successor}"
        said.append((b"link", f'<{target}>; rel="successor-version"'.encode()))
    return tuple(said)
