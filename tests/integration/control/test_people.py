"""People: their addresses, roles and passwords, and that somebody can always administer; over each kind of database."""

import asyncio

import pytest

from fixtures.control import TestClock
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import GIVES, INSTALLATION, Grant, Role, Scope, Standing
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, Invalid, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.access.rules import Subject
from modelkeep.control.users.errors import UserExists, UserNotFound
from modelkeep.control.users.events import UserDisabled
from modelkeep.control.users.rules import Kind, User, email_of
from modelkeep.infra.passwords import WeakPassword

PASSWORD = "correct horse battery"


async def first_admin(control: ControlPlane, clock: TestClock) -> Actor:
    """Set up; return the first administrator, who may log in."""
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada", email="Ada@Example.org", password=PASSWORD)
    return await control.access.authenticate(issued.secret.reveal())


def someone(clock: TestClock, name: str, **changes: object) -> User:
    """A user to add."""
    return User(**{"id": new_id("usr"), "name": name, "created_at": clock(), **changes})


async def test_the_first_administrator_may_have_an_address_and_a_password(
    control: ControlPlane, clock: TestClock, db, passwords
):
    admin = await first_admin(control, clock)
    async with db.read() as tx:
        found = await control.users.password_of_email(tx, email_of("ADA@example.ORG "))
    assert found is not None
    assert (found[0].id, found[0].email) == (admin.user, "ada@example.org")
    assert (await passwords.checked(PASSWORD, found[1])).right
    assert PASSWORD not in repr(found[0]) + str(await control.audit.entries(limit=10))


@pytest.mark.parametrize(("email", "password"), [("a@b.c", None), (None, PASSWORD), ("nobody", PASSWORD), ("a@b.c", "short")])
async def test_half_of_it_or_a_bad_one_leaves_the_token_unused(control: ControlPlane, clock: TestClock, email, password):
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    with pytest.raises(WeakPassword if password == "short" else Invalid):
        await control.users.set_up(token, "ada", email=email, password=password)
    await control.users.set_up(token, "ada")


@pytest.mark.parametrize("same", ["ada@example.org", "ADA@EXAMPLE.ORG", " ada@example.org", "\uff21da@example.org"])
async def test_an_address_is_one_persons_however_it_is_written(control: ControlPlane, clock: TestClock, same: str):
    admin = await first_admin(control, clock)
    with pytest.raises(UserExists):
        await control.users.add(admin, someone(clock, "bob", email=email_of(same)))
    with pytest.raises(UserExists):
        await control.users.add(admin, someone(clock, "ada", email="bob@example.org"))
    await control.users.add(admin, someone(clock, "bob", email="bob@example.org"))


@pytest.mark.parametrize("wrong", ["", "ada", "@x", "a@", "a b@c.d", "a@b@c", "a\u200b@b.c", "a\x00@b.c", "x" * 250 + "@b.c"])
def test_what_is_no_address_is_refused(wrong: str):
    with pytest.raises(Invalid):
        email_of(wrong)


def test_an_address_is_kept_in_one_way_only():
    for text in ("Stra\u00dfe@example.org", "\u0130x@b.c", "\ufb01n@b.c"):
        assert email_of(email_of(text)) == email_of(text)


async def test_only_administrators_change_people(control: ControlPlane, clock: TestClock):
    admin = await first_admin(control, clock)
    viewer = Actor("ses_x", "eve", "usr_x", Standing("usr_x", (Grant(Role.RELEASER, "installation"),)))
    for attempt in (
        control.users.add(viewer, someone(clock, "bob")),
        control.users.change(viewer, admin.user, display_name="x"),
        control.users.set_active(viewer, admin.user, active=False),
    ):
        with pytest.raises(Forbidden):
            await attempt
    with pytest.raises(UserNotFound):
        await control.users.change(admin, "usr_none", display_name="x")


async def test_a_key_may_do_no_more_than_its_user(control: ControlPlane, clock: TestClock, db):
    admin = await first_admin(control, clock)
    robot = await control.users.add(admin, someone(clock, "robot", kind=Kind.SERVICE), role=Role.DEVELOPER)
    secret = (await control.users.issue_key(admin, "x", frozenset({Scope.ADMIN}), None, service=robot.id)).secret.reveal()
    actor = await control.access.authenticate(secret)
    assert (actor.user, actor.name) == (robot.id, "robot")
    assert {scope for scope in Scope if actor.may(scope)} == GIVES[Role.DEVELOPER]
    (given,) = await control.access.grants(admin, limit=9, subject=Subject("user", robot.id))
    await control.access.take(admin, given, INSTALLATION)
    actor = await control.access.authenticate(secret)
    assert not any(actor.may(scope) for scope in Scope)
    async with db.read() as tx:
        served = {key.id: key.standing for key in await control.access.served_keys(tx)}
    assert served[actor.id].grants == ()


async def test_keys_are_made_for_services_and_for_nobody_else(control: ControlPlane, clock: TestClock):
    admin = await first_admin(control, clock)
    bob = await control.users.add(admin, someone(clock, "bob", email="bob@example.org"))
    with pytest.raises(Invalid):
        await control.users.issue_key(admin, "x", frozenset({Scope.PREDICT}), None, service=bob.id)
    with pytest.raises(UserNotFound):
        await control.users.issue_key(admin, "x", frozenset({Scope.PREDICT}), None, service="usr_none")
    with pytest.raises(Invalid):
        await control.users.add(admin, someone(clock, "robot", kind=Kind.SERVICE, email="r@example.org"))


async def test_a_disabled_users_keys_open_nothing_until_they_are_enabled(control: ControlPlane, clock: TestClock, db):
    admin = await first_admin(control, clock)
    told: list[str] = []

    async def listen(tx: object, event: UserDisabled) -> None:
        told.append(event.user_id)

    control.events.subscribe(UserDisabled, listen)
    robot = await control.users.add(admin, someone(clock, "robot", kind=Kind.SERVICE))
    secret = (await control.users.issue_key(admin, "x", frozenset({Scope.PREDICT}), None, service=robot.id)).secret.reveal()
    await control.users.set_active(admin, robot.id, active=False)
    await control.users.set_active(admin, robot.id, active=False)
    assert told == [robot.id]
    with pytest.raises(Unauthenticated):
        await control.access.authenticate(secret)
    async with db.read() as tx:
        assert "robot" not in {key.name for key in await control.access.served_keys(tx)}
        assert len(await control.access.served_keys(tx)) == 1
    await control.users.set_active(admin, robot.id, active=True)
    assert (await control.access.authenticate(secret)).user == robot.id
    assert [one.action for one in await control.audit.entries(limit=2)] == ["user.enable", "user.disable"]


async def demote(control: ControlPlane, admin: Actor, user_id: str) -> None:
    """Take back what somebody was granted."""
    for given in await control.access.grants(admin, limit=9, subject=Subject("user", user_id)):
        await control.access.take(admin, given, INSTALLATION)


async def test_the_last_administrator_is_neither_disabled_nor_demoted(control: ControlPlane, clock: TestClock):
    admin = await first_admin(control, clock)
    no_way_in = await control.users.add(admin, someone(clock, "bob", email="bob@example.org"), role=Role.ADMIN)
    for attempt in (control.users.set_active(admin, admin.user, active=False), demote(control, admin, admin.user)):
        with pytest.raises(LastAdmin):  # bob has no password yet, and so cannot administer
            await attempt
    await control.users.set_active(admin, no_way_in.id, active=False)
    eve = someone(clock, "eve", email="eve@example.org")
    other = await control.users.add(admin, eve, "$argon2id$", Role.ADMIN)
    await demote(control, admin, admin.user)
    with pytest.raises(LastAdmin):
        await control.users.set_active(admin, other.id, active=False)


async def test_of_two_administrators_who_demote_each_other_one_stays(control: ControlPlane, clock: TestClock):
    admin = await first_admin(control, clock)
    eve = someone(clock, "eve", email="eve@example.org")
    other = await control.users.add(admin, eve, "$argon2id$", Role.ADMIN)
    results = await asyncio.gather(
        demote(control, admin, admin.user),
        control.users.set_active(admin, other.id, active=False),
        return_exceptions=True,
    )
    assert [type(one) for one in results if isinstance(one, Exception)] == [LastAdmin]


async def test_the_last_key_of_an_administrator_who_has_no_password_stays(control: ControlPlane, clock: TestClock):
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada")
    admin = await control.access.authenticate(issued.secret.reveal())
    robot = await control.users.add(admin, someone(clock, "robot", kind=Kind.SERVICE), role=Role.ADMIN)
    await control.users.issue_key(admin, "x", frozenset({Scope.ADMIN}), None, service=robot.id)
    await demote(control, admin, robot.id)
    with pytest.raises(LastAdmin):
        await control.users.revoke_key(admin, admin.id)
