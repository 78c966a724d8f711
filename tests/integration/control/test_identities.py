"""Who people of a provider are here, over each kind of database; the provider is one that says what a test tells it to."""

import asyncio

import pytest

from fixtures.control import TestClock
from fixtures.control_api import SITE_KEY, links_over
from fixtures.people import EMAIL, HERE, People
from modelkeep.contracts.auth import Identity, IdentityRefused, LdapSettings
from modelkeep.control.identities.errors import NotAdmitted, ProviderNotFound
from modelkeep.control.identities.service import Identities
from modelkeep.control.links.rules import Registration
from modelkeep.control.sessions.errors import LoginRefused, RefreshRefused
from modelkeep.control.users.errors import LastAdmin
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
        sessions=people.sessions,
        links=links_over(people.control, db, Registration.INVITE),
        audit=people.control.audit,
        site_key=SITE_KEY,
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
    actor = await people.sessions.authenticate(made.access)
    (session,) = [one for one in await people.sessions.mine(actor) if one.id == made.session_id]
    assert session.provider == "staff"


async def test_roles_follow_groups_but_the_last_administrator_stays(people: People, db: Database, clock: TestClock):
    directory = Telling(link_by_email=True, roles={"ml": "developer", "boss": "admin"})
    directory.known = Identity(SUBJECT, EMAIL, groups=frozenset({"ml"}))
    identities = over(people, db, directory, clock)
    with pytest.raises(LastAdmin):
        await identities.login("staff", "ada", "right", HERE)
    assert len(await people.control.users.users(limit=10)) == 1
    directory.known = Identity(SUBJECT, EMAIL, groups=frozenset({"boss"}))
    made = await identities.login("staff", "ada", "right", HERE)
    assert (await people.sessions.authenticate(made.access)).user == people.admin.user
    assert "user.link" in {one.action for one in await people.control.audit.entries(limit=10)}


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
    identities = over(people, db, Telling(people="all", roles={"chess": "viewer"}, default_role=""), clock)
    with pytest.raises(NotAdmitted):
        await identities.login("staff", "bob", "right", HERE)
    assert len(await people.control.users.users(limit=10)) == 1
    (entry, *_others) = await people.control.audit.entries(limit=1)
    assert (entry.action, entry.details["why"], entry.details["subject"]) == ("login.refuse", "no_role", SUBJECT)
