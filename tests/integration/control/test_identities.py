"""Who people of a provider are here, over each kind of database; the provider is one that says what a test tells it to."""

import asyncio
import base64

import msgspec
import pytest

from fixtures.control import SITE, TestClock
from fixtures.control_api import links_over
from fixtures.people import EMAIL, HERE, PASSWORD, People
from modelkeep.contracts.access import INSTALLATION, Role, Scope
from modelkeep.contracts.auth import Identity, IdentityRefused, LdapSettings, ProviderBusy, ProviderUnavailable
from modelkeep.contracts.errors import Forbidden, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.access.rules import Subject
from modelkeep.control.identities.errors import NotAdmitted, ProviderNotFound
from modelkeep.control.identities.service import Identities
from modelkeep.control.links.errors import LinkRefused
from modelkeep.control.links.rules import Registration
from modelkeep.control.links.service import Newcomer
from modelkeep.control.sessions.errors import LoginRefused, RefreshRefused
from modelkeep.control.users.rules import Kind, User
from modelkeep.infra.db import Database

SUBJECT = "7f3a"


class Telling:
    """A directory that knows one person, with the password `right`, or nobody."""

    follows = True

    def __init__(self, **changes: object) -> None:
        self.settings = LdapSettings(name="staff", servers=("ldaps://a.test",), base="dc=test", **{"people": "all", **changes})
        self.known: Identity | None = Identity(SUBJECT, "Bob@Example.org", name="bob", groups=frozenset({"ml"}))
        self.failing: Exception | None = None
        self.asked = 0

    async def identity(self, login: str, password: str) -> Identity:
        if self.known is None or password != "right":
            raise IdentityRefused
        return self.known

    async def again(self, subject: str) -> Identity | None:
        assert subject == SUBJECT
        self.asked += 1
        if self.failing is not None:
            raise self.failing
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
    assert await people.control.audit.erase(people.admin, {f"staff:{SUBJECT}"}, "asked for") == 1


BOB = "bob@example.org"


async def come_before(people: People, db: Database, clock: TestClock, how: str) -> str:
    """Have somebody be here already with Bob's address and a password; return their id."""
    links = links_over(people.control, db, Registration.INVITE)
    if how == "added":
        kept = await people.control.passwords.hashed(PASSWORD)
        return (await people.control.users.add(people.admin, User(new_id("usr"), "bo", clock(), email=BOB), kept)).id
    token = (await links.invite(people.admin, role=None, email=BOB if how == "invited" else None)).token.reveal()
    return (await links.register(token, Newcomer("bo", BOB, PASSWORD), address="a")).id


@pytest.mark.parametrize("how", ["added", "invited", "of their own accord"])
async def test_who_has_proven_an_address_is_not_shared_with_who_has_only_said_it(
    people: People, db: Database, clock: TestClock, how: str
):
    identities, links = (
        over(people, db, Telling(link_by_email=True), clock),
        links_over(people.control, db, Registration.INVITE),
    )
    there = await come_before(people, db, clock, how)
    before = await people.login(BOB)
    key = await people.control.users.issue_key(await people.acting(before.access), "x", frozenset({Scope.ADMIN}), None)
    reset = (await links.reset(people.admin, there)).token.reveal()
    made = await identities.login("staff", "bob", "right", HERE)
    assert (await people.acting(made.access)).user == there
    linked = [one for one in await people.control.audit.entries(limit=5) if one.action == "user.link"]
    assert linked[0].details.get("ended") == (None if how in {"added", "invited"} else "password, sessions, keys")
    if how != "of their own accord":
        assert (await people.acting(before.access)).user == there
        assert (await people.control.access.authenticate(key.secret.reveal())).user == there
        await people.login(BOB)
        await links.set_password(reset, PASSWORD, address="a")
        return
    with pytest.raises(LoginRefused):
        await people.login(BOB)
    with pytest.raises(Unauthenticated):
        await people.acting(before.access)
    with pytest.raises(Unauthenticated):
        await people.control.access.authenticate(key.secret.reveal())
    with pytest.raises(LinkRefused):
        await links.set_password(reset, PASSWORD, address="a")
    token = (await links.reset(people.admin, there)).token.reveal()
    await links.set_password(token, PASSWORD, address="a")
    assert await identities.login("staff", "bob", "right", HERE), "they are known now, and keep what they get from here on"
    await people.login(BOB)


async def writing_key(people: People, identities: Identities) -> str:
    """Have Bob come once, and make a key that lets him write by what his group gives."""
    await people.group("writers", Role.DEVELOPER)
    bob = await people.acting((await identities.login("staff", "bob", "right", HERE)).access)
    return (await people.control.users.issue_key(bob, "mine", frozenset({Scope.ADMIN}), None)).secret.reveal()


async def writes(people: People, key: str) -> bool:
    return (await people.control.access.authenticate(key)).may(Scope.MODELS_WRITE)


async def test_who_has_left_keeps_nothing_through_a_key_also_who_never_comes_again(
    people: People, db: Database, clock: TestClock
):
    directory = Telling(group_map={"ml": "writers"})
    identities = over(people, db, directory, clock)
    key = await writing_key(people, identities)
    known, directory.known = directory.known, None
    clock.advance(minutes=30)
    await identities.follow()
    assert (directory.asked, await writes(people, key)) == (0, True)
    clock.advance(seconds=1)
    await identities.follow()
    assert not await writes(people, key)
    await identities.follow()
    assert directory.asked == 1, "half an hour has not gone by"
    directory.known = known
    clock.advance(minutes=31)
    await identities.follow()
    assert await writes(people, key), "what the directory has taken back by mistake, it gives again"


async def test_of_several_processes_one_asks_about_each(people: People, db: Database, clock: TestClock):
    directory = Telling()
    several = [over(people, db, directory, clock) for _ in range(4)]
    await several[0].login("staff", "bob", "right", HERE)
    clock.advance(hours=1)
    await asyncio.gather(*(one.follow() for one in several))
    assert directory.asked == 1


async def test_who_comes_no_more_to_a_provider_that_cannot_be_asked_is_let_go_when_a_session_would_have_ended(
    people: People, db: Database, clock: TestClock
):
    directory = Telling(group_map={"ml": "writers"})
    directory.follows = False
    identities = over(people, db, directory, clock)
    key = await writing_key(people, identities)
    clock.advance(days=30)
    await identities.follow()
    assert await writes(people, key)
    clock.advance(seconds=1)
    await identities.follow()
    assert (directory.asked, await writes(people, key)) == (0, False)
    await identities.login("staff", "bob", "right", HERE)
    assert await writes(people, key)


async def test_while_a_directory_is_away_nobody_loses_anything_but_where_too_many_ask_it_nothing_goes_on(
    people: People, db: Database, clock: TestClock
):
    directory = Telling(group_map={"ml": "writers"})
    identities = over(people, db, directory, clock)
    key = await writing_key(people, identities)
    made = await identities.login("staff", "bob", "right", HERE)
    clock.advance(hours=1)
    directory.failing, directory.known = ProviderUnavailable(), None
    await identities.follow()
    assert await writes(people, key)
    made = await identities.refresh(made.refresh)
    directory.failing = ProviderBusy()
    with pytest.raises(ProviderBusy):
        await identities.refresh(made.refresh)
    directory.failing = None
    with pytest.raises(RefreshRefused):
        await identities.refresh(made.refresh)


async def test_following_does_not_end_at_the_last_administrator(people: People, db: Database, clock: TestClock):
    await administers_by(people, "admins")
    directory = Telling(link_by_email=True, group_map={"boss": "admins"})
    directory.known = Identity(SUBJECT, EMAIL, groups=frozenset({"boss"}))
    identities = over(people, db, directory, clock)
    await identities.login("staff", "ada", "right", HERE)
    directory.known = None
    clock.advance(hours=1)
    await identities.follow()
    assert await people.control.access.members(people.admin, "admins") == [people.admin.user]


async def test_a_service_that_comes_by_its_providers_token_makes_no_key_that_would_outlive_it(people: People, clock: TestClock):
    users = people.control.users
    robot = await users.add(people.admin, User(new_id("usr"), "robot", clock(), kind=Kind.SERVICE), role=Role.DEVELOPER)
    actor = await people.control.access.by_token(f"corp:{robot.id}", robot)
    assert actor.may(Scope.MODELS_WRITE)
    with pytest.raises(Forbidden):
        await users.issue_key(actor, "mine", frozenset({Scope.PREDICT}), None)


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_a_token_as_deep_as_one_likes_is_no_token(people: People, db: Database, clock: TestClock, part: int):
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 20_000).decode().rstrip("=")
    parts = ["e30", "e30", "e30"]
    parts[part] = deep
    with pytest.raises(Unauthenticated):
        await over(people, db, Telling(), clock).authenticate(".".join(parts), HERE)
