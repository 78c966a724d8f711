"""An API key gets another secret, and whoever has the one from before is not locked out meanwhile."""

import msgspec
import pytest

from fixtures.control import Rings, TestClock
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope, Standing
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, Invalid, Unauthenticated
from modelkeep.contracts.snapshot import ServedKey
from modelkeep.control.users.errors import KeyNotFound, KeyRotationUnderWay
from modelkeep.control.users.rules import Kind, User
from modelkeep.infra import secrets
from modelkeep.infra.db import Database
from modelkeep.serving.keys import Keys


@pytest.fixture
async def admin(control: ControlPlane, clock: TestClock) -> Actor:
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada")
    return await control.access.authenticate(issued.secret.reveal())


async def served(control: ControlPlane, db: Database, clock: TestClock) -> Keys:
    """The keys as a server has them."""
    keys = Keys(max_staleness_s=1e9, clock=lambda: clock().timestamp())
    async with db.read() as tx:
        keys.replace(await control.access.served_keys(tx))
    keys.heard(clock().timestamp())
    return keys


def opens(keys: Keys, secret: str) -> ServedKey | None:
    try:
        return keys.check(secret.encode(), Scope.PREDICT)
    except Unauthenticated:
        return None


async def known(control: ControlPlane, secret: str) -> bool:
    try:
        await control.access.authenticate(secret)
    except Unauthenticated:
        return False
    return True


async def test_both_secrets_open_the_same_until_the_older_s_time_is_over(
    control: ControlPlane, db: Database, admin: Actor, clock: TestClock, rings: Rings
):
    first = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None, rate="60/min")
    old = first.secret.reveal()
    rung = rings.courier
    second = await control.users.rotate_key(admin, first.key.id, 7)
    new = second.secret.reveal()
    assert rings.courier > rung
    assert (old != new, second.key.id) == (True, first.key.id)
    keys = await served(control, db, clock)
    one, other = opens(keys, old), opens(keys, new)
    assert one is not None
    assert other is not None
    assert (one.id, one.standing, one.rate) == (other.id, other.standing, other.rate)  # one limit for both
    assert [await known(control, secret) for secret in (old, new)] == [True, True]
    clock.advance(days=6, hours=23)
    assert [await known(control, secret) for secret in (old, new)] == [True, True]
    assert opens(keys, old) is not None
    clock.advance(hours=1)
    assert [await known(control, secret) for secret in (old, new)] == [False, True]
    assert (opens(keys, old), opens(keys, new)) == (None, other)  # also where no news has come
    assert opens(await served(control, db, clock), old) is None
    third = (await control.users.rotate_key(admin, first.key.id, 1)).secret.reveal()
    assert [await known(control, secret) for secret in (old, new, third)] == [False, True, True]


async def test_the_last_use_of_each_secret_is_known(control: ControlPlane, admin: Actor, clock: TestClock):
    old = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None)
    used = clock()
    await control.access.authenticate(old.secret.reveal())
    clock.advance(hours=1)
    new = await control.users.rotate_key(admin, old.key.id, 7)
    key = await control.users.key(old.key.id)
    assert (key.last_used_at, key.previous_used_at, key.rotated_at) == (None, used, clock())
    clock.advance(hours=1)
    await control.access.authenticate(old.secret.reveal())
    assert (await control.users.key(key.id)).previous_used_at == (used := clock())
    clock.advance(hours=1)
    await control.access.authenticate(new.secret.reveal())
    key = await control.users.key(key.id)
    assert (key.last_used_at, key.previous_used_at) == (clock(), used)


async def test_the_older_secret_is_ended_before_its_time(control: ControlPlane, db: Database, admin: Actor, clock: TestClock):
    old = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None)
    with pytest.raises(Invalid):
        await control.users.rotate_key(admin, old.key.id, 91)
    new = await control.users.rotate_key(admin, old.key.id, 7)
    with pytest.raises(KeyRotationUnderWay):
        await control.users.rotate_key(admin, old.key.id, 7)
    for _twice in range(2):
        await control.users.end_previous(admin, old.key.id)
        keys = await served(control, db, clock)
        assert opens(keys, old.secret.reveal()) is None
        assert opens(keys, new.secret.reveal()) is not None
        assert [await known(control, one.secret.reveal()) for one in (old, new)] == [False, True]
    at_once = await control.users.rotate_key(admin, old.key.id, 0)
    assert [await known(control, one.secret.reveal()) for one in (new, at_once)] == [False, True]


async def test_a_key_that_is_revoked_or_expired_takes_both_with_it(
    control: ControlPlane, db: Database, admin: Actor, clock: TestClock
):
    for end in ("revoked", "expired"):
        old = await control.users.issue_key(admin, end, frozenset({Scope.PREDICT}), 2)
        new = await control.users.rotate_key(admin, old.key.id, 7)
        if end == "revoked":
            await control.users.revoke_key(admin, old.key.id)
        else:
            clock.advance(days=2)
        keys = await served(control, db, clock)
        for one in (old, new):
            assert opens(keys, one.secret.reveal()) is None
            assert not await known(control, one.secret.reveal())
        with pytest.raises(KeyNotFound):
            await control.users.rotate_key(admin, old.key.id, 7)


async def test_one_s_own_keys_and_those_of_services_are_rotated_and_nobody_gets_another_person_s(
    control: ControlPlane, admin: Actor, clock: TestClock
):
    users = control.users
    await users.add(admin, User("usr_bob", "bob", clock(), email="bob@example.org"))
    await users.add(admin, User("usr_robot", "robot", clock(), kind=Kind.SERVICE))
    bob = Actor("ses_bob", "bob", "usr_bob", Standing("usr_bob"))
    his, hers = [(await users.issue_key(one, "mine", frozenset({Scope.PREDICT}), None)).key.id for one in (bob, admin)]
    service = (await users.issue_key(admin, "robot", frozenset({Scope.PREDICT}), None, service="usr_robot")).key.id
    await users.rotate_key(bob, his, 7)
    await users.end_previous(admin, his)  # as she may revoke it
    with pytest.raises(Invalid):
        await users.rotate_key(admin, his, 7)
    await users.rotate_key(admin, service, 7)
    for unseen in (hers, service, "key_none"):
        for refused in (users.rotate_key(bob, unseen, 7), users.end_previous(bob, unseen)):
            with pytest.raises(KeyNotFound):
                await refused


async def test_a_bounded_key_makes_rotates_and_revokes_none(control: ControlPlane, admin: Actor):
    """It could give its holder what may more than it."""
    users, mine = control.users, (await control.users.issue_key(admin, "mine", frozenset({Scope.ADMIN}), None)).key.id
    standing = msgspec.structs.replace(admin.standing, scopes=frozenset({Scope.MODELS_WRITE, Scope.PREDICT}))
    to_models = msgspec.structs.replace(admin.standing, scopes=frozenset({Scope.ADMIN}), models=frozenset({"mdl_1"}))
    how = ({"networks": ["10.1.0.0/16"]}, {"rate": "10/min"}, {"concurrency": 8}, {"expires_in_days": 1})
    made = [await users.issue_key(admin, "x", frozenset({Scope.ADMIN}), **({"expires_in_days": None} | one)) for one in how]
    secrets_of = [one.secret.reveal() for one in made]
    acting = [await control.access.authenticate(one, address="10.1.0.1") for one in secrets_of]
    assert all(one.may(Scope.ADMIN) for one in acting)
    for bounded in (*(msgspec.structs.replace(admin, standing=one) for one in (standing, to_models)), *acting):
        for refused in (
            users.issue_key(bounded, "more", frozenset({Scope.ADMIN}), None),
            users.rotate_key(bounded, mine, 7),
            users.end_previous(bounded, mine),
            users.revoke_key(bounded, mine),
        ):
            with pytest.raises(Forbidden):
                await refused


async def test_every_rotation_is_in_the_audit_trail(control: ControlPlane, admin: Actor):
    issued = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None)
    await control.users.rotate_key(admin, issued.key.id, 7)
    await control.users.end_previous(admin, issued.key.id)
    actions = [entry.action for entry in await control.audit.entries(limit=10, target=issued.key.id)]
    assert actions == ["key.end_previous", "key.rotate", "key.create"]


async def test_the_database_has_no_secret_of_it(control: ControlPlane, db: Database, admin: Actor):
    issued = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None)
    rotated = await control.users.rotate_key(admin, issued.key.id, 7)
    key = await control.users.key(issued.key.id)
    assert key.digest == secrets.digest(rotated.secret.reveal())
    assert key.previous_digest == secrets.digest(issued.secret.reveal())
    assert rotated.secret.reveal() not in repr([key, rotated])
