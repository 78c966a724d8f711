"""Rate classes of keys, how many predictions of one are under way at once, and the networks from which alone they are good."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rate_class", sa.Text))
    op.add_column("api_keys", sa.Column("concurrency", sa.Integer))
    op.add_column("api_keys", sa.Column("networks", sa.Text, nullable=False, server_default="[]"))
