"""Looks after rollouts: what servers have counted is looked at every second, and what follows is done."""

from typing import Final, Protocol

import structlog

from modelkeep.control.rollouts.service import Rollouts
from modelkeep.worker.again import again, going_on

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0


class Told(Protocol):
    """Hears what was decided, for the metrics."""

    def rollout_decided(self, decision: str) -> None:
        """Something was decided of a rollout: advanced, held, promoted, rolled_back or cancelled."""
        ...


class Releaser:
    """Has rollouts go on until it is cancelled. Where several workers do, each decision is done once, by the first."""

    def __init__(self, rollouts: Rollouts, *, told: Told, every_s: float = _EVERY_S) -> None:
        self._rollouts = rollouts
        self._told = told
        self._every_s = every_s

    async def run(self) -> None:
        """Look again and again; the database is up to date when this begins."""
        await again(self.round, self._every_s, part="releasing")

    async def round(self) -> None:
        """Look once at each rollout that is not over; one that cannot be looked at does not keep the others."""
        for rollout_id in await self._rollouts.open():
            with going_on("rollout", rollout=rollout_id):
                decided = await self._rollouts.tick(rollout_id)
                if decided:
                    _log.info("rollout_decided", rollout=rollout_id, decision=decided)
                    self._told.rollout_decided(decided)
