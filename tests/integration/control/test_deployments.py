"""Deployments and the snapshot, over each kind of database."""

import asyncio
import itertools

import msgspec
import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, FINDINGS, Rings, TestClock, ready_version, upload
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.prediction import CacheSeen, Heartbeat
from modelkeep.contracts.report import Compilation, CompiledArtifact
from modelkeep.contracts.snapshot import Limits, Snapshot, decode_snapshot
from modelkeep.contracts.traffic import Counted, TrialSeen
from modelkeep.control.deployments.errors import DeploymentNotFound, DeploymentStale
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.control.models.errors import ModelArchived, VersionNotFound, VersionNotReady
from modelkeep.infra import broadcast
from modelkeep.infra.db import Database


async def snapshot(db: Database) -> Snapshot:
    async with db.read() as tx:
        news = await broadcast.latest(tx, SNAPSHOT, -1)
    assert news is not None
    read = decode_snapshot(news.payload)
    assert read.number == news.number
    return read


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model with a ready version 1, which promoted itself."""
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")


async def test_a_model_comes_with_a_deployment_of_its_name(control: ControlPlane):
    await control.models.create(ADMIN, "iris")
    deployment, serving = await control.deployments.deployment(ADMIN, "iris")
    assert (deployment.name, deployment.version, deployment.revision, serving) == ("iris", None, 0, [])
    with pytest.raises(DeploymentNotFound):
        await control.deployments.deployment(ADMIN, "rose")


async def test_the_first_ready_version_promotes_itself_and_later_ones_do_not(control: ControlPlane, iris: None, db: Database):
    await ready_version(control, "iris", b"two")
    deployment, _serving = await control.deployments.deployment(ADMIN, "iris")
    assert (deployment.version, deployment.revision) == (1, 1)
    assert (await control.models.model(ADMIN, "iris")).serving_version == 1
    (version,) = (await snapshot(db)).versions
    assert version.number == 1


async def test_to_release_one_of_many_asks_the_database_as_often_as_to_release_one_of_two(control: ControlPlane, iris: None):
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        asked.append(statement)

    async def add(names: list[str]) -> None:
        for name in names:
            await control.models.create(ADMIN, name)
            await ready_version(control, name, name.encode())

    async def release() -> list[str]:
        asked.clear()
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            await control.deployments.promote(ADMIN, "iris", 2)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
        took = list(asked)
        await control.deployments.rollback(ADMIN, "iris")
        return took

    await ready_version(control, "iris", b"two")
    await add(["rose"])
    of_two = await release()
    await add([f"rose-{number}" for number in range(5)])
    assert len(await release()) == len(of_two) > 5


async def test_a_compiled_version_is_served_from_its_compiled_file(control: ControlPlane, db: Database):
    await control.models.create(ADMIN, "rose")
    received = await control.models.receive(ADMIN, "rose", upload(b"rose"))
    faster = CompiledArtifact("f" * 64, 7, "onnx", "onnx", threads=3)
    report = msgspec.structs.replace(FINDINGS.report, compiled=Compilation(used=True, latency_ms={"1": 0.01, "64": 0.05}))
    await control.models.accept(received.id, msgspec.structs.replace(FINDINGS, report=report, compiled=faster), "job_x")
    (served,) = (await snapshot(db)).versions
    assert (served.spec.digest, served.spec.size, served.spec.format, served.spec.runner) == ("f" * 64, 7, "onnx", "onnx")
    assert served.spec.threads_used == 3
    assert (served.spec.signature, served.cost_ms) == (FINDINGS.signature, {"1": 0.01, "64": 0.05})
    version = await control.models.version(ADMIN, "rose", 1)
    assert (version.digest, version.compiled, version.compile) == (received.digest, faster, "auto")


async def test_an_uncompiled_version_costs_what_its_own_runs_cost(control: ControlPlane, iris: None, db: Database):
    (served,) = (await snapshot(db)).versions
    assert served.cost_ms == FINDINGS.report.latency_ms


@pytest.mark.parametrize(
    ("deterministic", "runner", "repeats"), [(True, "onnx", True), (False, "onnx", False), (True, "python", False)]
)
async def test_a_version_repeats_itself_if_it_did_and_is_no_program(
    control: ControlPlane, db: Database, deterministic: bool, runner: str, repeats: bool
):
    await control.models.create(ADMIN, "rose")
    received = await control.models.receive(ADMIN, "rose", upload(b"rose"))
    report = msgspec.structs.replace(FINDINGS.report, deterministic=deterministic, compiled=Compilation(used=True))
    compiled = CompiledArtifact("f" * 64, 7, "onnx", runner)
    await control.models.accept(received.id, msgspec.structs.replace(FINDINGS, report=report, compiled=compiled), "job_x")
    (served,) = (await snapshot(db)).versions
    assert served.repeatable is repeats


async def test_the_snapshot_has_all_that_serving_needs(control: ControlPlane, iris: None, db: Database, clock: TestClock):
    await control.models.create(ADMIN, "rose")
    await control.models.receive(ADMIN, "rose", upload(b"rose", labels=("red", "white")))
    version = await control.models.version(ADMIN, "rose", 1)
    await control.models.accept(version.id, FINDINGS, "job_x")
    news = await snapshot(db)
    assert [one.name for one in news.deployments] == ["iris", "rose"]
    served = {one.id: one for one in news.versions}[version.id]
    assert (served.model, served.number, served.labels, served.framework) == ("rose", 1, ("red", "white"), "echo")
    assert (served.spec.digest, served.spec.size, served.spec.runner) == (version.digest, version.size, "onnx")
    assert served.spec.limits == Limits()
    assert served.signature == served.spec.signature == FINDINGS.signature
    assert news.made_at == clock().timestamp()


async def test_promoting_moves_on_and_back_and_tells_serving(control: ControlPlane, iris: None, db: Database, rings: Rings):
    await ready_version(control, "iris", b"two")
    before, rung = await snapshot(db), rings.courier
    changed = await control.deployments.promote(ADMIN, "iris", 2, expected=1)
    assert (changed.version, changed.previous_version, changed.revision) == (2, 1, 2)
    after = await snapshot(db)
    assert after.number == before.number + 1
    assert [version.number for version in after.versions] == [2]
    assert rings.courier == rung + 1
    back = await control.deployments.promote(ADMIN, "iris", 1)
    assert (back.version, back.previous_version, back.revision) == (1, 2, 3)
    (entry,) = await control.audit.entries(limit=1)
    assert (entry.action, entry.details) == ("deployment.promote", {"version": "1", "revision": "3"})


async def test_promoting_what_serves_changes_nothing(control: ControlPlane, iris: None, db: Database):
    before = await snapshot(db)
    again = await control.deployments.promote(ADMIN, "iris", 1)
    assert again.revision == 1
    assert await snapshot(db) == before


async def test_a_stale_or_impossible_promotion_changes_nothing(control: ControlPlane, iris: None, db: Database):
    await ready_version(control, "iris", b"two")
    await control.models.receive(ADMIN, "iris", upload(b"three"))
    before = await snapshot(db)
    with pytest.raises(DeploymentStale, match="revision 1"):
        await control.deployments.promote(ADMIN, "iris", 2, expected=0)
    with pytest.raises(VersionNotReady):
        await control.deployments.promote(ADMIN, "iris", 3)
    with pytest.raises(VersionNotFound):
        await control.deployments.promote(ADMIN, "iris", 4)
    with pytest.raises(DeploymentNotFound):
        await control.deployments.promote(ADMIN, "rose", 1)
    await control.lifecycle.archive(ADMIN, "iris")
    with pytest.raises(ModelArchived):
        await control.deployments.promote(ADMIN, "iris", 2)
    await control.lifecycle.restore(ADMIN, "iris")
    restored = await snapshot(db)
    assert (restored.deployments, restored.versions) == (before.deployments, before.versions)


async def test_an_archived_model_answers_no_more_and_a_restored_one_again(control: ControlPlane, iris: None, db: Database):
    before = await snapshot(db)
    await control.lifecycle.archive(ADMIN, "iris")
    gone = await snapshot(db)
    assert (gone.deployments, gone.versions, gone.number) == ((), (), before.number + 1)
    await control.lifecycle.archive(ADMIN, "iris")
    assert (await snapshot(db)).number == gone.number
    await control.lifecycle.restore(ADMIN, "iris")
    back = await snapshot(db)
    assert (back.deployments, back.versions) == (before.deployments, before.versions)


async def test_a_version_that_becomes_ready_while_its_model_is_archived_waits_to_be_asked(control: ControlPlane, db: Database):
    await control.models.create(ADMIN, "iris")
    version = await control.models.receive(ADMIN, "iris", upload())
    await control.lifecycle.archive(ADMIN, "iris")
    await control.models.accept(version.id, FINDINGS, "job_x")
    await control.lifecycle.restore(ADMIN, "iris")
    assert (await snapshot(db)).deployments == ()
    await control.deployments.promote(ADMIN, "iris", 1)
    assert [one.name for one in (await snapshot(db)).deployments] == ["iris"]


async def test_what_servers_say_is_kept_newest_first_said_and_fades(control: ControlPlane, iris: None, clock: TestClock):
    version = await control.models.version(ADMIN, "iris", 1)
    now = clock().timestamp()
    await control.deployments.hear(Heartbeat("s1", now, 7, {"iris": version.id}))
    await control.deployments.hear(Heartbeat("s1", now - 5, 6, {}))
    await control.deployments.hear(Heartbeat("s2", now, 6, {}, {version.id: "it cannot be loaded"}))
    _deployment, serving = await control.deployments.deployment(ADMIN, "iris")
    assert [(one.server, one.snapshot, one.version, one.failing) for one in serving] == [
        ("s1", 7, 1, ""),
        ("s2", 6, None, "it cannot be loaded"),
    ]
    clock.advance(minutes=2)
    assert (await control.deployments.deployment(ADMIN, "iris"))[1] == []


async def test_what_servers_tell_of_their_caches_is_kept_beside_what_they_count_of_trials(
    control: ControlPlane, db: Database, iris: None, clock: TestClock
):
    now, seen = clock().timestamp(), TrialSeen({"errors": Counted(3, 1, 2, 0)}, 7.5, "errors")
    told = CacheSeen("", 3, 1, 4, 2, 1000)
    first = Heartbeat("s1", now, 7, {}, {}, {"rol_1:1": seen}, {"iris": told, "other": CacheSeen("off")})
    await control.deployments.hear(first)
    await control.deployments.hear(Heartbeat("s2", now, 7, {}, {}, {}, {"other": CacheSeen("fast")}))
    async with db.read() as tx:
        assert (await control.deployments.heard_in(tx, None))[0] == first
    _deployment, serving = await control.deployments.deployment(ADMIN, "iris")
    assert [(one.server, one.cache) for one in serving] == [("s1", told), ("s2", None)]
    without = Heartbeat("s1", now + 1, 7, {}, {}, {"rol_1:1": seen})
    await control.deployments.hear(without)
    async with db.read() as tx:
        assert (await control.deployments.heard_in(tx, None))[0] == without


async def test_deployments_are_listed_by_name_in_pages(control: ControlPlane):
    for name in ("b", "a", "c"):
        await control.models.create(ADMIN, name)
    assert [one.name for one, _serving in await control.deployments.deployments(ADMIN, limit=2)] == ["a", "b"]
    assert [one.name for one, _serving in await control.deployments.deployments(ADMIN, limit=2, after="b")] == ["c"]


async def test_promotions_at_once_make_one_line_of_revisions(control: ControlPlane, iris: None, db: Database):
    for number in range(2, 6):
        await ready_version(control, "iris", bytes([number]))
    promotions = [control.deployments.promote(ADMIN, "iris", 1 + number % 5) for number in range(40)]
    results = await asyncio.gather(*promotions)
    deployment, _serving = await control.deployments.deployment(ADMIN, "iris")
    entries = [entry for entry in await control.audit.entries(limit=500) if entry.action == "deployment.promote"]
    history = sorted((int(entry.details["revision"]), int(entry.details["version"])) for entry in entries)
    assert [revision for revision, _version in history] == list(range(1, deployment.revision + 1))
    assert history[-1] == (deployment.revision, deployment.version)
    changed = {result.revision: result.version for result in results}
    assert changed.items() <= dict(history).items()
    assert all(one != other for (_r, one), (_s, other) in itertools.pairwise(history))
    (served,) = (await snapshot(db)).versions
    assert served.number == deployment.version == (await control.models.model(ADMIN, "iris")).serving_version


async def test_of_promotions_that_saw_the_same_revision_one_succeeds(control: ControlPlane, iris: None):
    for number in range(2, 6):
        await ready_version(control, "iris", bytes([number]))
    tries = [control.deployments.promote(ADMIN, "iris", number, expected=1) for number in range(2, 6)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, DeploymentStale) for result in results) == 3
    (winner,) = [result for result in results if not isinstance(result, BaseException)]
    assert (await control.deployments.deployment(ADMIN, "iris"))[0] == winner


async def test_a_version_is_never_archived_and_promoted_by_two_who_ask_at_once(control: ControlPlane, iris: None):
    for number in range(2, 12):
        await ready_version(control, "iris", bytes([number]))
        await asyncio.gather(
            control.deployments.promote(ADMIN, "iris", number),
            control.lifecycle.archive(ADMIN, "iris", number),
            return_exceptions=True,
        )
        deployment, _serving = await control.deployments.deployment(ADMIN, "iris")
        serving = await control.models.version(ADMIN, "iris", deployment.version or 0)
        assert serving.archived_at is None
