"""Versions say whether they may be compiled, and which file serves instead of the uploaded one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("versions", sa.Column("compile", sa.Text, nullable=False, server_default="auto"))
    op.add_column("versions", sa.Column("compiled", sa.Text))
