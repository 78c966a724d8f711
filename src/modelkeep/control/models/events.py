"""Facts about models and versions."""

import msgspec


class ModelCreated(msgspec.Struct, frozen=True):
    """A model was created."""

    model_id: str
    name: str


class ModelArchiveChanged(msgspec.Struct, frozen=True):
    """A model was archived or restored: it answers no more, or again."""

    model_id: str


class DeprecationChanged(msgspec.Struct, frozen=True):
    """A model, or a version of it, was deprecated, or is so no more: its answers say that."""

    model_id: str


class ModelPurged(msgspec.Struct, frozen=True):
    """Nothing but a tombstone is left of a model, under this name; its own is free."""

    model_id: str
    name: str


class AliasMoved(msgspec.Struct, frozen=True):
    """An alias of a model points to another version; to none (`version_id` None) where it was deleted."""

    model_id: str
    alias: str
    version_id: str | None


class VersionBecameReady(msgspec.Struct, frozen=True):
    """A version passed validation. `archived`: it, or its model, was archived meanwhile and must not serve."""

    model_id: str
    model: str
    version_id: str
    number: int
    archived: bool


class ModelMoved(msgspec.Struct, frozen=True):
    """A model lies in another workspace, or belongs to somebody else: others may ask it than before."""

    model_id: str
