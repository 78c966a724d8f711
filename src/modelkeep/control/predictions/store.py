"""All the SQL of the prediction history."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

import sqlalchemy as sa

from modelkeep.contracts.errors import Unavailable
from modelkeep.control.predictions.blocks import MOST_BYTES, MOST_RECORDS, Block, may_hold_request
from modelkeep.control.predictions.rules import Wanted, day_of, days_around, made_at
from modelkeep.control.predictions.tables import blocks, losses, metadata, positions
from modelkeep.infra.db import Transaction
from modelkeep.infra.spool import Position

_LOCK: Final = 0x70726564  # any number that nobody else takes in this database ("pred")
_PAGE: Final = 64
_FEW: Final = 16
_AT_ONCE: Final = 500
_IDS_AT_ONCE: Final = 100  # each is a condition, and SQLite takes a thousand within each other
_PARTITION: Final = "prediction_blocks_"


class Found(NamedTuple):
    """A block that may hold what is wanted, without its payload."""

    day: date
    id: str
    first_id: str
    last_id: str


class Small(NamedTuple):
    """Blocks of one deployment and day that could be fewer."""

    day: date
    deployment: str


async def make(tx: Transaction) -> None:
    """Make the tables where they are missing."""
    await lock(tx)
    await tx.connection.run_sync(metadata.create_all)


async def lock(tx: Transaction) -> None:
    """Let one process at a time change the tables; on SQLite the transaction itself does."""
    if not _sqlite(tx):
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


async def make_partitions(tx: Transaction, days: Sequence[date]) -> None:
    """Make the partitions of these days where they are missing; SQLite has none."""
    if _sqlite(tx):
        return
    await lock(tx)
    for day in days:
        await tx.execute(
            sa.text(
                f"CREATE TABLE IF NOT EXISTS {_PARTITION}{day:%Y%m%d} PARTITION OF prediction_blocks "
                f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
            )
        )


# ---- loading


async def position(tx: Transaction, server: str) -> Position:
    """Return where a server's spool has been loaded to."""
    row = await tx.one(sa.select(positions).where(positions.c.server == server))
    return Position() if row is None else Position(row.segment, row.offset, row.expected)


async def move(tx: Transaction, server: str, before: Position, after: Position) -> bool:
    """Move a spool's position; False when it is no longer at `before`."""
    to = {"segment": after.segment, "offset": after.offset, "expected": after.expected}
    there = (positions.c.segment == before.segment) & (positions.c.offset == before.offset)
    moved = await tx.execute(sa.update(positions).where(positions.c.server == server, there).values(to))
    if moved.rowcount == 0 and before == Position():
        new = tx.insert(positions).values(server=server, **to).on_conflict_do_nothing()
        return await tx.one(new.returning(positions.c.server)) is not None
    return moved.rowcount == 1


async def forget(tx: Transaction, server: str) -> None:
    """Forget a spool that is no more."""
    await tx.execute(sa.delete(positions).where(positions.c.server == server))


async def insert(tx: Transaction, new: Sequence[Block]) -> None:
    """Add blocks: on PostgreSQL by binary COPY."""
    if not new:
        return
    if _sqlite(tx):
        await tx.connection.execute(sa.insert(blocks), [block._asdict() for block in new])
        return
    from psycopg import AsyncConnection, Error

    connection = (await tx.connection.get_raw_connection()).driver_connection
    assert isinstance(connection, AsyncConnection)  # noqa: S101 - infra.db knows no other driver for PostgreSQL
    copy_in = f"COPY prediction_blocks ({', '.join(Block._fields)}) FROM STDIN (FORMAT BINARY)"
    try:
        async with connection.cursor() as cursor, cursor.copy(copy_in.encode()) as copy:
            copy.set_types(_COPY_TYPES)
            for block in new:
                await copy.write_row(block)
    except Error as error:
        raise sa.exc.DBAPIError.instance(copy_in, None, error, Error) from error


_COPY_TYPES: Final = [
    *("text", "date", "text", "text", "text", "float8", "float8", "int4", "int4", "int4", "text", "text", "text"),
    *("bytea", "bytea"),
]


async def count_losses(tx: Transaction, counts: Mapping[str, int]) -> None:
    """Add to what has been lost, by reason."""
    for reason, count in counts.items():
        if count:
            new = tx.insert(losses).values(reason=reason, records=count)
            added = {"records": losses.c.records + new.excluded.records}
            await tx.execute(new.on_conflict_do_update(index_elements=["reason"], set_=added))


async def lost(tx: Transaction) -> dict[str, int]:
    """Return how many records have been lost, by reason."""
    return {row.reason: row.records for row in await tx.all(sa.select(losses))}


# ---- finding


async def newest(tx: Transaction, wanted: Wanted, before: str | None) -> AsyncIterator[Found]:
    """Yield the blocks that may hold wanted records with ids below `before`, those with the largest ids first."""
    columns = [blocks.c.day, blocks.c.id, blocks.c.first_id, blocks.c.last_id]
    if wanted.request_id is not None:
        columns.append(blocks.c.requests)
    conditions = _conditions(wanted, before)
    page = sa.select(*columns).where(*conditions).order_by(blocks.c.last_id.desc(), blocks.c.id.desc()).limit(_PAGE)
    rows = await tx.all(page)
    while rows:
        for row in rows:
            if wanted.request_id is None or may_hold_request(row.requests, wanted.request_id):
                yield Found(row.day, row.id, row.first_id, row.last_id)
        last = rows[-1]
        onward = sa.tuple_(blocks.c.last_id, blocks.c.id) < sa.tuple_(sa.literal(last.last_id), sa.literal(last.id))
        rows = await tx.all(page.where(blocks.c.last_id <= last.last_id, onward)) if len(rows) == _PAGE else []


async def holding(tx: Transaction, ids: Sequence[str]) -> list[Found]:
    """Return the blocks that may hold any of these records, each once and in the order of their ids."""
    found: dict[str, Found] = {}
    for begin in range(0, len(ids), _IDS_AT_ONCE):
        part = [sa.and_(*_conditions(Wanted(id=one), None)) for one in ids[begin : begin + _IDS_AT_ONCE]]
        rows = await tx.all(sa.select(blocks.c.day, blocks.c.id, blocks.c.first_id, blocks.c.last_id).where(sa.or_(*part)))
        found |= {row.id: Found(row.day, row.id, row.first_id, row.last_id) for row in rows}
    return sorted(found.values(), key=lambda block: (block.first_id, block.id))


def _conditions(wanted: Wanted, before: str | None) -> list[sa.ColumnElement[bool]]:
    """Return what a block must meet to hold anything wanted."""
    found: list[sa.ColumnElement[bool]] = []
    if before is not None:
        found.append(blocks.c.first_id < before)
    if wanted.id is not None:
        made = made_at(wanted.id)
        found += [blocks.c.first_id <= wanted.id, blocks.c.last_id >= wanted.id]
        found.append(sa.false() if made is None else blocks.c.day.between(*days_around(made)))
    if wanted.deployment is not None:
        found.append(blocks.c.deployment == wanted.deployment)
    if wanted.among is not None:
        found.append(blocks.c.deployment.in_(sorted(wanted.among)))
    if wanted.version is not None:
        number = wanted.version.isdecimal()
        found.append(blocks.c.versions.contains(f' {wanted.version}"' if number else f'"{wanted.version} ', autoescape=True))
    asking = [one for one in (wanted.key, wanted.user) if one is not None]
    found += [blocks.c["keys"].contains(f'"{one}"', autoescape=True) for one in asking]
    if wanted.outcome is not None:
        found.append(blocks.c.outcomes.contains(f'"{wanted.outcome}"', autoescape=True))
    if wanted.since is not None:
        found += [blocks.c.last_at >= wanted.since, blocks.c.day >= day_of(wanted.since)]
    if wanted.until is not None:
        found += [blocks.c.first_at < wanted.until, blocks.c.day <= day_of(wanted.until)]
    return found


async def payload(tx: Transaction, block: Found) -> bytes:
    """Return a block's records; raises `Unavailable` when it has just been merged into another."""
    found = await payload_if_there(tx, block)
    if found is None:
        raise Unavailable("The history is being tidied: ask again.", retry_after_s=1)
    return found


async def payload_if_there(tx: Transaction, block: Found) -> bytes | None:
    """Return a block's records; None when it has just been merged into another."""
    row = await tx.one(sa.select(blocks.c.payload).where(blocks.c.day == block.day, blocks.c.id == block.id))
    return None if row is None else bytes(row.payload)


async def see_one_moment(tx: Transaction) -> None:
    """Have all that follows see the history as it is at one moment; SQLite always does."""
    if not _sqlite(tx):
        await tx.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


# ---- tidying


def _is_small(settled: float) -> sa.ColumnElement[bool]:
    few = (blocks.c.held < MOST_RECORDS // 2) & (blocks.c.raw_bytes < MOST_BYTES // 2)
    return few & (blocks.c.last_at < settled)


async def small(tx: Transaction, *, settled: float, today: date) -> list[Small]:
    """Return where small blocks, with nothing newer than `settled`, are worth merging: the last three days are looked at."""
    number, held = sa.func.count(), sa.func.sum(blocks.c.held)
    over = blocks.c.day < today
    worth = (number >= _FEW) | ((number > 1) & ((held >= MOST_RECORDS) | over))
    found = await tx.all(
        sa.select(blocks.c.day, blocks.c.deployment)
        .where(blocks.c.day >= today - timedelta(days=2), _is_small(settled))
        .group_by(blocks.c.day, blocks.c.deployment)
        .having(worth)
        .limit(_PAGE)
    )
    return [Small(row.day, row.deployment) for row in found]


async def take_small(tx: Transaction, where: Small, *, settled: float) -> list[bytes]:
    """Remove a block's worth of small ones, the oldest first, and return their payloads; none when there are not two."""
    rows = await tx.all(
        sa.select(blocks.c.id, blocks.c.held, blocks.c.raw_bytes, blocks.c.payload)
        .where(blocks.c.day == where.day, blocks.c.deployment == where.deployment, _is_small(settled))
        .order_by(blocks.c.first_id)
        .limit(_AT_ONCE)
    )
    taken: list[sa.Row[tuple[str, int, int, bytes]]] = []
    held = size = 0
    for row in rows:
        held, size = held + row.held, size + row.raw_bytes
        if held > MOST_RECORDS or size > MOST_BYTES:
            break
        taken.append(row)
    if len(taken) < 2:  # noqa: PLR2004 - one alone is as good as it gets
        return []
    ids = [row.id for row in taken]
    gone = await tx.execute(sa.delete(blocks).where(blocks.c.day == where.day, blocks.c.id.in_(ids)))
    if gone.rowcount != len(taken):
        raise Unavailable("Somebody else is tidying the history.", retry_after_s=1)
    return [bytes(row.payload) for row in taken]


async def days(tx: Transaction) -> list[date]:
    """Return the days that hold anything, the oldest first."""
    return [row.day for row in await tx.all(sa.select(blocks.c.day).distinct().order_by(blocks.c.day))]


async def places(tx: Transaction) -> frozenset[tuple[date, str]]:
    """Return of which deployments there is anything on which days."""
    rows = await tx.all(sa.select(blocks.c.day, blocks.c.deployment).distinct())
    return frozenset((row.day, row.deployment) for row in rows)


async def deployments(tx: Transaction, day: date) -> list[str]:
    """Return the deployments that a day holds anything of."""
    found = await tx.all(sa.select(blocks.c.deployment).where(blocks.c.day == day).distinct())
    return [row.deployment for row in found]


async def size(tx: Transaction) -> int:
    """Return the bytes of all blocks."""
    row = await tx.one(sa.select(sa.func.coalesce(sa.func.sum(sa.cast(blocks.c.size, sa.BigInteger)), 0)))
    return 0 if row is None else int(row[0])


async def drop_day(tx: Transaction, day: date) -> int:
    """Remove a day: on PostgreSQL its partition, on SQLite some hundred blocks. Return how many records that were."""
    if _sqlite(tx):
        return await _drop(tx, [blocks.c.day == day], _AT_ONCE)
    row = await tx.one(sa.select(sa.func.coalesce(sa.func.sum(blocks.c.held), 0)).where(blocks.c.day == day))
    await lock(tx)
    await tx.execute(sa.text(f"DROP TABLE IF EXISTS {_PARTITION}{day:%Y%m%d}"))
    return 0 if row is None else int(row[0])


async def drop_deployment(tx: Transaction, day: date, deployment: str) -> None:
    """Remove what a day holds of one deployment."""
    await tx.execute(sa.delete(blocks).where(blocks.c.day == day, blocks.c.deployment == deployment))


async def drop_oldest(tx: Transaction) -> int:
    """Remove the oldest few blocks of all; return how many records that were."""
    return await _drop(tx, [], _FEW)


async def _drop(tx: Transaction, where: Sequence[sa.ColumnElement[bool]], limit: int) -> int:
    oldest = sa.select(blocks.c.day, blocks.c.id, blocks.c.held).where(*where)
    rows = await tx.all(oldest.order_by(blocks.c.day, blocks.c.last_id).limit(limit))
    for row in rows:
        await tx.execute(sa.delete(blocks).where(blocks.c.day == row.day, blocks.c.id == row.id))
    return sum(row.held for row in rows)


def _sqlite(tx: Transaction) -> bool:
    return tx.connection.dialect.name == "sqlite"
