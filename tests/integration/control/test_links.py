"""Invitations, registration and new passwords, over each kind of database."""

import asyncio

import pytest

from fixtures.control import TestClock
from fixtures.control_api import links_over
from fixtures.passwords import CountingHasher
from fixtures.people import EMAIL, HERE, PASSWORD, People
from modelkeep.contracts.access import GIVES, INSTALLATION, Grant, Role, Scope, Standing
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, Invalid, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.control.access.rules import Subject
from modelkeep.control.links.errors import InvitationNotFound, LinkRefused, RegistrationClosed
from modelkeep.control.links.rules import Registration
from modelkeep.control.links.service import Links, Newcomer
from modelkeep.control.sessions.errors import LoginRefused, WrongPassword
from modelkeep.control.users.errors import UserExists
from modelkeep.control.users.rules import Kind, User
from modelkeep.infra import secrets
from modelkeep.infra.attempts import TriedTooOften
from modelkeep.infra.db import Database
from modelkeep.infra.passwords import Passwords, WeakPassword

OTHER = "staple of another kind"
BOB = Newcomer("bob", "Bob@Example.org", PASSWORD, "Bob")


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def passwords(hasher: CountingHasher) -> Passwords:
    return Passwords(argon2=hasher)


@pytest.fixture
def links(people: People, db: Database) -> Links:
    return links_over(people.control, db, Registration.INVITE)


async def test_who_is_invited_registers_once_with_the_role_that_was_meant(people: People, links: Links):
    issued = await links.invite(people.admin, role=Role.DEVELOPER)
    token = issued.token.reveal()
    assert [one.id for one in await links.invitations()] == [issued.link.id]
    user = await links.register(token, BOB, address="a")
    assert (user.email, user.display_name) == ("bob@example.org", "Bob")
    made = await people.login("bob@example.org")
    actor = await people.acting(made.access)
    assert {scope for scope in Scope if actor.may(scope)} == GIVES[Role.DEVELOPER]
    assert await links.invitations() == []
    with pytest.raises(LinkRefused):
        await links.register(token, Newcomer("eve", "eve@example.org", PASSWORD), address="a")


async def test_of_many_who_use_an_invitation_at_once_one_comes_in(people: People, links: Links):
    token = (await links.invite(people.admin, role=Role.VIEWER)).token.reveal()
    new = [Newcomer(f"u{number}", f"u{number}@example.org", PASSWORD) for number in range(4)]
    results = await asyncio.gather(*[links.register(token, one, address=one.name) for one in new], return_exceptions=True)
    assert [type(one) for one in results].count(LinkRefused) == 3


@pytest.mark.parametrize("wrong", ["", "mkl_" + "0" * 46, "reset", "withdrawn", "late", "setup"])
async def test_what_is_no_invitation_lets_nobody_in_and_computes_nothing(
    people: People, links: Links, clock: TestClock, hasher: CountingHasher, wrong: str
):
    token = (await links.invite(people.admin, role=Role.VIEWER, expires_in_days=1)).token.reveal()
    if wrong == "reset":
        token = (await links.reset(people.admin, people.admin.user)).token.reveal()
    elif wrong == "withdrawn":
        (invitation,) = await links.invitations()
        await links.withdraw(people.admin, invitation.id)
        with pytest.raises(InvitationNotFound):
            await links.withdraw(people.admin, invitation.id)
    elif wrong == "late":
        clock.advance(days=1)
        assert await links.invitations() == []
    else:
        token = wrong if wrong != "setup" else secrets.new_secret(secrets.SETUP).reveal()
    before = hasher.computed
    with pytest.raises(LinkRefused):
        await links.register(token, BOB, address="a")
    assert hasher.computed == before


async def test_an_invitation_for_one_address_is_for_no_other(people: People, links: Links):
    token = (await links.invite(people.admin, role=Role.VIEWER, email="BOB@example.org")).token.reveal()
    with pytest.raises(LinkRefused):
        await links.register(token, Newcomer("eve", "eve@example.org", PASSWORD), address="a")
    await links.register(token, BOB, address="a")


async def test_what_is_wrong_with_somebody_does_not_use_the_invitation_up(people: People, links: Links):
    token = (await links.invite(people.admin, role=Role.VIEWER)).token.reveal()
    for error, new in (
        (WeakPassword, Newcomer("bob", "bob@example.org", "bob@example.org")),
        (UserExists, Newcomer("ada", "bob@example.org", PASSWORD)),
        (UserExists, Newcomer("bob", EMAIL, PASSWORD)),
        (Invalid, Newcomer("bob", "nowhere", PASSWORD)),
    ):
        with pytest.raises(error):
            await links.register(token, new, address="a")
    await links.register(token, BOB, address="a")
    assert PASSWORD not in repr(BOB)


@pytest.mark.parametrize("registration", Registration)
async def test_who_may_register_is_a_setting(people: People, db: Database, registration: Registration):
    links = links_over(people.control, db, registration)
    if registration is Registration.OPEN:
        await links.register(None, BOB, address="a")
        actor = await people.acting((await people.login("bob@example.org")).access)
        assert not any(actor.may(scope) for scope in Scope)
        return
    with pytest.raises(RegistrationClosed):
        await links.register(None, BOB, address="a")
    if registration is Registration.OFF:
        with pytest.raises(RegistrationClosed):
            await links.invite(people.admin, role=Role.VIEWER)
        with pytest.raises(RegistrationClosed):
            await links.register("mkl_" + "0" * 46, BOB, address="a")


async def test_guessing_tokens_has_to_wait(people: People, links: Links):
    tried = 0
    with pytest.raises(TriedTooOften):
        for number in range(100):
            with pytest.raises(LinkRefused):
                await (links.register("x", BOB, address="a") if number % 2 else links.set_password("x", OTHER, address="a"))
            tried += 1
    assert tried == 21
    token = (await links.invite(people.admin, role=Role.VIEWER)).token.reveal()
    await links.register(token, BOB, address="b")


async def test_a_reset_is_for_one_person_once_and_ends_their_sessions(people: People, links: Links, clock: TestClock):
    made = await people.login()
    older = (await links.reset(people.admin, people.admin.user)).token.reveal()
    token = (await links.reset(people.admin, people.admin.user)).token.reveal()
    with pytest.raises(LinkRefused):  # it was replaced
        await links.set_password(older, OTHER, address="a")
    with pytest.raises(WeakPassword):
        await links.set_password(token, "short", address="a")
    await people.sessions.authenticate(made.access)
    await links.set_password(token, OTHER, address="a")
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(made.access)
    with pytest.raises(LoginRefused):
        await people.login()
    await people.login(password=OTHER)
    with pytest.raises(LinkRefused):
        await links.set_password(token, PASSWORD, address="a")
    late = (await links.reset(people.admin, people.admin.user)).token.reveal()
    clock.advance(hours=24)
    with pytest.raises(LinkRefused):
        await links.set_password(late, PASSWORD, address="a")


async def test_only_administrators_make_links_and_only_for_people(people: People, links: Links, clock: TestClock):
    other = Actor("ses_x", "eve", "usr_x", Standing("usr_x", (Grant(Role.RELEASER, "installation"),)))
    for attempt in (
        links.invite(other, role=Role.ADMIN),
        links.reset(other, people.admin.user),
        links.withdraw(other, "lnk_x"),
    ):
        with pytest.raises(Forbidden):
            await attempt
    robot = User(new_id("usr"), "robot", clock(), kind=Kind.SERVICE)
    await people.control.users.add(people.admin, robot)
    with pytest.raises(Invalid):
        await links.reset(people.admin, robot.id)


async def test_with_the_present_password_one_takes_another_and_other_sessions_end(people: People):
    other, mine = await people.login(), await people.login()
    actor = await people.acting(mine.access)
    with pytest.raises(WrongPassword):
        await people.sessions.change_password(actor, OTHER, OTHER)
    with pytest.raises(WeakPassword):
        await people.sessions.change_password(actor, PASSWORD, "Ada@example.org")
    await people.sessions.change_password(actor, PASSWORD, OTHER)
    await people.sessions.authenticate(mine.access)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(other.access)
    await people.login(password=OTHER)
    with pytest.raises(LoginRefused):
        await people.login()


async def test_who_took_a_session_over_does_not_guess_the_password_either(people: People):
    actor = await people.acting((await people.login()).access)
    for _ in range(6):
        with pytest.raises(WrongPassword):
            await people.sessions.change_password(actor, OTHER, OTHER)
    with pytest.raises(TriedTooOften):
        await people.sessions.change_password(actor, PASSWORD, OTHER)
    await people.login(origin=HERE)  # which keeps nobody from coming in


async def test_what_is_right_is_not_counted_as_a_failure(people: People, links: Links):
    for number in range(25):
        token = (await links.invite(people.admin, role=None)).token.reveal()
        await links.register(token, Newcomer(f"u{number}", f"u{number}@example.org", PASSWORD), address="2001:db8::1")
        token = (await links.reset(people.admin, people.admin.user)).token.reveal()
        await links.set_password(token, OTHER, address="2001:db8::2")
    for number in range(21):
        with pytest.raises(LinkRefused):
            await links.register("x", BOB, address=f"2001:db8::{number:x}")
    with pytest.raises(TriedTooOften):
        await links.register("x", BOB, address="2001:db8::ffff")


@pytest.mark.parametrize("left", ["disabled", "demoted"])
async def test_what_an_administrator_has_left_behind_lets_nobody_in(people: People, links: Links, clock: TestClock, left: str):
    eve = await people.control.users.add(
        people.admin, User(new_id("usr"), "eve", clock(), email="eve@example.org"), role=Role.ADMIN
    )
    acting = await people.control.access.by_token("ses_eve", eve)
    invited = (await links.invite(acting, role=Role.ADMIN, expires_in_days=90)).token.reveal()
    await links.invite(acting, role=Role.ADMIN, email="bob@example.org")
    reset = (await links.reset(acting, people.admin.user)).token.reveal()
    if left == "disabled":
        await people.control.users.set_active(people.admin, eve.id, active=False)
    else:
        (given,) = await people.control.access.grants(people.admin, limit=9, subject=Subject("user", eve.id))
        await people.control.access.take(people.admin, given, INSTALLATION)
    with pytest.raises(LinkRefused):
        await links.register(invited, BOB, address="a")
    with pytest.raises(LinkRefused):
        await links.set_password(reset, OTHER, address="a")
    async with links._db.begin() as tx:
        assert await links.accept_in(tx, "bob@example.org") is None
