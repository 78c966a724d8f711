"""A folder of a runner's own, on which the archive of its model is unpacked; to the model itself it is read-only.

Where there are namespaces it is in memory, bounded, and has a name in this process alone. Elsewhere the supervisor lends a
folder in the data directory, which Landlock shows to this runner and to no other. Our code fills it, in the locked-down
process; then a second Landlock layer takes writing away for good, before anything that came in the archive may run.
"""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelkeep.contracts.confinement import Level
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad
from modelkeep.contracts.snapshot import Limits
from modelkeep.sandbox import landlock, namespaces, selftest, view

MOST_FILES = 50_000
"""How many files and folders an archive may unpack to."""

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Place(msgspec.Struct, frozen=True):
    """Such a folder: where it is, a descriptor open on it, and how many bytes and files it may hold.

    `in_memory`: what it holds counts against the runner's memory. `sealing` is the rule set that closes it (-1: none to be
    had); `keep` are the descriptors that the runner has beside it.
    """

    path: str
    folder: int
    size: int
    files: int
    in_memory: bool
    sealing: int = -1
    keep: frozenset[int] = frozenset()

    def seal(self) -> None:
        """Take writing away for good, see that it is gone, and count what is there; raises `CannotLoad`."""
        _charge(self.held_bytes())
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        if self.sealing >= 0:
            landlock.restrict(self.sealing)
            os.close(self.sealing)
        open_still = [what for what, attempt in _attempts(self.path).items() if not _refused(attempt)]
        held = selftest.confinement(self.keep)
        if open_still or held.level < Level.WALLED:
            missing = ", ".join(open_still) or held.missing
            raise CannotLoad(
                Reason.NOT_CONFINED, f"The unpacked archive cannot be closed to writing on this machine: {missing}"
            )

    def held_bytes(self) -> int:
        """Return how many bytes of memory lie in it: none where it is on a disk."""
        if not self.in_memory:
            return 0
        held = os.statvfs(self.path)
        return (held.f_blocks - held.f_bfree) * held.f_frsize


def mounted(limits: Limits, uid: int) -> Place:
    """Return a place in memory, as large as the runner's memory may be. For a fork of the template; raises `OSError`."""
    size = limits.memory_mb << 20
    namespaces.mount_place(size, MOST_FILES, uid)
    return Place(namespaces.PLACE, os.open(namespaces.PLACE, _FOLDER), size, MOST_FILES, in_memory=True)


def lent(limits: Limits, path: str, folder: int) -> Place:
    """Return the folder that the supervisor lends; `folder` is open on it."""
    return Place(path, folder, limits.memory_mb << 20, MOST_FILES, in_memory=False)


def walled(place: Place, seen: tuple[str, ...]) -> tuple[int, Place]:
    """Return a rule set under which the place can be filled, and the place with the one that closes it; raises `OSError`."""
    rules = landlock.rule_set(seen, [view.WRITABLE], [place.folder])
    try:
        sealing = landlock.rule_set((*seen, place.folder), [view.WRITABLE])
    except OSError:
        os.close(rules)
        raise
    return rules, msgspec.structs.replace(place, sealing=sealing)


def _charge(used: int) -> None:
    """Take these bytes from what the process may still map."""
    if not used:
        return
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    left = max(0, hard - used)
    resource.setrlimit(resource.RLIMIT_AS, (left, left))


def _attempts(path: str) -> dict[str, Callable[[], object]]:
    """What must fail in a closed folder."""
    return {
        "files can be made": lambda: os.close(os.open(f"{path}/.sealed", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)),
        "folders can be made": lambda: Path(path, ".sealed").mkdir(),
        "links can be made": lambda: Path(path, ".sealed").symlink_to("/"),
    }


def _refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        return error.errno == errno.EACCES
    return False
