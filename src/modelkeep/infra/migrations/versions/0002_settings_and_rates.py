"""Settings of deployments, and rates of keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("deployments", sa.Column("settings", sa.Text, nullable=False, server_default="{}"))
    op.add_column("api_keys", sa.Column("rate_per_minute", sa.Integer))
    op.add_column("api_keys", sa.Column("burst", sa.Integer))
