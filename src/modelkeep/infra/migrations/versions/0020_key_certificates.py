"""The client certificates that a key goes with, and the names of those that stand for one by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("certificate", sa.Text))
    op.create_table(
        "certificate_names",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, sa.ForeignKey("api_keys.id", name="fk_certificate_names_key_id_api_keys"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_certificate_names"),
    )
    op.create_index("ix_certificate_names_key_id", "certificate_names", ["key_id"])
