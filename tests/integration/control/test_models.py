"""Models and versions, over each kind of database."""

import asyncio
from typing import Any

import pytest

from fixtures.control import ADMIN, FINDINGS, Rings, TestClock, ready_version, upload
from fixtures.standings import through
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, InvalidName
from modelkeep.contracts.rejections import Reason, reject
from modelkeep.contracts.signature import ImageSpec
from modelkeep.control.models import errors
from modelkeep.control.models.rules import Sample, State
from modelkeep.infra.db import Database
from modelkeep.infra.jobs import JobState

READER = Actor("key_reader", "bob", "usr_b", through(Scope.MODELS_READ, user="usr_b"))


async def test_a_model_is_made_once(control: ControlPlane, clock: TestClock):
    model = await control.models.create(ADMIN, "iris", "flowers")
    assert (model.created_at, model.created_by, model.latest_version, model.serving_version) == (clock(), "ada", None, None)
    assert await control.models.model(ADMIN, "iris") == model
    with pytest.raises(errors.ModelExists):
        await control.models.create(ADMIN, "iris")
    with pytest.raises(InvalidName):
        await control.models.create(ADMIN, "Iris!")
    with pytest.raises(errors.ModelNotFound):
        await control.models.model(ADMIN, "rose")


async def test_of_many_who_make_the_same_model_at_once_one_succeeds(control: ControlPlane):
    results = await asyncio.gather(*[control.models.create(ADMIN, "iris") for _ in range(5)], return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Model"] + ["ModelExists"] * 4


async def test_models_are_listed_by_name_in_pages(control: ControlPlane):
    for name in ("c", "a", "d", "b"):
        await control.models.create(ADMIN, name)
    await control.lifecycle.archive(ADMIN, "b")
    assert [model.name for model in await control.models.models(ADMIN, limit=2)] == ["a", "c"]
    assert [model.name for model in await control.models.models(ADMIN, limit=2, after="c")] == ["d"]
    assert [model.name for model in await control.models.models(ADMIN, limit=9, archived=True)] == ["a", "b", "c", "d"]


async def test_models_are_searched_by_any_part_of_their_names(control: ControlPlane):
    for name in ("churn", "churn-eu", "a_b", "a.b", "spam.churn"):
        await control.models.create(ADMIN, name)
    await control.lifecycle.archive(ADMIN, "churn-eu")

    async def found(search: str, **more: Any) -> list[str]:
        return [model.name for model in await control.models.models(ADMIN, limit=9, search=search, **more)]

    assert await found("CHURN") == ["churn", "spam.churn"]
    assert await found("churn", archived=True) == ["churn", "churn-eu", "spam.churn"]
    assert await found("churn", after="churn") == ["spam.churn"]
    assert await found("a_b") == ["a_b"], "no sign in it means any other"
    assert [await found(nothing) for nothing in ("\x00", "%", "a%b", "\\", "x", "churn ", "🦄")] == [[]] * 7
    assert len(await found("")) == 4


async def test_whoever_may_only_read_changes_nothing(control: ControlPlane):
    await ready_version_of_new_model(control)
    attempts = [
        control.models.create(READER, "x"),
        control.models.describe(READER, "iris", "x"),
        control.lifecycle.archive(READER, "iris"),
        control.lifecycle.restore(READER, "iris"),
        control.models.expect_upload(READER, "iris"),
        control.models.receive(READER, "iris", upload()),
        control.models.describe_version(READER, "iris", 1, "x"),
        control.lifecycle.archive(READER, "iris", 1),
        control.lifecycle.restore(READER, "iris", 1),
        control.deployments.promote(READER, "iris", 1),
    ]
    for attempt in attempts:
        with pytest.raises(Forbidden):
            await attempt


async def ready_version_of_new_model(control: ControlPlane) -> None:
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")


async def test_an_upload_is_the_next_version_and_a_job(control: ControlPlane, db: Database, rings: Rings):
    await control.models.create(ADMIN, "iris")
    image = ImageSpec(size=32)
    sample = Sample("1" * 64, "rows.csv")
    given = upload(b"abc", description="first", labels=("a", "b"), image=image, sample=sample)
    version = await control.models.receive(ADMIN, "iris", given)
    assert (version.number, version.state, version.size, version.labels) == (1, State.RECEIVED, 3, 2)
    assert await control.models.version(ADMIN, "iris", 1) == version
    assert (version.image, version.sample, version.description) == (image, sample, "first")
    assert await control.models.labels(version.id) == ("a", "b")
    assert (await control.models.model(ADMIN, "iris")).latest_version == 1
    assert rings.worker == 1
    async with db.read() as tx:
        (job,) = await control.jobs.unfinished(tx, 10)
    assert (job.kind, job.subject, job.state) == ("validate_version", version.id, JobState.WAITING)


async def test_versions_are_numbered_without_gaps_however_many_arrive_at_once(control: ControlPlane):
    await control.models.create(ADMIN, "iris")
    versions = await asyncio.gather(*[control.models.receive(ADMIN, "iris", upload(bytes([n]))) for n in range(10)])
    assert sorted(version.number for version in versions) == list(range(1, 11))
    assert [version.number for version in await control.models.versions(ADMIN, "iris", limit=3)] == [10, 9, 8]
    assert [version.number for version in await control.models.versions(ADMIN, "iris", limit=3, before=3)] == [2, 1]


async def test_an_upload_to_no_model_or_an_archived_one_is_refused(control: ControlPlane):
    with pytest.raises(errors.ModelNotFound):
        await control.models.expect_upload(ADMIN, "iris")
    with pytest.raises(errors.ModelNotFound):
        await control.models.receive(ADMIN, "iris", upload())
    await control.models.create(ADMIN, "iris")
    await control.models.expect_upload(ADMIN, "iris")
    await control.lifecycle.archive(ADMIN, "iris")
    with pytest.raises(errors.ModelArchived):
        await control.models.expect_upload(ADMIN, "iris")
    with pytest.raises(errors.ModelArchived):
        await control.models.receive(ADMIN, "iris", upload())


async def test_a_version_is_accepted_once_with_what_was_found(control: ControlPlane, clock: TestClock, db: Database):
    await control.models.create(ADMIN, "iris")
    version = await control.models.receive(ADMIN, "iris", upload())
    async with db.read() as tx:
        (job,) = await control.jobs.unfinished(tx, 10)
    validating = await control.models.begin_validation(version.id)
    assert validating is not None
    assert validating.state is State.VALIDATING
    clock.advance(minutes=1)
    await control.models.accept(version.id, FINDINGS, job.id)
    ready = await control.models.version(ADMIN, "iris", 1)
    assert (ready.state, ready.validated_at, ready.signature, ready.report) == (
        State.READY,
        clock(),
        FINDINGS.signature,
        FINDINGS.report,
    )
    await control.models.reject(version.id, reject(Reason.CORRUPT), job.id)
    assert await control.models.version(ADMIN, "iris", 1) == ready
    assert await control.models.begin_validation(version.id) is None
    async with db.read() as tx:
        assert await control.jobs.unfinished(tx, 10) == []
    actions = [entry.action for entry in await control.audit.entries(limit=10, target=version.id)]
    assert actions == ["version.ready", "version.upload"]


async def test_a_version_is_rejected_once_with_its_reason(control: ControlPlane):
    await control.models.create(ADMIN, "iris")
    version = await control.models.receive(ADMIN, "iris", upload())
    rejection = reject(Reason.NOT_FITTED, "the tree has no nodes")
    await control.models.reject(version.id, rejection, "job_x")
    rejected = await control.models.version(ADMIN, "iris", 1)
    assert (rejected.state, rejected.rejection) == (State.REJECTED, rejection)
    await control.models.accept(version.id, FINDINGS, "job_x")
    assert await control.models.version(ADMIN, "iris", 1) == rejected
    assert (await control.models.model(ADMIN, "iris")).serving_version is None


async def test_a_version_that_serves_cannot_be_archived_and_another_can(control: ControlPlane, clock: TestClock):
    await ready_version_of_new_model(control)
    await ready_version(control, "iris", b"two")
    with pytest.raises(errors.VersionInUse):
        await control.lifecycle.archive(ADMIN, "iris", 1)
    archived = await control.lifecycle.archive(ADMIN, "iris", 2)
    assert archived.archived_at == clock()
    assert await control.lifecycle.archive(ADMIN, "iris", 2) == archived
    with pytest.raises(errors.VersionArchived):
        await control.deployments.promote(ADMIN, "iris", 2)
    restored = await control.lifecycle.restore(ADMIN, "iris", 2)
    assert restored.archived_at is None
    assert (await control.deployments.promote(ADMIN, "iris", 2)).version == 2
    await control.lifecycle.archive(ADMIN, "iris", 1)


async def test_a_version_archived_while_it_is_validated_does_not_promote_itself(control: ControlPlane):
    await control.models.create(ADMIN, "iris")
    version = await control.models.receive(ADMIN, "iris", upload())
    await control.lifecycle.archive(ADMIN, "iris", 1)
    await control.models.accept(version.id, FINDINGS, "job_x")
    assert (await control.models.version(ADMIN, "iris", 1)).state is State.READY
    assert (await control.models.model(ADMIN, "iris")).serving_version is None


async def test_descriptions_change(control: ControlPlane):
    await ready_version_of_new_model(control)
    assert (await control.models.describe(ADMIN, "iris", "new")).description == "new"
    assert (await control.models.describe_version(ADMIN, "iris", 1, "newer")).description == "newer"
    with pytest.raises(errors.VersionNotFound):
        await control.models.describe_version(ADMIN, "iris", 2, "x")
    with pytest.raises(errors.ModelNotFound):
        await control.models.version(ADMIN, "rose", 1)
