"""An API key has the secret from before its rotation beside its own, for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rotated_at", _TIME))
    op.add_column("api_keys", sa.Column("previous_digest", sa.LargeBinary))
    op.add_column("api_keys", sa.Column("previous_until", _TIME))
    op.add_column("api_keys", sa.Column("previous_used_at", _TIME))
    op.create_index("ix_api_keys_previous_digest", "api_keys", ["previous_digest"], unique=True)
