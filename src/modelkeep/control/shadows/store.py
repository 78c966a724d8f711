"""All the SQL of what was seen of shadows."""

from collections.abc import Collection

import sqlalchemy as sa

from modelkeep.contracts.shadow import ShadowSeen
from modelkeep.control.shadows.rules import Facts, without
from modelkeep.control.shadows.tables import shadow_reports
from modelkeep.infra.db import Transaction

_OF = (shadow_reports.c.primary_id, shadow_reports.c.version_id)
_SUMMED = ("asked", "requests", "requests_differ", "rows", "differ")


async def keep(tx: Transaction, seen: ShadowSeen) -> None:
    """Keep a report, unless something newer of the same is kept; it shows nothing that was forgotten of it."""
    row = await tx.one(sa.select(shadow_reports.c.forgotten).where(shadow_reports.c.id == seen.id).with_for_update())
    shown = seen if row is None else without(seen, row.forgotten)
    compared = seen.compared
    values = {
        "id": seen.id,
        "deployment": seen.deployment,
        "primary_id": seen.primary_id,
        "version_id": seen.version_id,
        "since": seen.since,
        "at": seen.at,
        "asked": seen.asked,
        **{name: getattr(compared, name) for name in _SUMMED if name != "asked"},
        "report": shown,
    }
    insert = tx.insert(shadow_reports).values(**values, forgotten=[])
    newer = shadow_reports.c.at < seen.at
    await tx.execute(insert.on_conflict_do_update(index_elements=["id"], set_=values, where=newer))


async def facts(tx: Transaction, deployment: str, limit: int) -> list[Facts]:
    """Return what was seen of each shadow of a deployment in a few numbers, the one that was told of last first."""
    summed = [sa.func.sum(shadow_reports.c[name]).label(name) for name in _SUMMED]
    since, at = sa.func.min(shadow_reports.c.since).label("since"), sa.func.max(shadow_reports.c.at).label("at")
    found = sa.select(*_OF, since, at, *summed).where(shadow_reports.c.deployment == deployment).group_by(*_OF)
    rows = await tx.all(found.order_by(at.desc(), *_OF).limit(limit))
    return [_facts(row) for row in rows]


async def reports(tx: Transaction, deployment: str, of: Facts) -> list[ShadowSeen]:
    """Return what each server process has seen of one shadow."""
    found = sa.select(shadow_reports.c.report).where(
        shadow_reports.c.deployment == deployment,
        shadow_reports.c.primary_id == of.primary_id,
        shadow_reports.c.version_id == of.version_id,
    )
    return [row.report for row in await tx.all(found.order_by(shadow_reports.c.at))]


async def showing(tx: Transaction, *, after: str, limit: int) -> dict[str, ShadowSeen]:
    """Return reports in the order of their ids, from after `after`."""
    found = sa.select(shadow_reports.c.id, shadow_reports.c.report).where(shadow_reports.c.id > after)
    return {row.id: row.report for row in await tx.all(found.order_by(shadow_reports.c.id).limit(limit))}


async def forget_shown(tx: Transaction, report_id: str, gone: Collection[str]) -> int:
    """Have a report show nothing of these predictions, now and when it is told again; returns how many rows went."""
    row = await tx.one(
        sa.select(shadow_reports.c.report, shadow_reports.c.forgotten).where(shadow_reports.c.id == report_id).with_for_update()
    )
    if row is None:
        return 0
    left = without(row.report, gone)
    forgotten = sorted({*row.forgotten, *gone})
    changed = sa.update(shadow_reports).where(shadow_reports.c.id == report_id)
    await tx.execute(changed.values(report=left, forgotten=forgotten))
    return len(row.report.compared.worst) - len(left.compared.worst)


async def forget(tx: Transaction, before: float) -> None:
    """Forget what was not told of since then (Unix seconds)."""
    await tx.execute(sa.delete(shadow_reports).where(shadow_reports.c.at < before))


def _facts(row: sa.Row[tuple[object, ...]]) -> Facts:
    summed = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    asked, requests, requests_differ, rows, differ = (int(summed[name]) for name in _SUMMED)
    return Facts(row.primary_id, row.version_id, row.since, row.at, asked, requests, requests_differ, rows, differ)
