"""The first tables: people, keys, models, versions, deployments, jobs, news, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Text),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("actor_name", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
    )
    op.create_index("ix_audit_entries_target", "audit_entries", ["target", "id"])
    op.create_table(
        "users",
        sa.Column("id", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id", name="fk_api_keys_user_id_users"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("last_used_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_table(
        "setup_tokens",
        sa.Column("id", sa.Text),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_setup_tokens"),
        sa.UniqueConstraint("digest", name="uq_setup_tokens_digest"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("archived_at", _TIME),
        sa.Column("latest_version", sa.Integer),
        sa.Column("serving_version", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", name="uq_models_name"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Text),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_versions_model_id_models"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("runner", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("labels", sa.Text),
        sa.Column("label_count", sa.Integer),
        sa.Column("image", sa.Text),
        sa.Column("sample", sa.Text),
        sa.Column("signature", sa.Text),
        sa.Column("report", sa.Text),
        sa.Column("rejection", sa.Text),
        sa.Column("scores", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("validated_at", _TIME),
        sa.Column("archived_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("model_id", "number", name="uq_versions_model_id_number"),
    )
    op.create_table(
        "upload_keys",
        sa.Column("user_id", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_upload_keys"),
    )
    op.create_index("ix_upload_keys_at", "upload_keys", ["at"])
    op.create_table(
        "deployments",
        sa.Column("id", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", name="fk_deployments_model_id_models"), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_deployments_version_id_versions")),
        sa.Column("version", sa.Integer),
        sa.Column(
            "previous_version_id", sa.Text, sa.ForeignKey("versions.id", name="fk_deployments_previous_version_id_versions")
        ),
        sa.Column("previous_version", sa.Integer),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("updated_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
        sa.UniqueConstraint("name", name="uq_deployments_name"),
    )
    op.create_table(
        "heartbeats",
        sa.Column("server", sa.Text),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("snapshot", sa.BigInteger, nullable=False),
        sa.Column("serving", sa.Text, nullable=False),
        sa.Column("failing", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("server", name="pk_heartbeats"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_table(
        "worker_leases",
        sa.Column("worker", sa.Text),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_worker_leases"),
    )
    op.create_table(
        "broadcasts",
        sa.Column("topic", sa.Text),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("at", _TIME),
        sa.PrimaryKeyConstraint("topic", name="pk_broadcasts"),
    )
