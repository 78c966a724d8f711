"""What a locked-down process can still do: calls that must fail, made after the lock-down and before the artifact is seen.

Nothing here asks which layers were put in force, or which versions the kernel has. Only effects count.
"""

import errno
import os
import resource
import signal
from collections.abc import Callable

from modelkeep.contracts.confinement import Confinement, Layer, Level
from modelkeep.sandbox import kernel
from modelkeep.sandbox.lockdown import ENVIRONMENT
from modelkeep.sandbox.seccomp import CLONE, REFUSED, number

_SOCKET, _MEMFD_CREATE, _FCHMOD, _UNSHARE = (number(REFUSED[name]) for name in ("socket", "memfd_create", "fchmod", "unshare"))
_AF_INET, _SOCK_DGRAM = 2, 2
_MOST_DESCRIPTORS = 256


def confinement(keep: frozenset[int], file_bytes: int = 0) -> Confinement:
    """Return how well this process is locked in, where `keep` are the descriptors that it may have beside 0 to 2.

    `file_bytes` is how large a file it may write for now.
    """
    layers = (
        _layer("hygiene", _unclean(keep, file_bytes)),
        _layer("seccomp", _unfiltered()),
        _layer("landlock", _unwalled()),
        _layer("namespaces", _shared()),
    )
    return Confinement(_level({layer.name: layer.holds for layer in layers}), layers)


def _level(holds: dict[str, bool]) -> Level:
    if not (holds["hygiene"] and holds["seccomp"]):
        return Level.OPEN
    if not holds["landlock"]:
        return Level.FILTERED
    if not holds["namespaces"]:
        return Level.WALLED
    return Level.SEPARATED


def _layer(name: str, faults: list[str]) -> Layer:
    return Layer(name, not faults, ", ".join(faults))


def _unclean(keep: frozenset[int], file_bytes: int) -> list[str]:
    faults = []
    if dict(os.environ) != ENVIRONMENT:  # noqa: TID251 - compared, not read
        faults.append("the environment holds more than it should")
    if any(_open(number) for number in range(3, _MOST_DESCRIPTORS) if number not in keep):
        faults.append("a descriptor is left open")
    most = (file_bytes, file_bytes)
    if resource.getrlimit(resource.RLIMIT_FSIZE) != most or resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        faults.append("files can be written")
    if kernel.prctl(kernel.PR_GET_NO_NEW_PRIVS) != 1:
        faults.append("privileges could be gained")
    if kernel.prctl(kernel.PR_GET_DUMPABLE) != 0:
        faults.append("its memory can be read from outside")
    return faults


def _unfiltered() -> list[str]:
    """Each of these succeeds, or fails with another error, where nothing filters it. None does harm when it succeeds."""
    own = os.getpid()
    return _successes(
        errno.EPERM,
        {
            "a process can be made": _fork,
            "a socket can be opened": lambda: os.close(kernel.syscall(_SOCKET, _AF_INET, _SOCK_DGRAM, 0)),
            "memory can be hidden in files": lambda: os.close(kernel.syscall(_MEMFD_CREATE, b"test", 0)),
            "a program can be started": lambda: os.execv("/", ["-"]),  # noqa: S606 - a folder cannot be started
            "a process can be signalled": lambda: os.kill(own, 0),
            "namespaces can be left": lambda: kernel.syscall(_UNSHARE, 0),
            "a file's mode can be changed": lambda: kernel.syscall(_FCHMOD, -1, 0o600),
            "its end with its parent can be called off": lambda: kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL),
        },
    )


def _unwalled() -> list[str]:
    return _successes(
        errno.EACCES,
        {
            "folders can be listed": lambda: os.listdir("/"),  # noqa: PTH208 - the call itself is what is tried
            "files can be written": lambda: os.close(os.open("/dev/full", os.O_WRONLY)),
        },
    )


def _shared() -> list[str]:
    return ["names of other files can be asked for"] if os.path.lexists("/proc/self") else []


def _successes(refusal: int, tries: dict[str, Callable[[], object]]) -> list[str]:
    """Return which of these are not refused with this error number."""
    found = []
    for what, attempt in tries.items():
        try:
            attempt()
        except OSError as error:
            if error.errno == refusal:
                continue
        found.append(what)
    return found


def _open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _fork() -> None:
    """Make a process by the plainest call, and end it at once."""
    child = kernel.syscall(number(CLONE), signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
