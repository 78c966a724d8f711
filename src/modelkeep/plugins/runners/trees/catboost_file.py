"""The frame of CatBoost's binary files: a core, and the tables that its categories are counted in. CatBoost checks the core.

It does not check that the tables are there: a file cut within them ends its process, or answers otherwise.
"""

import struct

from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.plugins.runners.trees.structure import cut, damaged

_MAGIC = b"CBM1"
_SIZE = struct.Struct("<I")
CORE_BEGINS = len(_MAGIC) + _SIZE.size
_LONG_SIZE = struct.Struct("<Q")
_IS_LONG = 0xFFFFFFFF
_NOT_SERVED = ((b"text_process", "texts"), (b"embed_process", "embeddings"))


def recognise(head: bytes) -> bool:
    """Whether a file begins as CatBoost's do."""
    return head.startswith(_MAGIC)


def check(data: bytes) -> None:
    """Raise `CannotLoad` unless the file is whole, and of columns of numbers and categories."""
    at = CORE_BEGINS
    if len(data) < at:
        raise cut(data, "before its core")
    core_end = at + _SIZE.unpack_from(data, len(_MAGIC))[0]
    if core_end > len(data):
        raise cut(data, "within its core")
    _must_be_served(data, core_end)
    if core_end == len(data):
        return
    count, at = _size(data, core_end)
    for _ in range(count):
        size, at = _size(data, at)
        at += size
        if at > len(data):
            raise cut(data, "within its tables of categories")
    _must_be_served(data, at)
    if at != len(data):
        raise damaged("more follows than it announces")


def not_served(what: str) -> CannotLoad:
    """Return the refusal of a model with columns that are neither numbers nor categories."""
    return CannotLoad(Reason.SIGNATURE_UNSUPPORTED, f"The model has columns of {what}: only numbers and categories are served.")


def _must_be_served(data: bytes, at: int) -> None:
    """Raise `CannotLoad` where a part begins that computes columns from texts or vectors."""
    for mark, what in _NOT_SERVED:
        if data.startswith(mark, at):
            raise not_served(what)


def _size(data: bytes, at: int) -> tuple[int, int]:
    for layout in (_SIZE, _LONG_SIZE):
        if at + layout.size > len(data):
            raise cut(data, "within its tables of categories")
        (size,) = layout.unpack_from(data, at)
        at += layout.size
        if size != _IS_LONG:
            break
    return size, at
