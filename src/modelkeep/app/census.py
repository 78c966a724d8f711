"""All runners that there are, by name, and what they hold together."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from modelkeep.app.residency import Budget
from modelkeep.app.runner_process import RunnerProcess
from modelkeep.sandbox.memory import machine_bytes, resident_bytes

_MEASURED_A_LOOK = 4
_RESTING_A_LOOK = 50
_SHARE_OF_MACHINE = 0.75


def budget_of_machine(limit_mb: int, min_idle_s: float) -> Budget:
    """Return a budget for all runners together; without a limit in MiB (0), three quarters of what the machine has."""
    return Budget(limit_mb << 20 or int(_SHARE_OF_MACHINE * machine_bytes()), min_idle_s)


class Named(Protocol):
    """What has runners of these names."""

    @property
    def names(self) -> Sequence[str]:
        """Their names."""
        ...


class Census(dict[str, RunnerProcess]):
    """The runners, those whose artifact is still being `opening` (with what they are expected to hold), and their template."""

    def __init__(self) -> None:
        super().__init__()
        self.opening: dict[str, int] = {}
        self._template_bytes = 0
        self._turns: Iterator[str] = iter(())

    def of(self, kept: Named) -> Iterable[RunnerProcess]:
        """Return a version's runners, as far as they are there."""
        return filter(None, map(self.get, kept.names))

    def look(self, template: int, resting: Collection[str]) -> list[RunnerProcess]:
        """Look at what each holds, end those over their limit, and return those near it. `template`: its process id.

        Those that are `resting` take turns, a few a look: what nobody asks anything hardly grows, and of a thousand files one
        after another the kernel makes a tenth of a core's work.
        """
        self._template_bytes = resident_bytes(template) if template else 0
        runners = [runner for name, runner in self.items() if name not in resting]
        runners += [runner for name, runner in self._in_turn() if name in resting]
        for runner in runners:
            runner.check_memory()
        for runner in itertools.islice((one for one in runners if one.drifted), _MEASURED_A_LOOK):
            runner.measure()
        return [runner for runner in runners if runner.overgrown]

    def _in_turn(self) -> list[tuple[str, RunnerProcess]]:
        """Return the next few, and begin again after the last."""
        names = list(itertools.islice(self._turns, _RESTING_A_LOOK))
        if len(names) < _RESTING_A_LOOK:
            self._turns = iter(tuple(self))
            names += itertools.islice(self._turns, _RESTING_A_LOOK - len(names))
        return [(name, self[name]) for name in dict.fromkeys(names) if name in self]

    def held_bytes(self) -> int:
        """Return what all runners hold or are about to, with the template that they are forks of; 0 where there are none.

        With the first runner of a validation, room is kept for one beside it.
        """
        if not self and not self.opening:
            return 0
        kept_free = {one.ticket: one.reserve_bytes for one in self.values() if one.reserve_bytes}
        for one in self.values() if kept_free else ():
            if one.beside in kept_free:
                kept_free[one.beside] = max(0, kept_free[one.beside] - one.held_bytes)
        held = sum(one.held_bytes for one in self.values()) + sum(kept_free.values())
        return self._template_bytes + sum(self.opening.values()) + held

    def leaving_bytes(self) -> int:
        """Return how much of it is about to come free."""
        return sum(one.held_bytes for one in self.values() if one.last_moment is not None)

    def bytes_of(self, kept: Named) -> int:
        """Return what a version's runners hold; 0 while none of them has loaded."""
        return sum(one.held_bytes for one in self.of(kept) if one.ready)
