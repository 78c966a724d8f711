"""Makes scheduled changes once their time has come."""

from typing import Final

import structlog

from modelkeep.control.schedules.service import Schedules
from modelkeep.worker.again import again

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 1.0


class DueChanges:
    """Makes what is due until it is cancelled; where several workers do, each change is made by one of them."""

    def __init__(self, schedules: Schedules, *, every_s: float = _EVERY_S) -> None:
        self._schedules = schedules
        self._every_s = every_s

    async def run(self) -> None:
        """Make what is due, again and again; the database is up to date when this begins."""
        await again(self._make, self._every_s, part="scheduling")

    async def _make(self) -> None:
        over = await self._schedules.make_due()
        if over:
            _log.info("scheduled_changes_over", changes=over)
