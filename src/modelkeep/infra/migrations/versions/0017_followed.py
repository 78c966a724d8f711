"""When a provider was last asked what it knows of somebody, and whether an e-mail address is known to be its user's.

Of those who are users already nobody knows how their address came: it is not proven.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("users", sa.Column("email_proven", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("identities", sa.Column("asked_at", sa.DateTime(timezone=True)))
    op.create_index("ix_identities_provider_asked_at", "identities", ["provider", "asked_at"])
