"""Tensors as bytes, as the Open Inference Protocol lays them out: in binary bodies, and in gRPC's raw contents.

Numbers are little-endian, row-major, without padding; BOOL is one byte, 0 or 1. An element of BYTES is a length of four bytes
and that many bytes. Source: github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

import math
import struct
import sys
from collections.abc import Iterable

import numpy as np

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype
from modelkeep.sandbox.frames import MAX_TEXTS
from modelkeep.serving.coercion import Array

_LENGTH = struct.Struct("<I")
_LITTLE = sys.byteorder == "little"


def array_of(dtype: Dtype, shape: tuple[int, ...], data: bytes | memoryview, path: str) -> Array:
    """Return the array of this shape that `data` is, which it may go on using; BYTES as `bytes`.

    Raises `InvalidInput` naming `path` where the bytes are not exactly those of such an array.
    """
    count = math.prod(shape)
    if dtype is Dtype.BYTES:
        found = elements(data, count, path)
        array = np.empty(count, dtype=object)
        array[:] = found
        return _shaped(array, shape, path)
    kind = np.dtype(dtype.numpy)
    if len(data) != count * kind.itemsize:
        raise misfit(path, f"Has {len(data)} bytes; {dtype} of the shape {list(shape)} are {count * kind.itemsize}.")
    if dtype is Dtype.BOOL:
        bits = np.frombuffer(data, np.uint8)
        if bits.size and int(bits.max()) > 1:
            raise misfit(path, "A BOOL is one byte, 0 or 1.", "not_a_boolean")
        return _shaped(bits.view(bool), shape, path)
    array = np.frombuffer(data, kind.newbyteorder("<"))
    return _shaped(array if _LITTLE else array.astype(kind), shape, path)


def bytes_of(array: Array) -> bytes:
    """Return an array's bytes; texts as UTF-8, and a missing text as an empty one, since there is no other sign for it."""
    if array.dtype.kind in "OUS":
        return packed(array.reshape(-1).tolist())
    return (array if _LITTLE else array.astype(array.dtype.newbyteorder("<"))).tobytes()


def packed(values: Iterable[object]) -> bytes:
    """Return elements of BYTES one after another."""
    parts: list[bytes] = []
    for value in values:
        text = value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def elements(data: bytes | memoryview, count: int, path: str) -> list[bytes]:
    """Return the `count` elements of BYTES that `data` holds."""
    if count > MAX_TEXTS:
        raise misfit(path, f"Has more than {MAX_TEXTS} elements.", "too_many")
    if count * _LENGTH.size > len(data):
        raise misfit(path, f"Has {len(data)} bytes, too few for {count} elements of BYTES.")
    found: list[bytes] = []
    view, at, end = memoryview(data), 0, len(data)
    for _ in range(count):
        if at + _LENGTH.size > end:
            raise misfit(path, "Ends within the length of an element.")
        (size,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if at + size > end:
            raise misfit(path, "The length of an element goes beyond the data.")
        found.append(bytes(view[at : at + size]))
        at += size
    if at != end:
        raise misfit(path, "Has bytes after its last element.")
    return found


def misfit(path: str, message: str, code: str = "size_mismatch") -> InvalidInput:
    """Return the refusal of bytes that are not the tensor they are said to be."""
    return InvalidInput.at(path, code, message)


def _shaped(array: Array, shape: tuple[int, ...], path: str) -> Array:
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:  # no values, and axes that numpy cannot address
        raise misfit(path, "The shape cannot be held.", "shape_mismatch") from error
