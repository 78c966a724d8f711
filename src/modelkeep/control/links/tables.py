"""Rows of one-time links."""

import sqlalchemy as sa

from modelkeep.infra.db import UtcTime, metadata

one_time_links = sa.Table(
    "one_time_links",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id")),
    sa.Column("email", sa.Text),
    sa.Column("role", sa.Text),
    sa.Column("used_at", UtcTime),
)
