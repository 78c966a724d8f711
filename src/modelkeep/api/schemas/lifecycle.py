"""Wire shapes of the life of models and versions."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

from modelkeep.api.schemas.wire import Answer, Ask, Number
from modelkeep.control.models.life import LONGEST_REASON, ChangeKind, Life

Reason = Annotated[str, Field(max_length=LONGEST_REASON, description="Why; it is kept with the change.")]
GivenReason = Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, description="Why; it is kept with the change.")]


class Because(Ask):
    """Say why."""

    reason: Reason = ""


class Deprecate(Ask):
    """Say that something should not be used any more: since when (now), when it ends, and which version to take instead."""

    reason: GivenReason
    since: AwareDatetime | None = None
    sunset: AwareDatetime | None = None
    note: Reason = ""
    successor: Number | None = None


class PutOnHold(Ask):
    """Put a legal hold on something."""

    reason: GivenReason


class Purge(Ask):
    """Have something removed for good."""

    reason: GivenReason


class DeprecationAnswer(Answer):
    """Since when something should not be used any more, when it ends, why, and which version to take instead."""

    since: datetime
    sunset: datetime | None
    note: str
    successor: int | None


class HoldAnswer(Answer):
    """A legal hold."""

    reason: str
    at: datetime
    by: str


class DataAnswer(Answer):
    """Data that a version was trained on."""

    name: str
    uri: str
    digest: str


class TrainingAnswer(Answer):
    """How a version came to be: the job, which revision of which code, who, and from which data."""

    job: str
    code: str
    revision: str
    by: str
    data: list[DataAnswer]


class LifeChangeAnswer(Answer):
    """One change in the life of a model, or of one of its versions."""

    id: str
    version: int | None
    change: ChangeKind
    before: Life
    after: Life
    reason: str
    at: datetime
    by: str


class ErasedFileAnswer(Answer):
    """A file that was removed: its SHA-256, and the bytes that the store held for it."""

    digest: str
    size: int


class ErasureRecordAnswer(Answer):
    """The record of a purge; it goes on while `finished_at` is null.

    `files` are those that only this version named, `kept` digests of those that others name, too. Bytes are those that the
    store held for `files` before the purge and after it.
    """

    id: str
    model: str
    version_id: str
    version: int
    digest: str
    reason: str
    asked_at: datetime
    asked_by: str
    files: list[ErasedFileAnswer]
    kept: list[str]
    bytes_before: int | None
    bytes_after: int | None
    finished_at: datetime | None


class RelatedAnswer(Answer):
    """A version among the ancestors or descendants of another, so many steps away."""

    id: str
    model: str
    number: int
    life: Life
    digest: str
    steps: int
    parent_id: str | None
    created_at: datetime
    created_by: str
    training: TrainingAnswer | None


class LineageAnswer(Answer):
    """Where a version came from, nearest first, and what came of it.

    Where it is not `complete`, there is more: further away than was asked, or nothing that you may see.
    """

    version: RelatedAnswer
    ancestors: list[RelatedAnswer]
    descendants: list[RelatedAnswer]
    complete: bool
