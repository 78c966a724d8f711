"""All the SQL of users, keys and setup tokens."""

from collections.abc import Iterable
from datetime import datetime

import msgspec
import sqlalchemy as sa

from modelkeep.control.users.rules import Key, Kind, SetupToken, Status, User
from modelkeep.control.users.tables import api_keys, certificate_names, setup_tokens, users
from modelkeep.infra.db import Transaction

_SHOWN = tuple(column for column in users.c if column.name != "password_hash")
_WITH_USER = sa.select(*api_keys.c, *(column.label(f"of_{column.name}") for column in _SHOWN)).join(
    users, users.c.id == api_keys.c.user_id
)


async def anyone(tx: Transaction) -> bool:
    """Whether there is a user at all."""
    return await tx.one(sa.select(users.c.id).limit(1)) is not None


async def add_user(tx: Transaction, user: User, password_hash: str | None = None) -> bool:
    """Add a user; returns whether that was possible: name and e-mail are one user's alone."""
    new = tx.insert(users).values(**msgspec.structs.asdict(user), password_hash=password_hash)
    return await tx.one(new.on_conflict_do_nothing().returning(users.c.id)) is not None


async def user(tx: Transaction, user_id: str, *, for_update: bool = False) -> User | None:
    """Return a user."""
    one = sa.select(*_SHOWN).where(users.c.id == user_id)
    row = await tx.one(one.with_for_update() if for_update else one)
    return None if row is None else _user(row)


async def user_named(tx: Transaction, name: str) -> User | None:
    """Return the user of this name."""
    row = await tx.one(sa.select(*_SHOWN).where(users.c.name == name))
    return None if row is None else _user(row)


async def page_of_users(tx: Transaction, *, limit: int, before: str | None) -> list[User]:
    """Return users, newest first, older than the user `before`."""
    newest = sa.select(*_SHOWN).order_by(users.c.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(users.c.id < before)
    return [_user(row) for row in await tx.all(newest)]


async def who_can_log_in(tx: Transaction, user_ids: Iterable[str]) -> set[str]:
    """Return those of these users who may come in with a password."""
    able = (users.c.status == Status.ACTIVE) & users.c.password_hash.is_not(None)
    return {row.id for row in await tx.all(sa.select(users.c.id).where(able, users.c.id.in_(list(user_ids))))}


async def password_of_email(tx: Transaction, email: str) -> tuple[User, str | None] | None:
    """Return the user with this address, and what is kept of their password."""
    row = await tx.one(sa.select(*_SHOWN, users.c.password_hash).where(users.c.email == email))
    return None if row is None else (_user(row), row.password_hash)


async def password_of(tx: Transaction, user_id: str) -> str | None:
    """Return what is kept of a user's password."""
    row = await tx.one(sa.select(users.c.password_hash).where(users.c.id == user_id))
    return None if row is None else row.password_hash


async def change_user(tx: Transaction, user_id: str, **values: str | bool | None) -> None:
    """Change these columns of a user."""
    await tx.execute(sa.update(users).where(users.c.id == user_id).values(**values))


async def take_name(tx: Transaction, user_id: str, name: str) -> bool:
    """Give a user another name, unless it is somebody's; returns whether that was possible."""
    others = sa.select(users.c.id).where(users.c.name == name, users.c.id != user_id)
    free = (users.c.id == user_id) & ~others.exists()
    return (await tx.execute(sa.update(users).where(free).values(name=name))).rowcount > 0


async def replace_hash(tx: Transaction, user_id: str, old: str, new: str) -> None:
    """Keep the same password in another way, unless it has been changed meanwhile."""
    same = (users.c.id == user_id) & (users.c.password_hash == old)
    await tx.execute(sa.update(users).where(same).values(password_hash=new))


async def add_key(tx: Transaction, key: Key) -> None:
    """Add a key."""
    await tx.execute(sa.insert(api_keys).values(**msgspec.structs.asdict(key)))


async def key_by_digest(tx: Transaction, digest: bytes) -> tuple[Key, User] | None:
    """Return the key of which this is the digest of a secret, good or not, and its user."""
    row = await tx.one(_WITH_USER.where(sa.or_(api_keys.c.digest == digest, api_keys.c.previous_digest == digest)))
    return None if row is None else (_key(row), _user_of_key(row))


async def keys_by_certificate(tx: Transaction, names: Iterable[str]) -> list[tuple[Key, User]]:
    """Return the keys, good or not, that a certificate with these names stands for, and whose they are."""
    ids = sa.select(certificate_names.c.key_id).where(certificate_names.c.name.in_(list(names)))
    return [(_key(row), _user_of_key(row)) for row in await tx.all(_WITH_USER.where(api_keys.c.id.in_(ids)))]


async def claim_certificate(tx: Transaction, key: Key, now: datetime) -> bool:
    """Have the names of its certificate, and no others, stand for a key; returns whether that was possible.

    Each stands for one key; those of keys that open nothing any more are free.
    """
    names = key.certificate.names if key.certificate is not None and key.certificate.stands_for else ()
    await tx.execute(sa.delete(certificate_names).where(certificate_names.c.key_id == key.id))
    if not names:
        return True
    ended = sa.select(api_keys.c.id).where(sa.or_(api_keys.c.revoked_at.is_not(None), api_keys.c.expires_at <= now))
    freed = certificate_names.c.name.in_(names) & certificate_names.c.key_id.in_(ended)
    await tx.execute(sa.delete(certificate_names).where(freed))
    new = tx.insert(certificate_names).values([{"name": name, "key_id": key.id} for name in names])
    return len(await tx.all(new.on_conflict_do_nothing().returning(certificate_names.c.name))) == len(names)


async def note_use(tx: Transaction, digest: bytes, now: datetime) -> None:
    """Note that a secret was used: that of a key, or the one that it had before."""
    await tx.execute(sa.update(api_keys).where(api_keys.c.digest == digest).values(last_used_at=now))
    await tx.execute(sa.update(api_keys).where(api_keys.c.previous_digest == digest).values(previous_used_at=now))


async def change_key(tx: Transaction, key: Key) -> None:
    """Keep what a key is now."""
    values = msgspec.structs.asdict(key)
    await tx.execute(sa.update(api_keys).where(api_keys.c.id == values.pop("id")).values(**values))


async def page_of_keys(tx: Transaction, *, limit: int, before: str | None, of: str | None) -> list[Key]:
    """Return keys that are not revoked, newest first, older than the key `before`; those `of` one user, None for all."""
    newest = sa.select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(api_keys.c.id < before)
    if of is not None:
        newest = newest.where(api_keys.c.user_id == of)
    return [_key(row) for row in await tx.all(newest)]


async def good_keys(tx: Transaction, now: datetime, *, for_update: bool = False) -> list[tuple[Key, User]]:
    """Return all keys that are neither revoked nor expired nor a disabled user's, in the order of their making."""
    unexpired = sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now)
    good = _WITH_USER.where(api_keys.c.revoked_at.is_(None), unexpired, users.c.status == Status.ACTIVE).order_by(api_keys.c.id)
    rows = await tx.all(good.with_for_update(of=api_keys) if for_update else good)
    return [(_key(row), _user_of_key(row)) for row in rows]


async def key(tx: Transaction, key_id: str, *, for_update: bool = False) -> Key | None:
    """Return a key, revoked or not."""
    one = sa.select(api_keys).where(api_keys.c.id == key_id)
    row = await tx.one(one.with_for_update() if for_update else one)
    return None if row is None else _key(row)


async def key_ids_of(tx: Transaction, user_id: str) -> list[str]:
    """Return the ids of all keys that a user ever had."""
    return [row.id for row in await tx.all(sa.select(api_keys.c.id).where(api_keys.c.user_id == user_id))]


async def active_people(tx: Transaction) -> dict[str, str]:
    """Return the names of the people who may come in, by their ids."""
    active = sa.select(users.c.id, users.c.name).where(users.c.status == Status.ACTIVE, users.c.kind == Kind.PERSON)
    return {row.id: row.name for row in await tx.all(active)}


async def everybody(tx: Transaction) -> list[str]:
    """Return the ids of all users, and of all keys that there ever were."""
    return [row.id for row in await tx.all(sa.select(users.c.id).union_all(sa.select(api_keys.c.id)))]


async def revoke_key(tx: Transaction, key_id: str, now: datetime) -> None:
    """Note that a key opens nothing any more."""
    await tx.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=now))


async def revoke_keys_of(tx: Transaction, user_id: str, now: datetime) -> None:
    """Note that a user's keys open nothing any more."""
    good = (api_keys.c.user_id == user_id) & api_keys.c.revoked_at.is_(None)
    await tx.execute(sa.update(api_keys).where(good).values(revoked_at=now))


async def good_keys_of(tx: Transaction, user_id: str, now: datetime) -> list[Key]:
    """Return the keys of a user that are neither revoked nor expired."""
    unexpired = sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now)
    good = sa.select(api_keys).where(api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None), unexpired)
    return [_key(row) for row in await tx.all(good)]


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
        models=row.models,
        rotated_at=row.rotated_at,
        previous_digest=row.previous_digest,
        previous_until=row.previous_until,
        previous_used_at=row.previous_used_at,
        rate_class=row.rate_class,
        networks=row.networks,
        concurrency=row.concurrency,
        certificate=row.certificate,
    )


def _user(row: sa.Row[tuple[object, ...]], prefix: str = "") -> User:
    value = {column.name: getattr(row, prefix + column.name) for column in _SHOWN}
    return User(**value | {"status": Status(value["status"]), "kind": Kind(value["kind"])})


def _user_of_key(row: sa.Row[tuple[object, ...]]) -> User:
    return _user(row, "of_")
