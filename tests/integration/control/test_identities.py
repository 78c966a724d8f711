"""Who people of a provider are here, over each kind of database; the provider is one that says what a test tells it to."""

import asyncio

import msgspec
import pytest

from fixtures.control import SITE, TestClock
from fixtures.control_api import links_over
from fixtures.people import EMAIL, HERE, People
from modelkeep.contracts.access import INSTALLATION, Role, Scope
from modelkeep.contracts.auth import Identity, IdentityRefused, LdapSettings
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.access.rules import Subject
from modelkeep.control.identities.errors import NotAdmitted, ProviderNotFound
from modelkeep.control.identities.service import Identities
from modelkeep.control.links.rules import Registration
from modelkeep.control.sessions.errors import LoginRefused, RefreshRefused
from modelkeep.infra.db import Database

SUBJECT = "7f3a"


class Telling:
    """A directory that knows one person, with the password `right`, or nobody."""

    follows = True

    def __init__(self, **changes: object) -> None:
        self.settings = LdapSettings(name="staff", servers=("ldaps://a.test",), base="dc=test", **{"people": "all", **changes})
        self.known: Identity | None = Identity(SUBJECT, "Bob@Example.org", name="bob", groups=frozenset({"ml"}))

    async def identity(self, login: str, password: str) -> Identity:
        if self.known is None or password != "right":
            raise IdentityRefused
        return self.known

    async def again(self, subject: str) -> Identity | None:
        assert subject == SUBJECT
        return self.known

    async def close(self) -> None:
        """Nothing is held."""


def over(people: People, db: Database, directory: Telling, clock: TestClock) -> Identities:
    return Identities(
        db=db,
        users=people.control.users,
        access=people.control.access,
        sessions=people.sessions,
        links=links_over(people.control, db, Registration.INVITE),
        audit=people.control.audit,
        site_key=SITE,
        clock=clock,
        password=[directory],
    )


async def test_many_first_logins_of_one_person_make_one_user(people: People, db: Database, clock: TestClock):
    identities = over(people, db, Telling(), clock)
    each = (identities.login("staff", "bob", "right", HERE) for _ in range(6))
    came = await asyncio.gather(*each, return_exceptions=True)
    assert [one for one in came if not isinstance(one, Exception)], came
    (bob, _ada) = await people.control.users.users(limit=10)
    assert (bob.name, bob.email) == ("bob", "bob@example.org")
    clock.advance(hours=1)
    made = await identities.login("staff", "bob", "right", HERE)
    actor = await people.acting(made.access)
    (session,) = [one for one in await people.sessions.mine(actor) if one.id == made.session_id]
    assert session.provider == "staff"


async def administers_by(people: People, name: str) -> None:
    """Have the first administrator be one through this group alone."""
    access, admin = people.control.access, people.admin
    await people.group(name, Role.ADMIN)
    await access.add_member(admin, name, admin.user)
    (own,) = await access.grants(admin, limit=10, subject=Subject("user", admin.user))
    await access.take(admin, own, INSTALLATION)


async def test_groups_follow_the_provider_but_the_last_administrator_stays(people: People, db: Database, clock: TestClock):
    await administers_by(people, "admins")
    directory = Telling(link_by_email=True, group_map={"ml": "writers", "boss": "admins"})
    directory.known = Identity(SUBJECT, EMAIL, groups=frozenset({"ml"}))
    identities = over(people, db, directory, clock)
    with pytest.raises(LastAdmin):
        await identities.login("staff", "ada", "right", HERE)
    assert [one.name for one in await people.control.access.groups(people.admin, limit=10)] == ["admins"]
    (entry, *_others) = await people.control.audit.entries(limit=1)
    assert (entry.action, entry.details["why"]) == ("login.refuse", "last_admin")
    directory.known = Identity(SUBJECT, EMAIL, groups=frozenset({"boss", "ml"}))
    made = await identities.login("staff", "ada", "right", HERE)
    assert (await people.acting(made.access)).user == people.admin.user
    assert await people.control.access.members(people.admin, "writers") == [people.admin.user]
    assert len(await people.control.users.users(limit=10)) == 1


async def test_a_providers_administrators_do_not_replace_the_one_who_comes_in_without_it(
    people: People, db: Database, clock: TestClock
):
    await people.group("admins", Role.ADMIN)
    made = await over(people, db, Telling(group_map={"ml": "admins"}), clock).login("staff", "bob", "right", HERE)
    bob = await people.acting(made.access)
    assert bob.may(Scope.ADMIN)
    with pytest.raises(LastAdmin):
        await people.control.users.set_active(bob, people.admin.user, active=False)
    assert (await people.acting((await people.login()).access)).may(Scope.ADMIN)


async def test_who_is_gone_keeps_nothing_of_what_groups_gave_also_not_by_key(people: People, db: Database, clock: TestClock):
    directory = Telling(group_map={"ml": "writers"}, groups=("ml", "chess"))
    identities = over(people, db, directory, clock)
    await people.group("writers", Role.DEVELOPER)
    made = await identities.login("staff", "bob", "right", HERE)
    bob = await people.acting(made.access)
    issued = await people.control.users.issue_key(bob, "mine", frozenset({Scope.ADMIN}), None)
    key = issued.secret.reveal()
    assert (await people.control.access.authenticate(key)).may(Scope.MODELS_WRITE)
    directory.known = Identity(SUBJECT, "bob@example.org", groups=frozenset())
    with pytest.raises(NotAdmitted):
        await identities.login("staff", "bob", "right", HERE)
    assert not (await people.control.access.authenticate(key)).may(Scope.MODELS_WRITE)
    directory.known = Identity(SUBJECT, "bob@example.org", groups=frozenset({"ml"}))
    again = await identities.refresh(made.refresh)
    assert (await people.control.access.authenticate(key)).may(Scope.MODELS_WRITE)
    directory.known = None
    with pytest.raises(RefreshRefused):
        await identities.refresh(again.refresh)
    assert not (await people.control.access.authenticate(key)).may(Scope.MODELS_WRITE)


async def test_each_decision_is_an_entry_of_the_chain(people: People, db: Database, clock: TestClock):
    directory = Telling(group_map={"ml": "writers"}, default_role="viewer")
    identities = over(people, db, directory, clock)
    before = (await people.control.audit.head()).seq
    made = await identities.login("staff", "bob", "right", HERE)
    await people.control.users.set_active(people.admin, (await people.acting(made.access)).user, active=False)
    with pytest.raises(NotAdmitted):
        await identities.login("staff", "bob", "right", HERE)
    with pytest.raises(LoginRefused):
        await identities.login("staff", "bob", "wrong", HERE)
    newest = await people.control.audit.entries(limit=20)
    noted = [one for one in reversed(newest) if one.seq > before]
    came = ["user.create", "grant.give", "group.create", "group.add_member", "session.begin"]
    left = ["user.disable", "login.refuse", "group.remove_member", "login.refuse"]
    assert [one.action for one in noted] == came + left
    assert {one.address for one in noted if one.action != "user.disable"} == {HERE.address}
    assert [one.details.get("why") for one in noted if one.outcome == "refused"] == ["disabled", "not_proven"]
    assert (await people.control.audit.verify()).whole
    (bob, _ada) = await people.control.users.users(limit=10)
    erased = await people.control.audit.erase(people.admin, await people.control.users.named(bob.id), "asked for")
    assert erased == sum(bob.id in msgspec.json.encode(one).decode() for one in noted)


async def test_who_is_gone_has_no_session_any_more(people: People, db: Database, clock: TestClock):
    directory = Telling()
    identities = over(people, db, directory, clock)
    made = await identities.login("staff", "bob", "right", HERE)
    mine = await people.login()
    directory.known = None
    with pytest.raises(RefreshRefused):
        await identities.refresh(made.refresh)
    assert (await identities.refresh(mine.refresh)).session_id == mine.session_id, "a session by password asks no directory"
    with pytest.raises(LoginRefused):
        await identities.login("staff", "bob", "right", HERE)
    with pytest.raises(ProviderNotFound):
        await identities.login("other", "bob", "right", HERE)


async def test_a_refusal_leaves_nobody_behind(people: People, db: Database, clock: TestClock):
    identities = over(people, db, Telling(people="all", groups=("chess",)), clock)
    with pytest.raises(NotAdmitted):
        await identities.login("staff", "bob", "right", HERE)
    assert len(await people.control.users.users(limit=10)) == 1
    (entry, *_others) = await people.control.audit.entries(limit=1)
    assert (entry.action, entry.details["why"], entry.details["subject"]) == ("login.refuse", "no_group", SUBJECT)
    assert (entry.outcome, entry.address) == ("refused", HERE.address)
