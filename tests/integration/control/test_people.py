"""People: their addresses, roles and passwords, and that somebody can always administer; over each kind of database."""

import asyncio

import pytest

from fixtures.control import TestClock
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, Invalid, Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.contracts.snapshot import Scope
from modelkeep.control.users.errors import BeyondRole, LastAdmin, LastAdminKey, UserExists, UserNotFound
from modelkeep.control.users.events import UserDisabled
from modelkeep.control.users.rules import SCOPES, Kind, Role, User, email_of
from modelkeep.infra.passwords import WeakPassword

PASSWORD = "correct horse battery"


async def first_admin(control: ControlPlane, clock: TestClock) -> Actor:
    """Set up; return the first administrator, who may log in."""
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada", email="Ada@Example.org", password=PASSWORD)
    return await control.users.authenticate(issued.secret.reveal())


def someone(clock: TestClock, name: str, **changes: object) -> User:
    """A user to add."""
    return User(**{"id": new_id("usr"), "name": name, "created_at": clock(), "role": Role.VIEWER, **changes})


async def test_the_first_administrator_may_have_an_address_and_a_password(
    control: ControlPlane, clock: TestClock, db, passwords
):
    admin = await first_admin(control, clock)
    async with db.read() as tx:
        found = await control.users.password_of_email(tx, email_of("ADA@example.ORG "))
    assert found is not None
    assert (found[0].id, found[0].email, found[0].role) == (admin.user, "ada@example.org", Role.ADMIN)
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
    viewer = Actor("ses_x", "eve", "usr_x", SCOPES[Role.RELEASER])
    for attempt in (
        control.users.add(viewer, someone(clock, "bob")),
        control.users.change(viewer, admin.user, role=Role.VIEWER),
        control.users.set_active(viewer, admin.user, active=False),
    ):
        with pytest.raises(Forbidden):
            await attempt
    with pytest.raises(UserNotFound):
        await control.users.change(admin, "usr_none", role=Role.VIEWER)


async def test_a_key_may_do_no_more_than_its_user(control: ControlPlane, clock: TestClock, db):
    admin = await first_admin(control, clock)
    robot = await control.users.add(admin, someone(clock, "robot", kind=Kind.SERVICE, role=Role.DEVELOPER))
    with pytest.raises(BeyondRole):
        await control.users.issue_key(admin, "x", frozenset({Scope.ADMIN}), None, service=robot.id)
    issued = await control.users.issue_key(admin, "x", frozenset({Scope.PREDICT, Scope.MODELS_WRITE}), None, service=robot.id)
    secret = issued.secret.reveal()
    assert (await control.users.authenticate(secret)).scopes == {Scope.PREDICT, Scope.MODELS_WRITE}
    await control.users.change(admin, robot.id, role=Role.PREDICTOR)
    actor = await control.users.authenticate(secret)
    assert (actor.scopes, actor.user, actor.name) == ({Scope.PREDICT}, robot.id, "robot")
    async with db.read() as tx:
        served = {key.id: key.scopes for key in await control.users.served_keys(tx)}
    assert served[issued.key.id] == {Scope.PREDICT}


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
    robot = await control.users.add(admin, someone(clock, "robot", kind=Kind.SERVICE, role=Role.PREDICTOR))
    secret = (await control.users.issue_key(admin, "x", frozenset({Scope.PREDICT}), None, service=robot.id)).secret.reveal()
    await control.users.set_active(admin, robot.id, active=False)
    await control.users.set_active(admin, robot.id, active=False)
    assert told == [robot.id]
    with pytest.raises(Unauthenticated):
        await control.users.authenticate(secret)
    async with db.read() as tx:
        assert "robot" not in {key.name for key in await control.users.served_keys(tx)}
        assert len(await control.users.served_keys(tx)) == 1
    await control.users.set_active(admin, robot.id, active=True)
    assert (await control.users.authenticate(secret)).user == robot.id
    assert [one.action for one in await control.audit.entries(limit=2)] == ["user.enable", "user.disable"]


async def test_the_last_administrator_is_neither_disabled_nor_demoted(control: ControlPlane, clock: TestClock):
    admin = await first_admin(control, clock)
    no_way_in = await control.users.add(admin, someone(clock, "bob", email="bob@example.org", role=Role.ADMIN))
    for attempt in (
        control.users.set_active(admin, admin.user, active=False),
        control.users.change(admin, admin.user, role=Role.DEVELOPER),
    ):
        with pytest.raises(LastAdmin):  # bob has no password yet, and so cannot administer
            await attempt
    await control.users.set_active(admin, no_way_in.id, active=False)
    other = await control.users.add(admin, someone(clock, "eve", email="eve@example.org", role=Role.ADMIN), "$argon2id$")
    assert (await control.users.change(admin, admin.user, role=Role.DEVELOPER)).role is Role.DEVELOPER
    with pytest.raises(LastAdmin):
        await control.users.set_active(admin, other.id, active=False)


async def test_of_two_administrators_who_demote_each_other_one_stays(control: ControlPlane, clock: TestClock):
    admin = await first_admin(control, clock)
    other = await control.users.add(admin, someone(clock, "eve", email="eve@example.org", role=Role.ADMIN), "$argon2id$")
    results = await asyncio.gather(
        control.users.change(admin, admin.user, role=Role.VIEWER),
        control.users.set_active(admin, other.id, active=False),
        return_exceptions=True,
    )
    assert [type(one) for one in results if isinstance(one, Exception)] == [LastAdmin]


async def test_the_last_key_of_an_administrator_does_not_count_one_of_somebody_demoted(control: ControlPlane, clock: TestClock):
    admin = await first_admin(control, clock)
    robot = await control.users.add(admin, someone(clock, "robot", kind=Kind.SERVICE, role=Role.ADMIN))
    await control.users.issue_key(admin, "x", frozenset({Scope.ADMIN}), None, service=robot.id)
    await control.users.change(admin, robot.id, role=Role.VIEWER)
    with pytest.raises(LastAdminKey):
        await control.users.revoke_key(admin, admin.id)
