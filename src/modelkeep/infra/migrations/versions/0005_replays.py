"""Predictions that are answered again by the uploaded file."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "replays",
        sa.Column("id", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_replays_version_id_versions"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("rows", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.Column("summary", sa.Text),
        sa.Column("failure", sa.Text),
        sa.Column("details", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_replays"),
    )
    op.create_index("ix_replays_version_id_id", "replays", ["version_id", "id"])
    op.create_index("ix_replays_expires_at", "replays", ["expires_at"])
