"""All the SQL of scheduled changes."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from modelkeep.control.schedules.rules import Scheduled, State
from modelkeep.control.schedules.tables import scheduled_changes
from modelkeep.infra.db import Transaction

_AT_ONCE = 20


async def add(tx: Transaction, scheduled: Scheduled) -> None:
    """Add a scheduled change."""
    await tx.execute(sa.insert(scheduled_changes).values(**msgspec.structs.asdict(scheduled)))


async def save(tx: Transaction, scheduled: Scheduled) -> None:
    """Write what became of one."""
    of_one = sa.update(scheduled_changes).where(scheduled_changes.c.id == scheduled.id)
    await tx.execute(of_one.values(**msgspec.structs.asdict(scheduled)))


async def scheduled(tx: Transaction, scheduled_id: str, *, for_update: bool = False) -> Scheduled | None:
    """Return a scheduled change; `for_update` keeps its row to this transaction."""
    by_id = sa.select(scheduled_changes).where(scheduled_changes.c.id == scheduled_id)
    row = await tx.one(by_id.with_for_update() if for_update else by_id)
    return None if row is None else _scheduled(row)


async def page(tx: Transaction, deployment_id: str, *, limit: int, before: str | None) -> list[Scheduled]:
    """Return those of a deployment, the last that was asked for first, with ids below `before`."""
    newest = sa.select(scheduled_changes).where(scheduled_changes.c.deployment_id == deployment_id)
    if before is not None:
        newest = newest.where(scheduled_changes.c.id < before)
    return [_scheduled(row) for row in await tx.all(newest.order_by(scheduled_changes.c.id.desc()).limit(limit))]


async def waiting(tx: Transaction, deployment_id: str) -> int:
    """Return how many wait for a deployment."""
    of_one = (scheduled_changes.c.deployment_id == deployment_id, scheduled_changes.c.state == State.WAITING)
    row = await tx.one(sa.select(sa.func.count()).select_from(scheduled_changes).where(*of_one))
    return 0 if row is None else int(row[0])


async def due(tx: Transaction, now: datetime) -> list[str]:
    """Return the ids of those that are to be made by now, in their order."""
    late = sa.select(scheduled_changes.c.id).where(scheduled_changes.c.state == State.WAITING, scheduled_changes.c.at <= now)
    in_order = late.order_by(scheduled_changes.c.at, scheduled_changes.c.id).limit(_AT_ONCE)
    return [row.id for row in await tx.all(in_order)]


def _scheduled(row: sa.Row[tuple[object, ...]]) -> Scheduled:
    return Scheduled(**{**row._mapping, "state": State(row.state)})  # noqa: SLF001 - SQLAlchemy's public name for it
