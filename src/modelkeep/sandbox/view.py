"""What of the file system a runner may read: Python with its libraries, and a few files that those look at."""

import os
import sys
from functools import cache
from pathlib import Path

WRITABLE = "/dev/null"
"""The only file that a runner may open for writing."""

_SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/full",
    WRITABLE,
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)


@cache
def readable(search: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files and folders that a runner may read: absolute paths that exist, none inside another.

    `search` is where Python looks for modules (`sys.path`).
    """
    python = (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *search)
    asked = {os.path.abspath(path) for path in (*python, *_SYSTEM) if path}  # noqa: PTH100 - links are kept, and where they lead
    kept: list[str] = []
    for path in sorted(asked | set(map(os.path.realpath, asked))):
        if Path(path).exists() and not any(inside(path, folder) for folder in kept):
            kept.append(path)
    return tuple(kept)


def inside(path: str, folder: str) -> bool:
    """Whether a path is this folder, or lies in it."""
    return os.path.commonpath([path, folder]) == folder
