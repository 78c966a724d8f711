"""Acts that need two people: who asked for what, and who has approved it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    texts = (
        "kind",
        "action",
        "subject",
        "summary",
        "digest",
        "scope",
        "workspace",
        "model",
        "owner",
        "asked_by",
        "asked_by_name",
    )
    op.create_table(
        "approvals",
        sa.Column("id", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        sa.Column("by_person", sa.Boolean, nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("refused_by", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("used_at", _TIME),
        sa.Column("request", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        sa.UniqueConstraint("request", name="uq_approvals_request"),
    )
