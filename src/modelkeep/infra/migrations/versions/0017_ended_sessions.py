"""Sessions are found by when they ended: serving is told of those whose tokens would still be good."""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_index("ix_sessions_ended_at", "sessions", ["ended_at"])
