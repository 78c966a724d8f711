"""Rows of the audit trail.

What stays for good (`audit_entries`, the chain) is apart from what names people (`audit_payloads`, `audit_subjects`) and goes
when one of them is erased.
"""

import sqlalchemy as sa

from modelkeep.infra.db import UtcTime, metadata

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("target_kind", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("commitment", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Index("ix_audit_entries_action", "action", "seq"),
    sa.Index("ix_audit_entries_at", "at"),
    sa.Index("ix_audit_entries_request_id", "request_id"),
)
audit_payloads = sa.Table(
    "audit_payloads",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Index("ix_audit_payloads_actor", "actor", "seq"),
    sa.Index("ix_audit_payloads_target", "target", "seq"),
)
audit_subjects = sa.Table(
    "audit_subjects",
    metadata,
    sa.Column("subject_ref", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Index("ix_audit_subjects_seq", "seq"),
)
audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
audit_checkpoints = sa.Table(
    "audit_checkpoints",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
)
audit_marks = sa.Table(
    "audit_marks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
)
