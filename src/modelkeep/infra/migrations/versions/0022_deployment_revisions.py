"""What deployments were at each moment, and changes that are to come.

Of deployments that are there, what they are now is what is known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "deployment_revisions",
        sa.Column("deployment_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column(
            "model_id", sa.Text, sa.ForeignKey("models.id", name="fk_deployment_revisions_model_id_models"), nullable=False
        ),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_deployment_revisions_version_id_versions")),
        sa.Column("version", sa.Integer),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("traffic", sa.Text, nullable=False),
        sa.Column("trial", sa.Text),
        sa.Column("restored", sa.Integer),
        sa.PrimaryKeyConstraint("deployment_id", "revision", name="pk_deployment_revisions"),
    )
    op.create_index("ix_deployment_revisions_name", "deployment_revisions", ["name"])
    op.create_index("ix_deployment_revisions_model_id", "deployment_revisions", ["model_id"])
    op.execute(
        "INSERT INTO deployment_revisions (deployment_id, revision, name, model_id, at, by, action, reason,"
        " version_id, version, settings, traffic, trial)"
        " SELECT id, revision, name, model_id, updated_at, updated_by, 'present', '',"
        " version_id, version, settings, traffic, trial FROM deployments"
    )
    op.create_table(
        "scheduled_changes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("deployment_id", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("agreed", sa.Integer),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("revision", sa.Integer),
        sa.Column("problem", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_scheduled_changes"),
    )
    op.create_index("ix_scheduled_changes_deployment_id_id", "scheduled_changes", ["deployment_id", "id"])
    op.create_index("ix_scheduled_changes_state_at", "scheduled_changes", ["state", "at"])
