"""What deployments do when something happens below them, in the same transaction."""

from modelkeep.contracts.actor import SYSTEM
from modelkeep.control.access.events import AccessChanged
from modelkeep.control.deployments.service import Deployments
from modelkeep.control.models.events import (
    AliasMoved,
    ModelArchiveChanged,
    ModelCreated,
    ModelMoved,
    VersionBecameReady,
    VersionGivenUp,
)
from modelkeep.control.safety.events import SandboxAccepted
from modelkeep.control.sessions.events import TrustChanged
from modelkeep.control.users.events import KeysChanged, UserAdded
from modelkeep.infra.db import Transaction
from modelkeep.infra.events import Events


def subscribe(events: Events, deployments: Deployments) -> None:
    """Have deployments hear of models, versions, keys and switches."""

    async def on_model_created(tx: Transaction, event: ModelCreated) -> None:
        await deployments.create_in(tx, SYSTEM, event.model_id, event.name)

    async def on_version_ready(tx: Transaction, event: VersionBecameReady) -> None:
        if not event.archived:
            await deployments.promote_in(tx, SYSTEM, event.model, event.number, only_first=True)

    async def on_version_given_up(tx: Transaction, event: VersionGivenUp) -> None:
        await deployments.release_in(tx, event.model_id, event.version_id)

    async def on_news(
        tx: Transaction,
        event: AccessChanged
        | AliasMoved
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
    events.subscribe(VersionGivenUp, on_version_given_up)
    events.subscribe(AccessChanged, on_news)
    events.subscribe(AliasMoved, on_news)
    events.subscribe(ModelMoved, on_news)
    events.subscribe(ModelArchiveChanged, on_news)
    events.subscribe(KeysChanged, on_news)
    events.subscribe(SandboxAccepted, on_news)
    events.subscribe(TrustChanged, on_news)
    events.subscribe(UserAdded, on_news)
