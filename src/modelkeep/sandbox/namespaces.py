"""Namespaces of the template's own, which every runner inherits: no network, no shared memory of others, other file names.

In the new file system there is nothing but the view, read-only. So even whether a file exists elsewhere cannot be asked.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from modelkeep.sandbox import kernel

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _NOATIME, _NODIRATIME, _RELATIME = 1, 2, 4, 8, 1024, 2048, 1 << 21
_REMOUNT, _BIND, _REC, _PRIVATE = 32, 4096, 16384, 1 << 18
_KEPT = _NOSUID | _NODEV | _NOEXEC | _NOATIME | _NODIRATIME | _RELATIME  # statvfs has the same bits
_DETACH = 2
_PIVOT_ROOT = 155 if kernel.X86_64 else 41
_SHARED = "/dev/shm"  # noqa: S108 - joblib looks on import whether semaphores can be made here, and else uses no threads
PLACE = "/.model"
"""Where a runner that is given a folder of its own has it. To all others it is empty."""

_STAGE = "/tmp"  # noqa: S108 - only a place that exists everywhere; it is covered, not written to


def enter(view: Iterable[str]) -> None:
    """Leave all namespaces but that of processes, for ones that hold only these files and folders.

    Needs a single thread, and root or user namespaces. Raises `OSError`; the process is of no use then.
    """
    everything = _NEWNS | _NEWUTS | _NEWIPC | _NEWNET
    if os.geteuid() == 0:
        kernel.unshare(everything)
    else:
        _own_user_namespace(everything)
    kernel.mount(None, "/", flags=_REC | _PRIVATE)
    held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in view]
    kernel.mount("modelkeep", _STAGE, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for path, source in held:
        _bring(path, source)
        os.close(source)
    Path(_STAGE + _SHARED).mkdir(parents=True)
    kernel.mount("modelkeep", _STAGE + _SHARED, "tmpfs", _NOSUID | _NODEV | _NOEXEC, "size=64k,mode=700")
    Path(_STAGE + PLACE).mkdir(mode=0o700)
    os.chdir(_STAGE)
    kernel.syscall(_PIVOT_ROOT, b".", b".")
    kernel.unmount(".", _DETACH)
    os.chdir("/")
    kernel.mount(None, "/", flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def mount_place(size: int, files: int, uid: int) -> None:
    """Give this process alone a folder in memory at `PLACE`: so many bytes and files, for this user (0: who this is).

    Needs a single thread in namespaces that it entered, or a fork of such a process. What it holds ends with the process:
    nobody else ever has these file names. Programs and libraries in it may be mapped, for packages bring compiled modules.
    """
    kernel.unshare(_NEWNS)
    owner = uid or os.geteuid()
    group = uid or os.getegid()
    options = f"size={size},nr_inodes={files},mode=700,uid={owner},gid={group}"
    kernel.mount("modelkeep", PLACE, "tmpfs", _NOSUID | _NODEV, options)


def _own_user_namespace(everything: int) -> None:
    """Become the owner of namespaces without being root, still as the same user."""
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(_NEWUSER | everything)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text, encoding="ascii")


def _bring(path: str, source: int) -> None:
    """Show what `source` is open on at the same path below the stage, read-only. A link to what is shown stays a link."""
    target = Path(_STAGE + path)
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if Path(path).is_symlink() and Path(path).is_dir():
        target.symlink_to(Path(path).readlink())
        return
    if stat.S_ISDIR(os.fstat(source).st_mode):
        target.mkdir(mode=0o755)
    else:
        target.touch(mode=0o644)
    kernel.mount(f"/proc/self/fd/{source}", str(target), flags=_BIND | _REC)
    kept = os.statvfs(target).f_flag & _KEPT  # in a user namespace these cannot be taken off again
    device = stat.S_ISCHR(os.fstat(source).st_mode)
    kernel.mount(None, str(target), flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | (0 if device else _NODEV) | kept)
