"""Locks a freshly forked runner down, before it sees the artifact. Whatever fails here ends the process: no model half locked.

What a runner keeps: its own channel and the sockets that it brings, the artifact (read-only), a pipe for what it writes, and
a fixed environment.
"""

import ctypes
import errno
import os
import resource
import signal

import msgspec

ENVIRONMENT = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pandas imports pyarrow where it is installed, which starts a thread
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MiB of address space, which RLIMIT_AS counts
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime starts an uploading thread on import and writes to the home otherwise
}
"""All that a runner, and the template it is forked from, finds in its environment."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_NICER = 5
_OPEN_FILES = 256
_STDIO = (0, 1, 2)


class Confinement(msgspec.Struct, frozen=True):
    """What one runner may have. `parent` is the process it must not outlive; `keep` are its descriptors; `output` its pipe."""

    memory_bytes: int
    parent: int
    keep: frozenset[int]
    output: int


class NotConfinedError(Exception):
    """A layer of the lock-down is not in force."""


def lock_down(confinement: Confinement) -> None:
    """Confine this process for good. Call it while single-threaded, and before the artifact is read.

    The order matters: what needs a privilege or an open file comes before the layer that takes it away. Raises `OSError` or
    `NotConfinedError`, after which the caller must end the process.
    """
    if count_threads() != 1:
        raise NotConfinedError("more than one thread: the layers below would miss the others")
    _descriptors(confinement)
    clean_environment()
    os.chdir("/")
    os.umask(0o077)
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 - a process file, not a path of ours
        score.write("1000")  # the kernel takes the runner before anything else
    os.nice(_NICER)
    # The issue "Any model, safely" drops to an own user id here: after what needs root, before PDEATHSIG, which it would clear.
    _resources(confinement)
    die_with_parent(confinement.parent)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    # The issue "Any model, safely" adds Landlock and then seccomp here, and the self-test of calls that must fail.


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends; end it at once when that has happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise NotConfinedError("the parent has ended")


def clean_environment() -> None:
    """Leave exactly `ENVIRONMENT`, for Python and for libraries in C alike."""
    os.environ.clear()  # noqa: TID251 - emptied, not read
    os.environ.update(ENVIRONMENT)  # noqa: TID251 - constants of this module


def count_threads() -> int:
    """Return how many threads this process has, whoever started them."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - the kernel's list, at the price of one call


def _descriptors(confinement: Confinement) -> None:
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(confinement.output, 1)
    os.dup2(confinement.output, 2)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
        number = int(name)
        if number not in _STDIO and number not in confinement.keep:
            try:
                os.close(number)
            except OSError as error:
                if error.errno != errno.EBADF:  # the descriptor of this very listing is closed already
                    raise


def _resources(confinement: Confinement) -> None:
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, confinement.memory_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(what, (most, most))


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
