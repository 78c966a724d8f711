"""What nothing uses is removed, and what anything refers to, or has a claim on, never is."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fixtures.collecting import DAYS, Keeper, read_keys
from fixtures.control import ADMIN, TestClock, upload
from fixtures.faults import faulty, no_fault
from fixtures.object_store import ObjectStore
from fixtures.stores import Keeping, content, keeping, stream
from modelkeep.contracts.errors import BeingRemoved, MasterKeyMissing, NotFound, StorageRefused, StorageUnavailable
from modelkeep.control.access.rules import DEFAULT_WORKSPACE
from modelkeep.control.models.rules import Sample, State
from modelkeep.infra.blob_claims import ClaimedStore, Claims, OthersTurn
from modelkeep.infra.db import Database, DatabaseUnavailable, Transaction
from modelkeep.infra.envelopes import new_master_key
from modelkeep.infra.idempotency import Write
from modelkeep.plugins.storage.local import LocalStore
from modelkeep.worker.collector import Found


async def test_what_rejected_versions_alone_refer_to_goes_after_its_days(keeper: Keeper):
    sample = await keeper.put(b"sample")
    bad = await keeper.receive(b"bad", sample=Sample(sample.digest, "s.csv"))
    shared = await keeper.receive(b"shared")
    good = await keeper.receive(b"shared", model="other")
    for version in (bad, shared):
        await keeper.reject(version)
    await keeper.accept(good)
    keeper.clock.advance(days=DAYS - 0.1)
    assert (await keeper.collector.collect()).unused == ()
    keeper.clock.advance(days=0.2)
    gone = await keeper.collector.collect()
    assert {one.digest: one.why for one in gone.unused} == {bad.digest: "rejected", sample.digest: "rejected"}
    assert await keeper.lying() == {good.digest}
    assert sorted(keeper.told.freed) == [3, 6]
    assert gone.size == 9


async def test_everything_that_a_version_names_stays_for_ever(keeper: Keeper):
    named = {name: await keeper.put(name.encode()) for name in ("sample", "rows", "compiled", "golden")}
    samples = {"sample": Sample(named["sample"].digest, "s.csv"), "calibration": Sample(named["rows"].digest, "c.csv")}
    version = await keeper.receive(b"model", **samples)
    waiting = await keeper.receive(b"waits to be validated")
    await keeper.accept(version, named["compiled"], named["golden"])
    await keeper.control.models.set_alias(ADMIN, "m", "best", version.number)
    archived = await keeper.receive(b"archived")
    await keeper.accept(archived)
    await keeper.control.lifecycle.archive(ADMIN, "m", archived.number)
    keeper.clock.advance(days=4000)
    assert (await keeper.collector.collect()).unused == ()
    expected = {version.digest, waiting.digest, archived.digest} | {blob.digest for blob in named.values()}
    assert await keeper.lying() == expected
    sizes = {"artifact": 5 + 21 + 8, "sample": 6 + 4, "compiled": 8, "golden": 6, "other": 0, "unused": 0, "unknown": 0}
    assert keeper.told.kept == sizes


async def test_what_was_stored_and_never_named_goes_after_its_days(keeper: Keeper):
    candidate = await keeper.put(b"a faster form that was not chosen")
    keeper.clock.advance(days=DAYS - 0.1)
    assert await keeper.put(b"a faster form that was not chosen") == candidate  # once more: its days begin again
    keeper.clock.advance(days=DAYS - 0.1)
    assert (await keeper.collector.collect()).unused == ()
    keeper.clock.advance(days=0.2)
    assert [one.why for one in (await keeper.collector.collect()).unused] == ["unused"]
    assert await keeper.lying() == set()


async def test_a_claim_holds_before_the_request_that_made_it_has_ended_and_when_it_fails(keeper: Keeper):
    unseen = Claims(keeper.db, keeper.clock)
    with pytest.raises(ZeroDivisionError):
        async with keeper.control.idempotency.once(Write("somebody", "k", b"")):
            blob = await keeper.put(b"its upload is still coming")
            async with keeper.db.read() as tx:
                assert blob.digest in await unseen.claimed(tx)
            raise ZeroDivisionError
    async with keeper.db.read() as tx:
        assert blob.digest in await unseen.claimed(tx)


async def test_a_claim_is_made_before_anything_else_is_written(keeper: Keeper):
    with pytest.raises(RuntimeError, match="the span has begun"):
        async with keeper.control.idempotency.once(Write("somebody", "k", b"")), keeper.db.begin():
            await keeper.put(b"too late")


async def test_what_this_installation_never_stored_is_left_alone_unless_one_says_so(keeper: Keeper):
    foreign = await keeper.dated.put(stream(b"another installation's"), max_bytes=100)
    keeper.clock.advance(days=4000)
    assert (await keeper.collector.collect()).unused == ()
    assert keeper.told.kept["unknown"] == 22
    assert await keeper.lying() == {foreign.digest}
    assert [one.why for one in (await keeper.collector.collect(unknown=True)).unused] == ["unknown"]
    assert await keeper.lying() == set()


async def test_a_collector_that_fails_says_so_and_goes_on(keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    await keeper.put(b"unused")
    keeper.clock.advance(days=8)
    whole = keeper.collector.collect
    failing = iter([ZeroDivisionError(), OSError("the disk"), DatabaseUnavailable()])

    async def collect() -> Found:
        for error in failing:
            raise error
        return await whole()

    monkeypatch.setattr(keeper.collector, "collect", collect)
    monkeypatch.setattr("modelkeep.worker.collector._FIRST_S", 0.0)
    monkeypatch.setattr("modelkeep.worker.collector._EVERY_S", 0.0)
    with capture_logs() as logs:
        running = asyncio.create_task(keeper.collector.run())
        while await keeper.lying():
            assert not running.done()
            await asyncio.sleep(0)
        running.cancel()
    told = [one["event"] for one in logs if one["event"].startswith("collecting")]
    assert told == ["collecting_failed", "collecting_waits", "collecting_waits"]


async def test_what_cannot_be_removed_is_said_and_spared_and_holds_nothing_else_up(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
):
    stuck, damaged = await keeper.put(b"nobody may remove this"), await keeper.put(b"nobody can read this")
    other = [await keeper.put(bytes([number])) for number in range(3)]
    foreign = await keeper.dated.put(stream(b"another installation's"), max_bytes=100)
    keeper.clock.advance(days=8)
    why = {
        stuck.digest: PermissionError("read-only"),
        damaged.digest: MasterKeyMissing("damaged"),
        foreign.digest: StorageRefused("locked"),
    }
    remove = keeper.dated.remove

    async def refused(digest: str) -> None:
        if digest in why:
            raise why[digest]
        await remove(digest)

    monkeypatch.setattr(keeper.dated, "remove", refused)
    for again in (False, True):  # the next run begins as if there had been none
        done = await keeper.collector.collect(unknown=True)
        assert {one.digest for one in done.unused} == (set() if again else {one.digest for one in other})
        assert done.failed == {digest: str(error) for digest, error in why.items()}
    assert (await keeper.collector.look()).kept["unknown"] == 22  # it has not become ours by that
    assert await keeper.put(b"nobody may remove this") == stuck
    monkeypatch.setattr(keeper.dated, "remove", remove)
    assert {one.digest for one in (await keeper.collector.collect()).unused} == {damaged.digest}
    assert await keeper.lying() == {stuck.digest, foreign.digest}


async def test_a_removal_that_was_not_answered_may_yet_come(keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    unheard, other = await keeper.put(b"unheard"), await keeper.put(b"other")
    keeper.clock.advance(days=8)
    remove = keeper.dated.remove

    async def silent(digest: str) -> None:
        if digest == unheard.digest:
            raise StorageUnavailable
        await remove(digest)

    monkeypatch.setattr(keeper.dated, "remove", silent)
    done = await keeper.collector.collect()
    assert ([one.digest for one in done.unused], list(done.failed)) == ([other.digest], [unheard.digest])
    with pytest.raises(BeingRemoved):
        await keeper.put(b"unheard")
    monkeypatch.setattr(keeper.dated, "remove", remove)
    await keeper.collector.collect()
    assert await keeper.put(b"unheard") == unheard


async def test_a_bucket_from_which_nothing_may_be_removed_still_takes_files(
    db: Database, clock: TestClock, object_store: ObjectStore, tmp_path: Path
):
    place = keeping("s3", tmp_path, object_store)
    async with faulty(object_store.address) as proxy:
        proxy.before = lambda exchange: (
            exchange.refuse("403 Forbidden", "AccessDenied") if exchange.method == "DELETE" else None
        )
        keeper = Keeper(db, clock, place.store(elsewhere=True, settings=replace(place.settings, endpoint=proxy.url)))
        blobs = [await keeper.put(data) for data in (b"one", b"two")]
        clock.advance(days=8)
        assert set((await keeper.collector.collect()).failed) == {one.digest for one in blobs}
        assert await keeper.put(b"one") == blobs[0]
        proxy.before = no_fault
        assert [one.digest for one in (await keeper.collector.collect()).unused] == [blobs[1].digest]


async def test_beside_a_damaged_envelope_others_are_collected_and_its_file_is_left_alone(
    db: Database, clock: TestClock, tmp_path: Path
):
    store = LocalStore(tmp_path / "blobs")
    keeper = Keeper(db, clock, store, keys=read_keys(tmp_path / "keys", [new_master_key("one")]))
    used, unused = await keeper.receive(b"used"), await keeper.put(b"unused")
    note = await store.note(used.digest)
    await store.keep_note(used.digest, note[:-9])
    clock.advance(days=8)
    done = await keeper.collector.collect(unknown=True)
    assert [one.digest for one in done.unused] == [unused.digest]
    await store.keep_note(used.digest, note)
    assert await content(keeper.blobs, used.digest) == b"used"


async def test_looking_changes_nothing(keeper: Keeper):
    await keeper.put(b"unused")
    keeper.clock.advance(days=8)
    seen = await keeper.collector.look()
    assert [one.why for one in seen.unused] == ["unused"]
    assert (await keeper.collector.look(), len(await keeper.lying())) == (seen, 1)


async def test_what_a_dead_collector_was_removing_is_refused_until_the_next_one_has_removed_it(keeper: Keeper):
    blob = await keeper.put(b"unused")
    keeper.clock.advance(days=8)
    async with keeper.db.begin() as tx:
        before = keeper.clock() - timedelta(days=DAYS)
        assert await keeper.claims.condemn(tx, [blob.digest], before) == [blob.digest]
        assert await keeper.claims.condemn(tx, [blob.digest], before) == []
    with pytest.raises(BeingRemoved):
        await keeper.put(b"unused")
    await keeper.collector.collect()
    assert await keeper.lying() == set()
    assert await keeper.put(b"unused") == blob
    assert await content(keeper.blobs, blob.digest) == b"unused"


async def test_a_blob_that_vanished_before_it_was_claimed_is_refused(keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    claim = keeper.claims.claim

    async def late(digest: str) -> None:
        await keeper.dated.remove(digest)
        await claim(digest)

    monkeypatch.setattr(keeper.claims, "claim", late)
    with pytest.raises(BeingRemoved):
        await keeper.put(b"model")


async def test_a_copy_on_this_machine_is_no_file_that_is_kept(
    db: Database, clock: TestClock, bucket_place: Keeping, monkeypatch: pytest.MonkeyPatch
):
    """The upload finds the bytes in the bucket; they are removed, and forgotten, before it claims them."""
    claims = Claims(db, clock)
    store, claim = ClaimedStore(bucket_place.store(), claims), claims.claim

    async def late(digest: str) -> None:
        await bucket_place.store(elsewhere=True).remove(digest)
        await claim(digest)

    await store.put(stream(b"model"), max_bytes=5)
    monkeypatch.setattr(claims, "claim", late)
    with pytest.raises(BeingRemoved):
        await store.put(stream(b"model"), max_bytes=5)
    monkeypatch.setattr(claims, "claim", claim)
    blob = await store.put(stream(b"model"), max_bytes=5)
    assert await content(bucket_place.store(elsewhere=True), blob.digest) == b"model"


async def test_no_row_names_what_was_removed_since_it_was_stored_whatever_the_clock_did(keeper: Keeper):
    model = upload(blob=await keeper.put(b"model"))
    keeper.clock.advance(days=8)  # the clock jumps while the upload is still coming
    assert len((await keeper.collector.collect()).unused) == 1
    with pytest.raises(BeingRemoved):
        await keeper.control.models.receive(ADMIN, "m", model, create_in=DEFAULT_WORKSPACE)
    assert await keeper.control.models.models(ADMIN, limit=1) == []
    version = await keeper.receive(b"model")
    made = {"compiled": await keeper.put(b"a faster form"), "golden": await keeper.put(b"golden")}
    for kind, blob in made.items():
        keeper.clock.advance(days=8)
        await keeper.collector.collect()
        assert await keeper.lying() == {version.digest}
        with pytest.raises(BeingRemoved):
            await keeper.accept(version, **{kind: blob})
        await keeper.put(b"a faster form")
    assert (await keeper.control.models.version(ADMIN, "m", 1)).state is State.VALIDATING
    await keeper.put(b"golden")
    await keeper.accept(version, **made)
    assert await keeper.lying() == {version.digest, *(blob.digest for blob in made.values())}


async def test_no_row_names_what_is_being_removed(keeper: Keeper):
    model = upload(blob=await keeper.put(b"model"))
    keeper.clock.advance(days=8)
    async with keeper.db.begin() as tx:
        await keeper.claims.condemn(tx, [model.blob.digest], keeper.clock() - timedelta(days=DAYS))
    with pytest.raises(BeingRemoved):
        await keeper.control.models.receive(ADMIN, "m", model, create_in=DEFAULT_WORKSPACE)


async def test_who_finds_a_file_gone_leaves_no_claim_that_another_could_take_for_its_own(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
):
    model = upload(blob=await keeper.put(b"model"))
    claim = keeper.claims.claim

    async def late(digest: str) -> datetime:
        keeper.clock.advance(days=8)
        assert len((await keeper.collector.collect()).unused) == 1
        return await claim(digest)

    monkeypatch.setattr(keeper.claims, "claim", late)
    with pytest.raises(BeingRemoved):
        await keeper.put(b"model")
    with pytest.raises(BeingRemoved):
        await keeper.control.models.receive(ADMIN, "m", model, create_in=DEFAULT_WORKSPACE)


async def test_a_claim_that_is_given_up_is_ones_own(keeper: Keeper):
    first = await keeper.claims.claim("d" * 64)
    keeper.clock.advance(seconds=1)
    second = await keeper.claims.claim("d" * 64)
    await keeper.claims.give_up("d" * 64, first)
    async with keeper.db.read() as tx:
        assert await keeper.claims.claimed(tx) == {"d" * 64: second}
    await keeper.claims.give_up("d" * 64, second)
    async with keeper.db.read() as tx:
        assert await keeper.claims.claimed(tx) == {}


async def test_texts_that_look_like_a_removed_file_are_none_of_a_versions_files(keeper: Keeper):
    gone = await keeper.put(b"gone")
    keeper.clock.advance(days=8)
    assert len((await keeper.collector.collect()).unused) == 1
    about = {"description": f"instead of {gone.digest}", "filename": f"{gone.digest}.onnx"}
    version = await keeper.receive(b"model", **about)
    await keeper.accept(version)
    assert (await keeper.control.models.version(ADMIN, "m", 1)).state is State.READY


async def test_a_file_of_which_nobody_knows_holds_nothing_else_up(keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    blobs = [await keeper.put(data) for data in (b"one", b"two", b"three")]
    keeper.clock.advance(days=8)
    stuck, remove, size = blobs[0].digest, keeper.dated.remove, keeper.dated.size

    async def refused(digest: str) -> None:
        if digest == stuck:
            raise StorageRefused("locked")
        await remove(digest)

    async def unknown(digest: str) -> int:
        if digest == stuck:
            raise PermissionError("locked")
        return await size(digest)

    monkeypatch.setattr(keeper.dated, "remove", refused)
    monkeypatch.setattr(keeper.dated, "size", unknown)
    for removed in ({blobs[1].digest, blobs[2].digest}, set()):
        done = await keeper.collector.collect()
        assert ({one.digest for one in done.unused}, list(done.failed)) == (removed, [stuck])


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)  # the other has one writer at a time
async def test_a_row_that_comes_while_the_unused_are_condemned_keeps_its_files(keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    """The collector's clock is days ahead of the one that receives."""
    slow = Keeper(keeper.db, TestClock(), LocalStore(Path("unused")))
    model = upload(blob=await keeper.put(b"model"))
    keeper.clock.advance(days=8)
    condemn = keeper.claims.condemn

    async def late(tx: Transaction, digests: Collection[str], before: datetime) -> list[str]:
        await slow.control.models.receive(ADMIN, "m", model, create_in=DEFAULT_WORKSPACE)
        return await condemn(tx, digests, before)

    monkeypatch.setattr(keeper.claims, "condemn", late)
    assert (await keeper.collector.collect()).unused == ()
    assert await keeper.put(b"model") == model.blob  # and is not left condemned
    assert await content(keeper.blobs, model.blob.digest) == b"model"


async def test_of_a_claim_and_a_condemnation_at_once_one_holds(keeper: Keeper):
    """Both are one statement on one row: where the claim comes first nothing is condemned, else it is refused."""
    blobs = [await keeper.put(bytes([number])) for number in range(40)]
    keeper.clock.advance(days=8)

    async def condemn() -> list[str]:
        gone: list[str] = []
        for blob in blobs:
            async with keeper.db.begin() as tx:
                gone += await keeper.claims.condemn(tx, [blob.digest], keeper.clock() - timedelta(days=DAYS))
        return gone

    async def claim() -> set[str]:
        kept = set()
        for blob in reversed(blobs):
            try:
                await keeper.claims.claim(blob.digest)
            except BeingRemoved:
                continue
            kept.add(blob.digest)
        return kept

    gone, kept = await asyncio.gather(condemn(), claim())
    assert kept.isdisjoint(gone)
    assert kept | set(gone) == {blob.digest for blob in blobs}


async def test_one_at_a_time_works_on_all_files(keeper: Keeper):
    async with keeper.claims.turn() as turn:
        with pytest.raises(OthersTurn):
            await keeper.collector.collect()
        keeper.clock.advance(minutes=6)
        await turn.keep()
        keeper.clock.advance(minutes=6)
        with pytest.raises(OthersTurn):
            await keeper.collector.collect()
        keeper.clock.advance(minutes=11)
        await keeper.collector.collect()  # whoever had the turn is dead, or slower than anything here
        async with keeper.claims.turn():
            with pytest.raises(OthersTurn):
                await turn.keep()


async def test_a_collected_file_is_not_found(keeper: Keeper):
    blob = await keeper.put(b"unused")
    keeper.clock.advance(days=8)
    await keeper.collector.collect()
    with pytest.raises(NotFound):
        await content(keeper.blobs, blob.digest)
