"""Answers that servers share through a store of bytes, which need not be trusted.

What lies there is sealed (AES-256-GCM) with a key that only servers of one installation have, for the question it answers: a
value that was changed, cut, made up, or put under another name does not open, and the model is asked. Names are hashes under a
second key, so that who reads the store cannot even find out whether something was asked.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import numpy as np
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.serving.cache_memory import size_of

if TYPE_CHECKING:
    from modelkeep.serving.codec import Tensors
    from modelkeep.serving.coercion import Array

log = structlog.get_logger(__name__)

LARGEST: Final = 256 * 1024
"""Bytes beyond which an answer is not shared: to seal and open it would hold the server up."""
_NONCE: Final = 12
_FORM: Final = b"modelkeep answer 1 "
_KINDS: Final = frozenset("?bhilqBHILQefd")


class Store(Protocol):
    """Keeps bytes by name for a while. Nothing that is asked of it takes long, whoever is away."""

    def get(self, name: str, told: Callable[[bytes | None], None]) -> bool:
        """Have `told` get the value of a name, or None, once and soon; False where nobody is asked."""
        ...

    def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """Keep a value, unless that takes long."""
        ...


class _Tensor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """An output: numbers as bytes, texts as themselves."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: bytes = b""
    texts: list[object] | None = None


class _Value(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """An answer, and the Unix time at which the model gave it."""

    at: float
    outputs: list[_Tensor]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Value).decode


class SharedAnswers:
    """Answers in a store, sealed with what comes of `secret`. `refused` hears of each that does not open."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        *,
        clock: Callable[[], float] = time.time,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._refused = refused
        self._warned = False
        self._names = hashlib.blake2b(secret, digest_size=32, person=b"names").digest()
        self._seal = AESGCM(hashlib.blake2b(secret, digest_size=32, person=b"seal").digest())

    def get(self, key: bytes, told: "Callable[[Tensors | None, float], None]") -> bool:
        """Have `told` get the answer of a key and its age in seconds, or None; False where nobody is asked."""

        def opened(value: bytes | None) -> None:
            found = None if value is None else self._open(key, value)
            if found is None:
                told(None, math.inf)
            else:
                told(*found)

        return self._store.get(self._name(key), opened)

    def put(self, key: bytes, outputs: "Tensors", ttl_s: float) -> None:
        """Share an answer, if it is not too large."""
        if size_of(outputs) > LARGEST:
            return
        value = _Value(self._clock(), [_packed(name, array) for name, array in outputs.items()])
        nonce = os.urandom(_NONCE)
        self._store.put(self._name(key), nonce + self._seal.encrypt(nonce, _encode(value), _FORM + key), ttl_s)

    def _name(self, key: bytes) -> str:
        return hashlib.blake2b(key, key=self._names, digest_size=32).hexdigest()

    def _open(self, key: bytes, sealed: bytes) -> "tuple[Tensors, float] | None":
        """Return an answer and its age; None for what is none, or not to this question."""
        try:
            value = _decode(self._seal.decrypt(sealed[:_NONCE], sealed[_NONCE:], _FORM + key))
            outputs = {one.name: _unpacked(one) for one in value.outputs}
        except (InvalidTag, ValueError, msgspec.DecodeError) as error:
            self._refused()
            if not self._warned:
                self._warned = True
                log.warning("shared answers do not open: who else writes into their store?", reason=type(error).__name__)
            return None
        return outputs, max(0.0, self._clock() - value.at)


def _packed(name: str, array: "Array") -> _Tensor:
    if array.dtype.hasobject:
        return _Tensor(name, "O", array.shape, texts=array.reshape(-1).tolist())
    return _Tensor(name, array.dtype.char, array.shape, array.tobytes())


def _unpacked(one: _Tensor) -> "Array":
    """Return an output; raises `ValueError` for what is none."""
    if any(length < 0 for length in one.shape):
        raise ValueError("shape")
    if one.texts is not None:
        if not all(isinstance(text, str | bytes) for text in one.texts):
            raise ValueError("texts")
        texts: np.ndarray[Any, Any] = np.empty(len(one.texts), dtype=object)
        texts[:] = one.texts
        return texts.reshape(one.shape)
    if one.dtype not in _KINDS:
        raise ValueError("datatype")
    return np.frombuffer(one.raw, dtype=one.dtype).reshape(one.shape)
