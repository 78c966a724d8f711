"""Sessions are a browser's or not, end after a time of their own without a refresh, and are found by when they ended.

Serving is told of the latest of those.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("idle_s", sa.Integer, nullable=False, server_default="604800"))
    op.add_column("sessions", sa.Column("browser", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("ix_sessions_ended_at", "sessions", ["ended_at"])
