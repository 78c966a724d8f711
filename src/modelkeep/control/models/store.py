"""All the SQL of models, versions and aliases."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from modelkeep.contracts.access import Reach
from modelkeep.contracts.rejections import Rejection
from modelkeep.control.models.aliases import Alias, Move
from modelkeep.control.models.life import Change, Erasure, Life
from modelkeep.control.models.rules import FILES, UNVALIDATED, Files, Findings, Model, State, Upload, Version
from modelkeep.control.models.tables import alias_moves, aliases, erasures, models, version_changes, versions
from modelkeep.infra.db import Document, Transaction
from modelkeep.infra.reach import within

_VERSION = sa.select(
    *(column for column in versions.c if column.name not in {"labels", "label_count"}),
    versions.c.label_count.label("labels"),  # the labels themselves may be megabytes: only `labels` below reads them
    models.c.name.label("model"),
).join(models, models.c.id == versions.c.model_id)

_DIGEST: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_FILES_PAGE: Final = 500
MOST_CHILDREN: Final = 500
_NO_FILES: Final = frozenset({"id", "state", "labels", "deprecation", "hold", "parent_id", "training"})
_NAMING_FILES: Final = [
    (column.name, sa.type_coerce(column, sa.Text).label(f"text_{column.name}"))
    for column in sorted(versions.c, key=lambda one: list(FILES).index(one.name) if one.name in FILES else len(FILES))
    if isinstance(column.type, sa.Text | Document) and column.name not in _NO_FILES
]
_HELD: Final = (versions.c.hold.is_not(None) | models.c.hold.is_not(None)).label("held")
_TEXTS: Final = [column for _name, column in _NAMING_FILES]


async def add_model(tx: Transaction, model: Model) -> bool:
    """Add a model; False when its name is taken."""
    row = msgspec.structs.asdict(model)
    del row["aliases"]
    insert = tx.insert(models).values(**row).on_conflict_do_nothing(index_elements=["name"])
    return await tx.one(insert.returning(models.c.id)) is not None


async def model(tx: Transaction, name: str, *, for_update: bool = False) -> Model | None:
    """Return a model; `for_update` keeps its row, and so its versions and its deployment, to this transaction."""
    by_name = sa.select(models).where(models.c.name == name)
    row = await tx.one(by_name.with_for_update() if for_update else by_name)
    return None if row is None else _model(row)


async def model_by_id(tx: Transaction, model_id: str, *, for_update: bool = False) -> Model | None:
    """Return a model by its id; `for_update` as in `model`."""
    by_id = sa.select(models).where(models.c.id == model_id)
    row = await tx.one(by_id.with_for_update() if for_update else by_id)
    return None if row is None else _model(row)


async def page_of_models(
    tx: Transaction, reached: Reach, *, limit: int, after: str | None, archived: bool, trashed: bool = False, search: str = ""
) -> list[Model]:
    """Return models that are reached, in the order of their names, from after `after`; `archived` ones too, or not.

    `trashed`: those in the trash instead. `search`: those alone whose names have it in them.
    """
    by_name = sa.select(models).where(_in(reached)).order_by(models.c.name).limit(limit)
    if after is not None:
        by_name = by_name.where(models.c.name > after)
    by_name = by_name.where(_in_trash(models) if trashed else models.c.trashed_at.is_(None))
    if not archived and not trashed:
        by_name = by_name.where(models.c.archived_at.is_(None))
    if search:
        by_name = by_name.where(models.c.name.contains(search, autoescape=True))
    return [_model(row) for row in await tx.all(by_name)]


async def models_by_id(tx: Transaction, model_ids: Iterable[str]) -> list[Model]:
    """Return these models."""
    return [_model(row) for row in await tx.all(sa.select(models).where(models.c.id.in_(list(model_ids))))]


async def reached_models(tx: Transaction, reached: Reach) -> dict[str, str]:
    """Return the names of the models that are reached, by their ids."""
    return {row.id: row.name for row in await tx.all(sa.select(models.c.id, models.c.name).where(_in(reached)))}


async def count_models(tx: Transaction, workspace_id: str) -> int:
    """Return how many models lie in a workspace; no other transaction moves one in before this one has ended."""
    row = await tx.one(sa.select(sa.func.count()).select_from(models).where(models.c.workspace_id == workspace_id))
    return 0 if row is None else int(row[0])


async def open_models(tx: Transaction) -> set[str]:
    """Return the ids of the models that are not put away."""
    still = sa.select(models.c.id).where(models.c.archived_at.is_(None), models.c.trashed_at.is_(None))
    return {row.id for row in await tx.all(still)}


async def change_model(tx: Transaction, model_id: str, **values: object) -> Model:
    """Change columns of a model and return it."""
    row = await tx.one(sa.update(models).where(models.c.id == model_id).values(**values).returning(*models.c))
    assert row is not None  # noqa: S101 - a tombstone is left of every model
    return _model(row)


async def add_version(tx: Transaction, version: Version, upload: Upload) -> None:
    """Add a version as it was received."""
    row = msgspec.structs.asdict(version) | {
        "labels": upload.labels,
        "label_count": version.labels,
        "image": upload.image,
        "sample": upload.sample,
        "calibration": upload.calibration,
        "hooks": upload.hooks,
    }
    del row["model"]
    await tx.execute(sa.insert(versions).values(**row))


async def version(tx: Transaction, name: str, number: int) -> Version | None:
    """Return a version by its model's name and its number."""
    row = await tx.one(_VERSION.where(models.c.name == name, versions.c.number == number))
    return None if row is None else _version(row)


async def version_by_id(tx: Transaction, version_id: str) -> Version | None:
    """Return a version by its id."""
    row = await tx.one(_VERSION.where(versions.c.id == version_id))
    return None if row is None else _version(row)


async def versions_by_id(tx: Transaction, version_ids: Iterable[str]) -> list[Version]:
    """Return these versions."""
    return [_version(row) for row in await tx.all(_VERSION.where(versions.c.id.in_(list(version_ids))))]


async def named_versions(tx: Transaction, name: str, references: Iterable[str]) -> dict[str, str]:
    """Return the ids of a model's versions by the numbers and aliases among `references`."""
    wanted = list(references)
    numbers = [int(one) for one in wanted if _NUMBER.fullmatch(one)]
    of_model = sa.select(versions.c.id, versions.c.number).join(models, models.c.id == versions.c.model_id)
    rows = await tx.all(of_model.where(models.c.name == name, versions.c.number.in_(numbers)))
    pointing = sa.select(aliases.c.name, aliases.c.version_id).join(models, models.c.id == aliases.c.model_id)
    pointed = await tx.all(pointing.where(models.c.name == name, aliases.c.name.in_(wanted)))
    return {str(row.number): row.id for row in rows} | {row.name: row.version_id for row in pointed}


async def page_of_versions(
    tx: Transaction, model_id: str, *, limit: int, before: int | None, trashed: bool = False
) -> list[Version]:
    """Return versions of a model, newest first, with numbers below `before`; `trashed`: those in the trash instead."""
    newest = _VERSION.where(versions.c.model_id == model_id).order_by(versions.c.number.desc()).limit(limit)
    newest = newest.where(_in_trash(versions) if trashed else versions.c.trashed_at.is_(None))
    if before is not None:
        newest = newest.where(versions.c.number < before)
    return [_version(row) for row in await tx.all(newest)]


async def files(tx: Transaction, rejected_before: datetime, *, purging: bool = True) -> Files:
    """Return all files that versions name, wherever in their rows; those of versions rejected before then are released.

    Whatever looks like a digest counts: a new kind of file is kept from the day that a version first names it. A legal hold
    keeps those of rejected versions, too. What was purged names no files, what is being purged does unless `purging` is false.
    """
    used: dict[str, str] = {}
    released: set[str] = set()
    after = ""
    while True:
        page = sa.select(versions.c.id, versions.c.state, versions.c.validated_at, _HELD, *_TEXTS).order_by(versions.c.id)
        page = page.join(models, models.c.id == versions.c.model_id)
        page = page.where(versions.c.purged_at.is_(None) if purging else versions.c.purging_at.is_(None))
        rows = await tx.all(page.where(versions.c.id > after).limit(_FILES_PAGE))
        for row in rows:
            after = row.id
            rejected = row.state == State.REJECTED and not row.held and row.validated_at and row.validated_at < rejected_before
            for digest, name in _named(row):
                if rejected:
                    released.add(digest)
                else:
                    used.setdefault(digest, FILES.get(name, "other"))
        if len(rows) < _FILES_PAGE:
            return Files(used, frozenset(released - used.keys()))


async def labels(tx: Transaction, version_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the labels of each of these versions, in class order."""
    wanted = sa.select(versions.c.id, versions.c.labels).where(versions.c.id.in_(list(version_ids)))
    return {row.id: row.labels or () for row in await tx.all(wanted)}


async def change_version(tx: Transaction, version_id: str, **values: object) -> None:
    """Change columns of a version."""
    await tx.execute(sa.update(versions).where(versions.c.id == version_id).values(**values))


async def begin_validation(tx: Transaction, version_id: str) -> bool:
    """Set a version to validating; False when it has been validated."""
    return await _leave_unvalidated(tx, version_id, state=State.VALIDATING)


async def accept(tx: Transaction, version_id: str, findings: Findings, now: datetime) -> bool:
    """Set a version to ready with what was found; False when it had been validated before."""
    found = {name: getattr(findings, name) for name in ("signature", "report", "image", "scores", "compiled", "hooks")}
    return await _leave_unvalidated(tx, version_id, state=State.READY, validated_at=now, **found)


async def reject(tx: Transaction, version_id: str, rejection: Rejection, now: datetime) -> bool:
    """Set a version to rejected with the reason; False when it had been validated before."""
    return await _leave_unvalidated(tx, version_id, state=State.REJECTED, validated_at=now, rejection=rejection)


def _named(row: sa.Row[Any]) -> Iterator[tuple[str, str]]:
    """Yield what looks like a digest in a version's row, with the column that it stands in."""
    for name, _column in _NAMING_FILES:
        for digest in _DIGEST.findall(getattr(row, f"text_{name}") or ""):
            yield digest, name


async def _leave_unvalidated(tx: Transaction, version_id: str, **values: object) -> bool:
    unvalidated = sa.update(versions).where(versions.c.id == version_id, versions.c.state.in_(UNVALIDATED))
    return await tx.one(unvalidated.values(**values).returning(versions.c.id)) is not None


async def alias(tx: Transaction, model_id: str, name: str) -> Alias | None:
    """Return an alias of a model."""
    row = await tx.one(sa.select(aliases).where(aliases.c.model_id == model_id, aliases.c.name == name))
    return None if row is None else _alias(row)


async def aliases_of(tx: Transaction, model_ids: Iterable[str]) -> list[Alias]:
    """Return the aliases of these models, by name."""
    of_models = sa.select(aliases).where(aliases.c.model_id.in_(list(model_ids))).order_by(aliases.c.name)
    return [_alias(row) for row in await tx.all(of_models)]


async def move_alias(tx: Transaction, after: Alias | None, move: Move) -> None:
    """Write an alias as it is after a move (None where that ends it), and add the move to its history."""
    if after is None:
        await tx.execute(sa.delete(aliases).where(aliases.c.model_id == move.model_id, aliases.c.name == move.alias))
    else:
        row = msgspec.structs.asdict(after)
        insert = tx.insert(aliases).values(**row)
        await tx.execute(insert.on_conflict_do_update(index_elements=["model_id", "name"], set_=row))
    await tx.execute(sa.insert(alias_moves).values(**msgspec.structs.asdict(move)))


async def last_move(tx: Transaction, model_id: str, name: str) -> int:
    """Return the number of the newest move of this name, 0 where there was none."""
    newest = sa.select(sa.func.max(alias_moves.c.revision).label("revision"))
    row = await tx.one(newest.where(alias_moves.c.model_id == model_id, alias_moves.c.alias == name))
    return 0 if row is None or row.revision is None else int(row.revision)


async def page_of_moves(tx: Transaction, model_id: str, name: str, *, limit: int, before: int | None) -> list[Move]:
    """Return moves of an alias, newest first, with revisions below `before`."""
    of_alias = sa.select(alias_moves).where(alias_moves.c.model_id == model_id, alias_moves.c.alias == name)
    if before is not None:
        of_alias = of_alias.where(alias_moves.c.revision < before)
    rows = await tx.all(of_alias.order_by(alias_moves.c.revision.desc()).limit(limit))
    return [Move(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for it


async def aliases_at(tx: Transaction, model_id: str, at: datetime) -> dict[str, int]:
    """Return the numbers of versions by the aliases that pointed to them at a moment, by name."""
    until = sa.and_(alias_moves.c.model_id == model_id, alias_moves.c.at <= at)
    last = sa.select(alias_moves.c.alias, sa.func.max(alias_moves.c.revision).label("revision")).where(until)
    newest = last.group_by(alias_moves.c.alias).subquery()
    there = sa.and_(alias_moves.c.alias == newest.c.alias, alias_moves.c.revision == newest.c.revision)
    moved = sa.select(alias_moves.c.alias, alias_moves.c.to_version).join(newest, there).order_by(alias_moves.c.alias)
    rows = await tx.all(moved.where(alias_moves.c.model_id == model_id, alias_moves.c.to_version.is_not(None)))
    return {row.alias: row.to_version for row in rows}


async def add_change(tx: Transaction, change: Change) -> None:
    """Add a change in the life of a model or a version."""
    await tx.execute(sa.insert(version_changes).values(**msgspec.structs.asdict(change)))


async def page_of_changes(
    tx: Transaction, model_id: str, version_id: str | None, *, limit: int, before: str | None
) -> list[Change]:
    """Return changes in the life of a model, or of this version of it, newest first, with ids below `before`."""
    found = sa.select(version_changes).where(version_changes.c.model_id == model_id)
    found = found.where(version_changes.c.version_id.is_not_distinct_from(version_id))
    if before is not None:
        found = found.where(version_changes.c.id < before)
    rows = await tx.all(found.order_by(version_changes.c.id.desc()).limit(limit))
    return [Change(**{**row._mapping, "before": Life(row.before), "after": Life(row.after)}) for row in rows]  # noqa: SLF001


async def numbers_where(tx: Transaction, model_id: str, *, held: bool = False, unvalidated: bool = False) -> list[int]:
    """Return the numbers of the versions of a model that are on hold, or in validation."""
    wanted: sa.ColumnElement[bool] = sa.false()
    if held:
        wanted |= versions.c.hold.is_not(None)
    if unvalidated:
        wanted |= versions.c.state.in_(UNVALIDATED)
    found = sa.select(versions.c.number).where(versions.c.model_id == model_id, wanted).order_by(versions.c.number)
    return [row.number for row in await tx.all(found)]


async def unpurged(tx: Transaction, model_id: str) -> list[Version]:
    """Return the versions of a model that are not purged, by number."""
    left = _VERSION.where(versions.c.model_id == model_id, versions.c.purged_at.is_(None))
    return [_version(row) for row in await tx.all(left.order_by(versions.c.number))]


async def trashed_before(tx: Transaction, moment: datetime, *, limit: int) -> list[tuple[str, int | None]]:
    """Return names of models in the trash since before then, and versions in it of models that are not; none on hold."""
    old = (_in_trash(models), models.c.purging_at.is_(None), models.c.trashed_at <= moment, models.c.hold.is_(None))
    of_it = sa.exists().where(versions.c.model_id == models.c.id, versions.c.hold.is_not(None))
    whole = sa.select(models.c.name).where(*old, ~of_it).order_by(models.c.name).limit(limit)
    one = sa.select(models.c.name, versions.c.number).join(models, models.c.id == versions.c.model_id)
    one = one.where(_in_trash(versions), versions.c.purging_at.is_(None), versions.c.trashed_at <= moment)
    one = one.where(versions.c.hold.is_(None), models.c.hold.is_(None), models.c.trashed_at.is_(None))
    models_there = [(row.name, None) for row in await tx.all(whole)]
    return models_there + [(row.name, row.number) for row in await tx.all(one.order_by(versions.c.id).limit(limit))]


async def named_files(tx: Transaction, version_id: str) -> set[str]:
    """Return the files that a version names, wherever in its row."""
    row = await tx.one(sa.select(*_TEXTS).where(versions.c.id == version_id))
    return set() if row is None else {digest for digest, _column in _named(row)}


async def bury(tx: Transaction, version_id: str, now: datetime) -> None:
    """Leave nothing of a version but a tombstone: its id, its number, its digest, its moments, and its place among others."""
    texts = ("format", "runner", "filename", "description", "created_by", "scores")
    rest = ("labels", "label_count", "image", "sample", "signature", "report", "rejection", "compiled", "calibration", "hooks")
    gone: dict[str, object] = dict.fromkeys(texts, "") | dict.fromkeys((*rest, "deprecation", "training"))
    await change_version(tx, version_id, **gone, size=0, accuracy_budget=0.0, purged_at=now)


async def bury_model(tx: Transaction, model: Model, now: datetime) -> Model:
    """Leave nothing of a model but a tombstone, whose name nobody can have; its own is free."""
    await tx.execute(sa.delete(aliases).where(aliases.c.model_id == model.id))
    gone = {"description": "", "created_by": "", "deprecation": None, "serving_version": None}
    return await change_model(tx, model.id, **gone, name=f"~{model.id}", former_name=model.name, purged_at=now)


async def buried(tx: Transaction, name: str) -> list[Model]:
    """Return the tombstones of models that had this name."""
    return [_model(row) for row in await tx.all(sa.select(models).where(models.c.former_name == name))]


async def children(tx: Transaction, version_ids: Iterable[str]) -> list[Version]:
    """Return the versions that were made from these, oldest first."""
    found = _VERSION.where(versions.c.parent_id.in_(list(version_ids))).order_by(versions.c.id)
    return [_version(row) for row in await tx.all(found.limit(MOST_CHILDREN))]


async def add_erasure(tx: Transaction, erasure: Erasure) -> None:
    """Add the record of a purge that begins."""
    await tx.execute(sa.insert(erasures).values(**msgspec.structs.asdict(erasure)))


async def change_erasure(tx: Transaction, erasure_id: str, **values: object) -> Erasure:
    """Change columns of a purge's record and return it."""
    row = await tx.one(sa.update(erasures).where(erasures.c.id == erasure_id).values(**values).returning(*erasures.c))
    assert row is not None  # noqa: S101 - records of purges are never deleted
    return Erasure(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


async def erasure(tx: Transaction, erasure_id: str) -> Erasure | None:
    """Return the record of a purge."""
    row = await tx.one(sa.select(erasures).where(erasures.c.id == erasure_id))
    return None if row is None else Erasure(**row._mapping)  # noqa: SLF001 - as above


async def erasures_of(tx: Transaction, model_id: str, version_id: str | None) -> list[Erasure]:
    """Return the records of the purges of all versions of a model, or of one, oldest first."""
    found = sa.select(erasures).where(erasures.c.model_id == model_id).order_by(erasures.c.id)
    if version_id is not None:
        found = found.where(erasures.c.version_id == version_id)
    return [Erasure(**row._mapping) for row in await tx.all(found)]  # noqa: SLF001 - as above


async def page_of_erasures(tx: Transaction, *, limit: int, before: str | None) -> list[Erasure]:
    """Return records of purges, newest first, with ids below `before`."""
    found = sa.select(erasures).order_by(erasures.c.id.desc()).limit(limit)
    if before is not None:
        found = found.where(erasures.c.id < before)
    return [Erasure(**row._mapping) for row in await tx.all(found)]  # noqa: SLF001 - as above


async def unfinished_erasures(tx: Transaction) -> list[str]:
    """Return the ids of the purges that have not ended."""
    found = sa.select(erasures.c.id).where(erasures.c.finished_at.is_(None)).order_by(erasures.c.id)
    return [row.id for row in await tx.all(found)]


def _in_trash(table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.trashed_at.is_not(None) & table.c.purged_at.is_(None)


def _in(reached: Reach) -> sa.ColumnElement[bool]:
    return within(reached, models.c.workspace_id, models.c.id, models.c.owner_id)


def _model(row: sa.Row[tuple[object, ...]]) -> Model:
    return Model(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def _version(row: sa.Row[tuple[object, ...]]) -> Version:
    return Version(**{**row._mapping, "state": State(row.state)})  # noqa: SLF001 - SQLAlchemy's public name for it


def _alias(row: sa.Row[tuple[object, ...]]) -> Alias:
    return Alias(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
