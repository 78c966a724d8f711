"""Shadows: what servers have seen of them is kept here, and told to who may read predictions."""

from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.shadow import ShadowSeen
from modelkeep.control.deployments.rules import Deployment
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.models.service import Models
from modelkeep.control.shadows import store
from modelkeep.control.shadows.errors import ShadowNotSeen
from modelkeep.control.shadows.rules import KEPT_DAYS, Facts, Report, report
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction

MOST: Final = 100
_SHOWING: Final = 50
_LOADED: Final = timedelta(hours=1)
"""After so long a prediction is in the history, if it ever is."""

Missing = Callable[[Collection[str]], Awaitable[Collection[str]]]


class Shadows:
    """How versions that are asked beside the promoted one compare with it."""

    def __init__(self, *, db: Database, models: Models, deployments: Deployments, clock: Clock) -> None:
        self._db = db
        self._models = models
        self._deployments = deployments
        self._clock = clock

    async def hear(self, seen: ShadowSeen) -> None:
        """Keep what a server says that it has seen."""
        async with self._db.begin() as tx:
            await store.keep(tx, seen)
            await store.forget(tx, (self._clock() - timedelta(days=KEPT_DAYS)).timestamp())

    async def shadows(self, actor: Actor, name: str, *, limit: int = MOST) -> list[Facts]:
        """List the shadows that a deployment has had, the one that was told of last first."""
        deployment, _serving = await self._deployments.deployment(actor, name, Scope.PREDICTIONS_READ)
        async with self._db.read() as tx:
            return await self._numbered(tx, deployment, await store.facts(tx, name, limit))

    async def report(self, actor: Actor, name: str, version: int | None = None) -> Report:
        """Tell all of a shadow: of this version, else of the one that is asked now, or was last; raises `ShadowNotSeen`."""
        deployment, _serving = await self._deployments.deployment(actor, name, Scope.PREDICTIONS_READ)
        async with self._db.read() as tx:
            known = await self._numbered(tx, deployment, await store.facts(tx, name, MOST))
            if version is not None:
                known = [one for one in known if one.version == version]
            if not known:
                raise ShadowNotSeen
            found = next((one for one in known if one.active), known[0])
            return report(found, await store.reports(tx, name, found))

    async def forget_shown(self, missing: Missing) -> int:
        """Remove what reports show of predictions that have left the history, and return how many rows that were.

        `missing` returns those of some predictions that the history does not hold.
        """
        after, forgotten, before = "", 0, (self._clock() - _LOADED).timestamp()
        while True:
            async with self._db.read() as tx:
                found = await store.showing(tx, after=after, limit=_SHOWING)
            for after, seen in found.items():
                gone = await missing({one.prediction for one in seen.compared.worst if one.at < before})
                if gone:
                    async with self._db.begin() as tx:
                        forgotten += await store.forget_shown(tx, after, gone)
            if len(found) < _SHOWING:
                return forgotten

    async def _numbered(self, tx: Transaction, deployment: Deployment, found: list[Facts]) -> list[Facts]:
        """Add the versions' numbers, and which of them is asked now."""
        numbers = await self._models.numbers(tx, {id_ for one in found for id_ in (one.primary_id, one.version_id)})
        split = deployment.traffic.shadow
        now = (deployment.version_id, None if split is None else split.version_id)
        return [
            replace(
                one,
                primary=numbers.get(one.primary_id),
                version=numbers.get(one.version_id),
                active=(one.primary_id, one.version_id) == now,
            )
            for one in found
        ]
