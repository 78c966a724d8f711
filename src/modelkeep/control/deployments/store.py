"""All the SQL of deployments and heartbeats."""

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.contracts.traffic import Traffic
from modelkeep.control.deployments.rules import Deployment
from modelkeep.control.deployments.tables import deployments, heartbeats
from modelkeep.infra.db import Transaction


async def add(tx: Transaction, deployment: Deployment) -> None:
    """Add a deployment."""
    await tx.execute(sa.insert(deployments).values(**msgspec.structs.asdict(deployment)))


async def save(tx: Transaction, deployment: Deployment) -> None:
    """Write a changed deployment."""
    await tx.execute(
        sa.update(deployments).where(deployments.c.id == deployment.id).values(**msgspec.structs.asdict(deployment))
    )


async def rename(tx: Transaction, model_id: str, name: str) -> None:
    """Give the deployments of a model that is no more its tombstone's name, and have them answer nothing."""
    nothing = {"version_id": None, "version": None, "previous_version_id": None, "previous_version": None}
    gone = {**nothing, "settings": DeploymentSettings(), "traffic": Traffic(), "trial": None}
    await tx.execute(sa.update(deployments).where(deployments.c.model_id == model_id).values(name=name, model=name, **gone))


async def deployment(tx: Transaction, name: str, *, for_update: bool = False) -> Deployment | None:
    """Return a deployment; `for_update` keeps its row to this transaction."""
    by_name = sa.select(deployments).where(deployments.c.name == name)
    row = await tx.one(by_name.with_for_update() if for_update else by_name)
    return None if row is None else _deployment(row)


async def page(tx: Transaction, *, limit: int, after: str | None, of_models: Iterable[str] | None = None) -> list[Deployment]:
    """Return deployments in the order of their names, from after `after`; `of_models` with these ids alone."""
    by_name = sa.select(deployments).order_by(deployments.c.name).limit(limit)
    if of_models is not None:
        by_name = by_name.where(deployments.c.model_id.in_(list(of_models)))
    if after is not None:
        by_name = by_name.where(deployments.c.name > after)
    return [_deployment(row) for row in await tx.all(by_name)]


async def names(tx: Transaction, of_models: Iterable[str]) -> frozenset[str]:
    """Return the names of the deployments of these models, by their ids."""
    of_these = sa.select(deployments.c.name).where(deployments.c.model_id.in_(list(of_models)))
    return frozenset(row.name for row in await tx.all(of_these))


async def answering(tx: Transaction) -> list[Deployment]:
    """Return all deployments that have a version."""
    return [_deployment(row) for row in await tx.all(sa.select(deployments).where(deployments.c.version_id.is_not(None)))]


async def keep_heartbeat(tx: Transaction, heartbeat: Heartbeat) -> None:
    """Keep what a server said, unless something newer of it is kept."""
    row = msgspec.structs.asdict(heartbeat)
    insert = tx.insert(heartbeats).values(**row)
    await tx.execute(insert.on_conflict_do_update(index_elements=["server"], set_=row, where=heartbeats.c.at < heartbeat.at))


async def forget_heartbeats(tx: Transaction, before: float) -> None:
    """Forget servers that said nothing since then (Unix seconds)."""
    await tx.execute(sa.delete(heartbeats).where(heartbeats.c.at < before))


async def fresh_heartbeats(tx: Transaction, since: float) -> list[Heartbeat]:
    """Return what each server said last, if it was since then (Unix seconds)."""
    fresh = sa.select(heartbeats).where(heartbeats.c.at >= since).order_by(heartbeats.c.server)
    return [Heartbeat(row.server, row.at, row.snapshot, row.serving, row.failing, row.trials) for row in await tx.all(fresh)]


def _deployment(row: sa.Row[tuple[object, ...]]) -> Deployment:
    return Deployment(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
