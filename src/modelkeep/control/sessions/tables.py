"""Rows of sessions, their refresh tokens, and signing keys, of which the private part is sealed."""

import sqlalchemy as sa

from modelkeep.infra.db import UtcTime, metadata

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("used_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("program", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False, server_default=""),
    sa.Column("idle_s", sa.Integer, nullable=False, server_default="604800"),
    sa.Column("browser", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index(None, "user_id"),
    sa.Index(None, "ended_at"),
)
refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("session_id", sa.Text, sa.ForeignKey("sessions.id"), nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("rotated_at", UtcTime),
    sa.Column("answer", sa.LargeBinary),
    sa.Index(None, "session_id"),
)
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kid", sa.Text, nullable=False),
    sa.Column("public", sa.LargeBinary, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("signs_from", UtcTime, nullable=False),
    sa.Column("good_until", UtcTime),
    sa.Index(None, "kid", unique=True),
)
