"""All the SQL of users, keys and setup tokens."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from modelkeep.control.users.rules import Key, SetupToken, User
from modelkeep.control.users.tables import api_keys, setup_tokens, users
from modelkeep.infra.db import Transaction


async def anyone(tx: Transaction) -> bool:
    """Whether there is a user at all."""
    return await tx.one(sa.select(users.c.id).limit(1)) is not None


async def add_user(tx: Transaction, user: User) -> None:
    """Add a user."""
    await tx.execute(sa.insert(users).values(**msgspec.structs.asdict(user)))


async def add_key(tx: Transaction, key: Key) -> None:
    """Add a key."""
    await tx.execute(sa.insert(api_keys).values(**msgspec.structs.asdict(key)))


async def key_by_digest(tx: Transaction, digest: bytes) -> tuple[Key, User] | None:
    """Return the key kept under this digest, revoked or not, and its user."""
    both = sa.select(*api_keys.c, users.c.name.label("user_name"), users.c.created_at.label("user_created_at"))
    row = await tx.one(both.join(users, users.c.id == api_keys.c.user_id).where(api_keys.c.digest == digest))
    return None if row is None else (_key(row), User(row.user_id, row.user_name, row.user_created_at))


async def note_use(tx: Transaction, key_id: str, now: datetime) -> None:
    """Note that a key was used."""
    await tx.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now))


async def page_of_keys(tx: Transaction, *, limit: int, before: str | None) -> list[Key]:
    """Return keys that are not revoked, newest first, older than the key `before`."""
    newest = sa.select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(api_keys.c.id < before)
    return [_key(row) for row in await tx.all(newest)]


async def good_keys(tx: Transaction, now: datetime, *, for_update: bool = False) -> list[Key]:
    """Return all keys that are neither revoked nor expired, in the order of their making."""
    unexpired = sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now)
    good = sa.select(api_keys).where(api_keys.c.revoked_at.is_(None), unexpired).order_by(api_keys.c.id)
    return [_key(row) for row in await tx.all(good.with_for_update() if for_update else good)]


async def key(tx: Transaction, key_id: str) -> Key | None:
    """Return a key, revoked or not."""
    row = await tx.one(sa.select(api_keys).where(api_keys.c.id == key_id))
    return None if row is None else _key(row)


async def revoke_key(tx: Transaction, key_id: str, now: datetime) -> None:
    """Note that a key opens nothing any more."""
    await tx.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=now))


async def replace_setup_token(tx: Transaction, token: SetupToken) -> None:
    """Keep this setup token and forget all that were not used."""
    await tx.execute(sa.delete(setup_tokens).where(setup_tokens.c.used_at.is_(None)))
    await tx.execute(sa.insert(setup_tokens).values(**msgspec.structs.asdict(token)))


async def setup_token_for_update(tx: Transaction, digest: bytes) -> SetupToken | None:
    """Return the setup token kept under this digest; nobody else may use it before this transaction has ended."""
    row = await tx.one(sa.select(setup_tokens).where(setup_tokens.c.digest == digest).with_for_update())
    return None if row is None else SetupToken(row.id, row.digest, row.expires_at, row.used_at)


async def use_setup_token(tx: Transaction, token_id: str, now: datetime) -> None:
    """Note that a setup token has been used."""
    await tx.execute(sa.update(setup_tokens).where(setup_tokens.c.id == token_id).values(used_at=now))


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    return Key(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        digest=row.digest,
        scopes=row.scopes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        rate_per_minute=row.rate_per_minute,
        burst=row.burst,
        rate_class=row.rate_class,
        networks=row.networks,
    )
