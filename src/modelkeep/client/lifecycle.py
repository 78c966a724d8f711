"""The life of models and versions: putting away, bringing back, removing for good, and where a version came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from modelkeep.client.results import Listing, Model, Version, _FromDocument
from modelkeep.client.server import Server, model_path, version_path
from modelkeep.client.steps import Steps


@dataclass(frozen=True, repr=False)
class LifeChange(_FromDocument):
    """One change in the life of a model, or of one of its versions: who did what, when, and why."""

    id: str
    change: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""
    at: str = ""
    by: str = ""
    version: int | None = None


@dataclass(frozen=True, repr=False)
class Erasure(_FromDocument):
    """The record of a purge: which files are gone, and how many bytes that was; it goes on without `finished_at`."""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "model", "version", "reason", "bytes_before", "bytes_after", "finished_at")

    id: str
    model: str = ""
    version_id: str = ""
    version: int = 0
    digest: str = ""
    reason: str = ""
    asked_at: str = ""
    asked_by: str = ""
    files: Sequence[Mapping[str, Any]] = ()
    kept: Sequence[str] = ()
    bytes_before: int | None = None
    bytes_after: int | None = None
    finished_at: str | None = None


@dataclass(frozen=True, repr=False)
class Lineage(_FromDocument):
    """Where a version came from, nearest first, and what came of it. Without `complete` there is more, further or hidden."""

    version: Mapping[str, Any] = field(default_factory=dict)
    ancestors: Sequence[Mapping[str, Any]] = ()
    descendants: Sequence[Mapping[str, Any]] = ()
    complete: bool = True


def deprecate(
    server: Server,
    name: str,
    *,
    reason: str,
    version: int | None = None,
    since: datetime | None = None,
    sunset: datetime | None = None,
    note: str = "",
    successor: int | None = None,
) -> Steps[Model | Version]:
    """Say that a model or a version should not be used any more: its answers do from now on, by headers.

    `since` and `sunset` have a time zone: from when, and when it will answer no longer. `successor` is the version to take.
    """
    body: dict[str, Any] = {"reason": reason, "note": note}
    moments = {"since": since, "sunset": sunset}
    body |= {what: at.isoformat() for what, at in moments.items() if at is not None}
    if successor is not None:
        body["successor"] = successor
    return _thing((yield from server.document("PUT", f"{_path(name, version)}/deprecation", body)), version)


def revive(server: Server, name: str, *, version: int | None = None, reason: str = "") -> Steps[Model | Version]:
    """Take a deprecation back."""
    return _thing((yield from _deleted(server, f"{_path(name, version)}/deprecation", reason)), version)


def trash(server: Server, name: str, *, version: int | None = None, reason: str = "") -> Steps[Model | Version]:
    """Put a model or a version into the trash, from where `restore` brings it back until it is purged."""
    return _thing((yield from _deleted(server, _path(name, version), reason)), version)


def hold(server: Server, name: str, *, reason: str, version: int | None = None) -> Steps[Model | Version]:
    """Put a legal hold on a model with all its versions, or on one version: nothing of it is trashed or purged."""
    return _thing((yield from server.document("PUT", f"{_path(name, version)}/hold", {"reason": reason})), version)


def release(server: Server, name: str, *, version: int | None = None, reason: str = "") -> Steps[Model | Version]:
    """Take a legal hold away."""
    return _thing((yield from _deleted(server, f"{_path(name, version)}/hold", reason)), version)


def purge(server: Server, name: str, *, reason: str, version: int | None = None) -> Steps[list[Erasure]]:
    """Have what is in the trash removed for good; returns the records of that, which are finished when the files are gone."""
    found = yield from server.document("POST", f"{_path(name, version)}/purge", {"reason": reason})
    return Listing(Erasure.read(one) for one in found["items"])


def erasures(server: Server, *, limit: int = 50) -> Steps[list[Erasure]]:
    """Return the newest records of purges."""
    return Listing((yield from server.items("/erasures", Erasure.read, most=limit)))


def changes(server: Server, name: str, *, version: int | None = None, limit: int = 50) -> Steps[list[LifeChange]]:
    """Return what happened in the life of a model, or of a version, newest first."""
    return Listing((yield from server.items(f"{_path(name, version)}/changes", LifeChange.read, most=limit)))


def lineage(server: Server, name: str, version: int, *, depth: int = 10) -> Steps[Lineage]:
    """Return where a version came from and what came of it, up to `depth` steps, as far as you may see that."""
    return Lineage.read((yield from server.document("GET", f"{_path(name, version)}/lineage", params={"depth": depth})))


def _deleted(server: Server, path: str, reason: str) -> Steps[Any]:
    return server.document("DELETE", path, **({"params": {"reason": reason}} if reason else {}))


def _path(name: str, version: int | None) -> str:
    return model_path(name) if version is None else version_path(name, version)


def _thing(document: Mapping[str, Any], version: int | None) -> Model | Version:
    return Model.read(document) if version is None else Version.read(document)
