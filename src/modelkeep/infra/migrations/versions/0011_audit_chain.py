"""The audit trail as a chain: what names people apart from what stays; entries from before take their places in it.

They have no subjects, which need the site key: they are found by what their payload says. Their actors' addresses, and what was
before and after, were not kept.
"""

import json
import os
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from modelkeep.contracts.audit_chain import GENESIS, canonical, commitment, link

revision = "0011"
down_revision = "0010"

_TIME = sa.DateTime(timezone=True)
_AT_ONCE = 500
_KINDS = {"usr": "user", "key": "key", "mdl": "model", "ver": "version", "dep": "deployment", "rpl": "replay"}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("PRAGMA secure_delete=ON")  # names of the old table would stay in pages that are free
    op.execute("CREATE TABLE audit_entries_before AS SELECT * FROM audit_entries")
    op.drop_table("audit_entries")
    entries = op.create_table(
        "audit_entries",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("action", "target_kind", "outcome", "request_id")),
        sa.Column("commitment", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_entries"),
        sa.UniqueConstraint("id", name="uq_audit_entries_id"),
    )
    op.create_index("ix_audit_entries_action", "audit_entries", ["action", "seq"])
    op.create_index("ix_audit_entries_at", "audit_entries", ["at"])
    op.create_index("ix_audit_entries_request_id", "audit_entries", ["request_id"])
    payloads = op.create_table(
        "audit_payloads",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("payload", "actor", "target")),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_payloads"),
    )
    op.create_index("ix_audit_payloads_actor", "audit_payloads", ["actor", "seq"])
    op.create_index("ix_audit_payloads_target", "audit_payloads", ["target", "seq"])
    op.create_table(
        "audit_subjects",
        sa.Column("subject_ref", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("subject_ref", "seq", name="pk_audit_subjects"),
    )
    op.create_index("ix_audit_subjects_seq", "audit_subjects", ["seq"])
    head = op.create_table(
        "audit_head",
        sa.Column("one", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_audit_head"),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", _TIME, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("head", "signature", "public_key")),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_checkpoints"),
    )
    op.create_table(
        "audit_marks",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_audit_marks"),
    )
    seq, found = _chained(entries, payloads)
    op.bulk_insert(head, [{"one": 1, "seq": seq, "hash": found}])
    op.drop_table("audit_entries_before")


def _chained(entries: sa.Table, payloads: sa.Table) -> tuple[int, str]:
    """Take the old entries into the chain, in their order; returns the last number and its hash."""
    names = ("id", "actor", "actor_name", "action", "target", "request_id", "details")
    old = sa.table("audit_entries_before", *(sa.column(name) for name in names), sa.column("at", _TIME))
    seq, previous, last = 0, GENESIS, ""
    while True:
        query = sa.select(old).where(old.c.id > last).order_by(old.c.id).limit(_AT_ONCE)
        rows = op.get_bind().execute(query).all()
        if not rows:
            return seq, previous
        made, kept = [], []
        for row in rows:
            seq, last = seq + 1, row.id
            at = row.at.replace(tzinfo=UTC) if row.at.tzinfo is None else row.at.astimezone(UTC)
            key, payload = os.urandom(32), canonical(_payload(row))
            record = {
                "seq": seq,
                "id": row.id,
                "at": _written(at),
                "action": row.action,
                "target_kind": _KINDS.get(row.target.partition("_")[0], row.action.partition(".")[0]),
                "outcome": "done",
                "request_id": row.request_id,
                "commitment": commitment(key, payload),
            }
            previous = link(previous, canonical(record))
            made.append({**record, "at": row.at, "hash": previous})
            kept.append({"seq": seq, "key": key, "payload": payload.decode(), "actor": row.actor, "target": row.target})
        op.bulk_insert(entries, made)
        op.bulk_insert(payloads, kept)


def _payload(row: sa.Row[Any]) -> dict[str, object]:
    said = {"actor": row.actor, "actor_name": row.actor_name, "user": "", "address": "", "target": row.target}
    return said | {"details": json.loads(row.details), "before": None, "after": None}


def _written(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
