"""Jobs as rows."""

from datetime import timedelta

import pytest

from fixtures.control import TestClock
from modelkeep.infra.db import Database
from modelkeep.infra.jobs import Jobs, JobState


@pytest.fixture
def rings() -> list[int]:
    return []


@pytest.fixture
def jobs(clock: TestClock, rings: list[int]) -> Jobs:
    return Jobs(lambda: rings.append(1), clock)


async def test_a_job_is_there_when_its_transaction_is_and_the_bell_rings_then(db: Database, jobs: Jobs, rings: list[int]):
    with pytest.raises(RuntimeError):
        async with db.begin() as tx:
            await jobs.enqueue(tx, "k", "s")
            raise RuntimeError
    assert rings == []
    async with db.begin() as tx:
        job_id = await jobs.enqueue(tx, "k", "s")
    assert rings == [1]
    async with db.read() as tx:
        (job,) = await jobs.unfinished(tx, 10)
    assert (job.id, job.kind, job.subject, job.state, job.attempts) == (job_id, "k", "s", JobState.WAITING, 0)


async def test_each_beginning_is_counted_and_an_ended_job_is_not_begun(db: Database, jobs: Jobs):
    async with db.begin() as tx:
        job_id = await jobs.enqueue(tx, "k", "s")
    for attempt in (1, 2):
        async with db.begin() as tx:
            job = await jobs.begin(tx, job_id, "w")
        assert job is not None
        assert (job.state, job.attempts) == (JobState.RUNNING, attempt)
    async with db.begin() as tx:
        assert await jobs.finish(tx, job_id)
    async with db.begin() as tx:
        assert await jobs.begin(tx, job_id, "w") is None
        assert not await jobs.finish(tx, job_id, failed=True)
        assert await jobs.begin(tx, "job_unknown", "w") is None
        assert await jobs.unfinished(tx, 10) == []


async def test_the_oldest_jobs_come_first(db: Database, jobs: Jobs):
    ids = []
    for number in range(4):
        async with db.begin() as tx:
            ids.append(await jobs.enqueue(tx, "k", str(number)))
    async with db.read() as tx:
        assert [job.id for job in await jobs.unfinished(tx, 3)] == sorted(ids)[:3]


async def test_a_worker_lives_as_long_as_its_lease(db: Database, jobs: Jobs, clock: TestClock):
    async with db.begin() as tx:
        await jobs.renew_lease(tx, "a", timedelta(seconds=30))
        await jobs.renew_lease(tx, "b", timedelta(seconds=30))
    clock.advance(seconds=20)
    async with db.begin() as tx:
        await jobs.renew_lease(tx, "b", timedelta(seconds=30))
    clock.advance(seconds=15)
    async with db.read() as tx:
        assert await jobs.live_workers(tx) == {"b"}


async def test_only_ended_jobs_are_swept_and_only_old_ones(db: Database, jobs: Jobs, clock: TestClock):
    async with db.begin() as tx:
        old, waiting = await jobs.enqueue(tx, "k", "old"), await jobs.enqueue(tx, "k", "waiting")
        await jobs.finish(tx, old)
    clock.advance(days=2)
    async with db.begin() as tx:
        young = await jobs.enqueue(tx, "k", "young")
        await jobs.finish(tx, young)
        await jobs.sweep(tx, clock() - timedelta(days=1))
    async with db.begin() as tx:
        assert await jobs.begin(tx, waiting, "w") is not None
        assert not await jobs.finish(tx, old)
        assert not await jobs.finish(tx, young)
