"""Rows of rollouts, of their steps with what was counted in each, of what happened to them, and of the evidence as it came.

`under_way` names the deployment of one that is not over: so there is one of each.
"""

import sqlalchemy as sa

from modelkeep.control.rollouts.judging import Numbers, ServerCounts
from modelkeep.control.rollouts.records import Shown
from modelkeep.control.rollouts.rules import Plan
from modelkeep.infra.db import Document, UtcTime, metadata

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("model_id", sa.Text, sa.ForeignKey("models.id"), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("from_version_id", sa.Text, sa.ForeignKey("versions.id"), nullable=False),
    sa.Column("from_version", sa.Integer, nullable=False),
    sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("plan", Document(Plan), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
    sa.Column("since", UtcTime),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("ran_s", sa.Double, nullable=False),
    sa.Column("servers", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("under_way", sa.Text, unique=True),
    sa.Index("ix_rollouts_model_id_id", "model_id", "id"),
    sa.Index("ix_rollouts_deployment_id", "deployment", "id"),
)
rollout_steps = sa.Table(
    "rollout_steps",
    metadata,
    sa.Column("rollout_id", sa.Text, sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("percent", sa.Double, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("servers", Document(dict[str, ServerCounts]), nullable=False),
    sa.Column("numbers", Document(dict[str, Numbers]), nullable=False),
)
rollout_events = sa.Table(
    "rollout_events",
    metadata,
    sa.Column("rollout_id", sa.Text, sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("numbers", Document(dict[str, Numbers]), nullable=False),
)
rollout_points = sa.Table(
    "rollout_points",
    metadata,
    sa.Column("rollout_id", sa.Text, sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("shown", Document(dict[str, Shown]), nullable=False),
)
