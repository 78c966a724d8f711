"""All the SQL of workspaces, groups and grants."""

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from modelkeep.contracts.access import Place, Role
from modelkeep.control.access.rules import Given, Group, Subject, SubjectKind, Workspace
from modelkeep.control.access.tables import grants, group_members, groups, workspaces
from modelkeep.infra.db import Transaction


async def add_workspace(tx: Transaction, workspace: Workspace) -> bool:
    """Add a workspace; False when its name is taken."""
    insert = tx.insert(workspaces).values(**msgspec.structs.asdict(workspace)).on_conflict_do_nothing(index_elements=["name"])
    return await tx.one(insert.returning(workspaces.c.id)) is not None


async def workspace(tx: Transaction, name: str, *, for_update: bool = False) -> Workspace | None:
    """Return a workspace by its name; `for_update` keeps its row to this transaction."""
    by_name = sa.select(workspaces).where(workspaces.c.name == name)
    row = await tx.one(by_name.with_for_update() if for_update else by_name)
    return None if row is None else _workspace(row)


async def keep_workspace(tx: Transaction, workspace_id: str) -> bool:
    """Have nobody remove a workspace before this transaction has ended; False when there is none."""
    kept = sa.select(workspaces.c.id).where(workspaces.c.id == workspace_id).with_for_update(read=True)
    return await tx.one(kept) is not None


async def workspaces_by_id(tx: Transaction, ids: Iterable[str]) -> dict[str, Workspace]:
    """Return these workspaces by their ids."""
    rows = await tx.all(sa.select(workspaces).where(workspaces.c.id.in_(list(ids))))
    return {row.id: _workspace(row) for row in rows}


async def page_of_workspaces(
    tx: Transaction, *, limit: int, after: str | None, among: frozenset[str] | None
) -> list[Workspace]:
    """Return workspaces in the order of their names, from after `after`; of those `among` these ids, where that is set."""
    by_name = sa.select(workspaces).order_by(workspaces.c.name).limit(limit)
    if after is not None:
        by_name = by_name.where(workspaces.c.name > after)
    if among is not None:
        by_name = by_name.where(workspaces.c.id.in_(among))
    return [_workspace(row) for row in await tx.all(by_name)]


async def remove_workspace(tx: Transaction, workspace_id: str) -> None:
    """Remove a workspace, and what was granted on it."""
    await tx.execute(sa.delete(grants).where(grants.c.kind == "workspace", grants.c.on == workspace_id))
    await tx.execute(sa.delete(workspaces).where(workspaces.c.id == workspace_id))


async def add_group(tx: Transaction, group: Group) -> bool:
    """Add a group; False when its name is taken."""
    insert = tx.insert(groups).values(**msgspec.structs.asdict(group)).on_conflict_do_nothing(index_elements=["name"])
    return await tx.one(insert.returning(groups.c.id)) is not None


async def group(tx: Transaction, name: str) -> Group | None:
    """Return a group by its name."""
    row = await tx.one(sa.select(groups).where(groups.c.name == name))
    return None if row is None else _group(row)


async def group_by_id(tx: Transaction, group_id: str) -> Group | None:
    """Return a group."""
    row = await tx.one(sa.select(groups).where(groups.c.id == group_id))
    return None if row is None else _group(row)


async def page_of_groups(tx: Transaction, *, limit: int, after: str | None) -> list[Group]:
    """Return groups in the order of their names, from after `after`."""
    by_name = sa.select(groups).order_by(groups.c.name).limit(limit)
    if after is not None:
        by_name = by_name.where(groups.c.name > after)
    return [_group(row) for row in await tx.all(by_name)]


async def remove_group(tx: Transaction, group_id: str) -> None:
    """Remove a group with its members and grants."""
    await tx.execute(sa.delete(grants).where(grants.c.subject_kind == "group", grants.c.subject == group_id))
    await tx.execute(sa.delete(group_members).where(group_members.c.group_id == group_id))
    await tx.execute(sa.delete(groups).where(groups.c.id == group_id))


async def add_member(tx: Transaction, group_id: str, user_id: str) -> bool:
    """Add somebody to a group; False when they are in it."""
    insert = tx.insert(group_members).values(group_id=group_id, user_id=user_id)
    return await tx.one(insert.on_conflict_do_nothing().returning(group_members.c.user_id)) is not None


async def remove_member(tx: Transaction, group_id: str, user_id: str) -> bool:
    """Take somebody out of a group; False when they are not in it."""
    gone = sa.delete(group_members).where(group_members.c.group_id == group_id, group_members.c.user_id == user_id)
    return await tx.one(gone.returning(group_members.c.user_id)) is not None


async def members(tx: Transaction, group_id: str) -> list[str]:
    """Return the ids of a group's members."""
    of_group = sa.select(group_members.c.user_id).where(group_members.c.group_id == group_id)
    return [row.user_id for row in await tx.all(of_group.order_by(group_members.c.user_id))]


async def groups_of(tx: Transaction, user_ids: Iterable[str]) -> list[tuple[str, Group]]:
    """Return each group that one of these people is in, with the person's id."""
    of_people = sa.select(group_members.c.user_id, *groups.c).join(groups, groups.c.id == group_members.c.group_id)
    rows = await tx.all(of_people.where(group_members.c.user_id.in_(list(user_ids))))
    return [(row.user_id, _group(row)) for row in rows]


async def add_grant(tx: Transaction, given: Given) -> Given:
    """Add a grant and return it; the one that is there, where it was given before."""
    insert = tx.insert(grants).values(**msgspec.structs.asdict(given)).on_conflict_do_nothing()
    await tx.execute(insert)
    same = sa.select(grants).where(
        *(grants.c[name] == getattr(given, name) for name in ("subject_kind", "subject", "role", "kind", "on"))
    )
    row = await tx.one(same)
    assert row is not None  # noqa: S101 - it was there, or has been added
    return _given(row)


async def grant(tx: Transaction, grant_id: str) -> Given | None:
    """Return a grant."""
    row = await tx.one(sa.select(grants).where(grants.c.id == grant_id))
    return None if row is None else _given(row)


async def remove_grant(tx: Transaction, grant_id: str) -> None:
    """Remove a grant."""
    await tx.execute(sa.delete(grants).where(grants.c.id == grant_id))


async def page_of_grants(
    tx: Transaction,
    *,
    limit: int,
    before: str | None,
    subject: Subject | None,
    place: Place | None,
) -> list[Given]:
    """Return grants, newest first, older than the grant `before`; of one subject, on one place."""
    newest = sa.select(grants).order_by(grants.c.id.desc()).limit(limit)
    if before is not None:
        newest = newest.where(grants.c.id < before)
    if subject is not None:
        newest = newest.where(grants.c.subject_kind == subject.kind, grants.c.subject == subject.id)
    if place is not None:
        newest = newest.where(grants.c.kind == place.kind, grants.c.on == place.id)
    return [_given(row) for row in await tx.all(newest)]


async def grants_of(tx: Transaction, subjects: Iterable[Subject]) -> list[Given]:
    """Return all grants of these subjects."""
    by_kind: dict[SubjectKind, list[str]] = {}
    for kind, subject in subjects:
        by_kind.setdefault(kind, []).append(subject)
    either = [sa.and_(grants.c.subject_kind == kind, grants.c.subject.in_(ids)) for kind, ids in by_kind.items()]
    if not either:
        return []
    return [_given(row) for row in await tx.all(sa.select(grants).where(sa.or_(*either)).order_by(grants.c.id))]


async def installation_admins(tx: Transaction) -> list[Given]:
    """Return the grants that make administrators of the installation; nobody else may change them before `tx` has ended."""
    admins = sa.select(grants).where(grants.c.kind == "installation", grants.c.role == Role.ADMIN).order_by(grants.c.id)
    return [_given(row) for row in await tx.all(admins.with_for_update())]


def _workspace(row: sa.Row[Any]) -> Workspace:
    return Workspace(row.id, row.name, row.created_at)


def _group(row: sa.Row[Any]) -> Group:
    return Group(row.id, row.name, row.created_at)


def _given(row: sa.Row[Any]) -> Given:
    return Given(row.id, row.subject_kind, row.subject, Role(row.role), row.kind, row.on, row.created_at, row.created_by)
