"""Rows of the audit trail: written once, never changed."""

import sqlalchemy as sa

from modelkeep.infra.db import Document, UtcTime, metadata

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("actor_name", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("details", Document(dict[str, str]), nullable=False),
    sa.Index("ix_audit_entries_target", "target", "id"),
)
