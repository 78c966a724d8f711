"""What the template prepares once for all its runners: namespaces, a rule set, user ids; and a trial of the whole lock-down."""

import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import msgspec

from modelkeep.contracts.confinement import Confinement, Layer, Level
from modelkeep.sandbox import landlock, lockdown, namespaces, selftest, view
from modelkeep.sandbox.lockdown import Allowance
from modelkeep.sandbox.memory import Memory

_UIDS = ((0x70000000, 1 << 16), (61184, 4096))
"""Where user ids belong to nobody: on a whole machine, and in a container with 65,536 of them (first id, how many)."""

_TRIAL_BYTES = 1 << 30


class Cells:
    """The grounds that runners are locked in on. Make it while the process has a single thread; it changes its namespaces.

    `separate`: it could.
    """

    def __init__(self) -> None:
        self.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._memory = Memory("self", self.proc)
        seen = view.readable(tuple(sys.path))
        apart = _trouble(lambda: namespaces.enter(seen))
        self.separate = not apart
        if self.separate:
            namespaces.enter(seen)
        self._rules, unwalled = _rules(seen)
        self._first_uid, self._uids, alike = _free_uids(self.proc)
        self._taken: set[int] = set()
        self._next = count()
        self.confinement = self._try_out({"namespaces": apart, "landlock": unwalled, "own user": alike})

    def allowance(self, memory_bytes: int | None, keep: frozenset[int], output: int, *, same_user: bool = False) -> Allowance:
        """Return what the next runner of this process may have: a user id that no other has, so much memory of its own.

        `same_user`: it has to reach what belongs to this very user. Without a number, its memory is bounded later.
        """
        uid = self._free_uid() if self._uids and not same_user else 0
        mapped = self._memory.mapped_bytes()  # a fork begins with all frameworks mapped, which is no fault of its model
        most = resource.RLIM_INFINITY if memory_bytes is None else mapped + memory_bytes
        return Allowance(most, os.getpid(), keep, output, self.proc, self._rules, uid)

    def release(self, uid: int) -> None:
        """Take a user id back: its runner has ended."""
        self._taken.discard(uid)

    def _free_uid(self) -> int:
        uid = next(one for number in self._next if (one := self._first_uid + number % self._uids) not in self._taken)
        self._taken.add(uid)
        return uid

    def _try_out(self, reasons: dict[str, str]) -> Confinement:
        """Lock a process down as a runner would be, and return what it could still do."""
        here, there = os.pipe()
        allowance = self.allowance(_TRIAL_BYTES, frozenset({there}), 2)

        def trial() -> None:
            lockdown.lock_down(allowance)
            os.write(there, msgspec.msgpack.encode(selftest.confinement(allowance.keep)))

        trouble = _trouble(trial)
        os.close(there)
        with open(here, "rb") as answer:  # noqa: PTH123 - a pipe
            said = answer.read()
        self.release(allowance.uid)
        if trouble or not said:
            return Confinement(Level.OPEN, (Layer("hygiene", holds=False, detail=trouble),))
        found = msgspec.msgpack.decode(said, type=Confinement)
        layers = [
            layer if layer.holds else msgspec.structs.replace(layer, detail=reasons.get(layer.name) or layer.detail)
            for layer in found.layers
        ]
        own = Layer("own user", bool(allowance.uid), reasons["own user"])
        return Confinement(found.level, (*layers, own))


def _rules(seen: tuple[str, ...]) -> tuple[int, str]:
    try:
        return landlock.rule_set(seen, [view.WRITABLE]), ""
    except OSError as error:
        return -1, str(error.strerror)


def _free_uids(proc: int) -> tuple[int, int, str]:
    """Return the first of the user ids that runners may become, how many there are, and why there are none."""
    if os.geteuid() != 0:
        return 0, 0, "only root can give each runner one"
    trouble = "no user ids are free here"
    file = os.open("self/uid_map", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with open(file, encoding="ascii") as lines:  # noqa: PTH123 - a descriptor
        known = [range(int(first), int(first) + int(many)) for first, _outside, many in map(str.split, lines)]
    for first, many in _UIDS:
        if any(first in one and first + many - 1 in one for one in known):
            trouble = _trouble(partial(_become, first))
            if not trouble:
                return first, many, ""
    return 0, 0, trouble


def _become(uid: int) -> None:
    """Be this user, who must be able to read what Python needs."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    for file in (os.__file__, msgspec.__file__):
        Path(file).read_bytes()


def _trouble(work: Callable[[], None]) -> str:
    """Do this in a process of its own; return why it could not be done, or nothing."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(here)
            work()
            status = 0
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the answer
            os.write(there, str(getattr(error, "strerror", None) or error).encode()[:500])
        finally:
            os._exit(status)
    os.close(there)
    with open(here, "rb") as answer:  # noqa: PTH123 - a pipe
        said = answer.read().decode("utf-8", "replace")
    _pid, status = os.waitpid(child, 0)
    return "" if status == 0 else said or f"a trial ended with status {os.waitstatus_to_exitcode(status)}"


def main() -> None:
    """Print what a trial of the lock-down comes to here, as JSON."""
    lockdown.clean_environment()
    sys.stdout.buffer.write(msgspec.json.encode(Cells().confinement) + b"\n")


if __name__ == "__main__":
    main()
