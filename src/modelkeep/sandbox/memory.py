"""How much memory a process holds, as the kernel counts it, and how much the machine has."""

import os
import re
import resource
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PRIVATE = re.compile(rb"^Private_(?:Clean|Dirty|Hugetlb):\s+(\d+) kB$", re.MULTILINE)
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Memory:
    """The count of one process, kept open: to read it again takes a tenth of what opening it does.

    `process` is its id, or "self"; `proc` is open on /proc, for one that cannot open process files by their paths.
    """

    def __init__(self, process: int | str, proc: int | None = None) -> None:
        path = f"{process}/statm"
        try:
            self.fd = os.open(path if proc is not None else f"/proc/{path}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        except FileNotFoundError:
            self.fd = -1  # it has ended already

    def resident_bytes(self) -> int:
        """Return the resident memory, with what it shares with others; 0 when the process has ended."""
        if self.fd < 0:
            return 0
        try:
            return int(os.pread(self.fd, 256, 0).split()[1]) * _PAGE
        except ProcessLookupError:
            return 0

    def mapped_bytes(self) -> int:
        """Return the address space in use."""
        return int(os.pread(self.fd, 256, 0).split()[0]) * _PAGE

    def close(self) -> None:
        """Let go of the count."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process once; 0 when it has ended."""
    memory = Memory(pid)
    try:
        return memory.resident_bytes()
    finally:
        memory.close()


def private_bytes(pid: int) -> int:
    """Return what would be free again without a process: pages that no other one has; 0 when it has ended.

    Where the kernel does not let us look, all that is no file's counts as its own, with what it shares with the process it was
    forked from: rather too much than too little. To look takes milliseconds, so it is nothing to do all the time.
    """
    process = Path(f"/proc/{pid}")
    try:
        try:
            return sum(map(int, _PRIVATE.findall((process / "smaps_rollup").read_bytes()))) << 10
        except PermissionError:
            _mapped, resident, of_files, *_rest = (process / "statm").read_text().split()
            return (int(resident) - int(of_files)) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def machine_bytes() -> int:
    """Return the memory of this machine, or of the container that this is."""
    total = os.sysconf("SC_PHYS_PAGES") * _PAGE
    for place in map(Path, _CGROUP_LIMITS):
        limit = place.read_text().strip() if place.is_file() else ""
        if limit.isdigit():
            total = min(total, int(limit))
    return total


def peak_resident_bytes() -> int:
    """Return the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
