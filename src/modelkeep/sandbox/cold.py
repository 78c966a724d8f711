"""Starts a runner that shares no module with the template, for artifacts that bring packages of their own.

A fork has what the template imported, and cannot import another version of it. So the fork becomes a new Python, without
site hooks and with the template's own `sys.path`, which knows what this package needs and nothing of any framework. That is
before the lock-down, and before the artifact is read. numpy comes after both, as what follows imports it: the artifact's own,
where it brings one.
"""

import os
import sys
import traceback
from typing import NoReturn

import msgspec

from modelkeep.sandbox import child, landlock, view
from modelkeep.sandbox.control import Fork
from modelkeep.sandbox.lockdown import ENVIRONMENT, Allowance
from modelkeep.sandbox.memory import Memory
from modelkeep.sandbox.place import Place

BROKEN = 70
"""Status of a runner that ended by an error of ours, or because its model raised `SystemExit`."""

_ARRAYS_BYTES = 84 << 20
"""Address space for numpy, which no version's memory is charged with: so much is mapped by numpy 2.4 with its OpenBLAS."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from modelkeep.sandbox import cold; cold.main({number})"


class Start(msgspec.Struct, frozen=True):
    """What the new Python is told: all that `child.main` takes. Numbers are of descriptors, which it inherits."""

    fork: Fork
    artifact: int
    channel: int
    allowance: Allowance
    place: Place | None
    seen: tuple[str, ...]


def begin(start: Start) -> NoReturn:
    """Become a new Python that goes on as this runner; raises `OSError` when that cannot be."""
    told = os.memfd_create("start")
    with open(told, "wb", closefd=False) as file:
        file.write(msgspec.msgpack.encode(start))
    passed = {start.artifact, start.channel, start.allowance.output, start.allowance.proc, told}
    if start.place is not None:
        passed.add(start.place.folder)
    for number in passed:
        os.set_inheritable(number, True)
    program = _PROGRAM.format(path=sys.path, number=told)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", program], ENVIRONMENT)  # noqa: S606 - Python itself


def main(told: int) -> NoReturn:
    """Be the runner that descriptor `told` tells of."""
    os.lseek(told, 0, os.SEEK_SET)
    with open(told, "rb") as file:
        start = msgspec.msgpack.decode(file.read(), type=Start)
    memory = Memory("self", start.allowance.proc)
    most = memory.mapped_bytes() + _ARRAYS_BYTES + (start.fork.spec.limits.memory_mb << 20)
    memory.close()
    allowance = msgspec.structs.replace(start.allowance, memory_bytes=most, rules=_rules(start.seen))
    status = BROKEN
    try:
        status = child.main(start.fork, start.artifact, start.channel, allowance, place=start.place, seen=start.seen)
    except Exception:  # noqa: BLE001 - the last frame of a process: tell the supervisor's pipe, then end
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _rules(seen: tuple[str, ...]) -> int:
    try:
        return landlock.rule_set(seen, [view.WRITABLE])
    except OSError:
        return -1  # as where the template has none
