"""Rows of the prediction history, in tables of their own: an SQLite file beside the control plane's, or PostgreSQL partitions.

They are made on first use and not by the control plane's migrations, which know one database alone.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

blocks = sa.Table(
    "prediction_blocks",
    metadata,
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("first_id", sa.Text(collation="C").with_variant(sa.Text(), "sqlite"), nullable=False),
    sa.Column("last_id", sa.Text(collation="C").with_variant(sa.Text(), "sqlite"), nullable=False),
    sa.Column("first_at", sa.Double, nullable=False),
    sa.Column("last_at", sa.Double, nullable=False),
    sa.Column("held", sa.Integer, nullable=False),
    sa.Column("raw_bytes", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("keys", sa.Text, nullable=False),
    sa.Column("outcomes", sa.Text, nullable=False),
    sa.Column("requests", sa.LargeBinary, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("day", "id", name="pk_prediction_blocks"),
    # found newest first, and by id; then: what is small, and how much there is, without touching the rows
    sa.Index("ix_prediction_blocks_last_id", "last_id", "first_id", "day"),
    sa.Index("ix_prediction_blocks_sizes", "day", "deployment", "held", "raw_bytes", "size", "last_at"),
    postgresql_partition_by="RANGE (day)",
)

positions = sa.Table(
    "spool_positions",
    metadata,
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("segment", sa.BigInteger, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("expected", sa.BigInteger, nullable=False),
)

losses = sa.Table(
    "prediction_losses",
    metadata,
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("records", sa.BigInteger, nullable=False),
)
