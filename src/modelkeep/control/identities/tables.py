"""Rows of who somebody of a provider is here: one user for a provider's subject, for good.

`asked_at` is when the provider last said what it knows of them.
"""

import sqlalchemy as sa

from modelkeep.infra.db import UtcTime, metadata

identities = sa.Table(
    "identities",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("used_at", UtcTime, nullable=False),
    sa.Column("asked_at", UtcTime),
    sa.Index(None, "user_id"),
    sa.Index(None, "provider", "asked_at"),
)
