"""Rows of scheduled changes."""

import sqlalchemy as sa

from modelkeep.control.deployments.planning import Change
from modelkeep.infra.db import Document, UtcTime, metadata

scheduled_changes = sa.Table(
    "scheduled_changes",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("deployment_id", sa.Text, nullable=False),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("change", Document(Change), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("asked_at", UtcTime, nullable=False),
    sa.Column("agreed", sa.Integer),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("revision", sa.Integer),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Index("ix_scheduled_changes_deployment_id_id", "deployment_id", "id"),
    sa.Index("ix_scheduled_changes_state_at", "state", "at"),
)
