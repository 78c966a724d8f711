"""Shows how many alerts fire, on the page of metrics."""

from collections.abc import Mapping
from typing import Final, Protocol

from modelkeep.control.alerts.service import Alerts
from modelkeep.worker.again import again

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
        await again(self.count, self._every_s, part="alerting")

    async def count(self) -> None:
        """Count once. Where the database is away, what was counted last stays; raises `Unavailable`."""
        self._told.alerts_firing(await self._alerts.firing())
