"""Shows how many alerts fire, on the page of metrics."""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from modelkeep.contracts.errors import ModelkeepError
from modelkeep.control.alerts.service import Alerts

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 5.0


class Told(Protocol):
    """Hears how many alerts fire, for the metrics."""

    def alerts_firing(self, counts: Mapping[str, int]) -> None:
        """So many fire now, by severity."""
        ...


class Firing:
    """Counts the alerts that fire until it is cancelled: one that was acknowledged fires again by the clock alone."""

    def __init__(self, alerts: Alerts, *, told: Told, every_s: float = _EVERY_S) -> None:
        self._alerts = alerts
        self._told = told
        self._every_s = every_s

    async def run(self) -> None:
        """Count again and again; the database is up to date when this begins."""
        while True:
            await self.round()
            await asyncio.sleep(self._every_s)

    async def round(self) -> None:
        """Count once; while the database is away, what was counted last stays."""
        try:
            counts = await self._alerts.firing()
        except ModelkeepError as error:
            _log.warning("alerts_not_counted", reason=error.message)
        except Exception:  # noqa: BLE001 - a mistake of ours is told, and does not end what the worker is there for
            _log.exception("alerts_not_counted")
        else:
            self._told.alerts_firing(counts)
