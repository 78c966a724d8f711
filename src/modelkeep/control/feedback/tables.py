"""Rows of feedback: every telling, what holds of each prediction now, and what waits for its prediction.

No foreign keys: predictions may lie in another database. What a rollout counts by stands beside what holds.
"""

import sqlalchemy as sa

from modelkeep.control.feedback.rules import Said
from modelkeep.infra.db import Document, UtcTime, metadata

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("prediction_id", sa.Text, primary_key=True),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("predicted_at", UtcTime, nullable=False),
    sa.Column("trial", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("truth", sa.Text),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("told_at", UtcTime, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Index("ix_feedback_deployment_prediction_id", "deployment", "prediction_id"),
    sa.Index("ix_feedback_version_id_prediction_id", "version_id", "prediction_id"),
    sa.Index("ix_feedback_verdict_prediction_id", "verdict", "prediction_id"),
    # what rollouts count every second is counted without touching the rows
    sa.Index("ix_feedback_trial", "trial", "version_id", "verdict", "unit", "prediction_id"),
)
feedback_revisions = sa.Table(
    "feedback_revisions",
    metadata,
    sa.Column("prediction_id", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("truth", sa.Text),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("told_at", UtcTime, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
)
feedback_parked = sa.Table(
    "feedback_parked",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("prediction_id", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("said", Document(Said), nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("since", UtcTime, nullable=False),
    sa.Column("told_at", UtcTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_at", UtcTime, nullable=False),
    sa.UniqueConstraint("prediction_id", "asked_by", "digest"),
    sa.Index("ix_feedback_parked_next_at", "next_at"),
    sa.Index("ix_feedback_parked_user_asked_by", "user", "asked_by"),
)
