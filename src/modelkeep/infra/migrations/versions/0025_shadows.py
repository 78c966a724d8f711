"""What servers have seen of versions that are asked beside the promoted one."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

_COUNTS = ("asked", "requests", "requests_differ", "rows", "differ")


def upgrade() -> None:
    op.create_table(
        "shadow_reports",
        sa.Column("id", sa.Text),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("primary_id", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("forgotten", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shadow_reports"),
    )
    op.create_index("ix_shadow_reports_deployment_at", "shadow_reports", ["deployment", "at"])
