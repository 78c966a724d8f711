"""All the SQL of sessions, refresh tokens and signing keys."""

from datetime import datetime, timedelta
from typing import Final

import msgspec
import sqlalchemy as sa

from modelkeep.control.sessions.rules import DOUBLE_CLICK, Keyed, RefreshToken, Session
from modelkeep.control.sessions.tables import refresh_tokens, sessions, signing_keys
from modelkeep.infra.db import Transaction

_REMEMBERED: Final = timedelta(days=30)


async def add(tx: Transaction, session: Session) -> None:
    """Add a session, and forget those of the same user that ended long ago."""
    old = sa.select(sessions.c.id).where(
        sessions.c.user_id == session.user_id, sessions.c.expires_at < session.created_at - _REMEMBERED
    )
    await tx.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.session_id.in_(old)))
    await tx.execute(sa.delete(sessions).where(sessions.c.id.in_(old)))
    await tx.execute(sa.insert(sessions).values(**msgspec.structs.asdict(session)))


async def session(tx: Transaction, session_id: str, *, for_update: bool = False) -> Session | None:
    """Return a session; with `for_update`, nobody else changes it before this transaction has ended."""
    one = sa.select(sessions).where(sessions.c.id == session_id)
    row = await tx.one(one.with_for_update() if for_update else one)
    return None if row is None else Session(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


async def going_on(tx: Transaction, user_id: str, now: datetime) -> list[Session]:
    """Return the sessions of a user that have not ended, newest first."""
    good = (sessions.c.user_id == user_id) & sessions.c.ended_at.is_(None) & (sessions.c.expires_at > now)
    rows = await tx.all(sa.select(sessions).where(good).order_by(sessions.c.id.desc()))
    found = [Session(**row._mapping) for row in rows]  # noqa: SLF001 - as above
    return [one for one in found if one.good(now)]


async def note_use(tx: Transaction, session_id: str, now: datetime) -> None:
    """Note that a session goes on."""
    await tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(used_at=now))


async def end(tx: Transaction, session_id: str, now: datetime) -> None:
    """End a session."""
    await tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(ended_at=now))


async def end_all(tx: Transaction, user_id: str, now: datetime, *, kept: str = "") -> bool:
    """End the sessions of a user, except `kept`; returns whether there was one."""
    going = (sessions.c.user_id == user_id) & sessions.c.ended_at.is_(None) & (sessions.c.id != kept)
    return (await tx.execute(sa.update(sessions).where(going).values(ended_at=now))).rowcount > 0


async def ended_since(tx: Transaction, since: datetime) -> list[str]:
    """Return the ids of the sessions that ended after that."""
    return [row.id for row in await tx.all(sa.select(sessions.c.id).where(sessions.c.ended_at > since))]


async def add_token(tx: Transaction, token: RefreshToken, now: datetime) -> None:
    """Add a refresh token, and forget those of its session that have expired."""
    old = (refresh_tokens.c.session_id == token.session_id) & (refresh_tokens.c.expires_at < now)
    await tx.execute(sa.delete(refresh_tokens).where(old))
    await tx.execute(sa.insert(refresh_tokens).values(**msgspec.structs.asdict(token)))


async def session_of_token(tx: Transaction, digest: bytes) -> str | None:
    """Return the id of the session that a refresh token is of."""
    row = await tx.one(sa.select(refresh_tokens.c.session_id).where(refresh_tokens.c.digest == digest))
    return None if row is None else str(row.session_id)


async def token(tx: Transaction, digest: bytes) -> RefreshToken | None:
    """Return the refresh token kept under this digest."""
    row = await tx.one(sa.select(refresh_tokens).where(refresh_tokens.c.digest == digest))
    return None if row is None else RefreshToken(**row._mapping)  # noqa: SLF001 - as above


async def rotate(tx: Transaction, token: RefreshToken, now: datetime, answer: bytes) -> None:
    """Note that a refresh token was used, and what it got; what others got longer ago is needed no more."""
    before = (refresh_tokens.c.session_id == token.session_id) & (refresh_tokens.c.rotated_at <= now - DOUBLE_CLICK)
    await tx.execute(sa.update(refresh_tokens).where(before).values(answer=None))
    used = sa.update(refresh_tokens).where(refresh_tokens.c.digest == token.digest)
    await tx.execute(used.values(rotated_at=now, answer=answer))


async def keys(tx: Transaction, *, for_update: bool = False) -> list[Keyed]:
    """Return the signing keys, in the order of their making."""
    all_keys = sa.select(signing_keys).order_by(signing_keys.c.number)
    rows = await tx.all(all_keys.with_for_update() if for_update else all_keys)
    return [Keyed(**row._mapping) for row in rows]  # noqa: SLF001 - as above


async def add_key(tx: Transaction, key: Keyed) -> None:
    """Add a signing key, unless somebody else has added one of this number."""
    await tx.execute(tx.insert(signing_keys).values(**msgspec.structs.asdict(key)).on_conflict_do_nothing())


async def limit_key(tx: Transaction, number: int, good_until: datetime) -> None:
    """Say when what a key has signed counts no more."""
    await tx.execute(sa.update(signing_keys).where(signing_keys.c.number == number).values(good_until=good_until))


async def reseal_key(tx: Transaction, number: int, sealed: bytes) -> None:
    """Keep a signing key as it is sealed now."""
    await tx.execute(sa.update(signing_keys).where(signing_keys.c.number == number).values(sealed=sealed))


async def remove_key(tx: Transaction, number: int) -> None:
    """Forget a signing key."""
    await tx.execute(sa.delete(signing_keys).where(signing_keys.c.number == number))
