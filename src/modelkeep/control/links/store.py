"""All the SQL of one-time links."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from modelkeep.contracts.access import Role
from modelkeep.control.links.rules import Link, Purpose
from modelkeep.control.links.tables import one_time_links
from modelkeep.infra.db import Transaction


async def add(tx: Transaction, link: Link) -> None:
    """Add a link; one for a password takes the place of the user's others, and one of a sign-on of those that are too old."""
    if link.purpose is Purpose.RESET and link.user_id is not None:
        await forget_resets(tx, link.user_id)
    if link.purpose is Purpose.SIGN_ON:
        old = (one_time_links.c.purpose == Purpose.SIGN_ON) & (one_time_links.c.expires_at <= link.created_at)
        await tx.execute(sa.delete(one_time_links).where(old))
    await tx.execute(sa.insert(one_time_links).values(**msgspec.structs.asdict(link)))


async def forget_resets(tx: Transaction, user_id: str) -> None:
    """Delete the links that a user has not used: those for a password, and of a sign-on."""
    mine = (one_time_links.c.user_id == user_id) & one_time_links.c.used_at.is_(None)
    await tx.execute(sa.delete(one_time_links).where(mine))


async def by_digest(tx: Transaction, digest: bytes, *, for_update: bool = False) -> Link | None:
    """Return the link kept under this digest; with `for_update`, nobody else uses it before this transaction has ended."""
    one = sa.select(one_time_links).where(one_time_links.c.digest == digest)
    row = await tx.one(one.with_for_update() if for_update else one)
    return None if row is None else _link(row)


async def invitations(tx: Transaction, now: datetime) -> list[Link]:
    """Return the invitations that may still be used, newest first."""
    return [
        _link(row) for row in await tx.all(sa.select(one_time_links).where(_open(now)).order_by(one_time_links.c.id.desc()))
    ]


async def invitation_of(tx: Transaction, email: str, now: datetime) -> Link | None:
    """Return the newest invitation of an address that may still be used; nobody else uses it meanwhile."""
    theirs = sa.select(one_time_links).where(_open(now), one_time_links.c.email == email)
    row = await tx.one(theirs.order_by(one_time_links.c.id.desc()).limit(1).with_for_update())
    return None if row is None else _link(row)


async def withdraw(tx: Transaction, link_id: str, now: datetime) -> bool:
    """Delete an invitation that may still be used; returns whether there was one."""
    gone = sa.delete(one_time_links).where(one_time_links.c.id == link_id, _open(now)).returning(one_time_links.c.id)
    return await tx.one(gone) is not None


async def use(tx: Transaction, link_id: str, now: datetime) -> None:
    """Note that a link has been used."""
    await tx.execute(sa.update(one_time_links).where(one_time_links.c.id == link_id).values(used_at=now))


def _open(now: datetime) -> sa.ColumnElement[bool]:
    links = one_time_links.c
    return sa.and_(links.purpose == Purpose.INVITATION, links.used_at.is_(None), links.expires_at > now)


def _link(row: sa.Row[tuple[object, ...]]) -> Link:
    value = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return Link(**value | {"purpose": Purpose(value["purpose"]), "role": Role(value["role"]) if value["role"] else None})
