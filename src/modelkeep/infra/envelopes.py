"""Envelope encryption: each file has a data key of its own, which a master key seals; and how bytes are sealed under it.

A file is cut into pieces of 1 MiB, each sealed with AES-256-GCM. The nonce is the piece's number, with a mark on the last one,
so that pieces cannot be left out, moved, repeated or cut off at the end; it may be so simple since a data key seals one file
only. The envelope is bound to the file's digest and length, and to the sealed file: it opens no other.
"""

import base64
import binascii
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.contracts.errors import DamagedFile, Invalid, MasterKeyMissing

PIECE: Final = 1024 * 1024
TAG: Final = 16
_NONCE: Final = 12
_KEY_BITS: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What opens a sealed file: its digest, the length of what is in it, and the data key under a named master key."""

    form: Literal[1]
    sealed: str
    size: int
    master_key: str
    data_key: bytes


class MasterKeys:
    """The master keys by name; the last one seals, all open."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = keys
        self.newest = list(keys)[-1]

    @classmethod
    def read(cls, file: Path) -> "MasterKeys":
        """Read a file with `NAME KEY` on each line, the key being 32 bytes in base64; raises `Invalid`."""
        try:
            lines = file.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid("The file of storage.master_keys_file cannot be read.") from error
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _space, text = line.strip().partition(" ")
            key = _decoded(text.strip())
            if not _NAME.fullmatch(name) or len(key) * 8 != _KEY_BITS or name in keys:
                raise Invalid(
                    f"Line {number} of storage.master_keys_file must be a name that no other line has, a space and 32 bytes in "
                    "base64, as `modelkeep storage new-key` writes it."
                )
            keys[name] = key
        if not keys:
            raise Invalid("There is no key in the file of storage.master_keys_file.")
        return cls(keys)

    def seal(self, data_key: bytes, digest: str, sealed: str, size: int) -> Envelope:
        """Return the envelope of the file with this digest, sealed under the newest master key."""
        nonce = os.urandom(_NONCE)
        kept = nonce + AESGCM(self._keys[self.newest]).encrypt(nonce, data_key, _bound(digest, sealed, size))
        return Envelope(1, sealed, size, self.newest, kept)

    def open(self, envelope: Envelope, digest: str) -> bytes:
        """Return the data key; raises `MasterKeyMissing` where it cannot be had with the keys that there are."""
        key = self._keys.get(envelope.master_key)
        if key is None:
            raise MasterKeyMissing(
                f"This file is sealed with the master key {envelope.master_key!r}; storage.master_keys_file does not have it."
            )
        nonce, kept = envelope.data_key[:_NONCE], envelope.data_key[_NONCE:]
        try:
            return AESGCM(key).decrypt(nonce, kept, _bound(digest, envelope.sealed, envelope.size))
        except (InvalidTag, ValueError) as error:
            raise MasterKeyMissing(
                f"The master key {envelope.master_key!r} does not open this file's envelope: it is another key under the same "
                "name, or the envelope is damaged."
            ) from error


def new_master_key(name: str) -> str:
    """Return a line for the file of master keys; raises `Invalid` for another name than a plain word."""
    if not _NAME.fullmatch(name):
        raise Invalid("A master key's name has 1 to 63 letters, digits, dots, underscores and hyphens.")
    return f"{name} {base64.b64encode(AESGCM.generate_key(_KEY_BITS)).decode()}"


def new_data_key() -> bytes:
    """Return a fresh key for one file."""
    return AESGCM.generate_key(_KEY_BITS)


def sealed_size(size: int) -> int:
    """Return how many bytes a file of `size` bytes has when it is sealed."""
    return size + TAG * pieces(size)


def pieces(size: int) -> int:
    """Return how many pieces a file of `size` bytes is cut into: at least one."""
    return max(1, -(-size // PIECE))


async def sealing(chunks: AsyncIterator[bytes], data_key: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the sealed pieces of a file that comes in chunks of any size."""
    cipher = AESGCM(data_key)
    waiting = bytearray()
    number = 0
    async for chunk in chunks:
        waiting += chunk
        while len(waiting) > PIECE:  # a full piece waits until it is known not to be the last
            yield cipher.encrypt(_nonce(number, last=False), bytes(waiting[:PIECE]), None)
            del waiting[:PIECE]
            number += 1
    yield cipher.encrypt(_nonce(number, last=True), bytes(waiting), None)


class Opener:
    """Opens the pieces of one sealed file, in any order."""

    def __init__(self, data_key: bytes, size: int) -> None:
        self._cipher = AESGCM(data_key)
        self._pieces = pieces(size)

    def open(self, number: int, piece: bytes) -> bytes:
        """Return what is in piece `number`; raises `DamagedFile`."""
        try:
            return self._cipher.decrypt(_nonce(number, last=number == self._pieces - 1), piece, None)
        except InvalidTag as error:
            raise DamagedFile from error


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_NONCE - 1, "big") + bytes([last])


def _bound(digest: str, sealed: str, size: int) -> bytes:
    return f"modelkeep envelope 1 {digest} {sealed} {size}".encode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
