"""Rows of deployments, of each of their revisions, written once, and of what servers last said."""

import sqlalchemy as sa

from modelkeep.contracts.prediction import CacheSeen
from modelkeep.contracts.snapshot import DeploymentSettings
from modelkeep.contracts.traffic import Traffic, Trial, TrialSeen
from modelkeep.infra.db import Document, UtcTime, metadata

deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("model_id", sa.Text, sa.ForeignKey("models.id"), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id")),
    sa.Column("version", sa.Integer),
    sa.Column("previous_version_id", sa.Text, sa.ForeignKey("versions.id")),
    sa.Column("previous_version", sa.Integer),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
    sa.Column("settings", Document(DeploymentSettings), nullable=False, server_default="{}"),
    sa.Column("traffic", Document(Traffic), nullable=False, server_default="{}"),
    sa.Column("trial", Document(Trial)),
)
deployment_revisions = sa.Table(
    "deployment_revisions",
    metadata,
    sa.Column("deployment_id", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("model_id", sa.Text, sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id")),
    sa.Column("version", sa.Integer),
    sa.Column("settings", Document(DeploymentSettings), nullable=False),
    sa.Column("traffic", Document(Traffic), nullable=False),
    sa.Column("trial", Document(Trial)),
    sa.Column("restored", sa.Integer),
)
heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("snapshot", sa.BigInteger, nullable=False),
    sa.Column("serving", Document(dict[str, str]), nullable=False),
    sa.Column("failing", Document(dict[str, str]), nullable=False),
    sa.Column("trials", Document(dict[str, TrialSeen]), nullable=False, server_default="{}"),
    sa.Column("cache", Document(dict[str, CacheSeen]), nullable=False, server_default="{}"),
)
