"""What alerts do when something happens below them, in the same transaction."""

from modelkeep.control.alerts.releases import HELD, ROLLED_BACK, held, rolled_back
from modelkeep.control.alerts.service import Alerts
from modelkeep.control.deployments.events import DeploymentDeleted
from modelkeep.control.models.events import ModelPurged
from modelkeep.control.rollouts.events import (
    RolloutCancelled,
    RolloutHeld,
    RolloutPromoted,
    RolloutRolledBack,
    RolloutWentOn,
)
from modelkeep.control.rollouts.service import Rollouts
from modelkeep.infra.db import Transaction
from modelkeep.infra.events import Events


def subscribe(events: Events, alerts: Alerts, rollouts: Rollouts) -> None:
    """Have alerts hear of rollouts, and of what they are about going away."""

    async def on_rolled_back(tx: Transaction, event: RolloutRolledBack) -> None:
        await alerts.settle_in(tx, "The rollout was taken back.", kinds=(HELD,), deployment=event.deployment)
        if event.signal is not None:
            story = await rollouts.story_in(tx, event.rollout)
            await alerts.raise_in(tx, rolled_back(story, event.signal, event.reason))

    async def on_held(tx: Transaction, event: RolloutHeld) -> None:
        await alerts.raise_in(tx, held(await rollouts.story_in(tx, event.rollout)))

    async def on_went_on(tx: Transaction, event: RolloutWentOn) -> None:
        await alerts.settle_in(tx, "The rollout goes on.", kinds=(HELD,), deployment=event.deployment)

    async def on_cancelled(tx: Transaction, event: RolloutCancelled) -> None:
        await alerts.settle_in(tx, "The rollout was cancelled.", kinds=(HELD,), deployment=event.deployment)

    async def on_promoted(tx: Transaction, event: RolloutPromoted) -> None:
        why = f"The rollout {event.rollout} has ended with a promotion."
        await alerts.settle_in(tx, why, kinds=(HELD, ROLLED_BACK), deployment=event.deployment)

    async def on_deleted(tx: Transaction, event: DeploymentDeleted) -> None:
        await alerts.settle_in(tx, "The deployment was deleted.", deployment=event.deployment)

    async def on_purged(tx: Transaction, event: ModelPurged) -> None:
        await alerts.settle_in(tx, "The model was purged.", model_id=event.model_id)

    events.subscribe(RolloutRolledBack, on_rolled_back)
    events.subscribe(RolloutHeld, on_held)
    events.subscribe(RolloutWentOn, on_went_on)
    events.subscribe(RolloutCancelled, on_cancelled)
    events.subscribe(RolloutPromoted, on_promoted)
    events.subscribe(DeploymentDeleted, on_deleted)
    events.subscribe(ModelPurged, on_purged)
