"""Rows of users, their keys, the certificates that stand for keys, and the setup token.

`users.email` is as `rules.email_of` gives it.
"""

import sqlalchemy as sa

from modelkeep.contracts.access import Scope
from modelkeep.contracts.certificates import KeyCertificate
from modelkeep.infra.db import Document, UtcTime, metadata

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("display_name", sa.Text, nullable=False, server_default=""),
    sa.Column("password_hash", sa.Text),
    sa.Column("status", sa.Text, nullable=False, server_default="active"),
    sa.Column("kind", sa.Text, nullable=False, server_default="person"),
    sa.Column("email_proven", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index(None, "email", unique=True),
)
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scopes", Document(tuple[Scope, ...]), nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("last_used_at", UtcTime),
    sa.Column("revoked_at", UtcTime),
    sa.Column("rate_per_minute", sa.Integer),
    sa.Column("burst", sa.Integer),
    sa.Column("rate_class", sa.Text),
    sa.Column("concurrency", sa.Integer),
    sa.Column("networks", Document(tuple[str, ...]), nullable=False, server_default="[]"),
    sa.Column("models", Document(tuple[str, ...])),
    sa.Column("certificate", Document(KeyCertificate)),
    sa.Column("rotated_at", UtcTime),
    sa.Column("previous_digest", sa.LargeBinary),
    sa.Column("previous_until", UtcTime),
    sa.Column("previous_used_at", UtcTime),
    sa.Index(None, "previous_digest", unique=True),
)
certificate_names = sa.Table(  # that stand for a key: each for one
    "certificate_names",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("key_id", sa.Text, sa.ForeignKey("api_keys.id"), nullable=False),
    sa.Index(None, "key_id"),
)
setup_tokens = sa.Table(
    "setup_tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("used_at", UtcTime),
)
