"""Claims on files that no row refers to yet, and whose turn it is to work on all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "blob_claims",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("condemned", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blob_claims"),
    )
    op.create_table(
        "blob_turns",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_blob_turns"),
    )
