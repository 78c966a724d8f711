"""Deployments: which version answers where; every change of it becomes news for serving in the same transaction."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.snapshot import DeploymentSettings, Limits, encode_snapshot
from modelkeep.contracts.traffic import Traffic, Trial
from modelkeep.control.access.service import Access
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments import store
from modelkeep.control.deployments.configuration import merged
from modelkeep.control.deployments.errors import DeploymentNotFound, NothingPromoted, NotSettled
from modelkeep.control.deployments.events import SettingsChanged, TrafficChanged, VersionPromoted
from modelkeep.control.deployments.rules import (
    Deployment,
    Serving,
    compile_snapshot,
    configure,
    goes_back,
    is_settled,
    promote,
    promotion,
    route,
    served_version,
    serving,
)
from modelkeep.control.models.service import Models
from modelkeep.control.safety.service import Switches
from modelkeep.control.sessions.service import Sessions
from modelkeep.infra.broadcast import Broadcast, latest
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events

SNAPSHOT: Final = "snapshot"
_HEARTBEAT_FRESH: Final = timedelta(minutes=1)
_ALIVE: Final = timedelta(seconds=30)
_LOOK_AGAIN_S: Final = 0.05
_HEARTBEAT_KEPT: Final = timedelta(days=1)


class Deployments:
    """Named places that answer predictions, and the news of them."""

    def __init__(
        self,
        *,
        db: Database,
        audit: Audit,
        access: Access,
        approvals: Approvals,
        models: Models,
        switches: Switches,
        sessions: Sessions,
        events: Events,
        broadcast: Broadcast,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._db = db
        self._audit = audit
        self._access = access
        self._approvals = approvals
        self._models = models
        self._switches = switches
        self._sessions = sessions
        self._events = events
        self._broadcast = broadcast
        self._clock = clock
        self._limits = limits

    async def deployment(self, actor: Actor, name: str, scope: Scope = Scope.MODELS_READ) -> tuple[Deployment, list[Serving]]:
        """Return one with which the actor may do what `scope` names, and what each server says it answers with."""
        async with self._db.read() as tx:
            found = await self._deployment(tx, actor, name, scope)
            return (await self._with_serving(tx, [found]))[0]

    async def deployments(
        self, actor: Actor, *, limit: int, after: str | None = None
    ) -> list[tuple[Deployment, list[Serving]]]:
        """List the deployments of the models that the actor may see, by name, each with what the servers say."""
        async with self._db.read() as tx:
            of_models = await self._models.reached(tx, actor)
            return await self._with_serving(tx, await store.page(tx, limit=limit, after=after, of_models=of_models))

    async def names(self, actor: Actor, scope: Scope) -> frozenset[str] | None:
        """Return the names of the deployments with which the actor may do this; None for all."""
        async with self._db.read() as tx:
            of_models = await self._models.reached(tx, actor, scope)
            return None if of_models is None else await store.names(tx, of_models)

    async def promote(self, actor: Actor, name: str, number: int, *, expected: int | None = None) -> Deployment:
        """Have a deployment answer with a ready version of its model.

        `expected` is the revision that the actor has seen: if it is not the present one, nothing changes and `Stale` is raised.
        Promoting what serves already changes nothing. Raises `ApprovalNeeded` where promotions need two people, but to go back.
        """
        async with self._db.begin() as tx:
            return await self.promote_in(tx, actor, name, number, expected=expected)

    async def configure(self, actor: Actor, name: str, patch: Mapping[str, Any], *, expected: int | None = None) -> Deployment:
        """Change settings of a deployment by a JSON merge patch: what is not named stays, null brings a default back.

        `expected` as in `promote`. Raises `InvalidSettings` with each fault's place.
        """
        async with self._db.begin() as tx:
            present = await self._deployment(tx, actor, name, Scope.DEPLOYMENTS_WRITE, for_update=True)
            settings = merged(present.settings, patch, await self._models.signature(tx, present.version_id))
            changed = configure(present, settings, expected=expected, by=actor.name, now=self._clock())
            if changed is None:
                return present
            await store.save(tx, changed)
            details = {"revision": str(changed.revision), "before": _text(present.settings), "after": _text(settings)}
            await self._audit.note(tx, actor, "deployment.configure", changed.id, **details)
            await self._events.publish(tx, SettingsChanged(name, changed.revision))
            self.publish_in(tx)
            return changed

    async def promote_in(
        self, tx: Transaction, actor: Actor, name: str, number: int, *, expected: int | None = None, only_first: bool = False
    ) -> Deployment:
        """Promote inside a transaction that is already open.

        `only_first` is for what nobody asks: it leaves a deployment as it is that answers, or needs two people to.
        """
        found = await self._deployment(tx, actor, name, Scope.DEPLOYMENTS_WRITE)
        version = await self._models.promotable(tx, actor, found.model, number, Scope.DEPLOYMENTS_WRITE)
        present = await store.deployment(tx, name, for_update=True) or found
        if only_first and (present.version_id is not None or self._approvals.guards("promotion")):
            return present
        changed = promote(present, version.id, number, expected=expected, by=actor.name, now=self._clock())
        if changed is None:
            return present
        if not goes_back(present, number):
            place = (await self._models.places(tx, {present.model_id}))[present.model_id]
            await self._approvals.need(tx, actor, promotion(present, version.id, number, place))
        await store.save(tx, changed)
        await self._models.note_serving(tx, changed.model_id, number)
        was = None if present.version is None else str(present.version)
        details = {"version": str(number), "revision": str(changed.revision)}
        await self._audit.note(tx, actor, "deployment.promote", changed.id, before=was, after=str(number), **details)
        await self._events.publish(tx, VersionPromoted(name, version.id, changed.revision))
        self.publish_in(tx)
        return changed

    async def held_in(self, tx: Transaction, actor: Actor, name: str, scope: Scope = Scope.DEPLOYMENTS_WRITE) -> Deployment:
        """Return a deployment with which the actor may do this, keeping its row to `tx`."""
        return await self._deployment(tx, actor, name, scope, for_update=True)

    async def seen_in(self, tx: Transaction, actor: Actor, name: str, scope: Scope) -> Deployment:
        """Return a deployment with which the actor may do this, as `tx` sees it."""
        return await self._deployment(tx, actor, name, scope)

    async def heard_in(self, tx: Transaction, since: datetime | None) -> list[Heartbeat]:
        """Return what servers said last: those that were heard since then, or all that are known."""
        return await store.fresh_heartbeats(tx, 0.0 if since is None else since.timestamp())

    async def route_in(
        self, tx: Transaction, actor: Actor, present: Deployment, traffic: Traffic, *, trial: Trial | None, reason: str = ""
    ) -> Deployment:
        """Have a deployment, which is held, share its requests out so, and servers count this trial; `reason` says what for."""
        changed = route(present, traffic, trial=trial, by=actor.name, now=self._clock())
        if changed is None:
            return present
        await store.save(tx, changed)
        details = {"revision": str(changed.revision), "before": _traffic_text(present), "after": _traffic_text(changed)}
        await self._audit.note(tx, actor, "deployment.route", changed.id, **details, **({"reason": reason} if reason else {}))
        await self._events.publish(tx, TrafficChanged(changed.name, changed.revision))
        self.publish_in(tx)
        return changed

    async def create_in(self, tx: Transaction, actor: Actor, model_id: str, name: str) -> None:
        """Give a new model the deployment of its name, inside the transaction that makes the model."""
        await store.add(tx, Deployment(new_id("dep"), name, model_id, name, 0, self._clock(), actor.name))

    async def publish(self) -> None:
        """Publish the snapshot as it is now: once at every start, so that changed limits and new fields arrive."""
        async with self._db.begin() as tx:
            self.publish_in(tx)

    def publish_in(self, tx: Transaction) -> None:
        """Have the snapshot compiled and published once, at the end of the transaction that makes it necessary.

        Whatever else that locks, it has by then: nobody waits for rows of others while they keep the snapshot's.
        """
        tx.before_commit(partial(self._publish, tx), once=SNAPSHOT)

    async def _publish(self, tx: Transaction) -> None:
        number = await self._broadcast.take_number(tx, SNAPSHOT)  # the row lock first: contents can then only go forward
        open_models = await self._models.open_models(tx)
        deployments = [one for one in await store.answering(tx) if one.model_id in open_models]
        aliases = await self._models.pointed_to(tx, {one.model_id for one in deployments})
        ids = {one.version_id for one in deployments if one.version_id is not None}
        ids |= {version_id for pointed_to in aliases.values() for version_id in pointed_to.values()}
        ids |= {version_id for one in deployments for version_id in one.traffic.version_ids}
        accepted = (await self._switches.safety_in(tx)).accepted
        served = [served_version(version, labels, self._limits) for version, labels in await self._models.served(tx, ids)]
        versions = [version for version in served if version is not None]
        now = self._clock()
        keys = await self._access.served_keys(tx)
        people = await self._access.served_people(tx)
        trust = msgspec.structs.replace(await self._sessions.trusted(tx), people=people)
        places = await self._models.places(tx, {one.model_id for one in deployments})
        snapshot = compile_snapshot(
            number, now, deployments, versions, keys, accepted=accepted, aliases=aliases, places=places, trust=trust
        )
        await self._broadcast.publish(tx, SNAPSHOT, number, encode_snapshot(snapshot), now)

    async def settled(self, name: str, *, answers: bool, patience_s: float) -> None:
        """Wait until every server answers for a deployment with the promoted version, or does not answer for it at all.

        Raises `NothingPromoted`, `CannotBeServed`, or `NotSettled` when that takes longer than `patience_s`.
        """
        async with self._db.read() as tx:
            found = await store.deployment(tx, name)
            news = await latest(tx, SNAPSHOT, after=-1)
        if found is None:
            raise DeploymentNotFound
        if answers and found.version_id is None:
            raise NothingPromoted
        wanted, number = found.version_id if answers else None, news.number if news else 0
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    if is_settled(name, wanted, number, await self._heartbeats()):
                        return
                    await asyncio.sleep(_LOOK_AGAIN_S)  # what servers say comes into the database, which rings no bell
        except TimeoutError as error:
            raise NotSettled(retry_after_s=1) from error

    async def _heartbeats(self) -> list[Heartbeat]:
        """Return what the servers said last that are surely alive."""
        async with self._db.read() as tx:
            return await store.fresh_heartbeats(tx, (self._clock() - _ALIVE).timestamp())

    async def hear(self, heartbeat: Heartbeat) -> None:
        """Keep what a server says it answers with."""
        async with self._db.begin() as tx:
            await store.keep_heartbeat(tx, heartbeat)
            await store.forget_heartbeats(tx, (self._clock() - _HEARTBEAT_KEPT).timestamp())

    async def _deployment(
        self, tx: Transaction, actor: Actor, name: str, scope: Scope, *, for_update: bool = False
    ) -> Deployment:
        """Return a deployment with which the actor may do this; to whom may not see its model, there is none."""
        found = await store.deployment(tx, name, for_update=for_update)
        if found is None:
            raise DeploymentNotFound
        actor.need(scope, (await self._models.places(tx, {found.model_id}))[found.model_id], unseen=DeploymentNotFound)
        return found

    async def _with_serving(self, tx: Transaction, found: list[Deployment]) -> list[tuple[Deployment, list[Serving]]]:
        beats = await store.fresh_heartbeats(tx, (self._clock() - _HEARTBEAT_FRESH).timestamp())
        names = {one.name for one in found}
        ids = {version for beat in beats for name, version in beat.serving.items() if name in names}
        numbers = await self._models.numbers(tx, ids)
        return [(one, serving(one, beats, numbers)) for one in found]


def _traffic_text(deployment: Deployment) -> str:
    return msgspec.json.encode(deployment.traffic).decode()


def _text(settings: DeploymentSettings) -> str:
    """Return settings as the audit trail keeps them: JSON of what differs from the defaults."""
    differing = {name: value for name, value in msgspec.to_builtins(settings).items() if value != {}}
    return msgspec.json.encode(differing).decode()
