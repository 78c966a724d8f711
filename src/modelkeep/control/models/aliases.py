"""Aliases as values: the rule of their names, what moving one changes, and the row of history that each move leaves behind."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from modelkeep.contracts.access import Guarded, Scope
from modelkeep.contracts.names import check_name
from modelkeep.control.approvals.rules import Act
from modelkeep.control.models.errors import AliasStale, InvalidAlias, TooManyAliases
from modelkeep.control.models.rules import Model, Version

MOST_ALIASES: Final = 100
"""How many aliases a model may have: each is a version that serving may be asked for at any time."""

_NUMBER_LIKE: Final = re.compile(r"v?[0-9]+")
_RESERVED: Final = frozenset({"latest"})


class Alias(msgspec.Struct, frozen=True):
    """A name that points to one ready version of a model. Its revision is the number of its newest move."""

    model_id: str
    name: str
    version_id: str
    version: int
    revision: int
    changed_at: datetime
    changed_by: str


class Move(msgspec.Struct, frozen=True):
    """One row of an alias's history, written once: who had it point from where to where, and when.

    There is no `from_version` where it pointed to nothing before, and no `to_version` where it was deleted. Moves of one name
    are numbered by `revision` from 1, also across a deletion.
    """

    model_id: str
    alias: str
    revision: int
    from_version_id: str | None
    from_version: int | None
    to_version_id: str | None
    to_version: int | None
    at: datetime
    by: str


def check_alias(name: str) -> str:
    """Return `name` when an alias may have it; raise `InvalidAlias` for what would be taken for a number of a version.

    `latest` is refused too: everywhere else it means the newest version, and never a pointer that somebody has set.
    """
    check_name(name)
    if _NUMBER_LIKE.fullmatch(name) or name in _RESERVED:
        raise InvalidAlias
    return name


def point(
    there: Sequence[Alias], name: str, version: Version, *, moves: int, expected: int | None, by: str, now: datetime
) -> tuple[Alias, Move | None]:
    """Return the alias as it is when it points to `version`, and the move; no move when it points there already.

    `there` are the model's aliases, `moves` is how often this name has been moved so far. `expected` is the revision that
    whoever asks has seen, 0 for none.
    """
    present = next((one for one in there if one.name == name), None)
    _check_revision(present, expected)
    if present is not None and present.version_id == version.id:
        return present, None
    if present is None and len(there) >= MOST_ALIASES:
        raise TooManyAliases
    alias = Alias(version.model_id, name, version.id, version.number, moves + 1, now, by)
    return alias, _move(present, alias, version.model_id, name, revision=moves + 1, by=by, now=now)


def goes_back(move: Move, last: Move | None) -> bool:
    """Whether a move takes the last one, to a newer version, back; what was taken back so is new again."""
    if last is None or move.from_version is None or move.to_version is None:
        return False
    return last.from_version_id == move.to_version_id and move.to_version < move.from_version


def pointing(model: Model, move: Move) -> Act:
    """Return moving an alias, or deleting it, as what two people may have to agree to."""
    now = "it is new" if move.from_version is None else f"it is version {move.from_version} now"
    kind: Guarded = "deletion" if move.to_version is None else "promotion"
    what = "Delete the alias" if move.to_version is None else "Set the alias"
    to = "" if move.to_version is None else f" to version {move.to_version}"
    return Act(
        kind,
        "alias.delete" if move.to_version is None else "alias.set",
        model.id,
        f"{what} {move.alias} of {model.name}{to}; {now}.",
        Scope.DEPLOYMENTS_WRITE,
        model.place,
        seen=(move.alias, move.revision, move.from_version_id, move.to_version_id),
    )


def remove(present: Alias, *, expected: int | None, by: str, now: datetime) -> Move:
    """Return the move that ends an alias. `expected` as in `point`."""
    _check_revision(present, expected)
    return _move(present, None, present.model_id, present.name, revision=present.revision + 1, by=by, now=now)


def _move(
    before: Alias | None, after: Alias | None, model_id: str, name: str, *, revision: int, by: str, now: datetime
) -> Move:
    return Move(
        model_id,
        name,
        revision,
        None if before is None else before.version_id,
        None if before is None else before.version,
        None if after is None else after.version_id,
        None if after is None else after.version,
        now,
        by,
    )


def _check_revision(present: Alias | None, expected: int | None) -> None:
    revision = 0 if present is None else present.revision
    if expected is not None and expected != revision:
        now = f"is at revision {revision}" if revision else "does not exist"
        raise AliasStale(f"The alias {now} now: read it again, then repeat the change.", revision=revision)
