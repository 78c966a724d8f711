"""All the SQL of switches."""

import msgspec
import sqlalchemy as sa

from modelkeep.control.safety.rules import Safety, Switch
from modelkeep.control.safety.tables import safety_switches
from modelkeep.infra.db import Transaction


async def load(tx: Transaction) -> Safety:
    """Return all switches."""
    rows = await tx.all(sa.select(safety_switches))
    return Safety(**{row.name: Switch(**row._mapping) for row in rows})  # noqa: SLF001 - SQLAlchemy's public name for it


async def save(tx: Transaction, switch: Switch) -> None:
    """Keep a switch in place of what it was."""
    await tx.execute(sa.delete(safety_switches).where(safety_switches.c.name == switch.name))
    await tx.execute(sa.insert(safety_switches).values(**msgspec.structs.asdict(switch)))
