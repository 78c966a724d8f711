"""All the SQL of the audit trail."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from modelkeep.control.audit.rules import Checkpoint, Entry, Head, Mark, Sealed, Wanted, written
from modelkeep.control.audit.tables import (
    audit_checkpoints,
    audit_entries,
    audit_head,
    audit_marks,
    audit_payloads,
    audit_subjects,
)
from modelkeep.infra.db import Transaction

_RECORD = ("seq", "id", "at", "action", "target_kind", "outcome", "request_id", "commitment")
_AT_ONCE = 500


async def take_head(tx: Transaction) -> Head:
    """Return the newest entry's place; nobody else gets it before this transaction has ended."""
    row = await tx.one(sa.select(audit_head.c.seq, audit_head.c.hash).with_for_update())
    if row is None:
        raise RuntimeError("the audit trail has no head")
    return Head(row.seq, row.hash)


async def head(tx: Transaction) -> Head:
    """Return the newest entry's place."""
    row = await tx.one(sa.select(audit_head.c.seq, audit_head.c.hash))
    return Head(0, "") if row is None else Head(row.seq, row.hash)


async def append(tx: Transaction, some: Sequence[tuple[Sealed, Entry, Sequence[str]]]) -> None:
    """Add entries, sealed in this order, with what people whom they name are found by; the last becomes the head."""
    records: list[dict[str, Any]] = []
    payloads: list[dict[str, Any]] = []
    subjects: list[dict[str, Any]] = []
    for sealed, entry, refs in some:
        records.append({name: getattr(sealed, name) for name in _RECORD} | {"at": entry.at, "hash": sealed.hash})
        said = {"key": sealed.key, "payload": sealed.payload}
        payloads.append({"seq": sealed.seq, "actor": entry.actor, "target": entry.target} | said)
        subjects += [{"subject_ref": ref, "seq": sealed.seq} for ref in refs]
    for table, rows in ((audit_entries, records), (audit_payloads, payloads), (audit_subjects, subjects)):
        if rows:
            await tx.connection.execute(sa.insert(table), rows)
    await tx.execute(sa.update(audit_head).values(seq=records[-1]["seq"], hash=records[-1]["hash"]))


async def page(tx: Transaction, wanted: Wanted, *, limit: int, before: int | None = None) -> list[Sealed]:
    """Return entries, newest first, with numbers below `before`."""
    query = _selected(wanted, before=before).order_by(audit_entries.c.seq.desc()).limit(limit)
    return [_sealed(row) for row in await tx.all(query)]


async def after(tx: Transaction, seq: int, *, limit: int, wanted: Wanted | None = None) -> list[Sealed]:
    """Return entries in their order, with numbers above `seq`."""
    query = _selected(wanted or Wanted(), above=seq).order_by(audit_entries.c.seq).limit(limit)
    return [_sealed(row) for row in await tx.all(query)]


async def naming(tx: Transaction, refs: Iterable[str], ids: Iterable[str]) -> dict[int, str]:
    """Return the numbers of entries that name somebody, and the actions of those.

    What was noted before there were subjects is found by what its payload says.
    """
    known = list(ids)
    by_ref = sa.select(audit_subjects.c.seq).where(audit_subjects.c.subject_ref.in_(list(refs)))
    named = audit_payloads.c.seq.in_(by_ref) | audit_payloads.c.actor.in_(known) | audit_payloads.c.target.in_(known)
    joined = sa.select(audit_entries.c.seq, audit_entries.c.action).join(
        audit_payloads, audit_payloads.c.seq == audit_entries.c.seq
    )
    return {row.seq: row.action for row in await tx.all(joined.where(named))}


async def payloads(tx: Transaction, numbers: Iterable[int]) -> list[str]:
    """Return the payloads of these entries."""
    found = sa.select(audit_payloads.c.payload).where(audit_payloads.c.seq.in_(list(numbers)))
    return [row.payload for row in await tx.all(found)]


async def erase(tx: Transaction, numbers: Iterable[int]) -> None:
    """Delete payloads and keys of these entries, and whom they name, so that on SQLite the bytes are overwritten."""
    if tx.connection.dialect.name == "sqlite":
        await tx.connection.exec_driver_sql("PRAGMA secure_delete=ON")
    ordered = sorted(numbers)
    for first in range(0, len(ordered), _AT_ONCE):
        some = ordered[first : first + _AT_ONCE]
        await tx.execute(sa.delete(audit_payloads).where(audit_payloads.c.seq.in_(some)))
        await tx.execute(sa.delete(audit_subjects).where(audit_subjects.c.seq.in_(some)))


async def rename(tx: Transaction, refs: Mapping[str, str]) -> int:
    """Have what is found by the one be found by the other; returns at how many places it was."""
    renamed = 0
    for old, new in refs.items():
        update = sa.update(audit_subjects).where(audit_subjects.c.subject_ref == old).values(subject_ref=new)
        renamed += len(await tx.all(update.returning(audit_subjects.c.seq)))
    return renamed


async def add_checkpoint(tx: Transaction, checkpoint: Checkpoint) -> None:
    """Keep a checkpoint; one that is there stays."""
    insert = tx.insert(audit_checkpoints).values(
        seq=checkpoint.seq,
        at=checkpoint.at,
        head=checkpoint.head,
        signature=checkpoint.signature,
        public_key=checkpoint.public_key,
    )
    await tx.execute(insert.on_conflict_do_nothing())


async def checkpoints(tx: Transaction, *, above: int = 0, upto: int | None = None, limit: int = _AT_ONCE) -> list[Checkpoint]:
    """Return checkpoints of entries above `above` and not above `upto`, in their order."""
    query = sa.select(audit_checkpoints).where(audit_checkpoints.c.seq > above)
    if upto is not None:
        query = query.where(audit_checkpoints.c.seq <= upto)
    return [_checkpoint(row) for row in await tx.all(query.order_by(audit_checkpoints.c.seq).limit(limit))]


async def checkpoints_with(tx: Transaction, public_keys: Iterable[str]) -> list[Checkpoint]:
    """Return the checkpoints that say that one of these keys has signed them."""
    query = sa.select(audit_checkpoints).where(audit_checkpoints.c.public_key.in_(list(public_keys)))
    return [_checkpoint(row) for row in await tx.all(query)]


async def sign_anew(tx: Transaction, checkpoint: Checkpoint) -> None:
    """Give a checkpoint another signature."""
    values = {"signature": checkpoint.signature, "public_key": checkpoint.public_key}
    await tx.execute(sa.update(audit_checkpoints).where(audit_checkpoints.c.seq == checkpoint.seq).values(**values))


async def newest_checkpoint(tx: Transaction) -> Checkpoint | None:
    """Return the newest checkpoint."""
    row = await tx.one(sa.select(audit_checkpoints).order_by(audit_checkpoints.c.seq.desc()).limit(1))
    return None if row is None else _checkpoint(row)


async def mark(tx: Transaction, name: str) -> Mark | None:
    """Return how far something has come."""
    row = await tx.one(sa.select(audit_marks).where(audit_marks.c.name == name))
    return None if row is None else Mark(row.name, row.seq, row.at, row.holder)


async def set_mark(tx: Transaction, name: str, seq: int, at: datetime) -> None:
    """Note how far something has come; what is behind that stays as it is."""
    insert = tx.insert(audit_marks).values(name=name, seq=seq, at=at, holder="")
    await tx.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_={"seq": seq, "at": at}, where=audit_marks.c.seq <= seq)
    )


async def take_turn(tx: Transaction, name: str, holder: str, now: datetime, until: datetime) -> bool:
    """Be, or stay, the one who does something until then; False while another is."""
    row = {"name": name, "seq": 0, "at": until, "holder": holder}
    free = (audit_marks.c.at < now) | (audit_marks.c.holder == holder)
    taken = tx.insert(audit_marks).values(**row).on_conflict_do_update(index_elements=["name"], set_=row, where=free)
    return await tx.one(taken.returning(audit_marks.c.name)) is not None


def _selected(wanted: Wanted, *, above: int | None = None, before: int | None = None) -> sa.Select[Any]:
    """Return what selects entries with numbers above one, or below one.

    The bound is said of both tables: PostgreSQL does not conclude it for the payloads, and reads those from their first on.
    """
    entries, said = audit_entries.c, audit_payloads.c
    same, bounds = said.seq == entries.seq, []
    if above is not None:
        same, bounds = same & (said.seq > above), [entries.seq > above]
    if before is not None:
        same, bounds = same & (said.seq < before), [*bounds, entries.seq < before]
    record = [entries[name] for name in _RECORD]
    joined = audit_entries.outerjoin(audit_payloads, same)
    query = sa.select(*record, entries.hash, said.key, said.payload).select_from(joined).where(*bounds)
    conditions = {
        entries.action: wanted.action,
        entries.outcome: wanted.outcome,
        entries.request_id: wanted.request_id,
        said.actor: wanted.actor,
        said.target: wanted.target,
    }
    for column, value in conditions.items():
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(entries.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(entries.at < wanted.until)
    return query


def _sealed(row: Sequence[Any]) -> Sealed:
    return Sealed(row[0], row[1], written(row[2]), *row[3:])  # by their places: names cost as much as the hashing does


def _checkpoint(row: sa.Row[Any]) -> Checkpoint:
    return Checkpoint(row.seq, row.at, row.head, row.signature, row.public_key)
