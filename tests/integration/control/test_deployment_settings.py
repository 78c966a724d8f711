"""Settings of one deployment and rates of keys, over each kind of database."""

import asyncio

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, SITE, Rings, TestClock, ready_version
from fixtures.standings import through
from modelkeep.app.control_plane import ControlPlane, control_plane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, Invalid
from modelkeep.contracts.snapshot import DeploymentSettings, Limits, Rate, Snapshot, decode_snapshot
from modelkeep.control.deployments.errors import DeploymentNotFound, DeploymentStale, InvalidSettings
from modelkeep.control.deployments.service import SNAPSHOT
from modelkeep.control.users.rules import Key
from modelkeep.infra import broadcast
from modelkeep.infra.db import Database
from modelkeep.infra.migrations import migrate

READER = Actor("key_reader", "bob", "usr_bob", through(Scope.MODELS_READ, user="usr_bob"))


async def snapshot(db: Database) -> Snapshot:
    async with db.read() as tx:
        news = await broadcast.latest(tx, SNAPSHOT, -1)
    assert news is not None
    return decode_snapshot(news.payload)


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model with a ready version 1, which promoted itself: revision 1."""
    await control.models.create(ADMIN, "iris")
    await ready_version(control, "iris")


async def test_settings_are_kept_and_told_to_serving(control: ControlPlane, iris: None, db: Database, rings: Rings):
    before, rung = await snapshot(db), rings.courier
    assert before.deployments[0].settings == DeploymentSettings()
    patch = {"deadline_s": 2, "batching": {"mode": "off"}, "recording": {"fields": {"x": "hash", "y": "drop"}}}
    changed = await control.deployments.configure(ADMIN, "iris", patch, expected=1)
    assert (changed.revision, changed.updated_by, changed.version) == (2, "ada", 1)
    after = await snapshot(db)
    assert (after.number, rings.courier) == (before.number + 1, rung + 1)
    served = after.deployments[0]
    assert served.revision == 2
    assert served.settings == changed.settings == (await control.deployments.deployment(ADMIN, "iris"))[0].settings
    assert (served.settings.deadline_s, served.settings.batching.mode) == (2.0, "off")
    assert served.settings.recording.fields == {"x": "hash", "y": "drop"}


async def test_what_is_not_named_stays_and_null_brings_a_default_back(control: ControlPlane, iris: None):
    await control.deployments.configure(
        ADMIN, "iris", {"concurrency": 4, "batching": {"max_rows": 8, "mode": "cheap"}, "recording": {"fields": {"x": "drop"}}}
    )
    await control.deployments.configure(ADMIN, "iris", {"batching": {"mode": None}, "recording": {"fields": {"x": None}}})
    settings = (await control.deployments.deployment(ADMIN, "iris"))[0].settings
    assert (settings.concurrency, settings.batching.max_rows, settings.batching.mode) == (4, 8, "auto")
    assert settings.recording.fields == {}
    back = await control.deployments.configure(ADMIN, "iris", {"batching": None, "concurrency": None})
    assert back.settings == DeploymentSettings()


async def test_a_change_is_audited_with_before_and_after_and_no_change_with_nothing(control: ControlPlane, iris: None):
    await control.deployments.configure(ADMIN, "iris", {"deadline_s": 1.5})
    await control.deployments.configure(ADMIN, "iris", {"deadline_s": 3})
    (entry,) = await control.audit.entries(limit=1)
    assert (entry.action, entry.actor_name) == ("deployment.configure", "ada")
    assert (entry.details, entry.before, entry.after) == ({"revision": "3"}, '{"deadline_s":1.5}', '{"deadline_s":3.0}')
    same = await control.deployments.configure(ADMIN, "iris", {"deadline_s": 3.0})
    assert same.revision == 3
    assert (await control.audit.entries(limit=1))[0].id == entry.id


async def test_a_change_over_somebody_elses_is_refused_with_the_present_revision(control: ControlPlane, iris: None):
    await control.deployments.configure(ADMIN, "iris", {"concurrency": 2}, expected=1)
    with pytest.raises(DeploymentStale, match="revision 2"):
        await control.deployments.configure(ADMIN, "iris", {"concurrency": 3}, expected=1)
    assert (await control.deployments.deployment(ADMIN, "iris"))[0].settings.concurrency == 2


async def test_of_many_changes_at_once_none_is_lost(control: ControlPlane, iris: None, db: Database):
    patches = [{"concurrency": 7}, {"deadline_s": 7}, {"batching": {"max_rows": 7}}, {"replicas": {"max": 7}}]
    await asyncio.gather(*[control.deployments.configure(ADMIN, "iris", patch) for patch in patches])
    (served,) = (await snapshot(db)).deployments
    settings = served.settings
    assert (settings.concurrency, settings.deadline_s, settings.batching.max_rows, settings.replicas.max) == (7, 7, 7, 7)
    assert served.revision == 5


async def test_settings_outlive_a_promotion(control: ControlPlane, iris: None, db: Database):
    await control.deployments.configure(ADMIN, "iris", {"concurrency": 9})
    await ready_version(control, "iris", b"two")
    await control.deployments.promote(ADMIN, "iris", 2)
    (served,) = (await snapshot(db)).deployments
    assert (served.settings.concurrency, served.revision) == (9, 3)


async def test_names_of_fields_must_be_those_of_the_version_that_answers(control: ControlPlane, iris: None):
    with pytest.raises(InvalidSettings) as wrong:
        await control.deployments.configure(ADMIN, "iris", {"recording": {"fields": {"xx": "hash"}}})
    (fault,) = wrong.value.fields
    assert (fault.path, fault.code) == ("settings.recording.fields.xx", "unknown_field")
    assert "Did you mean 'x'?" in fault.message
    await control.models.create(ADMIN, "rose")
    with pytest.raises(InvalidSettings) as early:
        await control.deployments.configure(ADMIN, "rose", {"recording": {"fields": {"x": "hash"}}})
    assert "promote one first" in early.value.fields[0].message


async def test_only_who_may_write_models_changes_settings(control: ControlPlane, iris: None):
    with pytest.raises(Forbidden):
        await control.deployments.configure(READER, "iris", {"concurrency": 1})
    with pytest.raises(DeploymentNotFound):
        await control.deployments.configure(ADMIN, "rose", {"concurrency": 1})


async def test_a_deployment_from_before_there_were_settings_has_the_defaults(control: ControlPlane, iris: None, db: Database):
    async with db.begin() as tx:  # as the step 0002 leaves what was there before it
        await tx.execute(sa.text("UPDATE deployments SET settings = '{}'"))
    assert (await control.deployments.deployment(ADMIN, "iris"))[0].settings == DeploymentSettings()
    await migrate(db)  # nothing is left to do


@pytest.fixture
def sqlite_control(sqlite_db: Database, clock: TestClock) -> ControlPlane:
    return control_plane(sqlite_db, ring_worker=bool, ring_courier=bool, limits=Limits(), site=SITE, clock=clock)


async def issued(control: ControlPlane, **rate: object) -> Key:
    return (await control.users.issue_key(ADMIN, "ci", frozenset({Scope.PREDICT}), None, **rate)).key


async def test_a_keys_rate_is_told_to_serving(control: ControlPlane, clock: TestClock, db: Database):
    token = await control.users.ensure_setup_token(clock())
    assert token is not None
    user, first = await control.users.set_up(token, "ada")
    admin = Actor(first.key.id, "ada", user.id, through(Scope.ADMIN, user=user.id))
    made = {
        rate: (await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None, rate=rate)).key.id
        for rate in ("unlimited", "100/min", "3/min")
    }
    bursting = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None, rate="100/min", burst=40)
    narrow = await control.users.issue_key(admin, "ci", frozenset({Scope.PREDICT}), None, concurrency=8)
    keys = (await snapshot(db)).keys
    assert {one.id: one.concurrency for one in keys if one.concurrency} == {narrow.key.id: 8}
    served = {one.id: one.rate for one in keys}
    assert served[first.key.id] is None
    assert served[made["unlimited"]] is None
    assert served[made["100/min"]] == Rate(100, 16)
    assert served[made["3/min"]] == Rate(3, 1)
    assert served[bursting.key.id] == Rate(100, 40)
    assert (await control.users.key(bursting.key.id)).rate == "100/min"
    last, before = await control.audit.entries(limit=2)
    assert (last.details["concurrency"], before.details["rate"]) == ("8", "100/min")


@pytest.mark.parametrize("rate", ["", "100", "0/min", "-1/min", "100/s", "1e3/min", "100/min ", "999999999/min", "none"])
async def test_a_rate_that_cannot_be_read_is_refused(sqlite_control: ControlPlane, rate: str):
    with pytest.raises(Invalid) as wrong:
        await issued(sqlite_control, rate=rate)
    assert wrong.value.fields[0].path == "rate"
    with pytest.raises(Invalid, match="burst"):
        await issued(sqlite_control, burst=3)
