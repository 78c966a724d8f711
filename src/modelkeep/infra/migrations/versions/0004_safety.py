"""What administrators allow although it is dangerous. An installation that has taken code so far goes on taking it."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_REASON = "Taken over: this installation held such models before there was a switch."


def upgrade() -> None:
    switches = op.create_table(
        "safety_switches",
        sa.Column("name", sa.Text),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_safety_switches"),
    )
    held = sa.text("SELECT 1 FROM versions WHERE format IN ('joblib', 'pickle') LIMIT 1")
    if op.get_bind().execute(held).first() is not None:
        row = {"name": "code_formats", "value": "on", "reason": _REASON, "set_by": "modelkeep", "set_at": datetime.now(UTC)}
        op.execute(sa.insert(switches).values(**row))
