"""All the SQL of approvals."""

from datetime import datetime

import sqlalchemy as sa

from modelkeep.contracts.access import Scope, Standing, reach
from modelkeep.control.approvals.rules import OPEN, Approval, State
from modelkeep.control.approvals.tables import approvals
from modelkeep.infra.db import Transaction
from modelkeep.infra.reach import within


async def add(tx: Transaction, approval: Approval) -> str:
    """Add an approval, and return its id: that of the one for the same request where one is open."""
    mine = approvals.c.request == approval.request
    await tx.execute(sa.update(approvals).where(mine, approvals.c.until <= approval.asked_at).values(request=None))
    insert = tx.insert(approvals).values(**_values(approval))
    kept = insert.on_conflict_do_update(index_elements=["request"], set_={"request": approval.request})  # so that it returns
    row = await tx.one(kept.returning(approvals.c.id))
    assert row is not None  # noqa: S101 - it was there, or has been added
    return str(row.id)


async def of_request(tx: Transaction, asked_by: str, digest: str) -> Approval | None:
    """Return the approval of this request that was last open, keeping its row to `tx`."""
    row = await tx.one(sa.select(approvals).where(approvals.c.request == f"{asked_by} {digest}").with_for_update())
    return None if row is None else _approval(row)


async def approval(tx: Transaction, approval_id: str, *, for_update: bool = False) -> Approval | None:
    """Return an approval; `for_update` keeps its row to `tx`."""
    by_id = sa.select(approvals).where(approvals.c.id == approval_id)
    row = await tx.one(by_id.with_for_update() if for_update else by_id)
    return None if row is None else _approval(row)


async def save(tx: Transaction, changed: Approval) -> None:
    """Write a changed approval."""
    await tx.execute(sa.update(approvals).where(approvals.c.id == changed.id).values(**_values(changed)))


async def page(
    tx: Transaction, standing: Standing, now: datetime, *, limit: int, before: str | None, state: State | None
) -> list[Approval]:
    """Return approvals of acts that this caller may do themselves, newest first, older than `before`; in one state alone."""
    may = [
        sa.and_(
            approvals.c.scope == scope.value,
            within(reach(standing, (scope,)), approvals.c.workspace, approvals.c.model, approvals.c.owner),
        )
        for scope in Scope
    ]
    newest = sa.select(approvals).where(sa.or_(*may)).order_by(approvals.c.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(approvals.c.id < before)
    if state in OPEN:
        newest = newest.where(approvals.c.state == state, approvals.c.until > now)
    elif state is State.EXPIRED:
        newest = newest.where(approvals.c.state.in_(OPEN), approvals.c.until <= now)
    elif state is not None:
        newest = newest.where(approvals.c.state == state)
    return [_approval(row) for row in await tx.all(newest)]


def _values(approval: Approval) -> dict[str, object]:
    return {
        **{name: getattr(approval, name) for name in approval.__struct_fields__},
        "request": approval.request if approval.state in OPEN else None,
    }


def _approval(row: sa.Row[tuple[object, ...]]) -> Approval:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    del values["request"]
    return Approval(**{**values, "scope": Scope(row.scope), "state": State(row.state)})
