"""Locks a freshly forked runner down, before it sees the artifact.

What a runner keeps: its own channel and the sockets that it brings, the artifact (read-only), a pipe for what it writes, a
fixed environment, and the files of the view. What could be hygiene alone (descriptors, limits, identity) must succeed, or the
process ends. What the kernel may not have (Landlock, seccomp) is tried, and only what the trial in `selftest` then sees counts.
"""

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Callable

import msgspec

from modelkeep.sandbox import kernel, landlock, seccomp

ENVIRONMENT = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pandas imports pyarrow where it is installed, which starts a thread
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MiB of address space, which RLIMIT_AS counts
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "",  # there is no program to be found; a library that looks for one tries to make a file on the way
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime starts an uploading thread on import and writes to the home otherwise
    "TORCHINDUCTOR_CACHE_DIR": "/",  # torch.export makes this folder on import, in one for temporary files that there is not
}
"""All that a runner, and the template it is forked from, finds in its environment."""

_NICER = 5
_NICEST = 19
_OPEN_FILES = 256
_OWN_PROCESSES = 1024  # threads, in fact: with a user id of its own, a runner cannot take them from others
_STDIO = (0, 1, 2)
_CAPSET = 126 if kernel.X86_64 else 91
_CAPABILITIES_VERSION = 0x20080522


class Allowance(msgspec.Struct, frozen=True):
    """What one runner may have. `memory_bytes` is of address space, with what is mapped at its start.

    `parent` is the process it must not outlive; `keep` are its descriptors; `output` its pipe; `proc` is open on /proc;
    `rules` is a Landlock rule set (-1: none to be had); `uid` a user id of its own (0: there is none to be had). `file_bytes`
    is how large a file it may write, until its folder is sealed; 0 where it has none.
    """

    memory_bytes: int
    parent: int
    keep: frozenset[int]
    output: int
    proc: int
    rules: int = -1
    uid: int = 0
    file_bytes: int = 0


class NotConfinedError(Exception):
    """A layer of the lock-down is not in force."""


def lock_down(allowance: Allowance) -> None:
    """Confine this process for good. Call it while single-threaded, and before the artifact is read.

    The order matters: what needs a privilege or an open file comes before the layer that takes it away. Raises `OSError` or
    `NotConfinedError`, after which the caller must end the process.
    """
    if count_threads(allowance.proc) != 1:
        raise NotConfinedError("more than one thread: the layers below would miss the others")
    clean_environment()
    os.chdir("/")
    os.umask(0o077)
    _write(allowance.proc, "self/oom_score_adj", "1000")  # the kernel takes the runner before anything else
    os.nice(_NICER)
    _descriptors(allowance)
    _identity(allowance.uid)
    _resources(allowance)
    die_with_parent(allowance.parent)  # after the identity, whose change would clear it
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if allowance.rules >= 0:
        _where_there_is_one(lambda: landlock.restrict(allowance.rules))
        os.close(allowance.rules)
    _where_there_is_one(seccomp.install)


def stand_back() -> None:
    """Take the processor only when nothing else wants it; there is no way back from that."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(_NICEST)


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends; end it at once when that has happened already."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise NotConfinedError("the parent has ended")


def clean_environment() -> None:
    """Leave exactly `ENVIRONMENT`, for Python and for libraries in C alike."""
    os.environ.clear()  # noqa: TID251 - emptied, not read
    os.environ.update(ENVIRONMENT)  # noqa: TID251 - constants of this module


def limit_memory(most: int) -> None:
    """Bound this process's address space, in bytes, for good; possible after the lock-down, too. A tighter bound stays."""
    _soft, bound = resource.getrlimit(resource.RLIMIT_AS)
    least = min((one for one in (most, bound) if one != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (least, least))


def write_to(output: int) -> None:
    """Have what this process writes go to this pipe."""
    os.dup2(output, 1)
    os.dup2(output, 2)


def count_threads(proc: int) -> int:
    """Return how many threads this process has, whoever started them; `proc` is open on /proc."""
    return len(_listed(proc, "self/task"))


def _descriptors(allowance: Allowance) -> None:
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    write_to(allowance.output)
    keep = {*_STDIO, *allowance.keep, allowance.rules}
    for name in _listed(allowance.proc, "self/fd"):
        number = int(name)
        if number not in keep:
            try:
                os.close(number)
            except OSError as error:
                if error.errno != errno.EBADF:  # the descriptor of this very listing is closed already
                    raise


def _identity(uid: int) -> None:
    """Become a user of one's own, where there is one, and nobody special."""
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        with contextlib.suppress(PermissionError):
            os.setuid(0)
            raise NotConfinedError("root came back")
    head = _CAPABILITIES_VERSION.to_bytes(4, "little") + bytes(4)
    kernel.syscall(_CAPSET, head, bytes(24))


def _resources(allowance: Allowance) -> None:
    limit_memory(allowance.memory_bytes)
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, allowance.file_bytes),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ]
    if allowance.uid:
        limits.append((resource.RLIMIT_NPROC, _OWN_PROCESSES))
    for what, most in limits:
        resource.setrlimit(what, (most, most))


def _where_there_is_one(layer: Callable[[], None]) -> None:
    """Put a layer in force; a kernel without it is no error here, for the self-test decides by what it sees."""
    with contextlib.suppress(OSError):
        layer()


def _listed(proc: int, path: str) -> list[str]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return os.listdir(folder)  # noqa: PTH208 - by descriptor, since /proc may not be in the view
    finally:
        os.close(folder)


def _write(proc: int, path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(file, text.encode("ascii"))
    finally:
        os.close(file)
