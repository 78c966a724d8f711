"""What is told of predictions later: every telling, what holds now, and what waits for its prediction."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def _told() -> list["sa.Column[object]"]:
    """What stands in every row of something told."""
    return [
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("truth", sa.Text),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("prediction_id", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("predicted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trial", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        *_told(),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_deployment_prediction_id", "feedback", ["deployment", "prediction_id"])
    op.create_index("ix_feedback_version_id_prediction_id", "feedback", ["version_id", "prediction_id"])
    op.create_index("ix_feedback_verdict_prediction_id", "feedback", ["verdict", "prediction_id"])
    op.create_index("ix_feedback_trial", "feedback", ["trial", "version_id", "verdict", "unit", "prediction_id"])
    op.create_table(
        "feedback_revisions",
        sa.Column("prediction_id", sa.Text, nullable=False),
        *_told(),
        sa.PrimaryKeyConstraint("prediction_id", "digest", name="pk_feedback_revisions"),
    )
    op.create_table(
        "feedback_parked",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("prediction_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback_parked"),
        sa.UniqueConstraint("prediction_id", "asked_by", "digest", name="uq_feedback_parked_prediction_id_asked_by_digest"),
    )
    op.create_index("ix_feedback_parked_next_at", "feedback_parked", ["next_at"])
    op.create_index("ix_feedback_parked_user_asked_by", "feedback_parked", ["user", "asked_by"])
