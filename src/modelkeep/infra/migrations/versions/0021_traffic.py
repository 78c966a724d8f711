"""How a deployment's requests are shared out among versions, and what servers count of one that is on trial."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("deployments", sa.Column("traffic", sa.Text, nullable=False, server_default="{}"))
    op.add_column("deployments", sa.Column("trial", sa.Text))
    op.add_column("heartbeats", sa.Column("trials", sa.Text, nullable=False, server_default="{}"))
