"""Makes scheduled changes once their time has come."""

import asyncio
from typing import Final

import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.schedules.service import Schedules

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0


class DueChanges:
    """Makes what is due until it is cancelled; where several workers do, each change is made by one of them."""

    def __init__(self, schedules: Schedules, *, every_s: float = _EVERY_S) -> None:
        self._schedules = schedules
        self._every_s = every_s

    async def run(self) -> None:
        """Make what is due, again and again; the database is up to date when this begins."""
        while True:
            await self._round()
            await asyncio.sleep(self._every_s)

    async def _round(self) -> None:
        try:
            over = await self._schedules.make_due()
            if over:
                _log.info("scheduled_changes_over", changes=over)
        except ModelkeepError as error:
            _log.warning("scheduled_changes_wait", reason=error.message)
        except Exception:  # noqa: BLE001 - a mistake of ours is told, and does not end what the worker is there for
            _log.exception("scheduled_changes_failed")
