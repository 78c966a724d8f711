"""Versions say how they may be made faster for the host, with which rows this is judged, and what accuracy it may cost."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("versions", sa.Column("optimise", sa.Text, nullable=False, server_default="auto"))
    op.add_column("versions", sa.Column("calibration", sa.Text))
    op.add_column("versions", sa.Column("accuracy_budget", sa.Double, nullable=False, server_default="0"))
