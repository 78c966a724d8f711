"""API keys and one-time tokens: made from system randomness, checked by their own checksum, kept only as SHA-256.

    mk_<40 letters and digits><6 letters and digits: CRC-32 of what stands before>      an API key
    mks_<40><6>                                                                         a setup token
    mkr_<40><6>                                                                         a refresh token
    mkl_<40><6>                                                                         the token of a one-time link

A secret holds 238 bits, so a plain SHA-256 of it cannot be guessed back, and looking that digest up takes the same time
whether a guess was near or far. The checksum tells a mistyped key from a wrong one without asking the database.
"""

import hashlib
import secrets
import string
import zlib
from typing import Final

from modelkeep.contracts.secret import Secret

KEY: Final = "mk_"
SETUP: Final = "mks_"
REFRESH: Final = "mkr_"
LINK: Final = "mkl_"
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM = 40
_CHECKSUM = 6
PATTERN: Final = r"\bmk[slr]?_[0-9A-Za-z]{46}\b"


def new_secret(prefix: str) -> Secret:
    """Return a fresh secret of the kind that `prefix` names."""
    body = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return Secret(body + _checksum(body))


def well_formed(text: str, prefix: str) -> bool:
    """Whether `text` has the form of such a secret and its checksum is right."""
    if len(text) != len(prefix) + _RANDOM + _CHECKSUM or not text.startswith(prefix) or not text.isascii():
        return False
    return _checksum(text[:-_CHECKSUM]) == text[-_CHECKSUM:]


def digest(text: str) -> bytes:
    """Return the SHA-256 under which a secret is kept."""
    return hashlib.sha256(text.encode()).digest()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM):
        number, rest = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))
