"""Rollouts, their steps, what happened to them, and their evidence as it came."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Text),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_rollouts_model_id_models"), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column(
            "from_version_id",
            sa.Text,
            sa.ForeignKey("versions.id", name="fk_rollouts_from_version_id_versions"),
            nullable=False,
        ),
        sa.Column("from_version", sa.Integer, nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_rollouts_version_id_versions"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("since", _TIME),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("ran_s", sa.Double, nullable=False),
        sa.Column("servers", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("under_way", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
        sa.UniqueConstraint("under_way", name="uq_rollouts_under_way"),
    )
    op.create_index("ix_rollouts_model_id_id", "rollouts", ["model_id", "id"])
    op.create_index("ix_rollouts_deployment_id", "rollouts", ["deployment", "id"])
    _of_rollout(
        "rollout_steps",
        "step",
        sa.Column("percent", sa.Double, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("servers", sa.Text, nullable=False),
        sa.Column("numbers", sa.Text, nullable=False),
    )
    _of_rollout(
        "rollout_events",
        "seq",
        sa.Column("at", _TIME, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("numbers", sa.Text, nullable=False),
    )
    _of_rollout(
        "rollout_points",
        "seq",
        sa.Column("at", _TIME, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("shown", sa.Text, nullable=False),
    )


def _of_rollout(name: str, key: str, *columns: sa.Column[object]) -> None:
    """Make a table of things of a rollout, which count from 0 or 1 within it."""
    rollout = sa.ForeignKey("rollouts.id", name=f"fk_{name}_rollout_id_rollouts")
    op.create_table(
        name,
        sa.Column("rollout_id", sa.Text, rollout, nullable=False),
        sa.Column(key, sa.Integer, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("rollout_id", key, name=f"pk_{name}"),
    )
