"""All the SQL of rollouts."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import sqlalchemy as sa

from modelkeep.control.rollouts.judging import ServerCounts
from modelkeep.control.rollouts.records import Happened, Point, StepRecord
from modelkeep.control.rollouts.rules import OPEN, Rollout, State
from modelkeep.control.rollouts.tables import rollout_events, rollout_points, rollout_steps, rollouts
from modelkeep.infra.db import Transaction

MOST_POINTS: Final = 2000
"""So many moments of a rollout are kept at most; then every other one goes."""


async def add(tx: Transaction, rollout: Rollout) -> None:
    """Add a rollout."""
    await tx.execute(sa.insert(rollouts).values(**_values(rollout)))


async def save(tx: Transaction, rollout: Rollout) -> None:
    """Write a changed rollout."""
    await tx.execute(sa.update(rollouts).where(rollouts.c.id == rollout.id).values(**_values(rollout)))


async def rollout(tx: Transaction, rollout_id: str, *, for_update: bool = False) -> Rollout | None:
    """Return a rollout; `for_update` keeps its row to this transaction."""
    by_id = sa.select(rollouts).where(rollouts.c.id == rollout_id)
    row = await tx.one(by_id.with_for_update() if for_update else by_id)
    return None if row is None else _rollout(row)


async def open_ids(tx: Transaction) -> list[str]:
    """Return the ids of those that are not over."""
    return [row.id for row in await tx.all(sa.select(rollouts.c.id).where(rollouts.c.under_way.is_not(None)))]


async def under_way(tx: Transaction, deployment: str) -> str | None:
    """Return the id of the one that is under way in a deployment."""
    row = await tx.one(sa.select(rollouts.c.id).where(rollouts.c.under_way == deployment))
    return None if row is None else str(row.id)


async def page(
    tx: Transaction, *, limit: int, before: str | None, deployment: str | None, of_models: Iterable[str] | None
) -> list[Rollout]:
    """Return rollouts, newest first, older than `before`: in this deployment, of these models."""
    newest = sa.select(rollouts).order_by(rollouts.c.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(rollouts.c.id < before)
    if deployment is not None:
        newest = newest.where(rollouts.c.deployment == deployment)
    if of_models is not None:
        newest = newest.where(rollouts.c.model_id.in_(list(of_models)))
    return [_rollout(row) for row in await tx.all(newest)]


async def begin_step(tx: Transaction, rollout_id: str, step: StepRecord) -> None:
    """Add a step."""
    values = {column.name: getattr(step, column.name) for column in rollout_steps.c if column.name != "rollout_id"}
    await tx.execute(sa.insert(rollout_steps).values(rollout_id=rollout_id, **values))


async def count(tx: Transaction, rollout_id: str, step: int, servers: Mapping[str, ServerCounts]) -> None:
    """Write down what servers have counted of a step."""
    await tx.execute(_step(rollout_id, step).values(servers=dict(servers)))


async def end_step(tx: Transaction, rollout_id: str, step: int, **values: object) -> None:
    """Write down how a step ended."""
    await tx.execute(_step(rollout_id, step).values(**values))


async def steps(tx: Transaction, of: Rollout) -> list[StepRecord]:
    """Return the steps of a rollout until now, in their order."""
    of_it = sa.select(rollout_steps).where(rollout_steps.c.rollout_id == of.id).order_by(rollout_steps.c.step)
    found = []
    for row in await tx.all(of_it):
        shadow = of.plan.steps[row.step].shadow
        ended = (row.ended_at, row.decision, row.numbers)
        found.append(StepRecord(row.step, row.percent, row.started_at, row.servers, *ended, shadow))
    return found


async def note(tx: Transaction, rollout_id: str, happened: Happened) -> None:
    """Add what happened to a rollout, whose row is kept to `tx`."""
    row = await tx.one(sa.select(sa.func.max(rollout_events.c.seq)).where(rollout_events.c.rollout_id == rollout_id))
    seq = 1 + (row[0] or 0) if row else 1
    await tx.execute(sa.insert(rollout_events).values(rollout_id=rollout_id, seq=seq, **msgspec.structs.asdict(happened)))


async def events(tx: Transaction, rollout_id: str) -> list[Happened]:
    """Return what happened to a rollout, in order."""
    of_it = sa.select(rollout_events).where(rollout_events.c.rollout_id == rollout_id).order_by(rollout_events.c.seq)
    return [Happened(row.at, row.what, row.by, row.step, row.reason, row.numbers) for row in await tx.all(of_it)]


async def draw(tx: Transaction, rollout_id: str, point: Point, *, most: int = MOST_POINTS) -> None:
    """Keep what was known at a moment; where these become too many, let every other one go."""
    of_it = rollout_points.c.rollout_id == rollout_id
    seqs = [row.seq for row in await tx.all(sa.select(rollout_points.c.seq).where(of_it).order_by(rollout_points.c.seq))]
    if len(seqs) >= most:
        await tx.execute(sa.delete(rollout_points).where(of_it, rollout_points.c.seq.in_(seqs[1::2])))
    seq = seqs[-1] + 1 if seqs else 1
    values = {"at": point.at, "step": point.step, "shown": point.shown}
    await tx.execute(sa.insert(rollout_points).values(rollout_id=rollout_id, seq=seq, **values))


async def points(tx: Transaction, rollout_id: str) -> list[Point]:
    """Return the evidence of a rollout as it came."""
    of_it = sa.select(rollout_points).where(rollout_points.c.rollout_id == rollout_id).order_by(rollout_points.c.seq)
    return [Point(row.at, row.step, row.shown) for row in await tx.all(of_it)]


def _step(rollout_id: str, step: int) -> sa.Update:
    return sa.update(rollout_steps).where(rollout_steps.c.rollout_id == rollout_id, rollout_steps.c.step == step)


def _values(rollout: Rollout) -> dict[str, object]:
    return {**msgspec.structs.asdict(rollout), "under_way": rollout.deployment if rollout.state in OPEN else None}


def _rollout(row: sa.Row[tuple[object, ...]]) -> Rollout:
    values = {**row._mapping, "state": State(row.state)}  # noqa: SLF001 - SQLAlchemy's public name for it
    del values["under_way"]
    return Rollout(**values)
