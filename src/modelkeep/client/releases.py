"""What was and will be of deployments: revisions, plans, moments, and changes that are to come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from modelkeep.client.results import Listing, _FromDocument


@dataclass(frozen=True, repr=False)
class Revision(_FromDocument):
    """What a deployment was from one change to the next; `settings_revision` is known of what it was at a moment alone."""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "revision", "at", "by", "action", "reason", "version", "traffic")

    name: str
    revision: int = 0
    at: str = ""
    by: str = ""
    action: str = ""
    reason: str = ""
    version: int | None = None
    version_id: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    traffic: Mapping[str, Any] = field(default_factory=dict)
    trial: Mapping[str, Any] | None = None
    restored: int | None = None
    settings_revision: int | None = None


@dataclass(frozen=True, repr=False)
class Plan(_FromDocument):
    """What a change would do: all that would differ, and what each version answers before and after."""

    SHOWN: ClassVar[tuple[str, ...]] = ("revision", "changes", "answering", "needs_approval")

    revision: int
    changes: Sequence[Mapping[str, Any]] = ()
    answering: Sequence[Mapping[str, Any]] = ()
    needs_approval: bool = False


@dataclass(frozen=True, repr=False)
class AsOf(_FromDocument):
    """What answered for a model at a moment, and where its aliases pointed."""

    SHOWN: ClassVar[tuple[str, ...]] = ("model", "at", "deployments", "aliases")

    model: str
    at: str = ""
    aliases: Mapping[str, int] = field(default_factory=dict)

    @property
    def deployments(self) -> list[Revision]:
        """What each deployment was."""
        return Listing(Revision.read(one) for one in self.raw.get("deployments", ()))


@dataclass(frozen=True, repr=False)
class ScheduledChange(_FromDocument):
    """A change that is made at a later moment: `waiting`, `done` as a revision, `failed` with a `problem`, or `cancelled`."""

    SHOWN: ClassVar[tuple[str, ...]] = ("id", "deployment", "at", "state", "by", "change", "reason", "revision", "problem")

    id: str
    deployment: str = ""
    at: str = ""
    state: str = ""
    by: str = ""
    asked_at: str = ""
    change: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    revision: int | None = None
    problem: str = ""


@dataclass(frozen=True, repr=False)
class Shadow(_FromDocument):
    """How a version that is asked beside the promoted one compares with it, row by row; `agreement` is a share of rows."""

    SHOWN: ClassVar[tuple[str, ...]] = ("version", "primary", "active", "requests", "rows", "differ", "agreement")

    version: int | None = None
    primary: int | None = None
    active: bool = False
    since: str = ""
    at: str = ""
    asked: int = 0
    requests: int = 0
    requests_differ: int = 0
    rows: int = 0
    differ: int = 0
    agreement: float | None = None
    share: float = 0.0
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    disagreement: Sequence[float] = ()
    primary_ms: Mapping[str, Any] = field(default_factory=dict)
    shadow_ms: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[Mapping[str, Any]] = ()
    slices: Sequence[Mapping[str, Any]] = ()
    worst: Sequence[Mapping[str, Any]] = ()
