"""Looks after rollouts: what servers have counted is looked at every second, and what follows is done."""

import asyncio
from typing import Final, Protocol

import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.rollouts.service import Rollouts

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
        while True:
            await self.round()
            await asyncio.sleep(self._every_s)

    async def round(self) -> None:
        """Look once at each rollout that is not over; one that cannot be looked at does not keep the others."""
        try:
            found = await self._rollouts.open()
        except ModelkeepError as error:
            _log.warning("releasing_waits", reason=error.message)
            return
        for rollout_id in found:
            try:
                decided = await self._rollouts.tick(rollout_id)
            except ModelkeepError as error:
                _log.warning("rollout_waits", rollout=rollout_id, reason=error.message)
            except Exception:  # noqa: BLE001 - a mistake of ours is told, and does not end what the worker is there for
                _log.exception("rollout_failed", rollout=rollout_id)
            else:
                if decided:
                    _log.info("rollout_decided", rollout=rollout_id, decision=decided)
                    self._told.rollout_decided(decided)
