"""Versions may have hooks: a file of Python around the model."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("versions", sa.Column("hooks", sa.Text))
