"""Alerts: raised and settled by what happens, in its transaction; looked at, acknowledged and resolved by people.

An alert's row is locked last, after those of what it is about.
"""

from collections.abc import Iterable
from typing import Final

import structlog

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.ids import new_id
from modelkeep.control.alerts import store
from modelkeep.control.alerts.errors import AlertNotFound
from modelkeep.control.alerts.events import AlertRaised
from modelkeep.control.alerts.rules import (
    DEFAULT_MINUTES,
    KEPT,
    Alert,
    News,
    Severity,
    Wanted,
    acknowledged,
    again,
    fingerprint,
    opened,
    resolved,
)
from modelkeep.control.audit.service import Audit
from modelkeep.control.models.service import Models
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events

_log = structlog.get_logger(__name__)
ANY: Final = Wanted()


class Alerts:
    """What somebody has to look at."""

    def __init__(self, *, db: Database, audit: Audit, models: Models, events: Events, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._models = models
        self._events = events
        self._clock = clock

    # ---- what happens

    async def raise_in(self, tx: Transaction, news: News) -> Alert:
        """Have something looked at: open an alert, or add to the one that stands for the same."""
        while True:  # whoever opens the same at the same moment is found by the next look, unless it is resolved by then
            standing = await store.standing(tx, fingerprint(news.labels))
            if standing is not None:
                alert = again(standing, news)
                await store.save(tx, alert)
                break
            alert = opened(new_id("alr"), news)
            if await store.add(tx, alert):
                break
        await self._events.publish(
            tx, AlertRaised(alert.id, alert.kind, alert.severity.value, alert.model_id, alert.deployment, alert.count)
        )
        said = {"alert": alert.id, "kind": alert.kind, "severity": alert.severity.value, "title": alert.title}
        tx.after_commit(lambda: _log.warning("alert_raised", **said, count=alert.count))
        return alert

    async def settle_in(
        self,
        tx: Transaction,
        why: str,
        *,
        kinds: Iterable[str] | None = None,
        deployment: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Resolve what is settled by itself: of these kinds, in a deployment or of a model."""
        for alert in await store.standing_of(tx, kinds=kinds, deployment=deployment, model_id=model_id):
            await store.save(tx, resolved(alert, SYSTEM.name, why, self._clock()))

    # ---- what people do

    async def acknowledge(self, actor: Actor, alert_id: str, *, minutes: int = DEFAULT_MINUTES, note: str = "") -> Alert:
        """Say that one looks at an alert for so long; after that it fires again. Raises `AlertOver`."""
        async with self._db.begin() as tx:
            present = await self._found(tx, actor, alert_id, Scope.DEPLOYMENTS_WRITE, for_update=True)
            changed = acknowledged(present, actor.name, self._clock(), minutes=minutes, note=note)
            await store.save(tx, changed)
            said = {"minutes": str(minutes)} | ({"note": changed.acknowledged_note} if changed.acknowledged_note else {})
            await self._note(tx, actor, "acknowledge", changed, said)
            return changed

    async def resolve(self, actor: Actor, alert_id: str, why: str) -> Alert:
        """Say that an alert is over, and why. Raises `AlertOver`."""
        async with self._db.begin() as tx:
            present = await self._found(tx, actor, alert_id, Scope.DEPLOYMENTS_WRITE, for_update=True)
            changed = resolved(present, actor.name, why, self._clock())
            await store.save(tx, changed)
            await self._note(tx, actor, "resolve", changed, {"note": changed.resolved_why})
            return changed

    # ---- what people see

    async def alerts(self, actor: Actor, wanted: Wanted = ANY, *, limit: int, before: str | None = None) -> list[Alert]:
        """List alerts about models that the actor may see, the last that was opened first."""
        async with self._db.read() as tx:
            of_models = await self._models.reached(tx, actor)
            return await store.page(tx, wanted, self._clock(), limit=limit, before=before, of_models=of_models)

    async def alert(self, actor: Actor, alert_id: str) -> Alert:
        """Return one with its evidence; raises `AlertNotFound`."""
        async with self._db.read() as tx:
            return await self._found(tx, actor, alert_id, Scope.MODELS_READ)

    async def firing(self) -> dict[str, int]:
        """Return how many fire, by severity."""
        async with self._db.read() as tx:
            return {severity.value: 0 for severity in Severity} | await store.firing(tx, self._clock())

    # ---- what time does

    async def forget(self) -> None:
        """Forget what was resolved long ago."""
        async with self._db.begin() as tx:
            await store.forget(tx, self._clock() - KEPT)

    async def _found(self, tx: Transaction, actor: Actor, alert_id: str, scope: Scope, *, for_update: bool = False) -> Alert:
        """Return an alert with which the actor may do this; to whom may not see its model, there is none."""
        found = await store.alert(tx, alert_id, for_update=for_update)
        if found is None:
            raise AlertNotFound
        place = (await self._models.places(tx, {found.model_id}))[found.model_id]
        actor.need(scope, place, unseen=AlertNotFound)
        return found

    async def _note(self, tx: Transaction, actor: Actor, what: str, alert: Alert, said: dict[str, str]) -> None:
        await self._audit.note(tx, actor, f"alert.{what}", alert.id, **alert.labels, **said)
