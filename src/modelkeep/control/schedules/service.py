"""Changes that are made later: asking for one, cancelling it, and making those that are due, each once."""

from datetime import datetime
from typing import Final

import msgspec

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import ModelkeepError, Unauthenticated, Unavailable
from modelkeep.contracts.ids import new_id
from modelkeep.control.access.service import Access
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments.errors import DeploymentNotFound, DeploymentStale
from modelkeep.control.deployments.planning import Change
from modelkeep.control.deployments.rules import check_reason
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.schedules import store
from modelkeep.control.schedules.errors import ScheduledChangeNotFound, TooManyScheduledChanges
from modelkeep.control.schedules.rules import MOST_WAITING, Scheduled, State, check_moment, end, scheduling
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction

_OUTDATED: Final = "The deployment was changed since two people agreed to this: schedule it anew."


class Schedules:
    """Changes of deployments that are to come, and what became of those whose time has come."""

    def __init__(
        self, *, db: Database, audit: Audit, access: Access, approvals: Approvals, deployments: Deployments, clock: Clock
    ) -> None:
        self._db = db
        self._audit = audit
        self._access = access
        self._approvals = approvals
        self._deployments = deployments
        self._clock = clock

    async def schedule(self, actor: Actor, name: str, at: datetime, change: Change, *, reason: str = "") -> Scheduled:
        """Have a change made at a moment to come, of whatever the deployment is by then.

        It must be one that could be made now. Raises `ApprovalNeeded` where it gives users to a version and that needs two
        people, who agree to it as the deployment is now.
        """
        now = self._clock()
        check_moment(at, now)
        async with self._db.begin() as tx:
            held = await self._deployments.held_in(tx, actor, name)
            plan, act = await self._deployments.plan_in(tx, actor, name, change)
            wanted = await self._deployments.spelled_in(tx, held, change)
            if await store.waiting(tx, held.id) >= MOST_WAITING:
                raise TooManyScheduledChanges
            if act is not None:
                await self._approvals.need(tx, actor, scheduling(act, wanted, at))
            made = Scheduled(
                id=new_id("sch"),
                deployment_id=held.id,
                deployment=held.name,
                at=at,
                change=wanted,
                reason=check_reason(reason),
                asked_by=actor.id,
                by=actor.name,
                user=actor.user,
                asked_at=now,
                agreed=held.revision if plan.needs_approval else None,
            )
            await store.add(tx, made)
            await self._note(tx, actor, "schedule", made)
            return made

    async def scheduled(self, actor: Actor, name: str, *, limit: int, before: str | None = None) -> list[Scheduled]:
        """List what was scheduled for a deployment, the last that was asked for first, and what became of it."""
        found, _serving = await self._deployments.deployment(actor, name)
        async with self._db.read() as tx:
            return await store.page(tx, found.id, limit=limit, before=before)

    async def cancel(self, actor: Actor, name: str, scheduled_id: str) -> None:
        """Cancel a change that has not been made yet; raises `ScheduledChangeOver`."""
        found, _serving = await self._deployments.deployment(actor, name, Scope.DEPLOYMENTS_WRITE)
        async with self._db.begin() as tx:
            present = await store.scheduled(tx, scheduled_id, for_update=True)
            if present is None or present.deployment_id != found.id:
                raise ScheduledChangeNotFound
            over = end(present, State.CANCELLED, self._clock())
            await store.save(tx, over)
            await self._note(tx, actor, "unschedule", over)

    async def make_due(self) -> int:
        """Make what is due, in its order; what cannot be made is kept with the reason. Return how many are over by that."""
        async with self._db.read() as tx:
            due = await store.due(tx, self._clock())
        over = 0
        for one in due:
            try:
                over += await self._make(one)
            except Unavailable:
                raise
            except Unauthenticated:
                over += await self._fail(one, "Whoever scheduled it may come in no more.")
            except ModelkeepError as error:
                over += await self._fail(one, error.message)
        return over

    async def _make(self, scheduled_id: str) -> bool:
        """Make one, as whoever asked may now: its row ends in the transaction that makes the revision."""
        async with self._db.begin() as tx:
            present = await store.scheduled(tx, scheduled_id, for_update=True)
            if present is None or present.state is not State.WAITING:
                return False
            actor = await self._access.renewed_in(tx, Actor(present.asked_by, present.by, present.user))
            held = await self._deployments.held_in(tx, actor, present.deployment)
            if held.id != present.deployment_id:
                raise DeploymentNotFound
            if present.agreed is not None and present.agreed != held.revision:
                raise DeploymentStale(_OUTDATED, revision=held.revision)
            agreed = present.agreed is not None
            changed = await self._deployments.change_in(
                tx, actor, held.name, present.change, reason=present.reason, agreed=agreed
            )
            over = end(present, State.DONE, self._clock(), revision=changed.revision)
            await store.save(tx, over)
            await self._note(tx, actor, "scheduled", over)
            return True

    async def _fail(self, scheduled_id: str, problem: str) -> bool:
        async with self._db.begin() as tx:
            present = await store.scheduled(tx, scheduled_id, for_update=True)
            if present is None or present.state is not State.WAITING:
                return False
            over = end(present, State.FAILED, self._clock(), problem=problem)
            await store.save(tx, over)
            actor = Actor(present.asked_by, present.by, present.user)
            await self._note(tx, actor, "scheduled", over)
            return True

    async def _note(self, tx: Transaction, actor: Actor, action: str, of: Scheduled) -> None:
        said = {"scheduled": of.id, "at": of.at.isoformat(), "state": of.state.value}
        said |= {"problem": of.problem} if of.problem else {}
        said |= {"reason": of.reason} if of.reason else {}
        change = msgspec.json.encode(of.change).decode()
        await self._audit.note(tx, actor, f"deployment.{action}", of.deployment_id, after=change, **said)
