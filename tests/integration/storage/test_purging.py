"""What is purged is gone from the store, and provably so; what another version names, or a legal hold is on, is not."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest

from fixtures.collecting import Keeper, read_keys
from fixtures.control import ADMIN, TestClock
from modelkeep.contracts.errors import BeingRemoved, ModelkeepError
from modelkeep.control.models.errors import ModelNotFound, NotTrashed, OnHold, Purged, VersionTrashed
from modelkeep.control.models.life import Data, Erasure, Life, Training
from modelkeep.control.models.rules import Sample, Version
from modelkeep.infra.db import Database, Transaction
from modelkeep.infra.envelopes import new_master_key
from modelkeep.infra.jobs import Job, JobState
from modelkeep.plugins.storage.local import LocalStore
from modelkeep.worker.purge import Purger

TRAINED = Training("https://ci/41", by="ada", data=(Data("rows", digest="0" * 64),))
WHY = "the customer has left"


class Died(BaseException):
    """The process is no more."""


class Steps:
    """Counts the steps of a purge, in the store and in the database, and dies at one of them."""

    def __init__(self) -> None:
        self.at = 0
        self.taken = 0

    async def __call__(self) -> None:
        self.taken += 1
        if self.taken == self.at:
            raise Died


def purger(keeper: Keeper, step: Callable[[], Coroutine[None, None, None]] | None = None) -> Purger:
    """A purger over the keeper's database and store; `step` is taken before each of its transactions, and after."""
    db = keeper.db if step is None else Stepping(keeper.db, step)
    blobs = keeper.blobs
    control = keeper.control
    if step is not None:
        control.lifecycle._db = db  # type: ignore[assignment]  # the same database, with steps
        keeper.claims._db = db  # type: ignore[assignment]  # the same
    return Purger(db, control.lifecycle, keeper.claims, blobs, keeper.clock)  # type: ignore[arg-type]  # it has what is needed


class Stepping:
    """A database that takes a step before each writing transaction, and after its commit."""

    def __init__(self, inner: Database, step: Callable[[], Coroutine[None, None, None]]) -> None:
        self._inner, self._step = inner, step

    def begin(self) -> "Begun":
        return Begun(self._inner.begin(), self._step)

    def begin_apart(self) -> "Begun":
        return Begun(self._inner.begin_apart(), self._step)

    def read(self):
        return self._inner.read()


class Begun:
    def __init__(self, inner, step) -> None:
        self._inner, self._step = inner, step

    async def __aenter__(self) -> Transaction:
        await self._step()
        return await self._inner.__aenter__()

    async def __aexit__(self, *error: object) -> bool | None:
        done = await self._inner.__aexit__(*error)
        if error[0] is None:
            await self._step()
        return done


async def all_erasures(keeper: Keeper) -> list[Erasure]:
    return await keeper.control.lifecycle.erasures(ADMIN, limit=100)


async def full_version(keeper: Keeper, data: bytes, model: str = "m", **changes: object) -> Version:
    """A version with a sample, a compiled form and golden rows of its own, accepted."""
    sample = await keeper.put(b"sample of " + data)
    made = await keeper.receive(data, model, sample=Sample(sample.digest, "s.csv"), training=TRAINED, **changes)
    await keeper.accept(made, await keeper.put(b"compiled " + data), await keeper.put(b"golden " + data))
    return made


async def trashed(keeper: Keeper, data: bytes) -> Version:
    """A second version of `m`, in the trash; the first one answers."""
    await full_version(keeper, b"first")
    second = await full_version(keeper, data)
    await keeper.control.lifecycle.trash(ADMIN, "m", second.number, reason="old")
    return second


async def test_a_purge_removes_what_only_its_version_names_and_proves_it(keeper: Keeper):
    second = await trashed(keeper, b"second")
    before = await keeper.lying()
    (asked,) = await keeper.control.lifecycle.purge(ADMIN, "m", second.number, reason=WHY)
    assert (asked.bytes_before, asked.finished_at) == (None, None)
    assert await keeper.lying() == before
    await purger(keeper).purge(asked.id)
    (done,) = await all_erasures(keeper)
    gone = before - await keeper.lying()
    assert {one.digest for one in done.files} == gone
    assert len(gone) == 4
    size = sum(len(data) for data in (b"second", b"sample of second", b"compiled second", b"golden second"))
    assert (done.bytes_before, done.bytes_after, done.reason, done.asked_by) == (size, 0, WHY, "ada")
    assert done.finished_at == keeper.clock.now
    left = await keeper.control.models.version(ADMIN, "m", second.number)
    assert (left.id, left.digest, left.life) == (second.id, second.digest, Life.PURGED)
    assert (left.filename, left.created_by, left.signature, left.report, left.training, left.sample) == ("", "", *[None] * 4)


async def test_a_purge_is_done_once_however_often_it_is_asked(keeper: Keeper):
    second = await trashed(keeper, b"second")
    lifecycle = keeper.control.lifecycle
    first = await lifecycle.purge(ADMIN, "m", second.number, reason=WHY)
    assert await lifecycle.purge(ADMIN, "m", second.number, reason="again") == first
    job = Job("job_x", "purge_version", first[0].id, JobState.RUNNING, 1)
    await purger(keeper).run(job)
    done = await all_erasures(keeper)
    keeper.clock.advance(days=1)
    await purger(keeper).run(job)
    assert await lifecycle.purge(ADMIN, "m", second.number, reason="again") == done == await all_erasures(keeper)
    changes = [one.change for one in await lifecycle.changes(ADMIN, "m", second.number, limit=10)]
    assert changes == ["purged", "purge", "trash"]
    for refused in (lifecycle.restore, lifecycle.trash, lifecycle.archive):
        with pytest.raises(Purged):
            await refused(ADMIN, "m", second.number)


async def test_a_file_that_another_version_names_survives(keeper: Keeper):
    shared = await keeper.receive(b"shared", "other")
    await keeper.accept(shared)
    await full_version(keeper, b"first")
    second = await full_version(keeper, b"shared")
    await keeper.control.lifecycle.trash(ADMIN, "m", second.number)
    (asked,) = await keeper.control.lifecycle.purge(ADMIN, "m", second.number, reason=WHY)
    await purger(keeper).purge(asked.id)
    (done,) = await all_erasures(keeper)
    assert done.kept == (shared.digest,)
    assert shared.digest in await keeper.lying()
    assert len(done.files) == 3
    assert done.bytes_after == 0


async def test_of_two_purges_that_share_a_file_the_first_removes_it(keeper: Keeper):
    await full_version(keeper, b"first")
    twins = [await full_version(keeper, b"twin"), await full_version(keeper, b"twin")]
    asked = []
    for one in twins:
        await keeper.control.lifecycle.trash(ADMIN, "m", one.number)
        asked += await keeper.control.lifecycle.purge(ADMIN, "m", one.number, reason=WHY)
    for one in asked:
        await purger(keeper).purge(one.id)
    assert twins[0].digest not in await keeper.lying()
    assert {one.bytes_after for one in await all_erasures(keeper)} == {0}


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_purge_that_dies_at_any_step_comes_to_the_same_end(db: Database, tmp_path: Path, sealed: bool):
    keys = read_keys(tmp_path / "keys", [new_master_key("k")]) if sealed else None
    clock, store = TestClock(), LocalStore(tmp_path / "blobs")
    keeper = Keeper(db, clock, store, keys=keys)
    await full_version(keeper, b"first")
    before, ends, died = await keeper.lying(), set(), 0
    for at in range(1, 100):
        keeper, steps = Keeper(db, clock, store, keys=keys), Steps()
        second = await full_version(keeper, f"second {at:03}".encode())
        await keeper.control.lifecycle.trash(ADMIN, "m", second.number)
        (asked,) = await keeper.control.lifecycle.purge(ADMIN, "m", second.number, reason=WHY)
        steps.at = at
        keeper.dated.remove = partial(stepping_remove, keeper.dated.remove, steps)
        with suppress(Died):
            await purger(keeper, steps).purge(asked.id)
        died += steps.taken >= at
        clock.advance(hours=1)  # whoever died has lost its turn
        keeper = Keeper(db, clock, store, keys=keys)
        await purger(keeper).purge(asked.id)
        done = (await all_erasures(keeper))[0]
        version = await keeper.control.models.version(ADMIN, "m", second.number)
        assert await keeper.lying() == before
        ends.add((done.bytes_before, done.bytes_after, len(done.files), done.kept, version.life, version.report is None))
        if steps.taken < at:
            break
    assert died == steps.taken > 20
    ((size, *end),) = ends
    assert (size or 0) > 0
    assert end == [0, 4, (), Life.PURGED, True]


async def stepping_remove(remove: Callable[[str], Coroutine[None, None, None]], step: Steps, digest: str) -> None:
    await step()
    await remove(digest)
    await step()


async def test_an_upload_of_the_same_file_during_a_purge_is_refused_or_kept_and_never_lost(keeper: Keeper):
    await full_version(keeper, b"first")
    ends = set()
    for at in range(1, 100):
        data = f"second {at}".encode()
        second = await full_version(keeper, data)
        await keeper.control.lifecycle.trash(ADMIN, "m", second.number)
        (asked,) = await keeper.control.lifecycle.purge(ADMIN, "m", second.number, reason=WHY)
        uploading = Uploading(keeper, data, at)
        keeper.dated._step = uploading
        await purger(keeper).purge(asked.id)
        keeper.dated._step = _nowhere
        ends.add(uploading.end)
        if uploading.end == "never":
            break
        assert (second.digest in await keeper.lying()) == (uploading.end == "kept")
    assert ends == {"never", "kept", "refused"}


class Uploading:
    """Uploads the same file to another model at one step of what happens in the store."""

    def __init__(self, keeper: Keeper, data: bytes, at: int) -> None:
        self._keeper, self._data, self._left = keeper, data, at
        self.end = "never"

    async def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._keeper.dated._step = _nowhere
            try:
                await self._keeper.receive(self._data, "other")
                self.end = "kept"
            except BeingRemoved:
                self.end = "refused"


async def _nowhere() -> None:
    """Stop nowhere."""


async def test_only_what_is_in_the_trash_is_purged(keeper: Keeper):
    await full_version(keeper, b"first")
    second = await full_version(keeper, b"second")
    with pytest.raises(NotTrashed):
        await keeper.control.lifecycle.purge(ADMIN, "m", second.number, reason=WHY)


async def test_the_worker_purges_what_has_had_its_time_and_nothing_before(keeper: Keeper):
    second = await trashed(keeper, b"second")
    lifecycle = keeper.control.lifecycle
    keeper.clock.advance(days=29.9)
    assert await lifecycle.expire() == 0
    keeper.clock.advance(days=0.2)
    assert await lifecycle.expire() == 1
    assert await lifecycle.expire() == 0
    (asked,) = await all_erasures(keeper)
    assert (asked.version_id, asked.asked_by) == (second.id, "modelkeep")
    async with keeper.db.read() as tx:
        jobs = [job for job in await keeper.control.jobs.unfinished(tx, 100) if job.kind == "purge_version"]
    assert [job.subject for job in jobs] == [asked.id]
    await purger(keeper).give_up(jobs[0])
    await lifecycle.expire()
    async with keeper.db.read() as tx:
        again = [job for job in await keeper.control.jobs.unfinished(tx, 100) if job.kind == "purge_version"]
    assert [job.subject for job in again] == [asked.id]
    assert again[0].id != jobs[0].id
    await purger(keeper).run(again[0])
    assert (await all_erasures(keeper))[0].bytes_after == 0


async def test_what_is_restored_from_the_trash_in_time_is_whole(keeper: Keeper):
    second = await trashed(keeper, b"second")
    before = await keeper.lying()
    keeper.clock.advance(days=29)
    back = await keeper.control.lifecycle.restore(ADMIN, "m", second.number, reason="a mistake")
    assert back.life is Life.ACTIVE
    keeper.clock.advance(days=4000)
    assert await keeper.control.lifecycle.expire() == 0
    await keeper.collector.collect()
    assert await keeper.lying() == before


@pytest.mark.parametrize("of_model", [False, True])
async def test_a_legal_hold_keeps_a_version_in_the_trash(keeper: Keeper, of_model: bool):
    second = await trashed(keeper, b"second")
    lifecycle = keeper.control.lifecycle
    held = None if of_model else second.number
    await lifecycle.hold(ADMIN, "m", held, reason="case 7")
    keeper.clock.advance(days=100)
    assert await lifecycle.expire() == 0
    with pytest.raises(OnHold, match="case 7"):
        await lifecycle.purge(ADMIN, "m", second.number, reason=WHY)
    await lifecycle.release(ADMIN, "m", held)
    assert await lifecycle.expire() == 1


async def test_a_legal_hold_keeps_a_version_out_of_the_trash_and_with_it_its_model(keeper: Keeper):
    await full_version(keeper, b"first")
    second = await full_version(keeper, b"second")
    lifecycle = keeper.control.lifecycle
    await lifecycle.hold(ADMIN, "m", second.number, reason="case 7")
    await lifecycle.archive(ADMIN, "m")
    with pytest.raises(OnHold, match="case 7"):
        await lifecycle.trash(ADMIN, "m", second.number)
    with pytest.raises(OnHold, match="versions of m: 2"):
        await lifecycle.trash(ADMIN, "m")


@pytest.mark.parametrize("of_model", [False, True])
async def test_the_collector_leaves_the_files_of_a_rejected_version_on_hold(keeper: Keeper, of_model: bool):
    bad = await keeper.receive(b"bad")
    await keeper.reject(bad)
    held = None if of_model else bad.number
    await keeper.control.lifecycle.hold(ADMIN, "m", held, reason="case 7")
    keeper.clock.advance(days=100)
    await keeper.collector.collect()
    assert await keeper.lying() == {bad.digest}
    await keeper.control.lifecycle.release(ADMIN, "m", held)
    await keeper.collector.collect()
    assert await keeper.lying() == set()


async def test_a_purged_model_leaves_nothing_but_tombstones_and_a_free_name(keeper: Keeper):
    versions = [await full_version(keeper, b"first"), await full_version(keeper, b"second")]
    await keeper.control.models.set_alias(ADMIN, "m", "live", 2)
    lifecycle = keeper.control.lifecycle
    await lifecycle.archive(ADMIN, "m")
    await lifecycle.trash(ADMIN, "m")
    with pytest.raises(ModelkeepError) as taken:
        await keeper.control.models.create(ADMIN, "m")
    assert taken.value.code == "model_exists"
    asked = await lifecycle.purge(ADMIN, "m", reason=WHY)
    assert [one.version_id for one in asked] == [one.id for one in versions]
    for one in asked:
        assert (await keeper.control.models.model(ADMIN, "m")).life is Life.PURGING
        await purger(keeper).purge(one.id)
    assert await keeper.lying() == set()
    with pytest.raises(ModelNotFound):
        await keeper.control.models.model(ADMIN, "m")
    fresh = await keeper.control.models.create(ADMIN, "m")
    assert fresh.id != versions[0].model_id
    deployment, _serving = await keeper.control.deployments.deployment(ADMIN, "m")
    assert deployment.version is None
    assert await keeper.control.models.versions(ADMIN, "m", limit=10) == []


async def test_a_model_without_versions_is_purged_at_once(keeper: Keeper):
    await keeper.control.models.create(ADMIN, "empty")
    await keeper.control.lifecycle.trash(ADMIN, "empty")
    assert await keeper.control.lifecycle.purge(ADMIN, "empty", reason=WHY) == []
    await keeper.control.models.create(ADMIN, "empty")


async def test_the_name_of_a_purged_model_is_not_for_whom_its_history_was_not(keeper: Keeper):
    await keeper.control.models.create(ADMIN, "m")
    await keeper.control.lifecycle.trash(ADMIN, "m")
    await keeper.control.lifecycle.purge(ADMIN, "m", reason=WHY)
    grants = msgspec.structs.replace(ADMIN.standing, user="usr_eve", scopes=frozenset({"models:write", "models:read"}))
    eve = msgspec.structs.replace(ADMIN, user="usr_eve", standing=grants)
    with pytest.raises(ModelkeepError) as refused:
        await keeper.control.models.create(eve, "m")
    assert refused.value.code == "model_exists"
    await keeper.control.models.create(eve, "another")


async def test_nothing_in_the_trash_is_promoted_or_asked_by_an_alias(keeper: Keeper):
    second = await trashed(keeper, b"second")
    with pytest.raises(VersionTrashed):
        await keeper.control.deployments.promote(ADMIN, "m", second.number)
    with pytest.raises(VersionTrashed):
        await keeper.control.models.set_alias(ADMIN, "m", "live", second.number)
