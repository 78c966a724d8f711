"""Who may do what: workspaces, groups and grants, and the standing of everyone who asks."""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from modelkeep.contracts.access import INSTALLATION, Decision, Grant, Place, Role, Scope, Standing, decide, reach
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.certificates import ShownCertificate
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.names import check_name
from modelkeep.contracts.snapshot import ServedKey, ServedPerson
from modelkeep.control.access import store
from modelkeep.control.access.errors import (
    GrantNotFound,
    GroupExists,
    GroupNotFound,
    LastAdmin,
    SubjectNotFound,
    WorkspaceExists,
    WorkspaceInUse,
    WorkspaceNotFound,
    WorkspaceUnclear,
)
from modelkeep.control.access.events import AccessChanged
from modelkeep.control.access.rules import (
    DEFAULT_WORKSPACE,
    Given,
    Group,
    Subject,
    Workspace,
    check_may_give,
    check_may_list,
    check_may_take,
)
from modelkeep.control.audit.service import Audit
from modelkeep.control.users.rules import Key, Kind, User, by_key
from modelkeep.control.users.service import Users
from modelkeep.infra.clock import Clock
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.events import Events


class Access:
    """Roles, who has them where, and what that lets a caller do."""

    def __init__(self, db: Database, audit: Audit, users: Users, events: Events, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._users = users
        self._events = events
        self._clock = clock

    # ---- who asks

    async def authenticate(
        self, secret: str, request_id: str = "", address: str | None = None, shown: ShownCertificate | None = None
    ) -> Actor:
        """Return who holds this key, with what they may do.

        Raises `Unauthenticated` for anything but a key that is good over a connection with the certificate `shown`, and
        `WrongNetwork` for one that is not good from `address`.
        """
        return await self._actor(*await self._users.holders.by_secret(secret, address, shown), request_id)

    async def by_certificate(self, shown: ShownCertificate, request_id: str = "", address: str | None = None) -> Actor:
        """Return whose key this certificate stands for, with what they may do; raises as `authenticate` does."""
        return await self._actor(*await self._users.holders.by_certificate(shown, address), request_id)

    async def _actor(self, key: Key, user: User, request_id: str) -> Actor:
        async with self._db.read() as tx:
            standing = (await self._standings(tx, [key]))[key.id]
        return Actor(key.id, user.name, user.id, standing, request_id, limited=not key.unlimited, bounded=key.bounded)

    async def by_token(self, actor_id: str, user: User, request_id: str = "") -> Actor:
        """Return who asks with a token, with what they may do: all that was granted to them.

        A person's session bounds nothing; a service's token is its provider's, and ends when that says so.
        """
        async with self._db.read() as tx:
            standing = Standing(user.id, (await self._grants(tx, {user.id}))[user.id])
        bounded = user.kind is Kind.SERVICE
        return Actor(actor_id, user.name, user.id, standing, request_id, limited=True, bounded=bounded)

    async def served_keys(self, tx: Transaction) -> tuple[ServedKey, ...]:
        """Return the keys that serving must know, for a snapshot made in `tx`."""
        keys, now = await self._users.good_keys(tx), self._clock()
        standings = await self._standings(tx, keys)
        return tuple(
            ServedKey(
                key.id,
                digest,
                key.name,
                standings[key.id],
                None if until is None else until.timestamp(),
                rate,
                key.concurrency or 0,
                bucket=bucket,
                networks=key.networks,
                certificate=key.certificate,
            )
            for key in keys
            for rate, bucket in (self._users.rate_of(key),)
            for digest, until in key.opened_with(now)
        )

    async def administers(self, tx: Transaction, user: User) -> bool:
        """Whether somebody may, as of now, administer the installation."""
        return decide(await self._standing_of(tx, Subject("user", user.id)), Scope.ADMIN).allowed

    async def renewed(self, actor: Actor) -> Actor:
        """Return whoever asked a while ago, with what they may do now; raises `Unauthenticated` where they come in no more."""
        async with self._db.read() as tx:
            return await self.renewed_in(tx, actor)

    async def renewed_in(self, tx: Transaction, actor: Actor) -> Actor:
        """Return the same as a transaction that is open sees it."""
        subject = Subject("key", actor.id) if by_key(actor) else Subject("user", actor.user)
        try:
            standing = await self._standing_of(tx, subject)
        except SubjectNotFound as error:
            raise Unauthenticated from error
        if not standing.active:
            raise Unauthenticated
        return msgspec.structs.replace(actor, standing=standing)

    async def served_people(self, tx: Transaction) -> dict[str, ServedPerson]:
        """Return those who may come with an access token, by their ids, for a snapshot made in `tx`."""
        names = await self._users.active_people(tx)
        granted = await self._grants(tx, set(names))
        return {
            user: ServedPerson(name, Standing(user, granted[user]), *self._users.rate_of_person(user))
            for user, name in names.items()
        }

    async def explain(self, actor: Actor, subject: Subject, scope: Scope, place: Place) -> Decision:
        """Return what is decided about a person or a key, and why; of others than oneself administrators may ask."""
        if subject.id not in {actor.id, actor.user}:
            actor.need(Scope.ADMIN, place)
        async with self._db.read() as tx:
            return decide(await self._standing_of(tx, subject), scope, place)

    # ---- workspaces

    async def workspaces(self, actor: Actor, *, limit: int, after: str | None = None) -> list[Workspace]:
        """List the workspaces by name: all for who has a role on the installation, else those on which one has a role."""
        reached = reach(actor.standing, Scope)
        among = None if reached.everything else reached.workspaces
        async with self._db.read() as tx:
            return await store.page_of_workspaces(tx, limit=limit, after=after, among=among)

    async def create_workspace(self, actor: Actor, name: str) -> Workspace:
        """Make a workspace."""
        actor.need(Scope.ADMIN)
        made = Workspace(new_id("wsp"), check_name(name), self._clock())
        async with self._db.begin() as tx:
            if not await store.add_workspace(tx, made):
                raise WorkspaceExists
            await self._audit.note(tx, actor, "workspace.create", made.id, name=name)
        return made

    async def workspace_in(self, tx: Transaction, name: str) -> Workspace:
        """Return a workspace, keeping its row to `tx`."""
        found = await store.workspace(tx, name, for_update=True)
        if found is None:
            raise WorkspaceNotFound
        return found

    async def keep(self, tx: Transaction, workspace_id: str) -> None:
        """Have a workspace stay until `tx` has ended; raises `WorkspaceNotFound` where it is gone."""
        if not await store.keep_workspace(tx, workspace_id):
            raise WorkspaceNotFound

    async def remove_workspace(self, tx: Transaction, actor: Actor, workspace: Workspace) -> None:
        """Remove a workspace in which there are no models, with what was granted on it."""
        actor.need(Scope.ADMIN)
        if workspace.id == DEFAULT_WORKSPACE:
            raise WorkspaceInUse
        await store.remove_workspace(tx, workspace.id)
        await self._audit.note(tx, actor, "workspace.remove", workspace.id, name=workspace.name)
        await self._events.publish(tx, AccessChanged())

    async def workspace(self, actor: Actor, name: str, scope: Scope = Scope.MODELS_READ) -> Workspace:
        """Return a workspace where the actor may do this; raises `WorkspaceNotFound` where they have nothing to do with it."""
        async with self._db.read() as tx:
            found = await store.workspace(tx, name)
        if found is None:
            raise WorkspaceNotFound
        actor.need(scope, Place(found.id), unseen=WorkspaceNotFound)
        return found

    async def home(self, actor: Actor, name: str | None) -> str:
        """Return the id of the workspace in which the actor's new model is made: the named one, else the only one they have."""
        if name is not None:
            return (await self.workspace(actor, name, Scope.MODELS_WRITE)).id
        reached = reach(actor.standing, (Scope.MODELS_WRITE,))
        if reached.everything or not reached.workspaces or DEFAULT_WORKSPACE in reached.workspaces:
            return DEFAULT_WORKSPACE
        if len(reached.workspaces) > 1:
            raise WorkspaceUnclear
        return next(iter(reached.workspaces))

    async def check_person(self, user_id: str) -> None:
        """Raise `SubjectNotFound` unless there is such a person."""
        async with self._db.read() as tx:
            await self._check_subject(tx, Subject("user", user_id))

    async def workspace_names(self, tx: Transaction, ids: Iterable[str]) -> dict[str, str]:
        """Return the names of these workspaces by their ids."""
        return {id_: found.name for id_, found in (await store.workspaces_by_id(tx, ids)).items()}

    # ---- groups

    async def groups(self, actor: Actor, *, limit: int, after: str | None = None) -> list[Group]:
        """List groups by name."""
        actor.need(Scope.ADMIN)
        async with self._db.read() as tx:
            return await store.page_of_groups(tx, limit=limit, after=after)

    async def group(self, name: str) -> Group:
        """Return one group."""
        async with self._db.read() as tx:
            return await _group(tx, name)

    async def create_group(self, actor: Actor, name: str) -> Group:
        """Make a group."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            made = await self._made(tx, actor, name)
            if made is None:
                raise GroupExists
        return made

    async def remove_group(self, actor: Actor, name: str) -> None:
        """Remove a group; what its members had through it, they have no more."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            found = await _group(tx, name)
            administers = await self._administers(tx, found.id)
            await store.remove_group(tx, found.id)
            if administers:
                await self.check_admins(tx)
            await self._audit.note(tx, actor, "group.remove", found.id, name=name)
            await self._events.publish(tx, AccessChanged())

    async def members(self, actor: Actor, name: str) -> list[str]:
        """Return the ids of a group's members."""
        actor.need(Scope.ADMIN)
        async with self._db.read() as tx:
            return await store.members(tx, (await _group(tx, name)).id)

    async def add_member(self, actor: Actor, name: str, user_id: str) -> None:
        """Put a person into a group; repeated, it changes nothing."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            found = await _group(tx, name)
            await self._check_subject(tx, Subject("user", user_id))
            await self._join(tx, actor, found, user_id)

    async def remove_member(self, actor: Actor, name: str, user_id: str) -> None:
        """Take a person out of a group; repeated, it changes nothing."""
        actor.need(Scope.ADMIN)
        async with self._db.begin() as tx:
            await self._leave(tx, actor, await _group(tx, name), user_id)

    async def follow_in(
        self, tx: Transaction, actor: Actor, user_id: str, *, into: Collection[str], among: Collection[str]
    ) -> None:
        """Have a person be, of the groups with the names `among`, in those of `into` alone, as an identity provider says.

        A group that is not there is made when somebody is in it: it lets nobody do anything until it is granted something.
        """
        for name in sorted(among):
            found = await store.group(tx, name)
            if name in into:
                group = found or await self._made(tx, actor, name) or await _group(tx, name)
                await self._join(tx, actor, group, user_id)
            elif found is not None:
                await self._leave(tx, actor, found, user_id)

    async def _made(self, tx: Transaction, actor: Actor, name: str) -> Group | None:
        """Return a new group; None where there is one of this name."""
        made = Group(new_id("grp"), check_name(name), self._clock())
        if not await store.add_group(tx, made):
            return None
        await self._audit.note(tx, actor, "group.create", made.id, name=name)
        return made

    async def _join(self, tx: Transaction, actor: Actor, group: Group, user_id: str) -> None:
        if await store.add_member(tx, group.id, user_id):
            await self._audit.note(tx, actor, "group.add_member", group.id, about=user_id, user=user_id, name=group.name)
            await self._events.publish(tx, AccessChanged())

    async def _leave(self, tx: Transaction, actor: Actor, group: Group, user_id: str) -> None:
        if await store.remove_member(tx, group.id, user_id):
            if await self._administers(tx, group.id):
                await self.check_admins(tx)
            await self._audit.note(tx, actor, "group.remove_member", group.id, about=user_id, user=user_id, name=group.name)
            await self._events.publish(tx, AccessChanged())

    # ---- grants

    async def grants(
        self,
        actor: Actor,
        *,
        limit: int,
        before: str | None = None,
        subject: Subject | None = None,
        place: Place | None = None,
    ) -> list[Given]:
        """List grants, newest first: on one place for its administrators and owners, all for those of the installation."""
        check_may_list(actor, place)
        async with self._db.read() as tx:
            return await store.page_of_grants(tx, limit=limit, before=before, subject=subject, place=place)

    async def give(self, actor: Actor, subject: Subject, role: Role, place: Place) -> Given:
        """Grant a role; granted before, it stays as it is. Raises `Forbidden` where the actor may not give that here."""
        check_may_give(actor, role, place)
        async with self._db.begin() as tx:
            await self._check_subject(tx, subject)
            return await self._give(tx, actor, subject, role, place)

    async def grant(self, grant_id: str) -> Given:
        """Return one grant."""
        async with self._db.read() as tx:
            found = await store.grant(tx, grant_id)
        if found is None:
            raise GrantNotFound
        return found

    async def take(self, actor: Actor, given: Given, place: Place) -> None:
        """Take a grant back, which is on this place."""
        check_may_take(actor, given.role, place)
        async with self._db.begin() as tx:
            if await store.grant(tx, given.id) is None:
                return
            await store.remove_grant(tx, given.id)
            if given.kind == "installation" and given.role is Role.ADMIN:
                await self.check_admins(tx)
            await self._audit.note(tx, actor, "grant.take", given.id, about=_named(given), **_said(given))
            await self._events.publish(tx, AccessChanged())

    async def give_in(self, tx: Transaction, actor: Actor, user_id: str, role: Role) -> None:
        """Give a new person a role on the installation, in the transaction that makes them."""
        await self._give(tx, actor, Subject("user", user_id), role, INSTALLATION)

    async def _give(self, tx: Transaction, actor: Actor, subject: Subject, role: Role, place: Place) -> Given:
        given = Given(new_id("grt"), *subject, role, place.kind, place.id, self._clock(), actor.name)
        kept = await store.add_grant(tx, given)
        if kept.id == given.id:
            await self._audit.note(tx, actor, "grant.give", given.id, about=_named(given), **_said(given))
            await self._events.publish(tx, AccessChanged())
        return kept

    async def _check_subject(self, tx: Transaction, subject: Subject) -> None:
        match subject.kind:
            case "user":
                there = await self._users.is_user(tx, subject.id)
            case "key":
                there = await self._users.key_in(tx, subject.id) is not None
            case "group":
                there = await store.group_by_id(tx, subject.id) is not None
        if not there:
            raise SubjectNotFound

    async def _administers(self, tx: Transaction, group_id: str) -> bool:
        """Whether a group's members administer the installation."""
        return Subject("group", group_id) in {one.whose for one in await store.installation_admins(tx)}

    async def check_admins(self, tx: Transaction) -> None:
        """Raise `LastAdmin` where, as `tx` leaves it, nobody who can come in administers the installation.

        The grants are kept to `tx` first: of two who take each other off, one waits and finds what the other has done.
        """
        people: set[str] = set()
        for given in await store.installation_admins(tx):
            if given.whose.kind == "user":
                people.add(given.subject)
            elif given.whose.kind == "group":
                people.update(await store.members(tx, given.subject))
        if not await self._users.who_can_come_in(tx, people):
            raise LastAdmin

    # ---- standings

    async def _standing_of(self, tx: Transaction, subject: Subject) -> Standing:
        if subject.kind == "key":
            key = await self._users.key_in(tx, subject.id)
            if key is None:
                raise SubjectNotFound
            active = (await self._users.user_in(tx, key.user_id)).active
            return msgspec.structs.replace((await self._standings(tx, [key]))[key.id], active=active)
        await self._check_subject(tx, subject)
        if subject.kind == "group":
            return Standing(subject.id, tuple(one.grant() for one in await store.grants_of(tx, [subject])))
        active = (await self._users.user_in(tx, subject.id)).active
        return Standing(subject.id, (await self._grants(tx, {subject.id}))[subject.id], active=active)

    async def _standings(self, tx: Transaction, keys: Iterable[Key]) -> dict[str, Standing]:
        """Return what may be done through each key: what its owner may and what it was granted, within its bounds."""
        keys = list(keys)
        of_people = await self._grants(tx, {key.user_id for key in keys})
        own: dict[str, list[Grant]] = {}
        for given in await store.grants_of(tx, [Subject("key", key.id) for key in keys]):
            own.setdefault(given.subject, []).append(given.grant())
        return {
            key.id: Standing(
                key.user_id,
                (*of_people[key.user_id], *own.get(key.id, ())),
                frozenset(key.scopes),
                None if key.models is None else frozenset(key.models),
            )
            for key in keys
        }

    async def _grants(self, tx: Transaction, user_ids: set[str]) -> Mapping[str, tuple[Grant, ...]]:
        """Return what each of these people was granted, by themselves and through groups."""
        in_groups = await store.groups_of(tx, user_ids)
        names = {group.id: group.name for _user, group in in_groups}
        holders = {Subject("user", user): [user] for user in user_ids}
        for user, group in in_groups:
            holders.setdefault(Subject("group", group.id), []).append(user)
        found: dict[str, list[Grant]] = {user: [] for user in user_ids}
        for given in await store.grants_of(tx, holders):
            for user in holders[given.whose]:
                found[user].append(given.grant(names.get(given.subject, "")))
        return {user: tuple(grants) for user, grants in found.items()}


async def _group(tx: Transaction, name: str) -> Group:
    found = await store.group(tx, name)
    if found is None:
        raise GroupNotFound
    return found


def _named(given: Given) -> str:
    """Return the id by which whoever has a grant is erased from the audit trail; groups are nobody."""
    return "" if given.subject_kind == "group" else given.subject


def _said(given: Given) -> dict[str, str]:
    return {"subject": f"{given.subject_kind} {given.subject}", "role": given.role, "on": f"{given.kind} {given.on}".strip()}
