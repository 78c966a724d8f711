"""What servers tell of their caches."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.add_column("heartbeats", sa.Column("cache", sa.Text, nullable=False, server_default="{}"))
