"""The life of models and versions: deprecation, trash, legal hold, purge, what each change leaves behind, and lineage."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for table in ("models", "versions"):
        op.add_column(table, sa.Column("deprecation", sa.Text))
        op.add_column(table, sa.Column("hold", sa.Text))
        op.add_column(table, sa.Column("trashed_at", _TIME))
        op.add_column(table, sa.Column("purging_at", _TIME))
        op.add_column(table, sa.Column("purged_at", _TIME))
    op.add_column("models", sa.Column("former_name", sa.Text))
    op.create_index("ix_models_former_name", "models", ["former_name"])
    op.add_column("versions", sa.Column("parent_id", sa.Text))
    op.add_column("versions", sa.Column("training", sa.Text))
    op.create_index("ix_versions_parent_id", "versions", ["parent_id"])
    _changes()
    _erasures()


def _changes() -> None:
    op.create_table(
        "version_changes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_version_changes_model_id_models"), nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_version_changes_version_id_versions")),
        sa.Column("version", sa.Integer),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("change", "before", "after", "reason")),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("by_user", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_version_changes"),
    )
    op.create_index("ix_version_changes_model_id", "version_changes", ["model_id", "version_id", "id"])


def _erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_erasures_model_id_models"), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_erasures_version_id_versions"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("kept", sa.Text, nullable=False),
        sa.Column("bytes_before", sa.BigInteger),
        sa.Column("bytes_after", sa.BigInteger),
        sa.Column("finished_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
        sa.UniqueConstraint("version_id", name="uq_erasures_version_id"),
    )
