"""All the SQL of deployments, their revisions, and heartbeats."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from modelkeep.contracts.prediction import Heartbeat
from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.contracts.traffic import Traffic
from modelkeep.control.deployments.revisions import MOST_LOOKED_BACK, Moment, Revision
from modelkeep.control.deployments.rules import Deployment
from modelkeep.control.deployments.tables import deployment_revisions, deployments, heartbeats
from modelkeep.infra.db import Transaction


async def add(tx: Transaction, deployment: Deployment, revision: Revision) -> bool:
    """Add a deployment, and its first revision; False where its name is taken.

    A name that was one of another model's stays that model's: predictions are kept under it, which are not for others to see.
    """
    revisions = deployment_revisions
    others = sa.and_(revisions.c.name == deployment.name, revisions.c.model_id != deployment.model_id)
    if await tx.one(sa.select(revisions.c.revision).where(others).limit(1)) is not None:
        return False
    insert = tx.insert(deployments).values(**msgspec.structs.asdict(deployment)).on_conflict_do_nothing(index_elements=["name"])
    if await tx.one(insert.returning(deployments.c.id)) is None:
        return False
    await _keep(tx, revision)
    return True


async def save(tx: Transaction, deployment: Deployment, revision: Revision) -> None:
    """Write a changed deployment, and the revision that it is."""
    changed = sa.update(deployments).where(deployments.c.id == deployment.id).values(**msgspec.structs.asdict(deployment))
    await tx.execute(changed)
    await _keep(tx, revision)


async def remove(tx: Transaction, deployment: Deployment, revision: Revision) -> None:
    """Delete a deployment; its revisions stay, and this one after them says that it is gone."""
    await tx.execute(sa.delete(deployments).where(deployments.c.id == deployment.id))
    await _keep(tx, revision)


async def revision(tx: Transaction, deployment_id: str, number: int) -> Revision | None:
    """Return one revision of a deployment."""
    row = await tx.one(_of(deployment_id).where(deployment_revisions.c.revision == number))
    return None if row is None else _revision(row)


async def page_of_revisions(tx: Transaction, deployment_id: str, *, limit: int, before: int | None) -> list[Revision]:
    """Return revisions of a deployment, newest first, with numbers below `before`."""
    newest = _of(deployment_id).order_by(deployment_revisions.c.revision.desc()).limit(limit)
    if before is not None:
        newest = newest.where(deployment_revisions.c.revision < before)
    return [_revision(row) for row in await tx.all(newest)]


async def history(tx: Transaction, deployment_id: str) -> list[Revision]:
    """Return as many revisions of a deployment as are looked through for the one to go back to, newest first."""
    return await page_of_revisions(tx, deployment_id, limit=MOST_LOOKED_BACK, before=None)


async def moments(tx: Transaction, model_id: str, at: datetime, name: str | None) -> list[Moment]:
    """Return what each deployment of a model was at a moment, by name; `name` for one alone."""
    table = deployment_revisions
    of_model = sa.and_(table.c.model_id == model_id, table.c.at <= at)
    last = sa.select(table.c.deployment_id, sa.func.max(table.c.revision).label("revision")).where(of_model)
    newest = last.group_by(table.c.deployment_id).subquery()
    there = sa.and_(table.c.deployment_id == newest.c.deployment_id, table.c.revision == newest.c.revision)
    found = sa.select(table).join(newest, there).where(table.c.action != "delete").order_by(table.c.name)
    rows = await tx.all(found if name is None else found.where(table.c.name == name))
    return [Moment(one, await _settings_revision(tx, one)) for one in map(_revision, rows)]


async def _settings_revision(tx: Transaction, of: Revision) -> int:
    """Return the revision that brought the settings which a revision has."""
    table = deployment_revisions
    earlier = sa.and_(table.c.deployment_id == of.deployment_id, table.c.revision < of.revision)
    other = sa.select(sa.func.max(table.c.revision)).where(earlier, table.c.settings != of.settings).scalar_subquery()
    since = sa.select(sa.func.min(table.c.revision).label("first")).where(
        table.c.deployment_id == of.deployment_id, table.c.revision > sa.func.coalesce(other, -1)
    )
    row = await tx.one(since)
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return int(row.first)


async def _keep(tx: Transaction, revision: Revision) -> None:
    await tx.execute(sa.insert(deployment_revisions).values(**msgspec.structs.asdict(revision)))


def _of(deployment_id: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(deployment_revisions).where(deployment_revisions.c.deployment_id == deployment_id)


def _revision(row: sa.Row[tuple[object, ...]]) -> Revision:
    return Revision(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


async def bury(tx: Transaction, model_id: str, name: str) -> None:
    """Leave of the deployments of a model that is no more its own alone, by its tombstone's name: it answers nothing.

    The model's name is free then; those of its other deployments stay in their revisions, and nobody has them again.
    """
    revisions = deployment_revisions
    own = sa.select(deployments.c.name).where(deployments.c.model_id == model_id, deployments.c.name == deployments.c.model)
    named = revisions.c.name == own.scalar_subquery()
    await tx.execute(sa.update(revisions).where(revisions.c.model_id == model_id, named).values(name=name))
    others = sa.and_(deployments.c.model_id == model_id, deployments.c.name != deployments.c.model)
    await tx.execute(sa.delete(deployments).where(others))
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
    return [_heartbeat(row) for row in await tx.all(fresh)]


def _heartbeat(row: sa.Row[tuple[Any, ...]]) -> Heartbeat:
    return Heartbeat(row.server, row.at, row.snapshot, row.serving, row.failing, row.trials, row.cache)


def _deployment(row: sa.Row[tuple[object, ...]]) -> Deployment:
    return Deployment(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
