"""People and keys, over each kind of database."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, SITE, Rings, TestClock
from modelkeep.app.control_plane import ControlPlane, control_plane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, Invalid, InvalidName, Unauthenticated
from modelkeep.contracts.secret import NO_SECRET, Secret
from modelkeep.contracts.snapshot import Limits, decode_snapshot
from modelkeep.control.access.errors import LastAdmin
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.control.users.errors import AlreadySetUp, KeyNotFound, SetupTokenInvalid
from modelkeep.control.users.events import SetUpDone
from modelkeep.infra import broadcast, secrets
from modelkeep.infra.db import Database


async def set_up(control: ControlPlane, clock: TestClock) -> tuple[Actor, str]:
    """Make the first administrator; return them and their secret."""
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada")
    secret = issued.secret.reveal()
    return await control.access.authenticate(secret), secret


async def served_key_ids(db: Database) -> set[str]:
    async with db.read() as tx:
        news = await broadcast.latest(tx, SNAPSHOT, 0)
    assert news is not None
    return {key.id for key in decode_snapshot(news.payload).keys}


async def test_a_key_is_good_even_when_a_full_disk_keeps_its_use_from_being_noted(sqlite_db: Database, clock: TestClock):
    control = control_plane(sqlite_db, ring_worker=bool, ring_courier=bool, limits=Limits(), site=SITE, clock=clock)
    admin, secret = await set_up(control, clock)
    async with sqlite_db.begin() as tx:  # from now on the note needs room that there is not
        await tx.execute(sa.text("CREATE TABLE filler (x)"))
        fill = "CREATE TRIGGER fill AFTER UPDATE ON api_keys BEGIN INSERT INTO filler VALUES (zeroblob(1000000)); END"
        await tx.execute(sa.text(fill))
        pages = await tx.one(sa.text("PRAGMA page_count"))
        assert pages is not None
        await tx.execute(sa.text(f"PRAGMA max_page_count = {pages[0] + 2}"))
    noted = (await control.users.key(admin.id)).last_used_at
    clock.advance(minutes=10)
    assert (await control.access.authenticate(secret)).id == admin.id
    assert (await control.users.key(admin.id)).last_used_at == noted


async def test_the_setup_token_makes_the_first_administrator(control: ControlPlane, clock: TestClock):
    actor, secret = await set_up(control, clock)
    assert secrets.well_formed(secret, secrets.KEY)
    assert (actor.name, actor.standing.scopes) == ("ada", frozenset({Scope.ADMIN}))
    assert actor.may(Scope.PREDICT)
    assert await control.users.ensure_setup_token(clock()) is None


async def test_a_setup_token_works_once(control: ControlPlane, clock: TestClock):
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    await control.users.set_up(token, "ada")
    with pytest.raises(AlreadySetUp):
        await control.users.set_up(token, "bob")


async def test_of_many_who_set_up_at_once_one_succeeds(control: ControlPlane, clock: TestClock):
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    results = await asyncio.gather(*[control.users.set_up(token, f"u{number}") for number in range(5)], return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, tuple | AlreadySetUp) for result in results)


async def test_only_the_newest_unused_token_is_good_and_for_a_day(control: ControlPlane, clock: TestClock):
    older = await control.users.ensure_setup_token(clock())
    newer = await control.users.ensure_setup_token(clock())
    assert older is not None
    assert newer is not None
    for wrong in (
        older,
        Secret(newer.reveal()[:-1]),
        NO_SECRET,
        secrets.new_secret(secrets.SETUP),
        secrets.new_secret(secrets.KEY),
    ):
        with pytest.raises(SetupTokenInvalid):
            await control.users.set_up(wrong, "ada")
    clock.advance(hours=24)
    with pytest.raises(SetupTokenInvalid):
        await control.users.set_up(newer, "ada")
    clock.advance(seconds=-1)
    await control.users.set_up(newer, "ada")


async def test_a_bad_name_does_not_use_the_token_up(control: ControlPlane, clock: TestClock):
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    with pytest.raises(InvalidName):
        await control.users.set_up(token, "not a name")
    await control.users.set_up(token, "ada")


async def test_the_set_up_is_told_in_its_transaction(control: ControlPlane, clock: TestClock):
    told: list[object] = []

    async def listen(tx: object, event: SetUpDone) -> None:
        told.append(event)

    control.events.subscribe(SetUpDone, listen)
    await set_up(control, clock)
    assert len(told) == 1


async def test_a_key_does_what_its_scopes_say(control: ControlPlane, clock: TestClock):
    admin, _secret = await set_up(control, clock)
    issued = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT, Scope.MODELS_READ}), 30)
    actor = await control.access.authenticate(issued.secret.reveal(), "req_1")
    assert (actor.user, actor.request_id) == (admin.user, "req_1")
    actor.need(Scope.PREDICT)
    for scope in (Scope.MODELS_WRITE, Scope.ADMIN, Scope.METRICS_READ):
        with pytest.raises(Forbidden, match=scope):
            actor.need(scope)
    with pytest.raises(Forbidden):
        await control.users.issue_key(actor, "more", frozenset({Scope.ADMIN}), None)
    with pytest.raises(Forbidden):
        await control.users.revoke_key(actor, admin.id)


@pytest.mark.parametrize(
    ("name", "scopes", "days"),
    [("", {Scope.PREDICT}, None), ("x" * 101, {Scope.PREDICT}, None), ("x", set(), None), ("x", {Scope.PREDICT}, 0)],
)
async def test_a_key_without_name_scope_or_life_is_refused(
    control: ControlPlane, clock: TestClock, name: str, scopes: set[Scope], days: int | None
):
    admin, _secret = await set_up(control, clock)
    with pytest.raises(Invalid):
        await control.users.issue_key(admin, name, frozenset(scopes), days)


async def test_a_wrong_key_opens_nothing(control: ControlPlane, clock: TestClock):
    _admin, secret = await set_up(control, clock)
    for wrong in ("", "x", secret[:-1], secret[:-1] + "!", secret.upper(), secrets.new_secret(secrets.KEY).reveal()):
        with pytest.raises(Unauthenticated):
            await control.access.authenticate(wrong)


async def test_a_key_ends_when_it_expires(control: ControlPlane, clock: TestClock, db: Database):
    admin, _secret = await set_up(control, clock)
    issued = await control.users.issue_key(admin, "short", frozenset({Scope.PREDICT}), 1)
    clock.advance(days=1, seconds=-1)
    await control.access.authenticate(issued.secret.reveal())
    clock.advance(seconds=1)
    with pytest.raises(Unauthenticated):
        await control.access.authenticate(issued.secret.reveal())
    await control.deployments.publish()
    assert await served_key_ids(db) == {admin.id}


async def test_a_revoked_key_opens_nothing_and_serving_learns_of_it_at_once(
    control: ControlPlane, clock: TestClock, db: Database, rings: Rings
):
    admin, _secret = await set_up(control, clock)
    issued = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None)
    assert await served_key_ids(db) == {admin.id, issued.key.id}
    rung = rings.courier
    await control.users.revoke_key(admin, issued.key.id)
    assert rings.courier == rung + 1
    assert await served_key_ids(db) == {admin.id}
    with pytest.raises(Unauthenticated):
        await control.access.authenticate(issued.secret.reveal())
    await control.users.revoke_key(admin, issued.key.id)
    assert rings.courier == rung + 1
    assert [key.id for key in await control.users.keys(ADMIN, limit=10)] == [admin.id]


async def test_the_last_key_that_may_administer_stays(control: ControlPlane, clock: TestClock):
    admin, _secret = await set_up(control, clock)
    await control.users.issue_key(admin, "reader", frozenset({Scope.MODELS_READ}), None)
    with pytest.raises(LastAdmin):
        await control.users.revoke_key(admin, admin.id)
    await control.users.issue_key(admin, "other", frozenset({Scope.ADMIN}), None)
    await control.users.revoke_key(admin, admin.id)


async def test_of_two_administrators_who_revoke_each_other_at_once_one_stays(control: ControlPlane, clock: TestClock):
    first, _secret = await set_up(control, clock)
    issued = await control.users.issue_key(first, "second", frozenset({Scope.ADMIN}), None)
    second = await control.access.authenticate(issued.secret.reveal())
    results = await asyncio.gather(
        control.users.revoke_key(first, second.id), control.users.revoke_key(second, first.id), return_exceptions=True
    )
    assert [type(result) for result in results if result is not None] == [LastAdmin]


async def test_an_unknown_key_cannot_be_revoked(control: ControlPlane):
    with pytest.raises(KeyNotFound):
        await control.users.revoke_key(ADMIN, "key_unknown")
    with pytest.raises(KeyNotFound):
        await control.users.key("key_unknown")


async def test_the_use_of_a_key_is_noted_now_and_then(control: ControlPlane, clock: TestClock):
    admin, secret = await set_up(control, clock)
    first = (await control.users.key(admin.id)).last_used_at
    clock.advance(minutes=1)
    await control.access.authenticate(secret)
    assert (await control.users.key(admin.id)).last_used_at == first
    clock.advance(minutes=5)
    await control.access.authenticate(secret)
    assert (await control.users.key(admin.id)).last_used_at == clock()


async def test_keys_are_listed_newest_first_in_pages(control: ControlPlane, clock: TestClock):
    admin, _secret = await set_up(control, clock)
    made = [
        (await control.users.issue_key(admin, f"k{number}", frozenset({Scope.PREDICT}), None)).key.id for number in range(4)
    ]
    newest = sorted([admin.id, *made], reverse=True)
    first = [key.id for key in await control.users.keys(ADMIN, limit=3)]
    rest = [key.id for key in await control.users.keys(ADMIN, limit=3, before=first[-1])]
    assert first + rest == newest


async def test_no_secret_is_in_the_database(control: ControlPlane, clock: TestClock, db: Database):
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    _user, issued = await control.users.set_up(token, "ada")
    async with db.read() as tx:
        tables = await tx.connection.run_sync(lambda connection: sa.inspect(connection).get_table_names())
        everything = b"".join(
            [
                repr(tuple(row)).encode()
                for table in tables
                for row in await tx.all(sa.select(sa.text("*")).select_from(sa.table(table)))
            ]
        )
    assert issued.key.id.encode() in everything
    assert token.reveal().encode() not in everything
    assert issued.secret.reveal().encode() not in everything


async def test_every_change_of_keys_is_audited(control: ControlPlane, clock: TestClock):
    admin, _secret = await set_up(control, clock)
    asking = msgspec.structs.replace(admin, request_id="req_7")
    issued = await control.users.issue_key(asking, "ci", frozenset({Scope.PREDICT}), None)
    await control.users.revoke_key(asking, issued.key.id)
    entries = await control.audit.entries(limit=10)
    assert [(entry.action, entry.actor) for entry in reversed(entries)] == [
        ("user.create", "system"),
        ("key.create", "system"),
        ("grant.give", "system"),
        ("key.create", admin.id),
        ("key.revoke", admin.id),
    ]
    assert entries[0].request_id == "req_7"
    assert entries[0].at == clock() + timedelta(0)
    assert [entry.action for entry in await control.audit.entries(limit=10, target=issued.key.id)] == [
        "key.revoke",
        "key.create",
    ]
    assert await control.audit.entries(limit=1, before=entries[-1].seq) == []
