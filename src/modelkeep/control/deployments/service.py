"""Deployments: which version answers where; every change of it becomes news for serving in the same transaction."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.names import check_name
from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.snapshot import Limits
from modelkeep.contracts.traffic import Traffic, Trial
from modelkeep.control.access.service import Access
from modelkeep.control.approvals.rules import Act
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments import store
from modelkeep.control.deployments.errors import (
    DeploymentExists,
    DeploymentNotFound,
    ModelsOwnDeployment,
    NothingPromoted,
    NotSettled,
    RevisionNotFound,
    RolloutRunning,
)
from modelkeep.control.deployments.events import DeploymentDeleted, SettingsChanged, TrafficChanged, VersionPromoted
from modelkeep.control.deployments.news import SNAPSHOT, News
from modelkeep.control.deployments.planning import (
    NOTHING,
    Change,
    Plan,
    act_of,
    changed,
    differences,
    entries_of,
    parts,
    version_ids,
)
from modelkeep.control.deployments.revisions import (
    Action,
    Moment,
    Revision,
    action_of,
    line_of,
    restore,
    revision_of,
    target,
)
from modelkeep.control.deployments.rules import (
    Deployment,
    Serving,
    check_reason,
    check_revision,
    deleting,
    end,
    is_settled,
    promote,
    route,
    serving,
)
from modelkeep.control.deployments.traffic import references, spelled_out
from modelkeep.control.models.rules import check_open
from modelkeep.control.models.service import Models
from modelkeep.control.safety.service import Switches
from modelkeep.control.sessions.service import Sessions
from modelkeep.infra.broadcast import Broadcast, latest
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events

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
        self._events = events
        self._clock = clock
        self._news = News(
            access=access, models=models, switches=switches, sessions=sessions, broadcast=broadcast, clock=clock, limits=limits
        )

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
            return await self.names_in(tx, actor, scope)

    async def names_in(self, tx: Transaction, actor: Actor, scope: Scope) -> frozenset[str] | None:
        """Return the same as `tx` sees it."""
        of_models = await self._models.reached(tx, actor, scope)
        return None if of_models is None else await store.names(tx, of_models)

    async def promote(
        self, actor: Actor, name: str, number: int, *, expected: int | None = None, reason: str = ""
    ) -> Deployment:
        """Have a deployment answer with a ready version of its model.

        `expected` is the revision that the actor has seen: if it is not the present one, nothing changes and `Stale` is raised.
        Promoting what serves already changes nothing. Raises `ApprovalNeeded` where promotions need two people, but to go back.
        """
        return await self.change(actor, name, Change(version=number), expected=expected, reason=reason)

    async def configure(self, actor: Actor, name: str, patch: Mapping[str, Any], *, expected: int | None = None) -> Deployment:
        """Change settings of a deployment by a JSON merge patch: what is not named stays, null brings a default back.

        `expected` as in `promote`. Raises `InvalidSettings` with each fault's place.
        """
        return await self.change(actor, name, Change(settings=dict(patch)), expected=expected)

    async def change(
        self, actor: Actor, name: str, change: Change, *, expected: int | None = None, reason: str = ""
    ) -> Deployment:
        """Change a deployment at once: its version, settings, and how it shares its requests out. `expected` as in `promote`.

        Raises `ApprovalNeeded` where promotions need two people and the change gives users to a version, but to go back.
        """
        async with self._db.begin() as tx:
            return await self.change_in(tx, actor, name, change, expected=expected, reason=reason)

    async def change_in(
        self,
        tx: Transaction,
        actor: Actor,
        name: str,
        change: Change,
        *,
        expected: int | None = None,
        reason: str = "",
        agreed: bool = False,
    ) -> Deployment:
        """Change a deployment inside a transaction that is already open; `agreed` says that it needs nobody else any more."""
        present = await self.held_in(tx, actor, name)
        check_revision(present, expected)
        after = await self._changed(tx, actor, present, change)
        if after is None:
            return present
        act = await self._act(tx, present, after)
        if act is not None and not agreed:
            await self._approvals.need(tx, actor, act)
        return await self._write(tx, actor, (present, after), action_of(present, after), reason=reason)

    async def plan(self, actor: Actor, name: str, change: Change) -> Plan:
        """Return what a change would do, and whether it needs another person: nothing is changed, and nobody is asked."""
        async with self._db.read() as tx:
            return (await self.plan_in(tx, actor, name, change))[0]

    async def plan_in(self, tx: Transaction, actor: Actor, name: str, change: Change) -> tuple[Plan, Act | None]:
        """Return what a change would do as a transaction sees it, and what two people would have to agree to."""
        present = await self.held_in(tx, actor, name)
        after = await self._changed(tx, actor, present, change) or present
        numbers = await self._models.numbers(tx, version_ids(present, after))
        act = None if after is present else await self._act(tx, present, after)
        needs = act is not None and self._approvals.guards("promotion")
        plan = Plan(present.revision, differences(present, after, numbers), parts(present, after, numbers), needs)
        return plan, act

    async def spelled_in(self, tx: Transaction, present: Deployment, change: Change) -> Change:
        """Return a change that names versions by numbers alone, as aliases may point elsewhere when it is made."""
        if change.traffic is None:
            return change
        ids = await self._models.named(tx, present.model, references(change.traffic))
        numbers = await self._models.numbers(tx, set(ids.values()))
        spelled = spelled_out(change.traffic, {name: str(numbers[version_id]) for name, version_id in ids.items()})
        return msgspec.structs.replace(change, traffic=spelled)

    async def rollback(
        self, actor: Actor, name: str, to: int | None = None, *, expected: int | None = None, reason: str = ""
    ) -> Deployment:
        """Go back to what answered before the newest version that answers came in, or to the revision `to`, also mid-rollout.

        It needs nobody else, unless `to` names what was rolled back from: that is new again. Raises `NothingToRollBack`, and
        what speaks against a version that would answer again.
        """
        async with self._db.begin() as tx:
            present = await self.held_in(tx, actor, name)
            check_revision(present, expected)
            history = await store.history(tx, present.id)
            line = {one.revision for one in line_of(history)}
            found = target(history) if to is None else await self._revision(tx, present, to)
            after = restore(present, found, by=actor.name, now=self._clock())
            if after is None:
                return present
            await self._ready(tx, actor, after, set())
            act = await self._act(tx, present, after)
            if act is not None and found.revision not in line:
                await self._approvals.need(tx, actor, act)
            return await self._write(tx, actor, (present, after), "rollback", reason=reason, restored=found.revision)

    async def revisions(
        self, actor: Actor, name: str, *, limit: int, before: int | None = None
    ) -> tuple[list[Revision], dict[str, int]]:
        """List what a deployment was, newest first, with revisions below `before`, and the numbers of their versions by id."""
        async with self._db.read() as tx:
            found = await self._deployment(tx, actor, name, Scope.MODELS_READ)
            page = await store.page_of_revisions(tx, found.id, limit=limit, before=before)
            return page, await self._numbers(tx, page)

    async def revision(self, actor: Actor, name: str, number: int) -> tuple[Revision, dict[str, int]]:
        """Return one of them."""
        async with self._db.read() as tx:
            found = await self._revision(tx, await self._deployment(tx, actor, name, Scope.MODELS_READ), number)
            return found, await self._numbers(tx, [found])

    async def as_of(
        self, actor: Actor, model: str, at: datetime, name: str | None = None
    ) -> tuple[list[Moment], dict[str, int], dict[str, int]]:
        """Return what each deployment of a model was at a moment, also those that are gone, or `name` alone.

        With them, the numbers of their versions by id, and those to which the model's aliases pointed.
        """
        model_id = (await self._models.model(actor, model)).id
        async with self._db.read() as tx:
            found = await store.moments(tx, model_id, at, name)
            numbers = await self._numbers(tx, [one.revision for one in found])
            return found, numbers, await self._models.aliases_at(tx, model_id, at)

    async def numbers(self, deployments: Iterable[Deployment]) -> dict[str, int]:
        """Return the numbers of the versions that these name, by id."""
        async with self._db.read() as tx:
            return await self._models.numbers(tx, version_ids(*deployments))

    async def create(self, actor: Actor, name: str, model: str, wanted: Change = NOTHING, *, reason: str = "") -> Deployment:
        """Give a model another deployment, as `wanted` has it; without a version it answers once one is promoted."""
        check_name(name)
        place = await self._models.place(actor, model)
        async with self._db.begin() as tx:
            held = await self._models.held(tx, place.model)
            actor.need(Scope.DEPLOYMENTS_WRITE, held.place)
            check_open(held)
            empty = Deployment(new_id("dep"), name, held.id, held.name, 0, self._clock(), actor.name)
            made = await self._changed(tx, actor, empty, wanted) or empty
            act = await self._act(tx, empty, made)
            if act is not None:
                asked = msgspec.structs.replace(act, action="deployment.create", subject=held.id, seen=(name, wanted))
                await self._approvals.need(tx, actor, asked)
            made = msgspec.structs.replace(made, revision=0)
            if not await store.add(tx, made, revision_of(made, "create", check_reason(reason))):
                raise DeploymentExists
            version = None if made.version is None else str(made.version)
            said = {"name": name, "model": held.name} | _reason(reason)
            await self._audit.note(tx, actor, "deployment.create", made.id, after=version, **said)
            self.publish_in(tx)
            return made

    async def delete(self, actor: Actor, name: str, *, expected: int | None = None, reason: str = "") -> None:
        """Delete a deployment that is not the one of its model's name: it answers no more, and its revisions stay."""
        async with self._db.begin() as tx:
            present = await self.held_in(tx, actor, name)
            check_revision(present, expected)
            if present.name == present.model:
                raise ModelsOwnDeployment
            if present.trial is not None:
                raise RolloutRunning
            place = (await self._models.places(tx, {present.model_id}))[present.model_id]
            await self._approvals.need(tx, actor, deleting(present, place))
            gone = end(present, by=actor.name, now=self._clock())
            await store.remove(tx, gone, revision_of(gone, "delete", check_reason(reason)))
            version = None if present.version is None else str(present.version)
            said = {"name": name, "model": present.model} | _reason(reason)
            await self._audit.note(tx, actor, "deployment.delete", present.id, before=version, **said)
            await self._events.publish(tx, DeploymentDeleted(name))
            self.publish_in(tx)

    async def promote_in(
        self,
        tx: Transaction,
        actor: Actor,
        name: str,
        number: int,
        *,
        expected: int | None = None,
        only_first: bool = False,
        reason: str = "",
    ) -> Deployment:
        """Promote inside a transaction that is already open; a trial that is on ends with it.

        `only_first` is for what nobody asks: it leaves a deployment as it is that answers, or needs two people to.
        """
        present = await self.held_in(tx, actor, name)
        version = await self._models.promotable(tx, actor, present.model, number, Scope.DEPLOYMENTS_WRITE)
        if only_first and (present.version_id is not None or self._approvals.guards("promotion")):
            return present
        after = promote(present, version.id, number, expected=expected, by=actor.name, now=self._clock())
        if after is None:
            return present
        act = await self._act(tx, present, after)
        if act is not None:
            await self._approvals.need(tx, actor, act)
        return await self._write(tx, actor, (present, after), "promote", reason=reason)

    async def held_in(self, tx: Transaction, actor: Actor, name: str, scope: Scope = Scope.DEPLOYMENTS_WRITE) -> Deployment:
        """Return a deployment with which the actor may do this, keeping its model's row to `tx`, and then its own."""
        found = await self._deployment(tx, actor, name, scope)
        await self._models.held(tx, found.model_id)
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
        after = route(present, traffic, trial=trial, by=actor.name, now=self._clock())
        if after is None:
            return present
        return await self._write(tx, actor, (present, after), "route", reason=reason)

    async def create_in(self, tx: Transaction, actor: Actor, model_id: str, name: str) -> None:
        """Give a new model the deployment of its name, inside the transaction that makes the model."""
        made = Deployment(new_id("dep"), name, model_id, name, 0, self._clock(), actor.name)
        if not await store.add(tx, made, revision_of(made, "create")):
            raise DeploymentExists("A deployment of another model has, or had, this name: choose another name for the model.")

    async def publish(self) -> None:
        """Publish the snapshot as it is now: once at every start, so that changed limits and new fields arrive."""
        async with self._db.begin() as tx:
            self.publish_in(tx)

    def publish_in(self, tx: Transaction) -> None:
        """Have the snapshot compiled and published once, at the end of the transaction that makes it necessary.

        Whatever else that locks, it has by then: nobody waits for rows of others while they keep the snapshot's.
        """
        tx.before_commit(partial(self._news.publish, tx), once=SNAPSHOT)

    async def settled(self, name: str, *, answers: bool, patience_s: float) -> None:
        """Wait until every server answers for a deployment as it is now, or does not answer for it at all.

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
        beside = version_ids(found) if answers else set()
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    if is_settled(name, wanted, number, await self._heartbeats(), beside=beside):
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

    async def _changed(self, tx: Transaction, actor: Actor, present: Deployment, change: Change) -> Deployment | None:
        """Return a deployment as it would be after a change, whose versions may all serve; None where nothing differs."""
        version = None
        if change.version is not None:
            version = await self._models.promotable(tx, actor, present.model, change.version, Scope.DEPLOYMENTS_WRITE)
        answers = present.version_id if version is None else version.id
        after = changed(
            present,
            change,
            version=version,
            signature=None if change.settings is None else await self._models.signature(tx, answers),
            versions=await self._models.named(tx, present.model, references(change.traffic or {})),
            by=actor.name,
            now=self._clock(),
        )
        if after is not None:
            await self._ready(tx, actor, after, version_ids(present))
        return after

    async def _ready(self, tx: Transaction, actor: Actor, after: Deployment, known: set[str]) -> None:
        """Raise what speaks against a version that would be asked from now on, beside those that are `known`."""
        new = version_ids(after) - known
        for number in sorted((await self._models.numbers(tx, new)).values()):
            await self._models.promotable(tx, actor, after.model, number, Scope.DEPLOYMENTS_WRITE)

    async def _act(self, tx: Transaction, present: Deployment, after: Deployment) -> Act | None:
        """Return what two people may have to agree to, if the change is such."""
        place = (await self._models.places(tx, {present.model_id}))[present.model_id]
        return act_of(present, after, place, await self._models.numbers(tx, version_ids(present, after)))

    async def _write(
        self,
        tx: Transaction,
        actor: Actor,
        change: tuple[Deployment, Deployment],
        action: Action,
        *,
        reason: str,
        restored: int | None = None,
    ) -> Deployment:
        """Write a changed deployment, the revision that it is, the trail's entries, and the news of it."""
        present, after = change
        await store.save(tx, after, revision_of(after, action, check_reason(reason), restored=restored))
        for done, before, now, said in entries_of(present, after, action, restored):
            said_all = {"revision": str(after.revision)} | said | _reason(reason)
            await self._audit.note(tx, actor, f"deployment.{done}", after.id, before=before, after=now, **said_all)
        if after.version_id is not None and after.version_id != present.version_id:
            if after.name == after.model:
                await self._models.note_serving(tx, after.model_id, after.version or 0)
            await self._events.publish(tx, VersionPromoted(after.name, after.version_id, after.revision))
        if after.settings != present.settings:
            await self._events.publish(tx, SettingsChanged(after.name, after.revision))
        if (after.traffic, after.trial) != (present.traffic, present.trial):
            await self._events.publish(tx, TrafficChanged(after.name, after.revision))
        self.publish_in(tx)
        return after

    async def _revision(self, tx: Transaction, of: Deployment, number: int) -> Revision:
        found = await store.revision(tx, of.id, number)
        if found is None:
            raise RevisionNotFound
        return found

    async def _numbers(self, tx: Transaction, revisions: Iterable[Revision]) -> dict[str, int]:
        named = {version_id for one in revisions for version_id in one.traffic.version_ids}
        return await self._models.numbers(tx, named)

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


def _reason(reason: str) -> dict[str, str]:
    return {"reason": reason.strip()} if reason.strip() else {}
