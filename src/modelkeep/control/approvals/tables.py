"""Rows of approvals. `request` is who asked for what, while it is open: so there is one of each."""

import sqlalchemy as sa

from modelkeep.control.approvals.rules import Voice
from modelkeep.infra.db import Document, UtcTime, metadata

approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("asked_by_name", sa.Text, nullable=False),
    sa.Column("by_person", sa.Boolean, nullable=False),
    sa.Column("asked_at", UtcTime, nullable=False),
    sa.Column("until", UtcTime, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("approved_by", Document(tuple[Voice, ...]), nullable=False),
    sa.Column("refused_by", Document(Voice)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("used_at", UtcTime),
    sa.Column("request", sa.Text, unique=True),
)
