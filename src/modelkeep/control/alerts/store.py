"""All the SQL of alerts."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from modelkeep.control.alerts.rules import Alert, Severity, State, Wanted
from modelkeep.control.alerts.tables import alerts
from modelkeep.infra.db import Transaction

_BESIDE: Final = ("kind", "deployment", "model")
"""Labels that have a column, to be found by."""


async def add(tx: Transaction, alert: Alert) -> bool:
    """Add an alert; whether it was added, for one of the same fingerprint may stand already."""
    insert = tx.insert(alerts).values(**_values(alert)).on_conflict_do_nothing(index_elements=["standing"])
    return await tx.one(insert.returning(alerts.c.id)) is not None


async def save(tx: Transaction, alert: Alert) -> None:
    """Write a changed alert."""
    await tx.execute(sa.update(alerts).where(alerts.c.id == alert.id).values(**_values(alert)))


async def alert(tx: Transaction, alert_id: str, *, for_update: bool = False) -> Alert | None:
    """Return an alert; `for_update` keeps its row to this transaction."""
    by_id = sa.select(alerts).where(alerts.c.id == alert_id)
    row = await tx.one(by_id.with_for_update() if for_update else by_id)
    return None if row is None else _alert(row)


async def standing(tx: Transaction, fingerprint: str) -> Alert | None:
    """Return the one of this fingerprint that is not resolved, keeping its row to this transaction."""
    row = await tx.one(sa.select(alerts).where(alerts.c.standing == fingerprint).with_for_update())
    return None if row is None else _alert(row)


async def standing_of(
    tx: Transaction, *, kinds: Iterable[str] | None = None, deployment: str | None = None, model_id: str | None = None
) -> list[Alert]:
    """Return those that are not resolved, of these kinds, a deployment or a model, keeping their rows to this transaction."""
    found = sa.select(alerts).where(alerts.c.standing.is_not(None)).order_by(alerts.c.id)
    if kinds is not None:
        found = found.where(alerts.c.kind.in_(list(kinds)))
    if deployment is not None:
        found = found.where(alerts.c.deployment == deployment)
    if model_id is not None:
        found = found.where(alerts.c.model_id == model_id)
    return [_alert(row) for row in await tx.all(found.with_for_update())]


async def page(
    tx: Transaction, wanted: Wanted, now: datetime, *, limit: int, before: str | None, of_models: Iterable[str] | None
) -> list[Alert]:
    """Return alerts as they stand now, the last that was opened first, with ids below `before`, of these models."""
    newest = sa.select(alerts).order_by(alerts.c.id.desc()).limit(limit)
    for name in ("severity", "deployment", "model"):
        value = getattr(wanted, name)
        newest = newest if value is None else newest.where(alerts.c[name] == value)
    if wanted.state is not None:
        newest = newest.where(_stands(wanted.state, now))
    if before is not None:
        newest = newest.where(alerts.c.id < before)
    if of_models is not None:
        newest = newest.where(alerts.c.model_id.in_(list(of_models)))
    return [_alert(row) for row in await tx.all(newest)]


async def firing(tx: Transaction, now: datetime) -> dict[str, int]:
    """Return how many fire, by severity."""
    number = sa.func.count().label("number")
    counted = sa.select(alerts.c.severity, number).where(_stands(State.FIRING, now)).group_by(alerts.c.severity)
    return {row.severity: int(row.number) for row in await tx.all(counted)}


async def forget(tx: Transaction, before: datetime) -> None:
    """Forget those that were resolved before this moment."""
    await tx.execute(sa.delete(alerts).where(alerts.c.resolved_at < before))


def _stands(state: State, now: datetime) -> sa.ColumnElement[bool]:
    """Return what is so of the rows of alerts that stand so, as `Alert.state` says of values."""
    until = alerts.c.acknowledged_until
    if state is State.RESOLVED:
        return alerts.c.resolved_at.is_not(None)
    looked_at = until > now if state is State.ACKNOWLEDGED else sa.or_(until.is_(None), until <= now)
    return sa.and_(alerts.c.resolved_at.is_(None), looked_at)


def _values(alert: Alert) -> dict[str, object]:
    beside = {name: alert.labels[name] for name in _BESIDE}
    standing = alert.fingerprint if alert.resolved_at is None else None
    return {**msgspec.structs.asdict(alert), **beside, "standing": standing}


def _alert(row: sa.Row[Any]) -> Alert:
    values = {**row._mapping, "severity": Severity(row.severity)}  # noqa: SLF001 - SQLAlchemy's public name for it
    for name in (*_BESIDE, "standing"):
        del values[name]
    return Alert(**values)
