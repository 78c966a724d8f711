"""The installation's own secret, from which those for single purposes are derived (HKDF, RFC 5869).

It lies in a file of its own and never in the database: who reads a copy of that can neither open what is sealed with it nor
forge what is signed. All machines of one installation need the same file.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from modelkeep.contracts.errors import Invalid

_BYTES: Final = 32


class SiteKey:
    """A secret that does not print itself; `derive` gives those for single purposes."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def derive(self, purpose: str, size: int = _BYTES) -> bytes:
        """Return `size` bytes that are the same for this installation and purpose for good, and tell nothing of others."""
        return HKDF(SHA256(), size, salt=None, info=f"modelkeep {purpose}".encode()).derive(self._secret)

    def __repr__(self) -> str:
        return "SiteKey(hidden)"


def opened(path: Path) -> SiteKey:
    """Return the key in the file; where there is none, one is made, the same for all that ask at once.

    Raises `Invalid` where the file is no such key, `OSError` where it can be neither read nor made.
    """
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        _make(path)
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        text = ""
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise Invalid(f"{path} is no site key: it must hold {_BYTES} bytes in hexadecimal.")
    return SiteKey(secret)


def _make(path: Path) -> None:
    """Write a new key whole, readable by its owner alone, unless another process was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(os.urandom(_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        os.unlink(name)  # noqa: PTH108 - a name, as mkstemp gave it
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
