"""The installation's own secret, from which those for single purposes are derived (HKDF, RFC 5869).

It lies in a file of its own and never in the database: who reads a copy of that can neither open what is sealed with it nor
forge what is signed. All machines of one installation need the same file.

Each line is a key. The first seals, and all of them open; one that has `next` before it waits to be the first, until every
process knows it. So a key is replaced in three steps, `add`, `turn` and `forget`, and between them everybody opens what anybody
sealed.
"""

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from modelkeep.contracts.errors import Conflict, Invalid

_BYTES: Final = 32
_NEXT: Final = "next "
_LINE: Final = re.compile(rf"(?:{_NEXT})?[0-9a-fA-F]{{{2 * _BYTES}}}")


class SiteKeyRotationUnderWay(Conflict):
    """The site key is being replaced: end that with `modelkeep secrets rotate-site-key`, then `forget-site-key`."""

    code = "site_key_rotation_under_way"


class SiteKey:
    """A secret that does not print itself; `derive` gives those for single purposes. `others` open what they have sealed."""

    __slots__ = ("_others", "_secret")

    def __init__(self, secret: bytes, *others: bytes) -> None:
        self._secret = secret
        self._others = others

    def derive(self, purpose: str, size: int = _BYTES) -> bytes:
        """Return `size` bytes that are the same for this key and purpose for good, and tell nothing of others."""
        return _derived(self._secret, purpose, size)

    def derive_all(self, purpose: str, size: int = _BYTES) -> tuple[bytes, ...]:
        """Return what each key gives for a purpose: first that of the one which seals."""
        return tuple(_derived(secret, purpose, size) for secret in (self._secret, *self._others))

    def __repr__(self) -> str:
        return "SiteKey(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a site key is not pickled")


def opened(path: Path) -> SiteKey:
    """Return the keys in the file; where there is none, one is made, the same for all that ask at once.

    Raises `Invalid` where the file holds no such key, `OSError` where it can be neither read nor made.
    """
    if not path.exists():
        _write(path, [_new()], replace=False)
    first, *others = [bytes.fromhex(line.removeprefix(_NEXT)) for line in _lines(path)]
    return SiteKey(first, *others)


def add(path: Path) -> None:
    """Have a new key wait beside the present one. Raises `SiteKeyRotationUnderWay` where there are two already."""
    opened(path)
    lines = _lines(path)
    if len(lines) > 1:
        raise SiteKeyRotationUnderWay
    _write(path, [*lines, _NEXT + _new()])


def turn(path: Path) -> None:
    """Let the key that waits seal from now on; the one before it opens what it has sealed. Done twice, it is no fault."""
    lines = sorted(_lines(path), key=lambda line: not line.startswith(_NEXT))
    _write(path, [line.removeprefix(_NEXT) for line in lines])


def forget(path: Path) -> None:
    """Forget all keys but the one that seals. Raises `SiteKeyRotationUnderWay` while another waits."""
    lines = _lines(path)
    if any(line.startswith(_NEXT) for line in lines):
        raise SiteKeyRotationUnderWay
    _write(path, lines[:1])


def turned(path: Path) -> SiteKey:
    """Return the keys as they will be after `turn`."""
    lines = sorted(_lines(path), key=lambda line: not line.startswith(_NEXT))
    first, *others = [bytes.fromhex(line.removeprefix(_NEXT)) for line in lines]
    return SiteKey(first, *others)


def _derived(secret: bytes, purpose: str, size: int) -> bytes:
    return HKDF(SHA256(), size, salt=None, info=f"modelkeep {purpose}".encode()).derive(secret)


def _new() -> str:
    return os.urandom(_BYTES).hex()


def _lines(path: Path) -> list[str]:
    """Return the lines of the file, each with a key and the first with one that seals; raises `Invalid`."""
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except UnicodeDecodeError:
        lines = []
    lines = [line.rstrip() for line in lines if line.strip()]
    if not lines or lines[0].startswith(_NEXT) or not all(_LINE.fullmatch(line) for line in lines):
        raise Invalid(f"{path} is no site key: each line must hold {_BYTES} bytes in hexadecimal.")
    return lines


def _write(path: Path, lines: list[str], *, replace: bool = True) -> None:
    """Write the file whole, readable by its owner alone; without `replace`, unless another process was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        try:
            if replace:
                os.replace(name, path)  # noqa: PTH105 - a name, as mkstemp gave it
            else:
                os.link(name, path)
        except FileExistsError:
            return
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108 - as above
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
