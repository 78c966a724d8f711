"""Alerts: what somebody has to look at, one for each fingerprint that is not resolved."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_alerts_model_id_models"), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("kind", "deployment", "model", "labels", "title", "text")),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("last_at", _TIME, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("acknowledged_by", sa.Text, nullable=False),
        sa.Column("acknowledged_at", _TIME),
        sa.Column("acknowledged_until", _TIME),
        sa.Column("acknowledged_note", sa.Text, nullable=False),
        sa.Column("resolved_by", sa.Text, nullable=False),
        sa.Column("resolved_at", _TIME),
        sa.Column("resolved_why", sa.Text, nullable=False),
        sa.Column("standing", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        sa.UniqueConstraint("standing", name="uq_alerts_standing"),
    )
    op.create_index("ix_alerts_model_id_id", "alerts", ["model_id", "id"])
    op.create_index("ix_alerts_deployment_id", "alerts", ["deployment", "id"])
    op.create_index("ix_alerts_resolved_at", "alerts", ["resolved_at"])
