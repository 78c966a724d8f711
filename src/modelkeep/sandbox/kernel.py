"""Calls of the kernel that Python has no words for."""

import ctypes
import os

PR_SET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE, _PR_SET_NAME = 1, 3, 4, 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39

X86_64 = os.uname().machine == "x86_64"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Argument = int | bytes | None | ctypes.Array[ctypes.c_char] | ctypes.Structure


def syscall(number: int, *arguments: Argument) -> int:
    """Make a system call and return its result; raises `OSError`."""
    return _checked(_libc.syscall(ctypes.c_long(number), *map(_passed, arguments)), f"system call {number}")


def prctl(option: int, value: int = 0) -> int:
    """Change or ask for an attribute of this process; raises `OSError`."""
    rest = (ctypes.c_ulong(0),) * 3
    return _checked(_libc.prctl(option, ctypes.c_ulong(value), *rest), f"prctl {option}")


def name_process(name: str) -> None:
    """Let tools such as `ps` show this name, of 15 letters at most."""
    _checked(_libc.prctl(_PR_SET_NAME, name.encode("ascii")), "prctl PR_SET_NAME")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def install_filter(number: int, mode: int, flags: int, length: int, steps: bytes) -> None:
    """Call seccomp(2) with a filter of so many steps; raises `OSError`, also where a thread could not be brought under it."""
    kept = ctypes.create_string_buffer(steps, len(steps))
    program = _Program(length, ctypes.cast(kept, ctypes.c_void_p).value)
    if syscall(number, mode, flags, program) != 0:
        raise OSError(16, "seccomp: a thread has a filter of its own")  # EBUSY


def unshare(flags: int) -> None:
    """Leave namespaces that are shared with others; raises `OSError`."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount; raises `OSError`."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _checked(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def unmount(target: str, flags: int = 0) -> None:
    """Unmount; raises `OSError`."""
    _checked(_libc.umount2(os.fsencode(target), flags), f"unmount {target}")


def _passed(argument: Argument) -> object:
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else argument


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)
