"""Landlock: no file but those of the view, no TCP port, no signal or abstract socket beyond this process.

Numbers and bits are of the kernel's `include/uapi/linux/landlock.h`. A rule set is made once, in the template, and each runner
puts itself under it.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterable

from modelkeep.sandbox import kernel

WALL = 3
"""The first version that governs all that changes a file's content (truncation came last)."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 5, 1 << 7, 1 << 8
_FILL = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG  # no links, no programs, no devices
_RIGHTS_OF = ((9, 17), (5, 16), (3, 15))  # from this version, so many rights on files are known
_TCP, _TCP_UDP = 0b11, 0b1111
_SCOPES = 0b11
_SCOPES_FROM, _UDP_FROM = 6, 10
_SIZE_OF = ((6, 24), (4, 16), (3, 8))


class _RuleSet(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of Landlock that the kernel has; 0 for none."""
    try:
        return kernel.syscall(_CREATE, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def rule_set(readable: Iterable[str | int], writable: Iterable[str], filled: Iterable[int] = ()) -> int:
    """Return the descriptor of a rule set with these files and folders; raises `OSError` where there is no Landlock for it.

    In folders that are to be `filled`, files and folders can be made and removed, but no links. A number is a descriptor.
    """
    known = version()
    if known < WALL:
        raise OSError(errno.ENOSYS, f"version {known} of Landlock, where {WALL} is needed" if known else "no Landlock here")
    handled = (1 << _first(_RIGHTS_OF, known)) - 1
    ports = _TCP_UDP if known >= _UDP_FROM else _TCP
    attributes = _RuleSet(handled, ports, _SCOPES)
    rules = kernel.syscall(_CREATE, attributes, _first(_SIZE_OF, known), 0)
    try:
        for path in readable:
            _allow(rules, path, _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(rules, path, _READ_FILE | _WRITE_FILE | (_TRUNCATE & handled))
        for folder in filled:
            _allow(rules, folder, _FILL | (_TRUNCATE & handled))
    except BaseException:
        os.close(rules)
        raise
    return rules


def restrict(rules: int) -> None:
    """Put this thread, and what it starts, under the rule set; needs no_new_privs. Raises `OSError`."""
    kernel.syscall(_RESTRICT, rules, 0)


def _allow(rules: int, path: str | int, rights: int) -> None:
    parent = os.dup(path) if isinstance(path, int) else os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
        kernel.syscall(_ADD, rules, _RULE_PATH_BENEATH, _PathRule(rights, parent), 0)
    finally:
        os.close(parent)


def _first(table: Iterable[tuple[int, int]], known: int) -> int:
    for since, value in table:
        if known >= since:
            return value
    raise LookupError(known)
