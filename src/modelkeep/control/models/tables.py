"""Rows of models, their versions and aliases. Moves are written once."""

import sqlalchemy as sa

from modelkeep.contracts.hooks import Hooks
from modelkeep.contracts.rejections import Rejection
from modelkeep.contracts.report import CompiledArtifact, Report
from modelkeep.contracts.signature import ImageSpec, Signature
from modelkeep.control.access.rules import DEFAULT_WORKSPACE
from modelkeep.control.models.rules import Sample
from modelkeep.infra.db import Document, UtcTime, metadata

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("archived_at", UtcTime),
    sa.Column("latest_version", sa.Integer),
    sa.Column("serving_version", sa.Integer),
    sa.Column("workspace_id", sa.Text, nullable=False, server_default=DEFAULT_WORKSPACE, index=True),
    sa.Column("owner_id", sa.Text, index=True),
)
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, sa.ForeignKey("models.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("runner", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("labels", Document(tuple[str, ...])),
    sa.Column("label_count", sa.Integer),
    sa.Column("image", Document(ImageSpec)),
    sa.Column("sample", Document(Sample)),
    sa.Column("signature", Document(Signature)),
    sa.Column("report", Document(Report)),
    sa.Column("rejection", Document(Rejection)),
    sa.Column("scores", sa.Text, nullable=False),
    sa.Column("compile", sa.Text, nullable=False),
    sa.Column("compiled", Document(CompiledArtifact)),
    sa.Column("optimise", sa.Text, nullable=False),
    sa.Column("calibration", Document(Sample)),
    sa.Column("accuracy_budget", sa.Double, nullable=False),
    sa.Column("hooks", Document(Hooks)),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("validated_at", UtcTime),
    sa.Column("archived_at", UtcTime),
    sa.UniqueConstraint("model_id", "number"),
)
aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("model_id", sa.Text, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version_id", sa.Text, sa.ForeignKey("versions.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
)
alias_moves = sa.Table(
    "alias_moves",
    metadata,
    sa.Column("model_id", sa.Text, sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("from_version_id", sa.Text, sa.ForeignKey("versions.id")),
    sa.Column("from_version", sa.Integer),
    sa.Column("to_version_id", sa.Text, sa.ForeignKey("versions.id")),
    sa.Column("to_version", sa.Integer),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
)
