"""What deployments do when something happens below them, in the same transaction."""

from modelkeep.contracts.actor import SYSTEM
from modelkeep.control.access.events import AccessChanged
from modelkeep.control.deployments import store
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.models.events import (
    AliasMoved,
    DeprecationChanged,
    ModelArchiveChanged,
    ModelCreated,
    ModelMoved,
    ModelPurged,
    VersionBecameReady,
)
from modelkeep.control.models.lifecycle import Lifecycle
from modelkeep.control.safety.events import SandboxAccepted
from modelkeep.control.sessions.events import TrustChanged
from modelkeep.control.users.events import KeysChanged, UserAdded
from modelkeep.infra.db import Transaction
from modelkeep.infra.events import Events


def subscribe(events: Events, deployments: Deployments, lifecycle: Lifecycle) -> None:
    """Have deployments hear of models, versions, keys and switches, and be asked before a version is put away."""
    lifecycle.referrers.append(referring)

    async def on_model_created(tx: Transaction, event: ModelCreated) -> None:
        await deployments.create_in(tx, SYSTEM, event.model_id, event.name)

    async def on_version_ready(tx: Transaction, event: VersionBecameReady) -> None:
        if not event.archived:
            await deployments.promote_in(tx, SYSTEM, event.model, event.number, only_first=True)

    async def on_model_purged(tx: Transaction, event: ModelPurged) -> None:
        await store.bury(tx, event.model_id, event.name)
        deployments.publish_in(tx)

    async def on_news(
        tx: Transaction,
        event: AccessChanged
        | AliasMoved
        | DeprecationChanged
        | KeysChanged
        | ModelArchiveChanged
        | ModelMoved
        | SandboxAccepted
        | TrustChanged
        | UserAdded,
    ) -> None:
        del event
        deployments.publish_in(tx)

    events.subscribe(ModelCreated, on_model_created)
    events.subscribe(VersionBecameReady, on_version_ready)
    events.subscribe(AccessChanged, on_news)
    events.subscribe(AliasMoved, on_news)
    events.subscribe(DeprecationChanged, on_news)
    events.subscribe(ModelPurged, on_model_purged)
    events.subscribe(ModelMoved, on_news)
    events.subscribe(ModelArchiveChanged, on_news)
    events.subscribe(KeysChanged, on_news)
    events.subscribe(SandboxAccepted, on_news)
    events.subscribe(TrustChanged, on_news)
    events.subscribe(UserAdded, on_news)


async def referring(tx: Transaction, version_id: str) -> list[str]:
    """Return the deployments that answer with a version, or ask it beside another, in words."""
    found = []
    for one in await store.answering(tx):
        if one.version_id == version_id:
            found.append(f"{one.name} answers with it")
        elif version_id in one.traffic.version_ids:
            found.append(f"the traffic of {one.name} goes to it, too")
    return found
