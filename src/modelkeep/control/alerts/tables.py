"""Rows of alerts. `standing` is the fingerprint of one that is not resolved: so there is one of each."""

import sqlalchemy as sa

from modelkeep.control.alerts.rules import Evidence
from modelkeep.infra.db import Document, UtcTime, metadata

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("model_id", sa.Text, sa.ForeignKey("models.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("labels", Document(dict[str, str]), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("opened_at", UtcTime, nullable=False),
    sa.Column("last_at", UtcTime, nullable=False),
    sa.Column("evidence", Document(tuple[Evidence, ...]), nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("acknowledged_by", sa.Text, nullable=False),
    sa.Column("acknowledged_at", UtcTime),
    sa.Column("acknowledged_until", UtcTime),
    sa.Column("acknowledged_note", sa.Text, nullable=False),
    sa.Column("resolved_by", sa.Text, nullable=False),
    sa.Column("resolved_at", UtcTime),
    sa.Column("resolved_why", sa.Text, nullable=False),
    sa.Column("standing", sa.Text, unique=True),
    sa.Index("ix_alerts_model_id_id", "model_id", "id"),
    sa.Index("ix_alerts_deployment_id", "deployment", "id"),
    sa.Index("ix_alerts_resolved_at", "resolved_at"),
)
