"""Versions that stopped answering stay loaded for a while, so that going back to them is a matter of a pointer."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from modelkeep.contracts.snapshot import ServedDeployment
from modelkeep.serving.pool import Served

MOST: Final = 2
"""How many of one deployment are kept so, the last ones: the version before, and a candidate that was called back."""


class Baking:
    """Who stays loaded, for which deployment, and since when. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, dict[Served, float]] = {}

    def leave(self, deployment: str, served: Served) -> None:
        """A version stopped answering for a deployment. One without a runner has nothing to keep."""
        if served.ready:
            mine = self._left.setdefault(deployment, {})
            mine.pop(served, None)
            mine[served] = self._clock()
            while len(mine) > MOST:
                del mine[next(iter(mine))]

    def settle(self, deployments: Mapping[str, ServedDeployment], answering: Callable[[str], Iterable[Served]]) -> None:
        """Forget those that answer again, whose time is over, or whose deployment has gone."""
        if not self._left:
            return
        now, before = self._clock(), self._left
        self._left = {}
        for name, mine in before.items():
            deployment = deployments.get(name)
            if deployment is None:
                continue
            again, bake_s = set(answering(name)), deployment.settings.bake_s
            staying = {one: left for one, left in mine.items() if now - left < bake_s and one not in again}
            if staying:
                self._left[name] = staying

    def of(self, deployment: str) -> Iterable[Served]:
        """Return the versions that stay loaded for a deployment."""
        return self._left.get(deployment, ())

    def all(self) -> Iterable[Served]:
        """Return every version that stays loaded."""
        return [served for mine in self._left.values() for served in mine]

    def over(self, deployments: Mapping[str, ServedDeployment]) -> bool:
        """Whether somebody's time is over."""
        now = self._clock()
        return any(
            name not in deployments or now - left >= deployments[name].settings.bake_s
            for name, mine in self._left.items()
            for left in mine.values()
        )
