"""Rollouts: started and steered by people, decided by what servers count. Each decision is one transaction.

Locks are taken in one order: the model, the deployment, the rollout, and last what a publication needs. Whoever comes second
to a rollout finds it as the first has left it, and decides anew.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import structlog

from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import SYSTEM, Actor
from modelkeep.contracts.errors import Conflict, NotFound, Stale
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.traffic import Signal
from modelkeep.control.approvals.rules import Act
from modelkeep.control.approvals.service import Approvals
from modelkeep.control.audit.service import Audit
from modelkeep.control.deployments.errors import DeploymentNotFound, NothingPromoted
from modelkeep.control.deployments.rules import Deployment, check_revision
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.feedback.service import Feedback
from modelkeep.control.models.service import Models
from modelkeep.control.rollouts import store
from modelkeep.control.rollouts.asked import Asked, plan_of
from modelkeep.control.rollouts.errors import InvalidRollout, RolloutNotFound, RolloutOver, RolloutUnderWay, TrafficTaken
from modelkeep.control.rollouts.events import (
    RolloutCancelled,
    RolloutHeld,
    RolloutPromoted,
    RolloutRolledBack,
    RolloutWentOn,
)
from modelkeep.control.rollouts.judging import StepCounts
from modelkeep.control.rollouts.labelled import Found, trials, wanted, with_labels
from modelkeep.control.rollouts.records import Happened, Point, Shown, StepRecord, Story
from modelkeep.control.rollouts.rules import (
    FRESH,
    Advance,
    Decision,
    Hold,
    Promote,
    RollBack,
    Rollout,
    Seen,
    State,
    Wait,
    advanced,
    begun,
    decide,
    disturbed,
    ended,
    held,
    judged,
    look,
    needed,
    paused,
    resumed,
    spread,
    traffic_of,
    trial_of,
    without,
)
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events


class _Held(NamedTuple):
    """A rollout and its deployment, whose rows are kept to a transaction, and by whom something is done to them."""

    tx: Transaction
    actor: Actor
    rollout: Rollout
    present: Deployment


_log = structlog.get_logger(__name__)


class Rollouts:
    """Versions on their way to take over."""

    def __init__(
        self,
        *,
        db: Database,
        audit: Audit,
        approvals: Approvals,
        models: Models,
        deployments: Deployments,
        feedback: Feedback,
        events: Events,
        clock: Clock,
    ) -> None:
        self._db = db
        self._audit = audit
        self._approvals = approvals
        self._models = models
        self._deployments = deployments
        self._feedback = feedback
        self._events = events
        self._clock = clock

    # ---- what people do

    async def start(self, actor: Actor, name: str, number: int, asked: Asked, *, expected: int | None = None) -> Rollout:
        """Begin to have a version take over a deployment; `expected` is the deployment's revision that the actor has seen.

        Raises `RolloutUnderWay`, `TrafficTaken`, `InvalidRollout`, `ApprovalNeeded` where promotions need two people, or what
        speaks against the version.
        """
        async with self._db.begin() as tx:
            found = await self._deployments.seen_in(tx, actor, name, Scope.DEPLOYMENTS_WRITE)
            version = await self._models.promotable(tx, actor, found.model, number, Scope.DEPLOYMENTS_WRITE)
            present = await self._deployments.held_in(tx, actor, name)
            check_revision(present, expected)
            await self._check_free(tx, present, asked)
            if present.version_id is None:
                raise NothingPromoted
            if present.version_id == version.id:
                raise InvalidRollout(f"Version {number} answers already: choose another one.")
            plan = plan_of(asked, present.traffic.sticky)
            summary = f"Roll {present.name} out from version {present.version} to version {number}."
            await self._need_two(tx, actor, present, ("rollout.start", summary, (present.revision, version.id, plan)))
            now = self._clock()
            alive = len(await self._deployments.heard_in(tx, now - FRESH))
            rollout = begun(new_id("rol"), present, version, plan, servers=alive, by=actor.name, now=now)
            await store.add(tx, rollout)
            await store.begin_step(tx, rollout.id, StepRecord(0, rollout.at.percent, now))
            await self._route(_Held(tx, actor, rollout, present), [])
            await self._note(tx, actor, rollout, "start")
            return rollout

    async def pause(self, actor: Actor, rollout_id: str, *, expected: int | None = None) -> Rollout:
        """Have it go no further; the share stays, servers count on, and what is worse is still taken back."""
        return await self._turn(actor, rollout_id, expected, "pause", paused)

    async def resume(self, actor: Actor, rollout_id: str, *, expected: int | None = None) -> Rollout:
        """Have it go on; one that was held has its step's time again."""
        return await self._turn(actor, rollout_id, expected, "resume", resumed)

    async def advance(self, actor: Actor, rollout_id: str, *, expected: int | None = None) -> Rollout:
        """Go on to the next step, whatever this one still lacks; from the last one promote."""
        async with self._acting(actor, rollout_id, expected) as kept:
            rollout = kept.rollout
            if rollout.last or advanced(rollout, 1, self._clock()).swapped:
                await self._need_two(kept.tx, actor, kept.present, ("rollout.advance", *_early(rollout)))
            if rollout.last:
                return await self._promote(kept, "A person went on.")
            steps = [one.counts for one in await store.steps(kept.tx, rollout)]
            return await self._advance(kept, Seen(tuple(steps), rollout.servers), "A person went on.")

    async def promote(self, actor: Actor, rollout_id: str, *, expected: int | None = None) -> Rollout:
        """Promote the version now, whatever is still to be shown. Raises `ApprovalNeeded` where that needs two people."""
        async with self._acting(actor, rollout_id, expected) as kept:
            await self._need_two(kept.tx, actor, kept.present, ("rollout.promote", *_early(kept.rollout)))
            return await self._promote(kept, "A person promoted it.")

    async def roll_back(self, actor: Actor, rollout_id: str, reason: str = "", *, expected: int | None = None) -> Rollout:
        """Take the version back; nobody has to agree."""
        async with self._acting(actor, rollout_id, expected) as kept:
            return await self._roll_back(kept, None, reason or "A person took it back.")

    # ---- what people see

    async def rollout(self, actor: Actor, rollout_id: str) -> Story:
        """Return one with its steps, what is known now, and what happened; raises `RolloutNotFound`."""
        async with self._db.read() as tx:
            await self._found(tx, actor, rollout_id, Scope.MODELS_READ)
            return await self.story_in(tx, rollout_id)

    async def story_in(self, tx: Transaction, rollout_id: str) -> Story:
        """Return the same to whoever listens to what happens to rollouts, as `tx` sees it."""
        rollout = await store.rollout(tx, rollout_id)
        if rollout is None:
            raise RolloutNotFound
        steps = await store.steps(tx, rollout)
        return Story(rollout, steps, judged(rollout, [one.counts for one in steps]), await store.events(tx, rollout_id))

    async def evidence(self, actor: Actor, rollout_id: str) -> tuple[Rollout, tuple[float, float], list[Point]]:
        """Return one with what it takes to be worse and not to be worse, in logarithms, and its evidence as it came."""
        async with self._db.read() as tx:
            rollout = await self._found(tx, actor, rollout_id, Scope.MODELS_READ)
            return rollout, needed(rollout), await store.points(tx, rollout_id)

    async def rollouts(
        self, actor: Actor, *, limit: int, before: str | None = None, deployment: str | None = None
    ) -> list[Rollout]:
        """List rollouts of the models that the actor may see, newest first; in one deployment alone."""
        async with self._db.read() as tx:
            of_models = await self._models.reached(tx, actor)
            return await store.page(tx, limit=limit, before=before, deployment=deployment, of_models=of_models)

    # ---- what time does

    async def open(self) -> list[str]:
        """Return the ids of the rollouts that are not over."""
        async with self._db.read() as tx:
            return await store.open_ids(tx)

    async def tick(self, rollout_id: str) -> str:
        """Look at what servers have counted, and do what follows; return what was decided, "" for nothing.

        What cannot be done because somebody has taken away what it needs, such as the version, ends the rollout.
        """
        try:
            return await self._tick(rollout_id)
        except RolloutOver:  # another worker, or a person, was first
            return ""
        except (Conflict, NotFound) as error:
            async with self._held(rollout_id, SYSTEM) as kept:
                await self._end(kept, State.CANCELLED, error.message)
            return State.CANCELLED.value

    async def _tick(self, rollout_id: str) -> str:
        """Decide by a look that locks nothing whether the deployment has to be locked, then decide again and do it."""
        async with self._db.read() as tx:
            found = await store.rollout(tx, rollout_id)
            if found is None or found.state.final:
                return ""
            steps = await store.steps(tx, found)
            labels = await self._labels(tx, found, steps)
            seen = await self._look(tx, found, steps, labels)
            present = await self._deployments.seen_in(tx, SYSTEM, found.deployment, Scope.DEPLOYMENTS_WRITE)
        waits = isinstance(decide(found, seen, self._clock()), Wait) and not disturbed(found, present)
        if not waits or spread(found, seen.alive) != found:
            async with self._held(rollout_id, SYSTEM) as kept:
                return await self._decide(kept)
        if list(seen.steps) != [one.counts for one in steps]:
            await self._count(rollout_id, found.step, labels)
        return ""

    async def _decide(self, kept: _Held) -> str:
        """Decide, and do it."""
        why = disturbed(kept.rollout, kept.present)
        if why:
            await self._end(kept, State.CANCELLED, why)
            return State.CANCELLED.value
        steps = await store.steps(kept.tx, kept.rollout)
        seen = await self._look(kept.tx, kept.rollout, steps, await self._labels(kept.tx, kept.rollout, steps))
        await self._keep(kept.tx, kept.rollout, steps, seen)
        wider = kept._replace(rollout=spread(kept.rollout, seen.alive))
        if wider != kept:
            await store.save(kept.tx, wider.rollout)
            wider = wider._replace(present=await self._route(wider, seen.steps[:-1]))
        return await self._do(wider, seen, decide(wider.rollout, seen, self._clock()))

    async def _do(self, kept: _Held, seen: Seen, decision: Decision) -> str:
        """Do what was decided, and return its name."""
        if isinstance(decision, RollBack):
            return (await self._roll_back(kept, decision.signal, decision.reason)).state.value
        if isinstance(decision, Promote):
            return (await self._promote(kept, decision.reason)).state.value
        if isinstance(decision, Advance):
            await self._advance(kept, seen, decision.reason)
            return "advanced"
        if isinstance(decision, Hold):
            changed = held(kept.rollout, decision.reason, self._clock())
            await store.save(kept.tx, changed)
            await self._note(kept.tx, SYSTEM, changed, "hold", decision.reason)
            fact = RolloutHeld(changed.id, changed.deployment, changed.version_id, decision.reason)
            await self._events.publish(kept.tx, fact)
            return changed.state.value
        return ""

    async def _count(self, rollout_id: str, step: int, labels: Found) -> None:
        """Write down what servers have counted and these labels, where nothing follows from it: none are counted anew."""
        async with self._db.begin() as tx:
            rollout = await store.rollout(tx, rollout_id, for_update=True)
            if rollout is not None and not rollout.state.final and rollout.step == step:
                steps = await store.steps(tx, rollout)
                await self._keep(tx, rollout, steps, await self._look(tx, rollout, steps, labels))

    async def _labels(self, tx: Transaction, rollout: Rollout, steps: Sequence[StepRecord]) -> Found:
        """Return what was told of the predictions of these steps, where that says anything."""
        return await self._feedback.labels_in(tx, trials(rollout, steps)) if wanted(rollout) else {}

    async def _look(self, tx: Transaction, rollout: Rollout, steps: Sequence[StepRecord], labels: Found) -> Seen:
        beats, counts = await self._deployments.heard_in(tx, None), [one.counts for one in steps]
        if wanted(rollout):
            counts = with_labels(rollout, counts, labels)
        return look(rollout, counts, beats, self._clock())

    async def _keep(self, tx: Transaction, rollout: Rollout, steps: Sequence[StepRecord], seen: Seen) -> None:
        """Write down what was counted: of this step, and what came late of those that are over."""
        for known, now in zip(steps, seen.steps, strict=True):
            if known.counts != now or known is steps[-1]:
                await store.count(tx, rollout.id, known.step, now.servers)
        shown = {signal: Shown.of(one) for signal, one in judged(rollout, seen.steps).items()}
        await store.draw(tx, rollout.id, Point(self._clock(), rollout.step, shown))

    # ---- the changes

    async def _advance(self, kept: _Held, seen: Seen, reason: str) -> Rollout:
        now = self._clock()
        await self._close(kept, "advanced")
        changed = advanced(kept.rollout, seen.alive or kept.rollout.servers, now)
        if changed.swapped:
            promoted = await self._deployments.promote_in(kept.tx, SYSTEM, changed.deployment, changed.version)
            kept = kept._replace(present=promoted)
        await store.save(kept.tx, changed)
        await store.begin_step(kept.tx, changed.id, StepRecord(changed.step, changed.at.percent, now))
        await self._route(kept._replace(rollout=changed), seen.steps)
        await self._note(kept.tx, kept.actor, changed, "advance", reason)
        await self._tell_of_going_on(kept.tx, kept.rollout, changed)
        return changed

    async def _promote(self, kept: _Held, reason: str) -> Rollout:
        rollout = kept.rollout
        if not rollout.swapped:
            promoted = await self._deployments.promote_in(kept.tx, SYSTEM, rollout.deployment, rollout.version)
            kept = kept._replace(present=promoted)
        changed = await self._end(kept, State.PROMOTED, reason)
        await self._events.publish(kept.tx, RolloutPromoted(changed.id, changed.deployment, changed.version_id))
        return changed

    async def _roll_back(self, kept: _Held, signal: Signal | None, reason: str) -> Rollout:
        rollout, by = kept.rollout, kept.actor.name
        if rollout.swapped:
            back = await self._deployments.promote_in(kept.tx, SYSTEM, rollout.deployment, rollout.from_version)
            kept = kept._replace(present=back)
        changed = await self._end(kept, State.ROLLED_BACK, reason)
        fact = RolloutRolledBack(changed.id, changed.deployment, changed.version_id, signal, reason)
        await self._events.publish(kept.tx, fact)
        said = {"rollout": changed.id, "deployment": changed.deployment, "version": changed.version, "reason": reason}
        kept.tx.after_commit(lambda: _log.warning("rolled_back", **said, signal=signal or "", by=by))
        return changed

    async def _end(self, kept: _Held, state: State, reason: str) -> Rollout:
        """Bring it to an end: the deployment is left without what the rollout had put there, and that of others stays."""
        present, changed = kept.present, ended(kept.rollout, state, reason, self._clock())
        await self._close(kept, state.value)
        trial = None if present.trial is None or present.trial.rollout == changed.id else present.trial
        traffic = without(changed, present.traffic)
        await self._deployments.route_in(kept.tx, kept.actor, present, traffic, trial=trial, reason=reason)
        await store.save(kept.tx, changed)
        await self._note(kept.tx, kept.actor, changed, state.value, reason)
        if state is State.CANCELLED:
            fact = RolloutCancelled(changed.id, changed.deployment, changed.version_id, reason)
            await self._events.publish(kept.tx, fact)
        return changed

    async def _close(self, kept: _Held, decision: str) -> None:
        """Write down how a step ended, and what was known then."""
        numbers = judged(kept.rollout, [one.counts for one in await store.steps(kept.tx, kept.rollout)])
        values = {"ended_at": self._clock(), "decision": decision, "numbers": numbers}
        await store.end_step(kept.tx, kept.rollout.id, kept.rollout.step, **values)

    async def _route(self, kept: _Held, before: Sequence[StepCounts]) -> Deployment:
        """Have the deployment do what the present step asks for, which comes after the steps `before`."""
        rollout, present = kept.rollout, kept.present
        traffic, trial = traffic_of(rollout, present.traffic), trial_of(rollout, before)
        reason = f"rollout {rollout.id}, step {rollout.step + 1} of {len(rollout.plan.steps)}"
        return await self._deployments.route_in(kept.tx, kept.actor, present, traffic, trial=trial, reason=reason)

    async def _turn(
        self, actor: Actor, rollout_id: str, expected: int | None, what: str, how: Callable[[Rollout, datetime], Rollout]
    ) -> Rollout:
        async with self._acting(actor, rollout_id, expected) as kept:
            changed = how(kept.rollout, self._clock())
            if changed != kept.rollout:
                await store.save(kept.tx, changed)
                await self._note(kept.tx, actor, changed, what)
                await self._tell_of_going_on(kept.tx, kept.rollout, changed)
            return changed

    async def _tell_of_going_on(self, tx: Transaction, before: Rollout, after: Rollout) -> None:
        if before.state is State.HELD and after.state is State.RUNNING:
            await self._events.publish(tx, RolloutWentOn(after.id, after.deployment, after.version_id))

    async def _note(self, tx: Transaction, actor: Actor, rollout: Rollout, what: str, reason: str = "") -> None:
        """Write down what happened, in the rollout's own story and in the audit trail."""
        numbers = judged(rollout, [one.counts for one in await store.steps(tx, rollout)])
        await store.note(tx, rollout.id, Happened(self._clock(), what, actor.name, rollout.step, reason, numbers))
        said = {"deployment": rollout.deployment, "version": str(rollout.version), "from": str(rollout.from_version)}
        said |= {"step": str(rollout.step + 1), **({"reason": reason} if reason else {})}
        await self._audit.note(tx, actor, f"rollout.{what}", rollout.id, **said)

    # ---- locks, and who may

    @asynccontextmanager
    async def _acting(self, actor: Actor, rollout_id: str, expected: int | None) -> AsyncIterator[_Held]:
        """Open a transaction in which the actor may change a rollout that is not over."""
        async with self._held(rollout_id, actor) as kept:
            if expected is not None and expected != kept.rollout.revision:
                raise Stale(f"The rollout is at revision {kept.rollout.revision} now: read it again, then repeat the change.")
            why = disturbed(kept.rollout, kept.present)
            if why:
                raise RolloutOver(f"{why} So this rollout is about to be cancelled.")
            yield kept

    @asynccontextmanager
    async def _held(self, rollout_id: str, actor: Actor) -> AsyncIterator[_Held]:
        """Open a transaction that keeps the rows of a rollout which is not over."""
        async with self._db.begin() as tx:
            found = await self._found(tx, actor, rollout_id, Scope.DEPLOYMENTS_WRITE)
            present = await self._deployments.held_in(tx, actor, found.deployment)
            rollout = await store.rollout(tx, rollout_id, for_update=True) or found
            if rollout.state.final:
                raise RolloutOver(f"This rollout is over ({rollout.state.value}): start another one.")
            yield _Held(tx, actor, rollout, present)

    async def _found(self, tx: Transaction, actor: Actor, rollout_id: str, scope: Scope) -> Rollout:
        """Return a rollout with which the actor may do this; to whom may not see its model, there is none."""
        found = await store.rollout(tx, rollout_id)
        if found is None:
            raise RolloutNotFound
        try:
            await self._deployments.seen_in(tx, actor, found.deployment, scope)
        except DeploymentNotFound as error:
            raise RolloutNotFound from error
        return found

    async def _check_free(self, tx: Transaction, present: Deployment, asked: Asked) -> None:
        other = await store.under_way(tx, present.name)
        if other is not None:
            raise RolloutUnderWay(f"The rollout {other} is under way: let it come to its end, or roll it back.")
        if present.traffic.splits or present.trial is not None:
            raise TrafficTaken
        if asked.shadow and present.traffic.shadow is not None:
            raise TrafficTaken("This deployment has a shadow already: take it away first, or begin without one.")

    async def _need_two(self, tx: Transaction, actor: Actor, present: Deployment, wanted: tuple[str, str, object]) -> None:
        """Raise `ApprovalNeeded` where promotions need two people, and only one wants this: an action, its words, on what."""
        action, summary, seen = wanted
        place = (await self._models.places(tx, {present.model_id}))[present.model_id]
        act = Act("promotion", action, present.id, summary, Scope.DEPLOYMENTS_WRITE, place, seen)
        await self._approvals.need(tx, actor, act)


def _early(rollout: Rollout) -> tuple[str, object]:
    """Return what an approval says of a promotion before a rollout's end, and what it is good for."""
    said = f"Promote {rollout.deployment} to version {rollout.version} before its rollout has come to its end."
    return said, (rollout.id, rollout.step, rollout.version_id)
