"""People with e-mail and password, their sessions, what signs these, failed logins, and one-time links.

Whoever is a user already has been the first administrator.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("users", sa.Column("email", sa.Text))
    op.add_column("users", sa.Column("display_name", sa.Text, nullable=False, server_default=""))
    op.add_column("users", sa.Column("password_hash", sa.Text))
    op.add_column("users", sa.Column("status", sa.Text, nullable=False, server_default="active"))
    op.add_column("users", sa.Column("kind", sa.Text, nullable=False, server_default="person"))
    op.create_index("ix_users_email", "users", ["email"], unique=True)
    _sessions()
    _links()


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id", name="fk_sessions_user_id_users"), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("program", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column(
            "session_id", sa.Text, sa.ForeignKey("sessions.id", name="fk_refresh_tokens_session_id_sessions"), nullable=False
        ),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("rotated_at", _TIME),
        sa.Column("answer", sa.LargeBinary),
        sa.PrimaryKeyConstraint("digest", name="pk_refresh_tokens"),
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id"])
    op.create_table(
        "signing_keys",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("kid", sa.Text, nullable=False),
        sa.Column("public", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("signs_from", _TIME, nullable=False),
        sa.Column("good_until", _TIME),
        sa.PrimaryKeyConstraint("number", name="pk_signing_keys"),
    )
    op.create_index("ix_signing_keys_kid", "signing_keys", ["kid"], unique=True)
    op.create_table(
        "failed_attempts",
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("next_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_failed_attempts"),
    )
    op.create_index("ix_failed_attempts_at", "failed_attempts", ["at"])


def _links() -> None:
    op.create_table(
        "one_time_links",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id", name="fk_one_time_links_user_id_users")),
        sa.Column("email", sa.Text),
        sa.Column("role", sa.Text),
        sa.Column("used_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_one_time_links"),
        sa.UniqueConstraint("digest", name="uq_one_time_links_digest"),
    )
