"""Follows identity providers: whoever comes no more does not keep through keys what groups gave them there."""

import asyncio
from typing import Final

import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.identities.service import Identities

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 60.0


class Follower:
    """Has people followed until it is cancelled; where several workers do, they share it."""

    def __init__(self, identities: Identities, *, every_s: float = _EVERY_S) -> None:
        self._identities = identities
        self._every_s = every_s

    async def run(self) -> None:
        """Follow whoever it is time for, again and again; the database is up to date when this begins."""
        try:
            while True:
                await self._round()
                await asyncio.sleep(self._every_s)
        finally:
            await self._identities.close()

    async def _round(self) -> None:
        try:
            await self._identities.follow()
        except ModelkeepError as error:
            _log.warning("following_waits", reason=error.message)
        except Exception:  # noqa: BLE001 - a mistake of ours is told, and does not end what the worker is there for
            _log.exception("following_failed")
