"""Changes that are made later: once, by whoever may then, and with what became of them."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, TestClock, ready_version
from fixtures.tenants import Tenants
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import INSTALLATION, Role
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Forbidden
from modelkeep.contracts.traffic import Trial
from modelkeep.control.deployments.errors import DeploymentNotFound, InvalidTraffic
from modelkeep.control.deployments.planning import Change
from modelkeep.control.schedules.errors import (
    InvalidMoment,
    ScheduledChangeNotFound,
    ScheduledChangeOver,
    TooManyScheduledChanges,
)
from modelkeep.control.schedules.rules import MOST_WAITING, State
from modelkeep.control.schedules.tables import scheduled_changes
from modelkeep.infra.db import Database

M = "red-model"
HOUR = timedelta(hours=1)


@pytest.fixture
async def ada(tenants: Tenants, control: ControlPlane) -> Actor:
    """One who releases a model with two ready versions, of which the first is promoted."""
    for content in (b"one", b"two"):
        await ready_version(control, M, content)
    await control.deployments.promote(ADMIN, M, 1)
    await tenants.person("root", Role.ADMIN, INSTALLATION)
    await tenants.actor("root")
    await tenants.person("ada", Role.ADMIN, tenants.places["red-model"])
    return await tenants.actor("ada")


async def _only(control: ControlPlane) -> tuple[State, int | None, str]:
    (one,) = await control.schedules.scheduled(ADMIN, M, limit=9)
    return one.state, one.revision, one.problem


async def _now(control: ControlPlane) -> tuple[int, int | None, list[float]]:
    found, _serving = await control.deployments.deployment(ADMIN, M)
    return found.revision, found.version, [one.share for one in found.traffic.splits]


async def test_a_change_is_made_when_it_is_due_once_and_in_the_name_of_who_asked(
    ada: Actor, control: ControlPlane, clock: TestClock
):
    before = await _now(control)
    await control.models.set_alias(ADMIN, M, "next", 2)
    wanted = Change(settings={"concurrency": 2}, traffic={"split": {"next": 5}})
    made = await control.schedules.schedule(ada, M, clock() + HOUR, wanted, reason="after the batch")
    assert made.change.traffic == {"split": {"2": 5}}
    await control.models.set_alias(ADMIN, M, "next", 1)
    clock.advance(minutes=59)
    assert await control.schedules.make_due() == 0
    assert await _now(control) == before
    clock.advance(minutes=1)
    done = await asyncio.gather(*(control.schedules.make_due() for _ in range(4)))
    assert sorted(done) == [0, 0, 0, 1]
    assert await _now(control) == (before[0] + 1, before[1], [5.0])
    assert await _only(control) == (State.DONE, before[0] + 1, "")
    newest, _numbers = await control.deployments.revision(ADMIN, M, before[0] + 1)
    assert (newest.by, newest.reason, newest.action) == ("ada", "after the batch", "change")
    entry = next(one for one in await control.audit.entries(limit=9) if one.action == "deployment.scheduled")
    assert (entry.actor, entry.details["state"]) == (ada.id, "done")


async def test_what_fails_midway_leaves_it_waiting_and_nothing_changed(
    ada: Actor, control: ControlPlane, clock: TestClock, db: Database, monkeypatch: pytest.MonkeyPatch
):
    before = await _now(control)
    await control.schedules.schedule(ada, M, clock() + HOUR, Change(version=2))
    clock.advance(hours=2)

    async def die(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(control.schedules, "_note", die)
        with pytest.raises(KeyboardInterrupt):
            await control.schedules.make_due()
    assert await _now(control) == before
    assert (await _only(control))[0] is State.WAITING
    assert await control.schedules.make_due() == 1
    assert (await _now(control))[1] == 2


@pytest.mark.parametrize("why", ["role", "key", "archived", "rollout"])
async def test_what_cannot_be_made_when_it_is_due_is_kept_with_the_reason(
    why: str, ada: Actor, control: ControlPlane, clock: TestClock, tenants: Tenants, db: Database
):
    await control.schedules.schedule(ada, M, clock() + HOUR, Change(version=2))
    if why == "role":
        for given in await control.access.grants(ADMIN, limit=20):
            if given.subject == tenants.people["ada"]:
                await control.access.take(ADMIN, given, tenants.places["red-model"])
    elif why == "key":
        await control.users.revoke_key(ADMIN, ada.id)
    elif why == "archived":
        await control.lifecycle.archive(ADMIN, M, 2)
    else:
        async with db.begin() as tx:
            held = await control.deployments.held_in(tx, ADMIN, M)
            trial = Trial("rol_1", 1, held.version_id or "", 0.1)
            await control.deployments.route_in(tx, ADMIN, held, held.traffic, trial=trial)
    before = await _now(control)
    clock.advance(hours=2)
    assert await control.schedules.make_due() == 1
    state, revision, problem = await _only(control)
    said = {"role": "no deployment", "key": "come in no more", "archived": "archived", "rollout": "rollout"}
    assert (state, revision) == (State.FAILED, None)
    assert said[why] in problem
    assert await _now(control) == before
    assert await control.schedules.make_due() == 0
    assert (await control.audit.entries(limit=1))[0].details["problem"] == problem


async def test_what_is_cancelled_is_not_made(ada: Actor, control: ControlPlane, clock: TestClock):
    before = await _now(control)
    made = await control.schedules.schedule(ada, M, clock() + HOUR, Change(version=2))
    await control.schedules.cancel(ada, M, made.id)
    with pytest.raises(ScheduledChangeOver):
        await control.schedules.cancel(ada, M, made.id)
    with pytest.raises(ScheduledChangeNotFound):
        await control.schedules.cancel(ada, M, "sch_none")
    clock.advance(hours=2)
    assert await control.schedules.make_due() == 0
    assert (await _now(control), (await _only(control))[0]) == (before, State.CANCELLED)


async def test_what_could_not_be_made_now_is_not_scheduled(
    ada: Actor, control: ControlPlane, clock: TestClock, tenants: Tenants, db: Database
):
    await tenants.person("viewer", Role.VIEWER, tenants.places["red-model"])
    viewer, later = await tenants.actor("viewer"), clock() + HOUR
    for attempt, error in (
        (control.schedules.schedule(ada, M, clock(), Change(version=2)), InvalidMoment),
        (control.schedules.schedule(ada, M, clock() + timedelta(days=400), Change(version=2)), InvalidMoment),
        (control.schedules.schedule(ada, M, later, Change(traffic={"split": {"9": 1}})), InvalidTraffic),
        (control.schedules.schedule(ada, "none", later, Change(version=2)), DeploymentNotFound),
        (control.schedules.schedule(viewer, M, later, Change(version=2)), Forbidden),
        (control.schedules.cancel(viewer, M, "sch_none"), Forbidden),
    ):
        with pytest.raises(error):
            await attempt
    assert await control.schedules.scheduled(viewer, M, limit=9) == []
    made = await control.schedules.schedule(ada, M, later, Change(version=2))
    async with db.begin() as tx:
        row = (await tx.all(sa.select(scheduled_changes)))[0]._mapping
        for number in range(MOST_WAITING - 1):
            await tx.execute(sa.insert(scheduled_changes).values(**{**row, "id": f"sch_{number}", "change": made.change}))
    with pytest.raises(TooManyScheduledChanges):
        await control.schedules.schedule(ada, M, later, Change(version=2))


async def test_it_is_not_made_of_another_deployment_that_took_the_name(ada: Actor, control: ControlPlane, clock: TestClock):
    await control.deployments.create(ADMIN, "eu", M, Change(version=1))
    made = await control.schedules.schedule(ADMIN, "eu", clock() + HOUR, Change(version=2))
    await control.deployments.delete(ADMIN, "eu")
    await control.deployments.create(ADMIN, "eu", M, Change(version=1))
    clock.advance(hours=2)
    assert await control.schedules.make_due() == 1
    assert (await control.deployments.deployment(ADMIN, "eu"))[0].version == 1
    assert [one.id for one in await control.schedules.scheduled(ADMIN, "eu", limit=9)] == []
    assert made.deployment == "eu"
