"""Rows of switches: one for each that was ever set."""

import sqlalchemy as sa

from modelkeep.infra.db import UtcTime, metadata

safety_switches = sa.Table(
    "safety_switches",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("set_by", sa.Text, nullable=False),
    sa.Column("set_at", UtcTime, nullable=False),
)
