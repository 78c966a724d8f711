"""Reads Universal Binary JSON (UBJSON draft 12), the part of it that XGBoost writes; typed arrays become numpy arrays.

Every length is checked against what is left of the data, so that a damaged one cannot ask for memory.
"""

import struct
from typing import Any

_NUMBERS = {
    b"i": struct.Struct(">b"),
    b"U": struct.Struct(">B"),
    b"I": struct.Struct(">h"),
    b"l": struct.Struct(">i"),
    b"L": struct.Struct(">q"),
    b"d": struct.Struct(">f"),
    b"D": struct.Struct(">d"),
}
_TYPED = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_WORDS = {b"Z": None, b"T": True, b"F": False}
_MAX_DEPTH = 100


class EndsEarlyError(Exception):
    """The data stops within a value."""


class NotUbjsonError(Exception):
    """The data is in no form that UBJSON has."""


def decode(data: bytes) -> Any:  # noqa: ANN401 - a document
    """Return the value that the data holds; raises `EndsEarlyError` or `NotUbjsonError`."""
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.at != len(data):
        raise NotUbjsonError
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size < 0:
            raise NotUbjsonError
        if self.at + size > len(self._data):
            raise EndsEarlyError
        piece = self._data[self.at : self.at + size]
        self.at += size
        return piece

    def value(self, marker: bytes, depth: int) -> Any:  # noqa: ANN401 - a document
        if depth > _MAX_DEPTH:
            raise NotUbjsonError
        if marker in _NUMBERS:
            return self._number(marker)
        if marker in _WORDS:
            return _WORDS[marker]
        match marker:
            case b"S":
                return self._text()
            case b"C":
                return self.take(1).decode("latin-1")
            case b"[":
                return self._array(depth)
            case b"{":
                return self._object(depth)
        raise NotUbjsonError

    def _number(self, marker: bytes) -> Any:  # noqa: ANN401 - a number
        layout = _NUMBERS[marker]
        (number,) = layout.unpack(self.take(layout.size))
        return number

    def _length(self) -> int:
        marker = self.take(1)
        if marker not in _NUMBERS or marker in b"dD":
            raise NotUbjsonError
        return int(self._number(marker))

    def _text(self) -> str:
        try:
            return self.take(self._length()).decode()
        except UnicodeDecodeError:
            raise NotUbjsonError from None

    def _array(self, depth: int) -> Any:  # noqa: ANN401 - a list, or an array
        marker = self.take(1)
        if marker == b"$":
            kind = self.take(1)
            if self.take(1) != b"#" or kind not in _TYPED:
                raise NotUbjsonError
            return self._typed(kind, self._length())
        if marker == b"#":
            return self._counted(self._length(), depth)
        values = []
        while marker != b"]":
            values.append(self.value(marker, depth + 1))
            marker = self.take(1)
        return values

    def _typed(self, kind: bytes, count: int) -> Any:  # noqa: ANN401 - an array
        import numpy as np

        layout = np.dtype(_TYPED[kind])
        return np.frombuffer(self.take(count * layout.itemsize), layout)

    def _counted(self, count: int, depth: int) -> list[Any]:
        if count < 0:
            raise NotUbjsonError
        return [self.value(self.take(1), depth + 1) for _ in range(count)]

    def _object(self, depth: int) -> dict[str, Any]:
        values = {}
        while self.take(1) != b"}":
            self.at -= 1  # it begins the length of a name
            name = self._text()
            values[name] = self.value(self.take(1), depth + 1)
        return values
