"""Rows of replays. `rows` are the caller's own, and go when the replay ends."""

import sqlalchemy as sa

from modelkeep.control.replays.rules import Asked, Details, Failure, Summary
from modelkeep.infra.db import Document, UtcTime, metadata

replays = sa.Table(
    "replays",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("asked", Document(Asked), nullable=False),
    sa.Column("rows", sa.Text),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("finished_at", UtcTime),
    sa.Column("summary", Document(Summary)),
    sa.Column("failure", Document(Failure)),
    sa.Column("details", Document(Details)),
    sa.Index("ix_replays_version_id_id", "version_id", "id"),
    sa.Index("ix_replays_expires_at", "expires_at"),
)
