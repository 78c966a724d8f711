"""All the SQL of identities."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from modelkeep.control.identities.rules import Known
from modelkeep.control.identities.tables import identities
from modelkeep.infra.db import Transaction


async def known(tx: Transaction, provider: str, subject: str) -> Known | None:
    """Return who a provider's subject is here."""
    same = (identities.c.provider == provider) & (identities.c.subject == subject)
    return _known(await tx.one(sa.select(identities).where(same)))


async def of_user(tx: Transaction, provider: str, user_id: str) -> Known | None:
    """Return who a user is at a provider: as whom they came last."""
    theirs = (identities.c.provider == provider) & (identities.c.user_id == user_id)
    return _known(await tx.one(sa.select(identities).where(theirs).order_by(identities.c.used_at.desc()).limit(1)))


async def all_of_user(tx: Transaction, user_id: str) -> list[Known]:
    """Return who a user is at all providers."""
    rows = await tx.all(sa.select(identities).where(identities.c.user_id == user_id))
    return [Known(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


async def add(tx: Transaction, known: Known) -> bool:
    """Note who somebody is; returns False where somebody else has done so meanwhile."""
    new = tx.insert(identities).values(**msgspec.structs.asdict(known))
    return await tx.one(new.on_conflict_do_nothing().returning(identities.c.subject)) is not None


async def take_due(
    tx: Transaction, provider: str, now: datetime, *, asked_before: datetime, used_before: datetime
) -> Known | None:
    """Return somebody of a provider who came before one moment, and of whom it was asked before another: now it is."""
    due = sa.or_(identities.c.asked_at.is_(None), identities.c.asked_at < asked_before)
    theirs = sa.select(identities).where(identities.c.provider == provider, due, identities.c.used_at < used_before)
    found = _known(await tx.one(theirs.order_by(identities.c.asked_at).limit(1).with_for_update(skip_locked=True)))
    if found is not None:
        same = (identities.c.provider == provider) & (identities.c.subject == found.subject)
        await tx.execute(sa.update(identities).where(same).values(asked_at=now))
    return found


async def note_use(tx: Transaction, provider: str, subject: str, now: datetime) -> None:
    """Note that somebody came."""
    same = (identities.c.provider == provider) & (identities.c.subject == subject)
    await tx.execute(sa.update(identities).where(same).values(used_at=now, asked_at=now))


def _known(row: sa.Row[tuple[object, ...]] | None) -> Known | None:
    return None if row is None else Known(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
