"""What makes two questions one: the 256-bit key under which an answer is kept.

It is a BLAKE2b over who asks, what answers, and the rows as they would go to the runner: names, datatypes, shapes and bytes. So
1 and 1.0 are one question to a model of floats, in whichever dialect they come; 0.0 and -0.0 are two, since a model may tell
them apart. Each part goes in with its length, so that no two lists of parts run into one.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np

from modelkeep.serving.coercion import Array

SIZE: Final = 32
_PERSON: Final = b"modelkeep cache1"
_LONG: Final = 64 * 1024


def begun(*parts: bytes) -> "hashlib.blake2b":
    """Return the hash of what all questions to one version have in common, to be copied for each of them."""
    found = hashlib.blake2b(digest_size=SIZE, person=_PERSON)
    for part in parts:
        found.update(_framed(part))
    return found


def key_of(common: "hashlib.blake2b", tenant: bytes, tensors: Mapping[str, Array]) -> bytes | None:
    """Return the key of a question; None where an input holds values that have no bytes of their own."""
    found = common.copy()
    found.update(_framed(tenant))
    for name in sorted(tensors):
        array = tensors[name]
        found.update(_framed(repr((name, array.dtype.str, array.shape)).encode()))
        if array.dtype.hasobject:
            raw = _texts(array)
            if raw is None:
                return None
            found.update(raw)
        elif array.nbytes < _LONG:
            found.update(array.tobytes())
        else:
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.digest()


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(8, "little") + part


def _texts(array: Array) -> bytes | None:
    """Return texts and pictures as bytes, each with its kind and its length."""
    pieces: list[bytes] = []
    for one in array.reshape(-1).tolist():
        if isinstance(one, str):
            pieces += (b"t", _framed(one.encode("utf-8", "surrogatepass")))
        elif isinstance(one, bytes):
            pieces += (b"b", _framed(one))
        elif one is None:
            pieces.append(b"n")
        else:
            return None
    return b"".join(pieces)
