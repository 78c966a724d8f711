"""Several deployments of a model, their traffic, revisions, rollbacks, and what was when, over each kind of database."""

import asyncio
import os
import random
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from fixtures.control import ADMIN, FINDINGS, TestClock, ready_version, upload
from fixtures.standings import through
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden, InvalidName, ModelkeepError
from modelkeep.contracts.snapshot import Snapshot, decode_snapshot
from modelkeep.contracts.traffic import Split, Traffic, Trial
from modelkeep.control.deployments import errors
from modelkeep.control.deployments.news import SNAPSHOT
from modelkeep.control.deployments.planning import Change
from modelkeep.control.models.errors import (
    ModelArchived,
    ModelNotFound,
    VersionArchived,
    VersionInUse,
    VersionNotFound,
    VersionNotReady,
)
from modelkeep.infra import broadcast
from modelkeep.infra.db import Database

READER = Actor("key_reader", "bob", "usr_b", through(Scope.MODELS_READ, user="usr_b"))
EVA = Actor("key_eva", "eva", "usr_e", through(Scope.DEPLOYMENTS_WRITE, user="usr_e"), "req_eva")


async def snapshot(db: Database) -> Snapshot:
    async with db.read() as tx:
        news = await broadcast.latest(tx, SNAPSHOT, -1)
    assert news is not None
    return decode_snapshot(news.payload)


@pytest.fixture
async def iris(control: ControlPlane) -> None:
    """A model with three ready versions, of which the first is promoted."""
    await control.models.create(ADMIN, "iris")
    for content in (b"one", b"two", b"three"):
        await ready_version(control, "iris", content)


async def _actions(control: ControlPlane, name: str) -> list[tuple[int, str, int | None]]:
    found, _numbers = await control.deployments.revisions(ADMIN, name, limit=50)
    return [(one.revision, one.action, one.version) for one in found]


async def _on_trial(control: ControlPlane, db: Database) -> Trial:
    trial = Trial("rol_1", 1, (await control.models.version(ADMIN, "iris", 2)).id, 0.1)
    async with db.begin() as tx:
        held = await control.deployments.held_in(tx, ADMIN, "iris")
        shared = Traffic((Split(trial.version_id, 10.0),))
        await control.deployments.route_in(tx, ADMIN, held, shared, trial=trial, reason="step 1")
    return trial


async def test_a_share_is_given_audited_kept_and_told_to_serving(control: ControlPlane, iris: None, db: Database):
    patch = {"split": {"2": 5}, "shadow": {"version": 3, "share": 20}}
    changed = await control.deployments.change(EVA, "iris", Change(traffic=patch), expected=1, reason=" try it ")
    ids = [(await control.models.version(ADMIN, "iris", number)).id for number in (2, 3)]
    assert changed.traffic == Traffic((Split(ids[0], 5.0),), shadow=Split(ids[1], 20.0))
    served = await snapshot(db)
    assert served.deployments[0].traffic == changed.traffic
    assert sorted(one.number for one in served.versions) == [1, 2, 3]
    entry = (await control.audit.entries(limit=1))[0]
    assert (entry.action, entry.actor, entry.details) == ("deployment.route", "key_eva", {"revision": "2", "reason": "try it"})
    assert entry.after == msgspec.json.encode(changed.traffic).decode()
    (kept, *_older), numbers = await control.deployments.revisions(ADMIN, "iris", limit=9)
    assert (kept.revision, kept.action, kept.by, kept.reason, kept.traffic) == (2, "route", "eva", "try it", changed.traffic)
    assert numbers == {ids[0]: 2, ids[1]: 3}
    assert await control.deployments.change(EVA, "iris", Change(traffic=patch)) == changed
    assert await _actions(control, "iris") == [(2, "route", 1), (1, "promote", 1), (0, "create", None)]


async def test_what_is_refused_changes_nothing(control: ControlPlane, iris: None, db: Database):
    await control.models.receive(ADMIN, "iris", upload(b"four"))
    await ready_version(control, "iris", b"five")
    await control.lifecycle.archive(ADMIN, "iris", 5)
    before, entries = await snapshot(db), await control.audit.entries(limit=50)
    change = control.deployments.change
    refused: list[tuple[Any, type[ModelkeepError]]] = [
        (change(ADMIN, "iris", Change(traffic={"split": {"4": 5}})), VersionNotReady),
        (change(ADMIN, "iris", Change(traffic={"shadow": {"version": 5}})), VersionArchived),
        (change(ADMIN, "iris", Change(traffic={"split": {"9": 5}})), errors.InvalidTraffic),
        (change(ADMIN, "iris", Change(traffic={"split": {"1": 5}})), errors.InvalidTraffic),
        (change(ADMIN, "iris", Change(version=9)), VersionNotFound),
        (change(ADMIN, "iris", Change(settings={"x": 1}, traffic={"split": {"2": 5}})), errors.InvalidSettings),
        (change(ADMIN, "iris", Change(traffic={"split": {"2": 5}}), expected=0), errors.DeploymentStale),
        (change(ADMIN, "iris", Change(traffic={"split": {"2": 5}}), reason="x" * 1001), errors.InvalidReason),
        (change(READER, "iris", Change(traffic={"split": {"2": 5}})), Forbidden),
        (control.deployments.plan(READER, "iris", Change(version=2)), Forbidden),
        (control.deployments.plan(ADMIN, "iris", Change(version=4)), VersionNotReady),
        (control.deployments.rollback(ADMIN, "iris"), errors.NothingToRollBack),
        (control.deployments.rollback(ADMIN, "iris", 0), errors.NothingToRollBack),
        (control.deployments.rollback(ADMIN, "iris", 7), errors.RevisionNotFound),
        (control.deployments.rollback(READER, "iris"), Forbidden),
        (control.deployments.revision(ADMIN, "iris", 7), errors.RevisionNotFound),
        (control.deployments.revisions(ADMIN, "rose", limit=1), errors.DeploymentNotFound),
        (control.deployments.create(ADMIN, "No!", "iris"), InvalidName),
        (control.deployments.create(ADMIN, "iris", "iris"), errors.DeploymentExists),
        (control.deployments.create(ADMIN, "eu", "rose"), ModelNotFound),
        (control.deployments.create(ADMIN, "eu", "iris", Change(version=4)), VersionNotReady),
        (control.deployments.create(ADMIN, "eu", "iris", Change(traffic={"split": {"2": 5}})), errors.InvalidTraffic),
        (control.deployments.create(READER, "eu", "iris"), Forbidden),
        (control.deployments.delete(ADMIN, "iris"), errors.ModelsOwnDeployment),
        (control.deployments.delete(ADMIN, "rose"), errors.DeploymentNotFound),
        (control.deployments.as_of(ADMIN, "rose", before_all()), ModelNotFound),
    ]
    for attempt, error in refused:
        with pytest.raises(error):
            await attempt
    assert await snapshot(db) == before
    assert await control.audit.entries(limit=50) == entries


def before_all() -> datetime:
    return TestClock()() - timedelta(days=1)


async def test_a_model_has_further_deployments_each_with_its_own_version_and_traffic(
    control: ControlPlane, iris: None, db: Database
):
    wanted = Change(2, {"concurrency": 4}, {"split": {"3": 50}})
    made = await control.deployments.create(EVA, "iris-eu", "iris", wanted, reason="Europe")
    assert (made.revision, made.version, made.settings.concurrency) == (0, 2, 4)
    empty = await control.deployments.create(ADMIN, "iris-test", "iris")
    assert (empty.revision, empty.version) == (0, None)
    assert [one.name for one in (await snapshot(db)).deployments] == ["iris", "iris-eu"]
    assert (await control.models.model(ADMIN, "iris")).serving_version == 1
    await control.deployments.promote(ADMIN, "iris-test", 3)
    assert (await control.models.model(ADMIN, "iris")).serving_version == 1
    assert await _actions(control, "iris-eu") == [(0, "create", 2)]
    names = [one.name for one, _serving in await control.deployments.deployments(ADMIN, limit=9)]
    assert names == ["iris", "iris-eu", "iris-test"]
    await control.deployments.delete(EVA, "iris-eu", expected=0)
    assert [one.name for one in (await snapshot(db)).deployments] == ["iris", "iris-test"]
    again = await control.deployments.create(ADMIN, "iris-eu", "iris")
    assert again.id != made.id
    said = [(one.action, one.details) for one in await control.audit.entries(limit=50, target=made.id)]
    assert said == [
        ("deployment.delete", {"name": "iris-eu", "model": "iris"}),
        ("deployment.create", {"name": "iris-eu", "model": "iris", "reason": "Europe"}),
    ]


async def test_a_name_is_given_once_to_models_and_deployments_alike(control: ControlPlane, iris: None):
    tries = [control.deployments.create(ADMIN, "eu", "iris", Change(version=2)) for _ in range(4)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, errors.DeploymentExists) for one in done) == 3
    with pytest.raises(errors.DeploymentExists):
        await control.models.create(ADMIN, "eu")
    with pytest.raises(ModelNotFound):
        await control.models.model(ADMIN, "eu")


async def test_a_name_under_which_predictions_of_another_model_are_kept_is_not_given_away(control: ControlPlane, iris: None):
    await control.models.create(ADMIN, "rose")
    await control.deployments.create(ADMIN, "eu", "iris")
    await control.deployments.delete(ADMIN, "eu")
    with pytest.raises(errors.DeploymentExists):
        await control.deployments.create(ADMIN, "eu", "rose")
    with pytest.raises(errors.DeploymentExists):
        await control.models.create(ADMIN, "eu")
    assert (await control.deployments.create(ADMIN, "eu", "iris")).revision == 0


async def test_a_version_that_any_deployment_may_ask_is_not_archived(control: ControlPlane, iris: None):
    await control.deployments.create(ADMIN, "eu", "iris", Change(version=1))
    for wanted in (
        {"split": {"3": 1}},
        {"split": None, "rules": [{"version": 3, "header": "x-plan"}]},
        {"rules": None, "shadow": {"version": 3}},
    ):
        await control.deployments.change(ADMIN, "eu", Change(traffic=wanted))
        with pytest.raises(VersionInUse, match="eu"):
            await control.lifecycle.archive(ADMIN, "iris", 3)
    await control.deployments.change(ADMIN, "eu", Change(version=3))
    with pytest.raises(VersionInUse, match="eu"):
        await control.lifecycle.archive(ADMIN, "iris", 3)
    await control.deployments.delete(ADMIN, "eu")
    assert (await control.lifecycle.archive(ADMIN, "iris", 3)).archived_at is not None


async def test_of_an_archiving_and_a_share_at_once_one_is_refused(control: ControlPlane, iris: None):
    for _ in range(5):
        done = await asyncio.gather(
            control.lifecycle.archive(ADMIN, "iris", 2),
            control.deployments.change(ADMIN, "iris", Change(traffic={"split": {"2": 5}})),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in done if isinstance(one, Exception)) in (
            ["VersionArchived"],
            ["VersionInUse"],
        )
        await control.deployments.change(ADMIN, "iris", Change(traffic={"split": None}))
        await control.lifecycle.restore(ADMIN, "iris", 2)


async def test_while_a_rollout_is_at_a_step_it_alone_decides_but_a_rollback_ends_it(
    control: ControlPlane, iris: None, db: Database
):
    trial = await _on_trial(control, db)
    for change in (Change(version=2), Change(traffic={"split": {"2": 50}})):
        with pytest.raises(errors.RolloutRunning):
            await control.deployments.change(ADMIN, "iris", change)
    assert (await control.deployments.configure(ADMIN, "iris", {"concurrency": 2})).trial == trial
    back = await control.deployments.rollback(EVA, "iris", reason="it is slow")
    assert (back.version, back.traffic, back.trial, back.settings.concurrency) == (1, Traffic(), None, 0)
    assert (await snapshot(db)).deployments[0].trial is None
    newest, _numbers = await control.deployments.revision(ADMIN, "iris", back.revision)
    assert (newest.action, newest.restored, newest.reason) == ("rollback", 1, "it is slow")


async def test_the_end_of_a_rollout_promotes_and_going_back_gives_the_candidate_nothing(
    control: ControlPlane, iris: None, db: Database
):
    await _on_trial(control, db)
    async with db.begin() as tx:
        done = await control.deployments.promote_in(tx, ADMIN, "iris", 2)
    assert (done.version, done.traffic, done.trial) == (2, Traffic(), None)
    back = await control.deployments.rollback(ADMIN, "iris")
    assert (back.version, back.previous_version, back.traffic) == (1, 2, Traffic())
    assert (await control.models.model(ADMIN, "iris")).serving_version == 1
    with pytest.raises(errors.NothingToRollBack):
        await control.deployments.rollback(ADMIN, "iris")


async def test_a_rollback_to_an_archived_version_is_refused(control: ControlPlane, iris: None):
    await control.deployments.promote(ADMIN, "iris", 2)
    await control.lifecycle.archive(ADMIN, "iris", 1)
    with pytest.raises(VersionArchived):
        await control.deployments.rollback(ADMIN, "iris")
    await control.lifecycle.archive(ADMIN, "iris")
    with pytest.raises(ModelArchived):
        await control.deployments.rollback(ADMIN, "iris", 1)


async def test_of_changes_that_saw_the_same_revision_exactly_one_wins(control: ControlPlane, iris: None):
    deployments = control.deployments
    tries = [
        deployments.change(ADMIN, "iris", Change(traffic={"split": {"2": 5}}), expected=1),
        deployments.change(ADMIN, "iris", Change(settings={"concurrency": 2}), expected=1),
        deployments.promote(ADMIN, "iris", 3, expected=1),
        deployments.rollback(ADMIN, "iris", 0, expected=1),
    ]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 1
    stale = [one for one in done if isinstance(one, errors.DeploymentStale)]
    assert {one.revision for one in stale} == {2}
    assert len(await _actions(control, "iris")) == 3


async def test_a_plan_says_what_the_change_then_does_and_changes_nothing(control: ControlPlane, iris: None, db: Database):
    before, entries = await snapshot(db), await control.audit.entries(limit=50)
    change = Change(2, {"deadline_s": 3}, {"split": {"3": 12.5}})
    plan = await control.deployments.plan(EVA, "iris", change)
    assert (plan.revision, plan.needs_approval) == (1, False)
    assert [(one.path, one.before, one.after) for one in plan.changes] == [
        ("settings.deadline_s", 0.0, 3.0),
        ("traffic.split.3", None, 12.5),
        ("version", 1, 2),
    ]
    assert [(one.version, one.share_before, one.share_after, one.begins, one.stops) for one in plan.answering] == [
        (1, 100.0, 0.0, False, True),
        (2, 0.0, 87.5, True, False),
        (3, 0.0, 12.5, True, False),
    ]
    assert await snapshot(db) == before
    assert await control.audit.entries(limit=50) == entries
    done = await control.deployments.change(EVA, "iris", change)
    assert (done.revision, done.version, done.settings.deadline_s) == (2, 2, 3.0)
    assert [one.share for one in done.traffic.splits] == [12.5]
    assert (await control.deployments.plan(EVA, "iris", change)).changes == []


async def test_a_clock_that_goes_back_takes_no_revision_with_it(control: ControlPlane, iris: None, clock: TestClock):
    await control.deployments.promote(ADMIN, "iris", 2)
    clock.advance(hours=-3)
    await control.deployments.promote(ADMIN, "iris", 3)
    found, _numbers = await control.deployments.revisions(ADMIN, "iris", limit=9)
    assert [one.at for one in found] == sorted((one.at for one in found), reverse=True)


class _History:
    """What was made of a model by a script, written down beside it."""

    def __init__(self, control: ControlPlane, clock: TestClock) -> None:
        self.control = control
        self.clock = clock
        self.told: list[tuple[datetime, dict[str, Any], dict[str, int]]] = []

    async def note(self) -> None:
        found = {}
        for one, _serving in await self.control.deployments.deployments(ADMIN, limit=99):
            numbers = await self.control.deployments.numbers([one])
            splits = {numbers[split.version_id]: split.share for split in one.traffic.splits}
            found[one.name] = (one.revision, one.version, splits, one.settings.concurrency, one.updated_by)
        aliases = (await self.control.models.model(ADMIN, "iris")).aliases
        self.told.append((self.clock(), found, aliases))

    async def asked(self, at: datetime) -> tuple[dict[str, Any], dict[str, int]]:
        moments, numbers, aliases = await self.control.deployments.as_of(ADMIN, "iris", at)
        found = {}
        for one in (moment.revision for moment in moments):
            splits = {numbers[split.version_id]: split.share for split in one.traffic.splits}
            found[one.name] = (one.revision, one.version, splits, one.settings.concurrency, one.by)
        return found, aliases

    def then(self, at: datetime) -> tuple[dict[str, Any], dict[str, int]]:
        before = [one for one in self.told if one[0] <= at]
        return (before[-1][1], before[-1][2]) if before else ({}, {})


async def _any_change(history: _History, chance: random.Random) -> None:
    control, number = history.control, chance.randint(1, 3)
    who = chance.choice([ADMIN, EVA])
    name = chance.choice(["iris", "iris-eu", "iris-us"])
    kind = chance.choice(["promote", "split", "settings", "back", "create", "delete", "alias", "no alias"])
    work: dict[str, Any] = {
        "promote": lambda: control.deployments.promote(who, name, number),
        "split": lambda: control.deployments.change(who, name, Change(traffic={"split": {str(number): chance.randint(0, 40)}})),
        "settings": lambda: control.deployments.configure(who, name, {"concurrency": chance.randint(1, 3)}),
        "back": lambda: control.deployments.rollback(who, name),
        "create": lambda: control.deployments.create(who, name, "iris", Change(version=number)),
        "delete": lambda: control.deployments.delete(who, name),
        "alias": lambda: control.models.set_alias(who, "iris", chance.choice(["champion", "next"]), number),
        "no alias": lambda: control.models.delete_alias(who, "iris", chance.choice(["champion", "next"])),
    }
    try:
        await work[kind]()
    except ModelkeepError:
        return  # what is refused is no change: the script is random, and the history shows only what happened
    await history.note()


async def test_what_was_at_each_moment_of_a_week_is_what_a_script_did_until_then(
    control: ControlPlane, iris: None, clock: TestClock
):
    """Asked at each change, right before and after it, and each minute of the week where MODELKEEP_EVERY_MINUTE is set."""
    chance, history, began = random.Random(7), _History(control, clock), clock()
    await history.note()
    while clock() < began + timedelta(days=7):
        clock.advance(minutes=chance.choice([0, 1, 7, 60, 300]))
        await _any_change(history, chance)
    changes = {at for at, _found, _aliases in history.told}
    assert len(changes) > 20
    every = "MODELKEEP_EVERY_MINUTE" in os.environ
    minutes = range(7 * 24 * 60) if every else sorted(chance.sample(range(7 * 24 * 60), 60))
    asked = {at + timedelta(microseconds=by) for at in changes for by in (-1, 0, 1)}
    for at in sorted(asked | {began + timedelta(minutes=one) for one in minutes}):
        if at >= began:
            assert await history.asked(at) == history.then(at), at
    assert await history.asked(began - timedelta(days=1)) == ({}, {})
    last = {name for name in history.told[-1][1] if name != "iris"}
    only, _numbers, _aliases = await control.deployments.as_of(ADMIN, "iris", clock(), "iris")
    assert [one.revision.name for one in only] == ["iris"]
    assert last <= {"iris-eu", "iris-us"}


async def test_the_revision_that_brought_the_settings_is_told(control: ControlPlane, iris: None, clock: TestClock):
    await control.deployments.configure(ADMIN, "iris", {"concurrency": 2})
    await control.deployments.promote(ADMIN, "iris", 2)
    (moment,), _numbers, _aliases = await control.deployments.as_of(READER, "iris", clock())
    assert (moment.revision.revision, moment.settings_revision) == (3, 2)
    await control.deployments.rollback(ADMIN, "iris", 1)
    (moment,), _numbers, _aliases = await control.deployments.as_of(READER, "iris", clock())
    assert (moment.revision.revision, moment.settings_revision) == (4, 4)
    assert moment.revision.settings.concurrency == 0


async def test_versions_that_become_ready_are_promoted_in_the_models_own_deployment_alone(control: ControlPlane):
    await control.models.create(ADMIN, "rose")
    await control.deployments.create(ADMIN, "rose-eu", "rose")
    await ready_version(control, "rose", b"rose")
    assert FINDINGS.report.framework == "echo"
    found = {one.name: one.version for one, _serving in await control.deployments.deployments(ADMIN, limit=9)}
    assert found == {"rose": 1, "rose-eu": None}
