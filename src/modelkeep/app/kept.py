"""A version that servers want, as the supervisor keeps it: its runners, their deaths, and whether it may have any now."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from modelkeep.app.restarts import Restarts
from modelkeep.contracts.snapshot import KeepLoaded, Memory, RunnerSpec
from modelkeep.sandbox.control import Wanted

_RESTS_S = 3.0
A_RUNNER = 24 << 20
"""What a runner holds beside its model, until one of the version has been measured."""


@dataclass(eq=False)
class Kept:
    """How many runners there should be, and the names of those that there are, oldest first.

    `retiring` are names of those that go once others are ready in their place. `held` is what the version died of, too often.
    """

    spec: RunnerSpec
    replicas: int = 1
    memory: Memory = field(default_factory=Memory)
    lazy: bool = False
    restarts: Restarts = field(default_factory=Restarts)
    names: list[str] = field(default_factory=list)
    retiring: set[str] = field(default_factory=set)
    again: asyncio.TimerHandle | None = None
    held: str | None = None
    asleep: bool = False
    used: float = 0.0
    measured_bytes: int = 0

    def take(self, wish: Wanted) -> None:
        """Follow the wish that holds."""
        self.replicas, self.memory, self.lazy = wish.replicas, wish.memory, wish.lazy

    def calm(self) -> None:
        """Forget a start that was due."""
        if self.again is not None:
            self.again.cancel()
            self.again = self.held = None

    @property
    def missing(self) -> int:
        """How many more runners there should be."""
        return self.replicas - (len(self.names) - len(self.retiring))

    @property
    def keep(self) -> KeepLoaded:
        """Whether it goes for others."""
        return self.memory.keep

    @property
    def idle_s(self) -> float:
        """After how long it goes by itself, if it is kept on demand."""
        return self.memory.idle_s

    @property
    def spare(self) -> bool:
        """Whether it takes only what nobody else wants."""
        return self.spec.spare

    @property
    def expected_bytes(self) -> int:
        """What one more runner of it will hold: as much as the last one, or what validation saw."""
        return self.measured_bytes or self.spec.memory_bytes + A_RUNNER


def at_rest(kept: Iterable[Kept], now: float) -> set[str]:
    """Return the names of the runners whose version nobody has asked anything of late. Servers tell of use once a second."""
    return {name for one in kept if now - one.used > _RESTS_S for name in one.names}
