"""The worker, with its real engine, over each kind of database."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from fixtures.control import ADMIN, FINDINGS, SITE, upload
from modelkeep.app.control_plane import ControlPlane, control_plane
from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.hooks import Hooks
from modelkeep.contracts.rejections import Reason, Rejection, reject
from modelkeep.contracts.signature import ImageSpec
from modelkeep.contracts.snapshot import Limits
from modelkeep.control.models.rules import Sample, State, Version
from modelkeep.infra.bell import Bell
from modelkeep.infra.db import Database
from modelkeep.infra.jobs import Job, JobState
from modelkeep.plugins.storage.local import LocalStore
from modelkeep.worker.inspection import Inspection, InspectionRequest
from modelkeep.worker.loop import Worker
from modelkeep.worker.settings import WorkerSettings
from modelkeep.worker.validation import Validation

FOUND = Inspection(FINDINGS.signature, FINDINGS.report, ImageSpec(size=8, activation="softmax"), "y")
QUICK = WorkerSettings(quiet_start_s=0.05, poll_s=0.1, attempts=3)


class Inspector:
    """Answers as a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[InspectionRequest] = []
        self.answer: Callable[[InspectionRequest], Awaitable[Inspection | Rejection]] = self.accept
        self.at_once = 0
        self.most_at_once = 0

    async def accept(self, request: InspectionRequest) -> Inspection | Rejection:
        return FOUND

    async def inspect(self, request: InspectionRequest) -> Inspection | Rejection:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.answer(request)
        finally:
            self.at_once -= 1


@pytest.fixture
def inspector() -> Inspector:
    return Inspector()


@pytest.fixture
def live(db: Database, tmp_path: Path) -> ControlPlane:
    """The control plane with the real clock and a bell that the worker hears."""
    ring = Bell(tmp_path / "worker.sock").ring
    return control_plane(db, ring_worker=ring, ring_courier=bool, limits=Limits(), site=SITE)


@pytest.fixture
def validation(live: ControlPlane, inspector: Inspector, tmp_path: Path) -> Validation:
    return Validation(live.models, live.switches, LocalStore(tmp_path / "blobs"), inspector, Limits(memory_mb=7))


@asynccontextmanager
async def working(
    db: Database, live: ControlPlane, handlers: dict[str, object], run_dir: Path, settings: WorkerSettings = QUICK
) -> AsyncIterator[None]:
    """A worker that works inside the block."""
    stop = asyncio.Event()
    running = asyncio.create_task(Worker(db, live.jobs, handlers, settings, run_dir).run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(running, 20)


async def test_jobs_that_take_long_leave_a_place_to_others_and_what_is_over_is_tidied_away(
    db: Database, live: ControlPlane, tmp_path: Path
):
    done, gate, tidied = [], asyncio.Event(), asyncio.Event()

    class Handler:
        async def run(self, job: Job) -> None:
            if job.kind == "long":
                await gate.wait()
            done.append(job.subject)
            async with db.begin() as tx:
                await live.jobs.finish(tx, job.id)

        async def give_up(self, job: Job) -> None:
            raise AssertionError

    async def tidy() -> None:
        tidied.set()

    stop = asyncio.Event()
    assert QUICK.jobs == 2
    handlers = {"long": Handler(), "short": Handler()}
    worker = Worker(db, live.jobs, handlers, QUICK, tmp_path, patient=frozenset({"long"}), tidy=tidy)
    async with db.begin() as tx:
        for at in range(3):
            await live.jobs.enqueue(tx, "long", f"long {at}")
        await live.jobs.enqueue(tx, "short", "short")
    running = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(15):
        while done != ["short"]:
            await asyncio.sleep(0.02)
        gate.set()
        while len(done) < 4:
            await asyncio.sleep(0.02)
        await tidied.wait()
    stop.set()
    await asyncio.wait_for(running, 20)


@pytest.mark.parametrize(
    ("brought", "is_code"),
    [({"format": "joblib"}, True), ({"format": "onnx"}, False), ({"format": "onnx", "hooks": Hooks("d" * 64, 9)}, True)],
)
async def test_validations_under_way_end_when_files_that_run_code_are_allowed_no_more(
    db: Database, live: ControlPlane, inspector: Inspector, tmp_path: Path, brought: dict[str, object], is_code: bool
):
    begun, ended, goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def long(_request: InspectionRequest) -> Inspection | Rejection:
        begun.set()
        try:
            await goes_on.wait()
        finally:
            ended.set()
        return FOUND

    inspector.answer = long
    validation = Validation(live.models, live.switches, LocalStore(tmp_path / "blobs"), inspector, Limits(), look_s=0.02)
    await live.switches.allow_code(ADMIN, allowed=True, reason="a test")
    await live.models.create(ADMIN, "iris")
    first = await live.models.receive(ADMIN, "iris", upload(**brought))
    async with working(db, live, {"validate_version": validation}, tmp_path):
        await begun.wait()
        await live.switches.allow_code(ADMIN, allowed=False, reason="the test has seen enough")
        second = await live.models.receive(ADMIN, "iris", upload(b"came just before", **brought))
        if not is_code:  # what is data needs no switch
            goes_on.set()
        outcomes = [await decided(live, one.number) for one in (first, second)]
    assert ended.is_set()
    if not is_code:
        assert [one.state for one in outcomes] == [State.READY] * 2
        return
    assert [one.rejection.code for one in outcomes] == [Reason.CODE_REFUSED] * 2
    assert len(inspector.asked) == 1, "no file that runs code is opened any more"


async def test_what_kept_a_validation_from_beginning_is_told_when_it_is_given_up(
    live: ControlPlane, validation: Validation, inspector: Inspector
):
    async def full(_request: InspectionRequest) -> Inspection | Rejection:
        raise Unavailable("It waited for memory: 80 MiB are needed.")

    inspector.answer = full
    await live.models.create(ADMIN, "iris")
    version = await live.models.receive(ADMIN, "iris", upload())
    job = Job("job_1", "validate_version", version.id, JobState.RUNNING, 2)
    with pytest.raises(Unavailable):
        await validation.run(job)
    await validation.give_up(job)
    rejection = (await live.models.version(ADMIN, "iris", 1)).rejection
    assert rejection.detail.endswith("The last time: It waited for memory: 80 MiB are needed.")


async def decided(live: ControlPlane, number: int, within_s: float = 15) -> Version:
    async with asyncio.timeout(within_s):
        while True:
            version = await live.models.version(ADMIN, "iris", number)
            if version.state.final:
                return version
            await asyncio.sleep(0.02)


async def unfinished(db: Database, live: ControlPlane) -> list[Job]:
    async with db.read() as tx:
        return await live.jobs.unfinished(tx, 10)


async def test_a_version_becomes_ready_with_what_the_inspector_found(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    async def rows() -> AsyncIterator[bytes]:
        yield b"a,b\n"

    sample = await LocalStore(tmp_path / "blobs").put(rows(), max_bytes=99)
    await live.models.create(ADMIN, "iris")
    image = ImageSpec(size=8)
    given = upload(b"abc", labels=("x", "y"), image=image, sample=Sample(sample.digest, "rows.csv"))
    await live.models.receive(ADMIN, "iris", given)
    async with working(db, live, {"validate_version": validation}, tmp_path):
        version = await decided(live, 1)
    assert (version.state, version.signature, version.image, version.scores) == (State.READY, FOUND.signature, FOUND.image, "y")
    assert (await live.deployments.deployment(ADMIN, "iris"))[0].version == 1
    (asked,) = inspector.asked
    assert (asked.sample, asked.sample_filename, asked.labels) == (b"a,b\n", "rows.csv", ("x", "y"))
    assert (asked.spec.digest, asked.spec.image, asked.spec.limits.memory_mb) == (given.blob.digest, image, 7)
    assert await unfinished(db, live) == []


async def test_a_version_is_rejected_with_the_inspectors_reason(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    async def refuse(request: InspectionRequest) -> Rejection:
        return reject(Reason.TRUNCATED, "it ends at byte 3")

    inspector.answer = refuse
    await live.models.create(ADMIN, "iris")
    async with working(db, live, {"validate_version": validation}, tmp_path):
        await live.models.receive(ADMIN, "iris", upload())
        version = await decided(live, 1)
    assert version.rejection == reject(Reason.TRUNCATED, "it ends at byte 3")


async def test_the_bell_is_heard_at_once(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    await live.models.create(ADMIN, "iris")
    deaf = WorkerSettings(quiet_start_s=0.01, poll_s=300)
    async with working(db, live, {"validate_version": validation}, tmp_path, deaf):
        for number in (1, 2, 3):
            await live.models.receive(ADMIN, "iris", upload(bytes([number])))
            await decided(live, number)


async def test_without_a_bell_the_row_is_found(
    db: Database, live: ControlPlane, control: ControlPlane, validation: Validation, tmp_path: Path
):
    await live.models.create(ADMIN, "iris")
    async with working(db, live, {"validate_version": validation}, tmp_path):
        await control.models.receive(ADMIN, "iris", upload())  # rings another bell
        await decided(live, 1)


async def test_what_fails_is_tried_again_and_given_up_in_the_end(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    async def fail_for_odd(request: InspectionRequest) -> Inspection | Rejection:
        tries = sum(asked.spec.version_id == request.spec.version_id for asked in inspector.asked)
        if request.labels or tries < 2:
            raise RuntimeError("no runner to be had")
        return FOUND

    inspector.answer = fail_for_odd
    await live.models.create(ADMIN, "iris")
    await live.models.receive(ADMIN, "iris", upload(b"1", labels=("never",)))
    await live.models.receive(ADMIN, "iris", upload(b"2"))
    async with working(db, live, {"validate_version": validation}, tmp_path):
        second = await decided(live, 2)
        first = await decided(live, 1)
    assert second.state is State.READY
    assert first.rejection is not None
    assert first.rejection.code is Reason.VALIDATION_FAILED
    assert len(inspector.asked) == 3 + 2
    assert await unfinished(db, live) == []


async def test_a_job_that_nobody_can_do_fails_and_holds_nothing_up(
    db: Database, live: ControlPlane, validation: Validation, tmp_path: Path
):
    await live.models.create(ADMIN, "iris")
    async with db.begin() as tx:
        await live.jobs.enqueue(tx, "unheard_of", "x")
    await live.models.receive(ADMIN, "iris", upload())
    async with working(db, live, {"validate_version": validation}, tmp_path):
        await decided(live, 1)
        async with asyncio.timeout(10):
            while await unfinished(db, live):
                await asyncio.sleep(0.02)


async def test_no_more_jobs_than_allowed_are_worked_on_at_once(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    both = asyncio.Barrier(2)

    async def together(request: InspectionRequest) -> Inspection:
        await both.wait()
        return FOUND

    inspector.answer = together
    await live.models.create(ADMIN, "iris")
    for number in range(6):
        await live.models.receive(ADMIN, "iris", upload(bytes([number])))
    async with working(db, live, {"validate_version": validation}, tmp_path):
        for number in range(1, 7):
            await decided(live, number)
    assert inspector.most_at_once == 2


async def test_a_stopped_worker_leaves_its_jobs_to_the_next_start(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    begun = asyncio.Event()

    async def hang(request: InspectionRequest) -> Inspection:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    inspector.answer = hang
    await live.models.create(ADMIN, "iris")
    await live.models.receive(ADMIN, "iris", upload())
    async with working(db, live, {"validate_version": validation}, tmp_path):
        await asyncio.wait_for(begun.wait(), 15)
    (job,) = await unfinished(db, live)
    assert (job.state, job.attempts) == (JobState.RUNNING, 1)
    inspector.answer = inspector.accept
    async with working(db, live, {"validate_version": validation}, tmp_path):
        assert (await decided(live, 1)).state is State.READY


_PROCESS = """
import asyncio, sys
from pathlib import Path
from fixtures.control import FINDINGS, SITE
from modelkeep.app.control_plane import control_plane
from modelkeep.contracts.snapshot import Limits
from modelkeep.infra.db import Database
from modelkeep.infra.settings import DatabaseSettings
from modelkeep.plugins.storage.local import LocalStore
from modelkeep.worker.inspection import Inspection
from modelkeep.worker.loop import Worker
from modelkeep.worker.settings import WorkerSettings
from modelkeep.worker.validation import Validation

url, folder, name, behaviour, lease_s = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])

class Inspector:
    async def inspect(self, request):
        with (folder / "log").open("a") as log:
            log.write(f"{name} {behaviour} {request.spec.version_id}\\n")
        if behaviour == "hang":
            await asyncio.Event().wait()
        return Inspection(FINDINGS.signature, FINDINGS.report)

async def main():
    db = Database(DatabaseSettings(url=url))
    control = control_plane(db, ring_worker=int, ring_courier=int, limits=Limits(), site=SITE)
    validation = Validation(control.models, control.switches, LocalStore(folder / "blobs"), Inspector(), Limits())
    settings = WorkerSettings(name=name, quiet_start_s=0.01, poll_s=0.1, lease_s=lease_s)
    run_dir = folder / name
    run_dir.mkdir(exist_ok=True)
    await Worker(db, control.jobs, {"validate_version": validation}, settings, run_dir).run(asyncio.Event())

asyncio.run(main())
"""


@contextmanager
def worker_process(
    db: Database, folder: Path, name: str, behaviour: str, lease_s: float = 1.5
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own, killed at the end of the block if not before."""
    arguments = [db.url.render_as_string(hide_password=False), str(folder), name, behaviour, str(lease_s)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", _PROCESS, *arguments], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


async def logged(folder: Path, line: str, within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not ((folder / "log").exists() and line in (folder / "log").read_text()):
            await asyncio.sleep(0.02)


async def test_a_killed_workers_job_goes_on_when_it_starts_again(db: Database, live: ControlPlane, tmp_path: Path):
    await live.models.create(ADMIN, "iris")
    version = await live.models.receive(ADMIN, "iris", upload())
    with worker_process(db, tmp_path, "w", "hang") as first:
        await logged(tmp_path, f"w hang {version.id}")
        first.kill()
    assert (await live.models.version(ADMIN, "iris", 1)).state is State.VALIDATING
    with worker_process(db, tmp_path, "w", "accept"):
        assert (await decided(live, 1, 20)).state is State.READY
    (deployment, _serving) = await live.deployments.deployment(ADMIN, "iris")
    assert (deployment.version, deployment.revision) == (1, 1)


async def test_another_worker_takes_over_from_one_that_never_comes_back(db: Database, live: ControlPlane, tmp_path: Path):
    if db.sqlite:
        return  # there is one worker over SQLite
    await live.models.create(ADMIN, "iris")
    version = await live.models.receive(ADMIN, "iris", upload())
    with worker_process(db, tmp_path, "gone", "hang") as gone:
        await logged(tmp_path, f"gone hang {version.id}")
        with worker_process(db, tmp_path, "other", "accept"):
            gone.kill()
            assert (await decided(live, 1, 30)).state is State.READY
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [f"gone hang {version.id}", f"other accept {version.id}"]


async def test_two_workers_do_each_job_once(db: Database, live: ControlPlane, tmp_path: Path):
    if db.sqlite:
        return  # there is one worker over SQLite
    await live.models.create(ADMIN, "iris")
    lease_s = 60  # a machine so busy that a lease ends is not what is asked about
    with worker_process(db, tmp_path, "one", "accept", lease_s), worker_process(db, tmp_path, "two", "accept", lease_s):
        for number in range(8):
            await live.models.receive(ADMIN, "iris", upload(bytes([number])))
        for number in range(1, 9):
            await decided(live, number, 30)
    assert len((tmp_path / "log").read_text().splitlines()) == 8


async def test_a_job_whose_engine_forgot_it_is_started_again(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    """The row is the truth: even when the engine's own file is lost while a job is in work."""
    if not db.sqlite:
        return  # there the engine's tables live and die with the rows
    begun = asyncio.Event()

    async def hang(request: InspectionRequest) -> Inspection:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    inspector.answer = hang
    await live.models.create(ADMIN, "iris")
    await live.models.receive(ADMIN, "iris", upload())
    async with working(db, live, {"validate_version": validation}, tmp_path):
        await asyncio.wait_for(begun.wait(), 15)
    for left in tmp_path.glob("jobs.db*"):
        left.unlink()
    inspector.answer = inspector.accept
    async with working(db, live, {"validate_version": validation}, tmp_path):
        assert (await decided(live, 1)).state is State.READY


async def test_the_engine_is_not_loaded_where_nothing_is_to_be_done(db: Database, live: ControlPlane, tmp_path: Path):
    idle = WorkerSettings(quiet_start_s=300)
    async with working(db, live, {}, tmp_path, idle):
        await asyncio.sleep(0.1)
    assert not (tmp_path / "jobs.db").exists()


async def test_a_job_that_kills_its_worker_is_given_up_by_the_count_in_its_row(
    db: Database, live: ControlPlane, inspector: Inspector, validation: Validation, tmp_path: Path
):
    await live.models.create(ADMIN, "iris")
    await live.models.receive(ADMIN, "iris", upload())
    (job,) = await unfinished(db, live)
    for _death in range(QUICK.attempts):
        async with db.begin() as tx:
            await live.jobs.begin(tx, job.id, "worker")
    async with working(db, live, {"validate_version": validation}, tmp_path):
        version = await decided(live, 1)
    assert version.rejection is not None
    assert version.rejection.code is Reason.VALIDATION_FAILED
    assert inspector.asked == []
