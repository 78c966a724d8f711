"""All the SQL of the audit trail."""

import msgspec
import sqlalchemy as sa

from modelkeep.control.audit.rules import Entry
from modelkeep.control.audit.tables import audit_entries
from modelkeep.infra.db import Transaction


async def append(tx: Transaction, entry: Entry) -> None:
    """Add an entry."""
    await tx.execute(sa.insert(audit_entries).values(**msgspec.structs.asdict(entry)))


async def page(tx: Transaction, *, limit: int, before: str | None, target: str | None) -> list[Entry]:
    """Return entries, newest first, older than the entry `before`."""
    newest = sa.select(audit_entries).order_by(audit_entries.c.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(audit_entries.c.id < before)
    if target is not None:
        newest = newest.where(audit_entries.c.target == target)
    return [Entry(**row._mapping) for row in await tx.all(newest)]  # noqa: SLF001 - SQLAlchemy's public name for it
