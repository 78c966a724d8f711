"""Rows of what servers have seen of shadows, one for each server process and shadow; counts stand beside the report.

No foreign keys: a report may come up after what it is about has gone. `forgotten` are predictions that it showed and that
have left the history: the server that made it does not know, and tells of them again.
"""

import sqlalchemy as sa

from modelkeep.contracts.shadow import ShadowSeen
from modelkeep.infra.db import Document, metadata

shadow_reports = sa.Table(
    "shadow_reports",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("primary_id", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("asked", sa.BigInteger, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("requests_differ", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("differ", sa.BigInteger, nullable=False),
    sa.Column("report", Document(ShadowSeen), nullable=False),
    sa.Column("forgotten", Document(list[str]), nullable=False),
    sa.Index("ix_shadow_reports_deployment_at", "deployment", "at"),
)
