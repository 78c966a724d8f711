"""The audit trail over real databases: whatever is changed in it behind its back is found and named."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, TestClock, ready_version
from fixtures.standings import through
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.control.audit import store
from modelkeep.control.audit.errors import OwnTracks, ReasonNeeded, SubjectNotFound
from modelkeep.control.audit.rules import Wanted
from modelkeep.control.audit.service import REFUSALS_OF_ONE, REFUSALS_OF_STRANGERS
from modelkeep.control.audit.tables import audit_entries, audit_head, audit_payloads, audit_subjects
from modelkeep.infra.db import Database, Transaction

BOB = Actor("key_bob", "bob", "usr_bob", through(Scope.ADMIN, user="usr_bob"), "req_9", "192.0.2.7")


@pytest.fixture
async def trail(control: ControlPlane) -> ControlPlane:
    """A trail of ten entries, with a checkpoint at the sixth and at the last."""
    for number in range(6):
        await control.models.create(ADMIN, f"m{number}")
    assert (await control.audit.checkpoint()) is not None
    for number in range(4):
        await control.models.describe(BOB, f"m{number}", f"now {number}")
    control.audit._clock.advance(minutes=6)
    assert (await control.audit.checkpoint()) is not None
    return control


async def found(control: ControlPlane) -> list[tuple[str, int, int]]:
    return [(one.kind, one.first, one.last) for one in (await control.audit.verify()).findings]


async def test_an_untouched_trail_is_whole_and_that_is_remembered(trail: ControlPlane):
    report = await trail.audit.verify()
    assert (report.whole, report.entries, report.last, report.checkpoints, report.signatures) == (True, 10, 10, 2, "checked")
    mark = await trail.audit.verified()
    assert mark is not None
    assert mark.seq == 10


def _update(seq: int, /, **values: object) -> sa.Update:
    return sa.update(audit_entries).where(audit_entries.c.seq == seq).values(**values)


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        ([_update(4, action="model.read")], [("edited", 4, 4)]),
        ([_update(4, request_id="")], [("edited", 4, 4)]),
        ([_update(10, outcome="refused")], [("edited", 10, 10)]),
        ([sa.delete(audit_entries).where(audit_entries.c.seq == 4)], [("deleted", 4, 4)]),
        ([sa.delete(audit_entries).where(audit_entries.c.seq.between(2, 5))], [("deleted", 2, 5)]),
        ([sa.delete(audit_entries).where(audit_entries.c.seq > 8)], [("cut off", 9, 10)]),
        (
            [sa.delete(audit_entries).where(audit_entries.c.seq > 8), sa.update(audit_head).values(seq=8)],
            [("cut off", 9, 10)],
        ),
        ([_update(3, seq=30), _update(4, seq=3), _update(30, seq=4)], [("edited", 3, 4)]),
        (
            [sa.update(audit_payloads).where(audit_payloads.c.seq == 7).values(payload='{"actor":"nobody"}')],
            [("payload edited", 7, 7)],
        ),
        ([sa.update(audit_payloads).where(audit_payloads.c.seq == 7).values(key=b"1" * 32)], [("payload edited", 7, 7)]),
        ([sa.delete(audit_payloads).where(audit_payloads.c.seq == 7)], [("payload deleted", 7, 7)]),
    ],
)
async def test_what_is_changed_behind_its_back_is_named(
    trail: ControlPlane, db: Database, statements: list[sa.Executable], named: list[tuple[str, int, int]]
):
    async with db.begin() as tx:
        for statement in statements:
            await tx.execute(statement)
    assert [one for one in await found(trail) if one[0] != "payload edited" or one in named] == named
    assert await trail.audit.verified() is None


async def test_writers_at_once_make_one_chain_without_gaps(control: ControlPlane):
    await asyncio.gather(*(control.models.create(ADMIN, f"m{number}") for number in range(25)))
    report = await control.audit.verify()
    assert (report.whole, report.entries, report.last) == (True, 25, 25)


async def test_those_who_note_first_and_lock_later_do_not_wait_for_each_other(control: ControlPlane):
    """Promotions, configurations and uploads lock rows before and after they note: with the head locked first they would."""
    version = await ready_version(control, "m") if await control.models.create(ADMIN, "m") else None
    assert version is not None
    await ready_version(control, "m", b"two")
    work = [
        control.deployments.promote(ADMIN, "m", 1 + number % 2)
        if number % 3
        else control.deployments.configure(ADMIN, "m", {"deadline_s": 1 + number})
        for number in range(18)
    ]
    await asyncio.wait_for(asyncio.gather(*work), 60)
    assert await found(control) == []


@pytest.mark.parametrize("name", ["take_head", "append"])
async def test_a_change_without_its_entry_is_not_committed(control: ControlPlane, monkeypatch: pytest.MonkeyPatch, name: str):
    async def fails(*_arguments: object) -> None:
        raise RuntimeError("no room for it")

    with monkeypatch.context() as patched:
        patched.setattr(store, name, fails)
        with pytest.raises(RuntimeError, match="no room"):
            await control.models.create(ADMIN, "m")
    assert await control.models.models(ADMIN, limit=5) == []
    assert await control.audit.entries(limit=5) == []
    await control.models.create(ADMIN, "m")
    assert len(await control.audit.entries(limit=5)) == 1


async def test_each_failing_statement_of_a_change_leaves_neither_change_nor_entry(control: ControlPlane, db: Database):
    await control.models.create(ADMIN, "m")
    for number in range(1, 50):
        seen = 0

        def fail(*_arguments: object, at: int = number) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise RuntimeError("the disk")

        sa.event.listen(db._writer.sync_engine, "before_cursor_execute", fail)
        try:
            await control.models.describe(ADMIN, "m", "new")
        except RuntimeError:
            continue
        finally:
            sa.event.remove(db._writer.sync_engine, "before_cursor_execute", fail)
            entries = await control.audit.entries(limit=5)
            described = (await control.models.model(ADMIN, "m")).description == "new"
            assert described == (len(entries) == 2)
        break
    assert number > 5
    assert (await control.models.model(ADMIN, "m")).description == "new"


async def test_who_from_where_before_and_after_are_kept(trail: ControlPlane):
    (entry, *_others) = await trail.audit.entries(limit=1)
    assert (entry.actor, entry.actor_name, entry.user, entry.address) == ("key_bob", "bob", "usr_bob", "192.0.2.7")
    assert (entry.before, entry.after, entry.target_kind, entry.outcome) == ("", "now 3", "model", "done")


async def test_an_erased_person_is_nowhere_and_the_chain_is_whole(trail: ControlPlane, db: Database):
    assert await trail.audit.erase(ADMIN, {"usr_bob"}, "asked for") == 4
    assert await trail.audit.scrub(0) == 11
    report = await trail.audit.verify()
    assert (report.whole, report.entries, report.erased) == (True, 11, 4)
    newest, bobs = (await trail.audit.entries(limit=2))[0:2]
    assert (newest.action, newest.details) == ("audit.erase", {"entries": "4", "numbers": "7-10", "reason": "asked for"})
    assert (bobs.erased, bobs.actor, bobs.after, bobs.action) == (True, "", None, "model.describe")
    async with db.read() as tx:
        rows = [
            str(tuple(row))
            for table in (audit_entries, audit_payloads, audit_subjects)
            for row in await tx.all(sa.select(table))
        ]
        assert (
            await tx.all(sa.select(audit_subjects).where(audit_subjects.c.subject_ref == trail.audit.subject_ref("usr_bob")))
            == []
        )
    assert not [row for row in rows if "bob" in row]
    if db.sqlite:
        files = db.url.database
        assert files is not None
        assert [name for name in ("", "-wal") if b"192.0.2.7" in Path(files + name).read_bytes()] == []


async def test_a_reader_in_the_way_of_an_erasure_is_waited_for(trail: ControlPlane, db: Database):
    if not db.sqlite:
        pytest.skip("only SQLite keeps what was deleted in a log of its own")
    async with db.read() as reader:
        await reader.all(sa.select(audit_head))
        await trail.audit.erase(ADMIN, {"usr_bob"}, "asked for")
        assert await trail.audit.scrub(0) == 0
    assert await trail.audit.scrub(0) == 11


async def test_an_erasure_that_is_erased_itself_still_accounts_for_what_it_erased(trail: ControlPlane):
    await trail.audit.erase(BOB, {"usr_nobody", ADMIN.user}, "asked for")
    await trail.audit.erase(ADMIN, {"usr_bob"}, "asked for")
    assert await found(trail) == []
    assert (await trail.audit.entries(limit=1))[0].details["numbers"] == "1-11"


async def test_nobody_is_erased_without_being_named_or_without_a_reason(trail: ControlPlane):
    with pytest.raises(SubjectNotFound):
        await trail.audit.erase(ADMIN, {"usr_ghost"}, "asked for")
    with pytest.raises(ReasonNeeded):
        await trail.audit.erase(ADMIN, {"usr_bob"}, " ")
    assert await found(trail) == []


STRANGER = Actor("unknown", "", address="192.0.2.1")


async def test_refusals_are_entries_until_there_are_too_many_and_then_they_are_summed(control: ControlPlane, clock: TestClock):
    for _number in range(REFUSALS_OF_ONE + 40):
        await control.audit.refused(BOB, "access.forbidden", path="/api/v1/keys" * 100)
    assert len(await control.audit.entries(limit=500)) == REFUSALS_OF_ONE
    await control.audit.sum_up()
    assert len(await control.audit.entries(limit=500)) == REFUSALS_OF_ONE
    clock.advance(minutes=11)
    await control.audit.sum_up()
    await control.audit.sum_up()
    (summed, single, *_others) = await control.audit.entries(limit=500)
    assert (summed.action, summed.details["access.forbidden"], summed.user) == ("access.refusals", "40", "usr_bob")
    assert (single.outcome, len(single.details["path"]), single.address) == ("refused", 200, "192.0.2.7")
    await control.audit.refused(BOB, "access.forbidden")
    assert len(await control.audit.entries(limit=500)) == REFUSALS_OF_ONE + 2  # eleven minutes have given places back
    assert await found(control) == []


async def test_strangers_hide_neither_people_nor_each_other(control: ControlPlane, clock: TestClock):
    for _number in range(REFUSALS_OF_ONE + 5):
        await control.audit.refused(STRANGER, "login.refuse")
    assert len(await control.audit.entries(limit=500)) == REFUSALS_OF_ONE
    for number in range(3 * REFUSALS_OF_STRANGERS):
        other = Actor("unknown", "", address=f"198.51.{number // 250}.{number % 250}")
        await control.audit.refused(other, "access.unauthenticated")
    assert len(await control.audit.entries(limit=500)) == REFUSALS_OF_STRANGERS
    await control.audit.refused(BOB, "access.forbidden")
    (newest, *others) = await control.audit.entries(limit=500)
    assert (newest.user, len(others)) == ("usr_bob", REFUSALS_OF_STRANGERS)
    clock.advance(minutes=11)
    await control.audit.sum_up()
    (summed,) = await control.audit.entries(Wanted(action="access.refusals"), limit=10)
    assert (summed.actor, summed.details["login.refuse"]) == ("system", "5")
    assert summed.details["access.unauthenticated"] == str(3 * REFUSALS_OF_STRANGERS + REFUSALS_OF_ONE - REFUSALS_OF_STRANGERS)


async def test_nobody_erases_what_they_did_themselves(trail: ControlPlane):
    for subjects, own in [({"usr_bob"}, ()), ({"key_bob"}, ()), ({"key_other"}, {"key_other"})]:
        with pytest.raises(OwnTracks):
            await trail.audit.erase(BOB, subjects, "asked for", own)
    assert [entry.erased for entry in await trail.audit.entries(Wanted(actor="key_bob"), limit=10)] == [False] * 4


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Wanted(actor="key_bob"), [10, 9, 8, 7]),
        (Wanted(action="model.create"), [6, 5, 4, 3, 2, 1]),
        (Wanted(request_id="req_9", action="model.create"), []),
        (Wanted(outcome="refused"), []),
        (Wanted(), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
    ],
)
async def test_entries_are_filtered(trail: ControlPlane, wanted: Wanted, numbers: list[int]):
    assert [entry.seq for entry in await trail.audit.entries(wanted, limit=50)] == numbers
    assert [one.seq async for some in trail.audit.sealed(wanted) for one in some] == numbers[::-1]


async def test_checkpoints_come_with_news_and_time_and_not_without(control: ControlPlane, clock: TestClock):
    assert await control.audit.checkpoint() is None
    await control.models.create(ADMIN, "a")
    assert (await control.audit.checkpoint()) is not None
    await control.models.create(ADMIN, "b")
    assert await control.audit.checkpoint() is None
    clock.advance(minutes=5)
    made = await control.audit.checkpoint()
    assert made is not None
    assert made.seq == 2
    clock.advance(days=1)
    assert await control.audit.checkpoint() is None


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
async def test_a_page_of_a_long_trail_reads_no_more_than_the_page(db: Database):
    """PostgreSQL says how many rows it read: the payloads are not read from the first entry on."""
    entries, payloads, rows = audit_entries.name, audit_payloads.name, 20_000
    async with db.begin() as tx:
        run, some = tx.connection.exec_driver_sql, f"generate_series(1, {rows}) n"
        record = "n, 'e' || n, now(), 'model.read', 'model', 'done', 'r' || n, repeat('c', 64), repeat('h', 64)"
        await run(f"INSERT INTO {entries} SELECT {record} FROM {some}")
        await run(f"INSERT INTO {payloads} SELECT n, 'k', repeat('p', 300), 'a' || n / 7, 't' || n / 50 FROM {some}")
        await run(f"ANALYZE {entries}, {payloads}")

    async def rows_read(tx: Transaction) -> int:
        query = "SELECT sum(seq_tup_read + idx_tup_fetch) AS n FROM pg_stat_xact_user_tables WHERE relname LIKE 'audit_%'"
        row = await tx.one(sa.text(query))
        assert row is not None
        return int(row.n)

    for start in (0, 10_000, 19_000):
        async with db.begin() as tx:
            before = await rows_read(tx)
            forward = await store.after(tx, start, limit=500)
            between = await rows_read(tx)
            backward = await store.page(tx, Wanted(), limit=500, before=start + 501)
            assert between - before <= 1_010
            assert await rows_read(tx) - between <= 1_010
        assert [one.seq for one in forward] == [one.seq for one in reversed(backward)] == list(range(start + 1, start + 501))
