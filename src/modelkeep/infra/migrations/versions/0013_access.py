"""Workspaces, groups and grants; models lie in a workspace and belong to somebody; keys may be bound to models."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_TIME = sa.DateTime(timezone=True)
_DEFAULT = "wsp_default"
_SUBJECT_AND_PLACE = ("subject_kind", "subject", "role", "kind", "on")
_ADDED = {"models:write": "deployments:write", "models:read": "predictions:read"}
"""What a scope let its holder do until now, and another one does from now on."""


def upgrade() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
        sa.UniqueConstraint("name", name="uq_workspaces_name"),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Text, sa.ForeignKey("groups.id", name="fk_group_members_group_id_groups"), nullable=False),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id", name="fk_group_members_user_id_users"), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "user_id", name="pk_group_members"),
    )
    op.create_index("ix_group_members_user_id", "group_members", ["user_id"])
    op.create_table(
        "grants",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("subject_kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("on", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.UniqueConstraint(
            "subject_kind", "subject", "role", "kind", "on", name="uq_grants_subject_kind_subject_role_kind_on"
        ),
    )
    op.add_column("api_keys", sa.Column("models", sa.Text))
    # SQLite adds no column that refers to another table and has a value: the transaction that makes a model looks instead
    op.add_column("models", sa.Column("workspace_id", sa.Text, nullable=False, server_default=_DEFAULT))
    op.add_column("models", sa.Column("owner_id", sa.Text))
    _fill(op.get_bind())
    op.create_index("ix_models_workspace_id", "models", ["workspace_id"])
    op.create_index("ix_models_owner_id", "models", ["owner_id"])


def _fill(connection: sa.Connection) -> None:
    """Make the first workspace; whoever there is administers, as until now; who made a model owns it."""
    now = sa.func.current_timestamp()
    workspaces = sa.table("workspaces", *(sa.column(name) for name in ("id", "name", "created_at")))
    connection.execute(workspaces.insert().values(id=_DEFAULT, name="default", created_at=now))
    users = sa.table("users", sa.column("id"), sa.column("name"))
    models = sa.table("models", *(sa.column(name) for name in ("id", "created_by", "owner_id")))
    grants = sa.table(
        "grants",
        *(sa.column(name) for name in ("id", "subject_kind", "subject", "role", "kind", "on", "created_at", "created_by")),
    )
    for user in connection.execute(sa.select(users)).all():
        connection.execute(
            grants.insert().values(
                id=user.id.replace("usr_", "grt_"),
                subject_kind="user",
                subject=user.id,
                role="admin",
                kind="installation",
                on="",
                created_at=now,
                created_by="modelkeep",
            )
        )
        connection.execute(models.update().where(models.c.created_by == user.name).values(owner_id=user.id))
    keys = sa.table("api_keys", sa.column("id"), sa.column("scopes"))
    for key in connection.execute(sa.select(keys)).all():
        scopes = set(json.loads(key.scopes))
        more = scopes | {added for held, added in _ADDED.items() if held in scopes}
        if more != scopes:
            connection.execute(keys.update().where(keys.c.id == key.id).values(scopes=json.dumps(sorted(more))))
