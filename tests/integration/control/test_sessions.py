"""Logging in, going on and ending, over each kind of database."""

import asyncio
from datetime import timedelta

import bcrypt
import msgspec
import pytest
import sqlalchemy as sa

from fixtures.control import TestClock
from fixtures.passwords import CountingHasher
from fixtures.people import EMAIL, HERE, PASSWORD, People
from modelkeep.contracts.access import INSTALLATION, Role, Scope
from modelkeep.contracts.errors import Unauthenticated
from modelkeep.contracts.ids import new_id
from modelkeep.control.access.rules import Subject
from modelkeep.control.sessions.errors import (
    LoginRefused,
    NoSession,
    RefreshRefused,
    RotationUnderWay,
    SessionNotFound,
    SigningKeyLost,
)
from modelkeep.control.sessions.service import Origin, Sessions
from modelkeep.control.users.rules import Kind, User
from modelkeep.infra.attempts import TriedTooOften, wait_after
from modelkeep.infra.db import Database
from modelkeep.infra.passwords import Passwords
from modelkeep.infra.site_key import SiteKey
from modelkeep.infra.tokens import ACCESS_LIFE

WRONG = "correct horse buttery"


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def passwords(hasher: CountingHasher) -> Passwords:
    return Passwords(argon2=hasher)


async def add(people: People, clock: TestClock, name: str, role: Role | None = None, kept: str | None = None) -> User:
    """Add a person with the same password, or with this hash of it."""
    kept = kept or await people.control.passwords.hashed(PASSWORD)
    user = User(new_id("usr"), name, clock(), email=f"{name}@example.org")
    return await people.control.users.add(people.admin, user, kept, role)


async def actions(people: People) -> list[str]:
    return [entry.action for entry in await people.control.audit.entries(limit=100)]


async def test_a_login_opens_what_the_role_opens(people: People, clock: TestClock):
    made = await people.login(" ADA@example.org")
    actor = await people.acting(made.access, "req_1")
    assert (actor.id, actor.user, actor.request_id) == (made.session_id, people.admin.user, "req_1")
    assert actor.may(Scope.ADMIN)
    assert actor.standing.scopes is None
    assert (made.expires_at, made.refresh_expires_at) == (clock() + ACCESS_LIFE, clock() + timedelta(days=7))
    bob = await add(people, clock, "bob", Role.PREDICTOR)
    access = (await people.login("bob@example.org")).access
    assert (await people.acting(access)).may(Scope.PREDICT)
    (given,) = await people.control.access.grants(people.admin, limit=9, subject=Subject("user", bob.id))
    await people.control.access.take(people.admin, given, INSTALLATION)
    assert not (await people.acting(access)).may(Scope.PREDICT)


async def test_neither_password_nor_token_is_written_down(people: People, db: Database):
    made = await people.login()
    made = await people.sessions.refresh(made.refresh)
    async with db.read() as tx:
        for table in ("users", "sessions", "refresh_tokens", "signing_keys", "audit_entries", "failed_attempts"):
            kept = str(await tx.all(sa.text(f"SELECT * FROM {table}")))
            assert PASSWORD not in kept
            assert made.refresh not in kept
            assert made.access not in kept
            assert EMAIL not in kept or table == "users"


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.org", "no address", "robot", "gone@example.org", "new@example.org"])
async def test_whoever_is_refused_is_told_the_same_and_costs_the_same(
    people: People, clock: TestClock, hasher: CountingHasher, email: str
):
    gone = await add(people, clock, "gone")
    await people.control.users.set_active(people.admin, gone.id, active=False)
    await people.control.users.add(people.admin, User(new_id("usr"), "robot", clock(), kind=Kind.SERVICE))
    await people.control.users.add(people.admin, User(new_id("usr"), "new", clock(), email="new@example.org"))
    with pytest.raises(LoginRefused):
        await people.login("nobody@example.org", origin=Origin("192.0.2.9"))  # makes the decoy, once
    before = hasher.computed
    password = PASSWORD if email.startswith("gone") else WRONG
    with pytest.raises(LoginRefused) as refused:
        await people.login(email, password)
    assert refused.value.message == LoginRefused().message
    assert hasher.computed == before + 1
    (entry,) = await people.control.audit.entries(limit=1)
    assert (entry.action, entry.outcome, entry.address) == ("login.refuse", "refused", HERE.address)


async def test_a_thousand_tries_reach_the_hash_a_few_times_and_the_owner_comes_in(
    people: People, clock: TestClock, hasher: CountingHasher
):
    with pytest.raises(LoginRefused):
        await people.login("nobody@example.org", origin=Origin("192.0.2.9"))
    before, waits = hasher.computed, []
    for number in range(1000):
        with pytest.raises((LoginRefused, TriedTooOften)) as refused:
            await people.login(EMAIL, WRONG, Origin(f"198.51.100.{number % 250}"))
        if isinstance(refused.value, TriedTooOften):
            waits.append(refused.value.retry_after_s)
    assert hasher.computed - before == 101
    assert len(waits) == 899
    clock.advance(seconds=waits[-1])
    await people.login()  # from elsewhere, at the first try after the wait


@pytest.mark.parametrize(("places", "days"), [(1, 29), (102, 29), (102, 31)])
async def test_nobody_keeps_the_owner_out_from_elsewhere(people: People, clock: TestClock, places: int, days: int):
    await people.login()
    clock.advance(days=days)
    for number in range(7 if places == 1 else 102):
        with pytest.raises((LoginRefused, TriedTooOften)):
            await people.login(EMAIL, WRONG, Origin(f"198.51.100.{number % places}"))
    with pytest.raises(TriedTooOften):
        await people.login(origin=Origin("198.51.100.0"))
    if places == 1:
        await people.login(origin=Origin("192.0.2.99"))  # where they have never been, too
    else:
        with pytest.raises(TriedTooOften):
            await people.login(origin=Origin("192.0.2.99"))
    if days <= 30:
        await people.login()
        return
    with pytest.raises(TriedTooOften):  # it is too long ago that they were here
        await people.login()


async def test_of_ipv6_a_network_is_counted_and_not_the_address(people: People, hasher: CountingHasher):
    with pytest.raises(LoginRefused):
        await people.login("nobody@example.org", origin=Origin("192.0.2.9"))
    before = hasher.computed
    for number in range(50):
        with pytest.raises((LoginRefused, TriedTooOften)):
            await people.login(f"u{number}@example.org", WRONG, Origin(f"2001:db8::{number:x}"))
    assert hasher.computed - before == 21
    with pytest.raises(LoginRefused):
        await people.login("u@example.org", WRONG, Origin("2001:db8:0:1::1"))


async def test_waits_grow_to_a_quarter_of_an_hour_and_end(people: People, clock: TestClock):
    there = Origin("198.51.100.1")
    for count in range(1, 40):
        with pytest.raises(LoginRefused):
            await people.login(EMAIL, WRONG, there)
        wait = wait_after(count, 5).total_seconds()
        assert wait == (0 if count <= 5 else min(2 ** (count - 6), 900))
        if wait:
            clock.advance(seconds=wait - 1)
            with pytest.raises(TriedTooOften):
                await people.login(EMAIL, PASSWORD, there)
            clock.advance(seconds=1)
    await people.login()
    with pytest.raises(LoginRefused):  # and it begins anew
        await people.login(EMAIL, WRONG)
    await people.login()


async def test_an_address_that_tries_many_names_waits_and_an_account_of_its_own_does_not_help(people: People, clock: TestClock):
    await add(people, clock, "eve")
    tried = 0
    with pytest.raises(TriedTooOften):
        for number in range(100):
            with pytest.raises(LoginRefused):
                await people.login(f"u{number}@example.org", WRONG)
            tried += 1
            await people.login("eve@example.org")
    assert tried == 21
    await people.login(origin=Origin("192.0.2.2"))


async def test_of_many_tries_at_once_no_more_get_through_than_one_after_the_other(people: People, hasher: CountingHasher):
    with pytest.raises(LoginRefused):
        await people.login("nobody@example.org", origin=Origin("192.0.2.9"))
    before = hasher.computed
    there = Origin("198.51.100.1")
    await asyncio.gather(*[people.login(EMAIL, WRONG, there) for _ in range(30)], return_exceptions=True)
    assert hasher.computed - before <= 6


async def test_a_bcrypt_hash_is_replaced_at_the_first_login(people: People, clock: TestClock, db: Database):
    bob = await add(people, clock, "bob", kept=bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode())
    await people.login("bob@example.org")
    kept = await people.control.users.password_of(bob.id)
    assert kept is not None
    assert kept.startswith("$argon2id$")
    await people.login("bob@example.org")


async def test_a_refresh_token_is_good_once_and_a_double_click_gets_the_same(people: People, clock: TestClock):
    first = await people.login()
    second = await people.sessions.refresh(first.refresh)
    assert second.refresh != first.refresh
    clock.advance(seconds=9)
    assert await people.sessions.refresh(first.refresh) == second
    third = await people.sessions.refresh(second.refresh)
    assert await people.sessions.refresh(first.refresh) == second
    for made in (first, second, third):
        await people.sessions.authenticate(made.access)


async def test_two_refreshes_at_once_get_the_same(people: People):
    first = await people.login()
    both = await asyncio.gather(*[people.sessions.refresh(first.refresh) for _ in range(5)])
    assert len(set(both)) == 1


async def test_a_token_that_is_used_again_ends_the_session_for_all_who_have_it(people: People, clock: TestClock):
    other = await people.login()
    first = await people.login()
    second = await people.sessions.refresh(first.refresh)
    clock.advance(seconds=10)
    with pytest.raises(RefreshRefused):
        await people.sessions.refresh(first.refresh)
    for made in (first, second):
        with pytest.raises(Unauthenticated):
            await people.sessions.authenticate(made.access)
        with pytest.raises(RefreshRefused):
            await people.sessions.refresh(made.refresh)
    await people.sessions.authenticate(other.access)
    assert (await actions(people)).count("session.reuse") == 1


async def test_a_refresh_token_ends_after_a_week_and_a_session_after_thirty_days(people: People, clock: TestClock):
    made = await people.login()
    clock.advance(days=7)
    with pytest.raises(RefreshRefused):
        await people.sessions.refresh(made.refresh)
    made = await people.login()
    for _ in range(4):
        clock.advance(days=6)
        made = await people.sessions.refresh(made.refresh)
    clock.advance(days=5)
    made = await people.sessions.refresh(made.refresh)
    clock.advance(days=1)
    with pytest.raises(RefreshRefused):
        await people.sessions.refresh(made.refresh)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(made.access)


@pytest.mark.parametrize("wrong", ["", "x", "mkr_" + "0" * 46, "changed", "access"])
async def test_what_is_no_refresh_token_gets_nothing(people: People, wrong: str):
    made = await people.login()
    wrong = {"changed": made.refresh[:-1] + ("a" if made.refresh[-1] != "a" else "b"), "access": made.access}.get(wrong, wrong)
    with pytest.raises(RefreshRefused):
        await people.sessions.refresh(wrong)
    await people.sessions.refresh(made.refresh)


async def test_a_logout_ends_one_session_and_all_of_them_end_at_once(people: People, clock: TestClock):
    made = [await people.login() for _ in range(3)]
    actor = await people.acting(made[0].access)
    assert [one.id for one in await people.sessions.mine(actor)] == [one.session_id for one in reversed(made)]
    await people.sessions.logout(actor)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(made[0].access)
    await people.sessions.authenticate(made[1].access)
    with pytest.raises(NoSession):
        await people.sessions.logout(people.admin)
    await people.sessions.end(people.admin, made[1].session_id)
    with pytest.raises(SessionNotFound):
        await people.sessions.end(people.admin, made[1].session_id)
    await people.sessions.logout_all(people.admin)
    for one in made:
        with pytest.raises(Unauthenticated):
            await people.sessions.authenticate(one.access)
        with pytest.raises(RefreshRefused):
            await people.sessions.refresh(one.refresh)
    assert await people.sessions.mine(people.admin) == []


async def test_nobody_ends_the_session_of_somebody_else(people: People, clock: TestClock):
    await add(people, clock, "bob")
    bob = await people.acting((await people.login("bob@example.org")).access)
    made = await people.login()
    with pytest.raises(SessionNotFound):
        await people.sessions.end(bob, made.session_id)
    await people.sessions.authenticate(made.access)


async def test_disabling_ends_everything_at_once_and_for_good(people: People, clock: TestClock):
    bob = await add(people, clock, "bob")
    made = await people.login("bob@example.org")
    await people.control.users.set_active(people.admin, bob.id, active=False)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(made.access)
    with pytest.raises(LoginRefused):
        await people.login("bob@example.org")
    await people.control.users.set_active(people.admin, bob.id, active=True)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(made.access)
    with pytest.raises(RefreshRefused):
        await people.sessions.refresh(made.refresh)
    await people.login("bob@example.org")


async def test_rotation_publishes_a_key_before_it_signs_and_logs_nobody_out(people: People, clock: TestClock):
    made = await people.login()
    (old,) = (await people.sessions.published())["keys"]
    assert await people.sessions.rotate_keys(people.admin) == clock() + timedelta(minutes=10)
    assert len((await people.sessions.published())["keys"]) == 2
    with pytest.raises(RotationUnderWay):
        await people.sessions.rotate_keys(people.admin)
    clock.advance(minutes=9, seconds=59)
    last = await people.sessions.refresh(made.refresh)
    assert last.access.split(".")[0] == made.access.split(".")[0]
    clock.advance(seconds=1)
    new = await people.sessions.refresh(last.refresh)
    assert new.access.split(".")[0] != made.access.split(".")[0]
    clock.advance(minutes=29, seconds=58)
    await people.sessions.authenticate(last.access)
    clock.advance(minutes=2)
    (only,) = (await people.sessions.published())["keys"]
    assert only["kid"] != old["kid"]
    await people.sessions.rotate_keys(people.admin)
    await people.sessions.refresh(new.refresh)


async def test_with_another_site_key_nothing_is_signed_until_a_new_key_is_made(people: People, clock: TestClock, db: Database):
    made = await people.login()
    moved = Sessions(
        db=db,
        users=people.control.users,
        audit=people.control.audit,
        events=people.control.events,
        passwords=people.control.passwords,
        site_key=SiteKey(b"another".ljust(32)),
        clock=clock,
    )
    with pytest.raises(Unauthenticated):
        await moved.authenticate(made.access)
    with pytest.raises(SigningKeyLost):
        await moved.login(EMAIL, PASSWORD, HERE)
    assert await moved.rotate_keys(people.admin) == clock()
    await moved.authenticate((await moved.login(EMAIL, PASSWORD, HERE)).access)


async def test_first_logins_at_once_make_one_key(people: People):
    await asyncio.gather(*[people.login(origin=Origin(str(number))) for number in range(4)])
    assert len((await people.sessions.published())["keys"]) == 1


async def test_what_a_program_calls_itself_is_cut_and_cleaned(people: People):
    made = await people.login(origin=msgspec.structs.replace(HERE, program="\x1b[31mred\n" + "x" * 1000))
    (session,) = await people.sessions.mine(people.admin)
    assert session.id == made.session_id
    assert session.program.startswith("[31mredx")
    assert len(session.program) == 200


async def test_another_process_of_the_installation_knows_the_same_tokens(people: People, db: Database):
    made = await people.login()
    session, _user = await people.control.sessions.authenticate(made.access)
    assert session.id == made.session_id
