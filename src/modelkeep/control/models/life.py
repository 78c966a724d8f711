r"""The life of a model or a version as values: where it stands, what each change leaves behind, and where it came from.

active <-> deprecated -> archived -> trashed -> purging -> purged
   ^____________________________/________/

Where a thing stands follows from what was noted on it, so that what it was before the archive and the trash is not forgotten:
whoever takes a deprecated version out of the trash has a deprecated version.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

import msgspec

from modelkeep.contracts.errors import Invalid

LONGEST_REASON: Final = 1000
LARGEST_TRAINING: Final = 64 * 1024
MOST_DATA: Final = 200
DEEPEST: Final = 50

_TEXT: Final = 1000

ChangeKind = Literal["deprecate", "revive", "archive", "trash", "restore", "hold", "release", "purge", "purged"]
"""What may happen to a model or a version; `revive` takes a deprecation back, `release` a legal hold."""


class Life(StrEnum):
    """Where a model or a version stands, beside what validation said. In the trash it waits to be purged."""

    ACTIVE = "active"
    DEPRECATED = "deprecated"
    ARCHIVED = "archived"
    TRASHED = "trashed"
    PURGING = "purging"
    PURGED = "purged"


class Deprecation(msgspec.Struct, frozen=True):
    """Since when it should not be used any more, when it will answer no longer, why, and which version of the model to take."""

    since: datetime
    sunset: datetime | None = None
    note: str = ""
    successor: int | None = None


class Hold(msgspec.Struct, frozen=True):
    """A legal hold: nothing of what it is on is put into the trash or purged."""

    reason: str
    at: datetime
    by: str


class Data(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Data that a version was trained on: a name, where it lies, and its digest."""

    name: str
    uri: str = ""
    digest: str = ""


class Training(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a version came to be: the job that trained it, which revision of which code, who, and from which data."""

    job: str = ""
    code: str = ""
    revision: str = ""
    by: str = ""
    data: tuple[Data, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """One change in the life of a model, or of a version of it, written once. `version` None: of the model itself."""

    id: str
    model_id: str
    version_id: str | None
    version: int | None
    change: ChangeKind
    before: Life
    after: Life
    reason: str
    at: datetime
    by: str
    by_user: str


class ErasedFile(msgspec.Struct, frozen=True):
    """A file of a version that was purged: its SHA-256, and the bytes that the store held for it."""

    digest: str
    size: int


class Erasure(msgspec.Struct, frozen=True):
    """The record of a purge. Without `bytes_before` nothing was removed yet; without `finished_at` it goes on.

    `files` are those that only this version named; `kept` are digests of those that other versions name, too. Bytes are those
    that the store held for `files`.
    """

    id: str
    model_id: str
    model: str
    version_id: str
    version: int
    digest: str
    reason: str
    asked_at: datetime
    asked_by: str
    files: tuple[ErasedFile, ...] = ()
    kept: tuple[str, ...] = ()
    bytes_before: int | None = None
    bytes_after: int | None = None
    finished_at: datetime | None = None


class Related(msgspec.Struct, frozen=True):
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
    training: Training | None


class Lineage(msgspec.Struct, frozen=True):
    """Where a version came from, nearest first, and what came of it. Where it is not `complete`, there is more.

    More may be further away than was asked, or nothing that whoever asks may see.
    """

    version: Related
    ancestors: tuple[Related, ...]
    descendants: tuple[Related, ...]
    complete: bool


def life_of(
    *,
    deprecation: Deprecation | None,
    archived_at: datetime | None,
    trashed_at: datetime | None,
    purging_at: datetime | None,
    purged_at: datetime | None,
) -> Life:
    """Return where a thing stands on which this was noted: what was noted last in its life decides."""
    if purged_at is not None:
        return Life.PURGED
    if purging_at is not None:
        return Life.PURGING
    if trashed_at is not None:
        return Life.TRASHED
    if archived_at is not None:
        return Life.ARCHIVED
    return Life.ACTIVE if deprecation is None else Life.DEPRECATED


def check_reason(text: str, *, needed: bool = False) -> str:
    """Return a reason that is not too long, and is there where it is `needed`."""
    plain = text.strip()
    if len(plain) > LONGEST_REASON or "\0" in plain or (needed and not plain):
        least = "1" if needed else "0"
        raise Invalid(f"Say why, in {least} to {LONGEST_REASON} characters: the reason is kept with the change.")
    return plain


def deprecation(
    now: datetime, *, since: datetime | None, sunset: datetime | None, note: str, successor: int | None
) -> Deprecation:
    """Return a deprecation from now or `since`; raises `Invalid` for a sunset before it, or moments without a zone."""
    if any(one is not None and one.tzinfo is None for one in (since, sunset)):
        raise Invalid("A moment needs its time zone: 2026-03-14T09:26:53Z.")
    begins = now if since is None else since.astimezone(UTC)
    ends = None if sunset is None else sunset.astimezone(UTC)
    if ends is not None and ends < begins:
        raise Invalid("The sunset is not before the deprecation.")
    return Deprecation(begins, ends, check_reason(note), successor)


def read_training(text: str) -> Training | None:
    """Return what the JSON text says of a version's training, None for nothing; raises `Invalid` with what is wrong."""
    if not text.strip():
        return None
    if len(text.encode()) > LARGEST_TRAINING:
        raise Invalid(f"`training` has at most {LARGEST_TRAINING} bytes.")
    try:
        found = msgspec.json.decode(text, type=Training)
    except msgspec.DecodeError as error:
        raise Invalid(
            "`training` is a JSON object with the texts job, code, revision and by, and data, a list of objects with name, uri "
            "and digest."
        ) from error
    if len(found.data) > MOST_DATA or any(len(one) > _TEXT or "\0" in one for one in _texts(found)):
        raise Invalid(f"`training` names at most {MOST_DATA} data, and no text of it has more than {_TEXT} characters, or NUL.")
    return found


def _texts(training: Training) -> Iterable[str]:
    yield from (training.job, training.code, training.revision, training.by)
    for one in training.data:
        yield from (one.name, one.uri, one.digest)
