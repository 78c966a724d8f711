"""Names that point to versions of a model, and each of their moves."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_aliases_model_id_models"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_aliases_version_id_versions"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "name", name="pk_aliases"),
    )
    op.create_table(
        "alias_moves",
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_alias_moves_model_id_models"), nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("from_version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_alias_moves_from_version_id_versions")),
        sa.Column("from_version", sa.Integer),
        sa.Column("to_version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_alias_moves_to_version_id_versions")),
        sa.Column("to_version", sa.Integer),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "alias", "revision", name="pk_alias_moves"),
    )
