"""Rollouts over each kind of database: their whole life, with what servers say fed by hand."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import CursorResult
from sqlalchemy.sql.base import Executable

from fixtures.control import ADMIN, TestClock, ready_version
from fixtures.rollouts import Fleet, fleet_of
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.errors import Stale
from modelkeep.contracts.traffic import Counted, Split, Traffic, TrialSeen
from modelkeep.control.deployments.errors import DeploymentStale, RolloutRunning
from modelkeep.control.models.errors import VersionInUse
from modelkeep.control.rollouts import store
from modelkeep.control.rollouts.asked import Asked
from modelkeep.control.rollouts.errors import InvalidRollout, RolloutNotFound, RolloutOver, RolloutUnderWay, TrafficTaken
from modelkeep.control.rollouts.events import RolloutHeld, RolloutPromoted, RolloutRolledBack
from modelkeep.control.rollouts.records import Point
from modelkeep.control.rollouts.rules import Mode, State
from modelkeep.control.rollouts.tables import rollout_points
from modelkeep.infra.db import Database, Transaction

GOOD = Counted(150, 1, 2850, 20)
BAD = Counted(30, 8, 570, 2)


@pytest.fixture
async def fleet(control: ControlPlane, clock: TestClock) -> Fleet:
    return await fleet_of(control, clock)


@pytest.fixture
async def two(control: ControlPlane, clock: TestClock) -> Fleet:
    return await fleet_of(control, clock, "one", "two")


async def shares(fleet: Fleet) -> tuple[int | None, list[float]]:
    """The number that is promoted, and the shares beside it."""
    found = await fleet.deployment()
    return found.version, [one.share for one in found.traffic.splits]


async def audited(fleet: Fleet) -> list[str]:
    found = await fleet.control.audit.entries(limit=100)
    return [one.action for one in reversed(found) if one.action.startswith("rollout.")]


async def test_a_canary_goes_its_steps_and_takes_over(fleet: Fleet):
    facts: list[object] = []

    async def told(tx: Transaction, fact: RolloutPromoted) -> None:
        facts.append(fact)

    fleet.control.events.subscribe(RolloutPromoted, told)
    rollout = await fleet.start()
    seen = []
    for minutes in (10, 30, 60):
        seen.append((await shares(fleet))[1])
        await fleet.next_step()
        assert await fleet.tick(rollout) == ""
        await fleet.passes(minutes=minutes)
        assert await fleet.tick(rollout) == "", "no requests yet"
        await fleet.served(GOOD)
        assert await fleet.tick(rollout) in {"advanced", "promoted"}
    assert seen == [[5.0], [25.0], [50.0]]
    assert await shares(fleet) == (2, [])
    found = await fleet.deployment()
    assert (found.trial, found.previous_version) == (None, 1)
    assert (await fleet.now(rollout)).state is State.PROMOTED
    assert facts == [RolloutPromoted(rollout.id, "iris", rollout.version_id)]
    story = await fleet.control.rollouts.rollout(ADMIN, rollout.id)
    assert [one.what for one in story.events] == ["start", "advance", "advance", "promoted"]
    assert [one.decision for one in story.steps] == ["advanced", "advanced", "promoted"]
    assert [one.numbers["errors"].requests for one in story.steps] == [150, 300, 450]
    assert await audited(fleet) == ["rollout.start", "rollout.advance", "rollout.advance", "rollout.promoted"]
    assert await fleet.tick(rollout) == ""


async def test_the_next_step_begins_with_the_evidence_that_earlier_ones_have_left(fleet: Fleet):
    rollout = await fleet.start()
    assert (await fleet.deployment()).trial.before == {}
    await fleet.passes(minutes=10)
    await fleet.served(GOOD)
    await fleet.tick(rollout)
    trial = (await fleet.deployment()).trial
    assert (trial.step, trial.share, trial.version_id) == (1, 0.25, rollout.version_id)
    expected = (await fleet.control.rollouts.rollout(ADMIN, rollout.id)).numbers["errors"].log_e
    assert trial.before["errors"][3] == pytest.approx(-0.07, abs=3)
    assert trial.before["errors"] != trial.before["slow"]
    assert expected < 0
    assert trial.alphas == pytest.approx(dict.fromkeys(("errors", "slow", "poor"), 0.01 / 3))


async def test_a_worse_version_is_taken_back_at_once_and_by_whom_it_concerns(fleet: Fleet):
    facts: list[object] = []

    async def told(tx: Transaction, fact: RolloutRolledBack) -> None:
        facts.append(fact)

    fleet.control.events.subscribe(RolloutRolledBack, told)
    rollout = await fleet.start()
    await fleet.served(BAD)
    assert await fleet.tick(rollout) == "rolled_back"
    assert await shares(fleet) == (1, [])
    after = await fleet.now(rollout)
    assert (after.state, after.ended_at) == (State.ROLLED_BACK, fleet.clock())
    assert "8 of 30 requests" in after.reason
    (fact,) = facts
    assert (fact.signal, fact.version_id) == ("errors", rollout.version_id)
    assert await audited(fleet) == ["rollout.start", "rollout.rolled_back"]
    assert await fleet.tick(rollout) == ""


@pytest.mark.parametrize("state", ["paused", "held"])
async def test_what_is_worse_is_taken_back_also_while_a_person_has_to_decide(fleet: Fleet, state: str):
    rollout = await fleet.start(patience_minutes=0.0)
    if state == "paused":
        await fleet.control.rollouts.pause(ADMIN, rollout.id)
    else:
        await fleet.passes(minutes=11)
        assert await fleet.tick(rollout) == "held"
    assert (await fleet.now(rollout)).state == state
    await fleet.served(BAD)
    assert await fleet.tick(rollout) == "rolled_back"


async def test_a_server_that_stopped_by_itself_has_the_version_taken_back_everywhere(two: Fleet):
    rollout = await two.start()
    trial = (await two.deployment()).trial
    assert trial.alphas["slow"] == pytest.approx(0.01 / 3 / 2 / 2), "half is for both servers together"
    await two.passes(seconds=1)
    two.clock.advance(seconds=1)
    await two.beat("two", trials={trial.id: TrialSeen({}, halted="slow")})
    assert await two.tick(rollout) == "rolled_back"
    assert "server two had stopped by itself" in (await two.now(rollout)).reason


async def test_time_counts_only_while_it_runs(fleet: Fleet):
    rollout = await fleet.start()
    await fleet.served(GOOD)
    await fleet.passes(minutes=6)
    await fleet.control.rollouts.pause(ADMIN, rollout.id)
    await fleet.passes(hours=5)
    assert await fleet.tick(rollout) == ""
    await fleet.control.rollouts.resume(ADMIN, rollout.id)
    await fleet.passes(minutes=3, seconds=59)
    assert await fleet.tick(rollout) == ""
    await fleet.passes(seconds=1)
    assert await fleet.tick(rollout) == "advanced"


async def test_what_comes_to_no_end_is_held_until_a_person_decides(fleet: Fleet):
    facts: list[RolloutHeld] = []

    async def told(tx: Transaction, fact: RolloutHeld) -> None:
        facts.append(fact)

    fleet.control.events.subscribe(RolloutHeld, told)
    rollout = await fleet.start(mode=Mode.EVIDENCE, steps=("10:1h",))
    await fleet.served(GOOD)
    await fleet.passes(minutes=59)
    assert await fleet.tick(rollout) == ""
    await fleet.passes(minutes=1)
    assert await fleet.tick(rollout) == "held"
    assert "not shown yet" in facts[0].reason
    assert await shares(fleet) == (1, [10.0]), "nothing moves"
    await fleet.control.rollouts.resume(ADMIN, rollout.id)
    await fleet.passes(minutes=59)
    assert await fleet.tick(rollout) == "", "the time begins again"
    await fleet.control.rollouts.promote(ADMIN, rollout.id)
    assert await shares(fleet) == (2, [])


async def test_enough_evidence_goes_on_before_the_time_is_over(fleet: Fleet):
    rollout = await fleet.start(mode=Mode.EVIDENCE, steps=("50:1h",), signals=("errors",))
    await fleet.served(Counted(4000, 20, 4000, 80))
    assert await fleet.tick(rollout) == "promoted"


async def test_a_bound_is_good_enough_whatever_the_other_does(fleet: Fleet):
    rollout = await fleet.start(mode=Mode.EVIDENCE, steps=("50:1h",), signals=("errors",), bounds={"errors": 0.01})
    await fleet.served(Counted(200, 0, 200, 0))
    assert await fleet.tick(rollout) == ""
    await fleet.passes(seconds=1)
    await fleet.served(Counted(1000, 0, 1000, 0))
    assert await fleet.tick(rollout) == "promoted"


async def test_blue_and_green_change_places_once_all_servers_have_loaded_it_and_keep_the_old_one_warm(two: Fleet):
    await two.beat()
    rollout = await two.control.rollouts.start(ADMIN, "iris", 2, Asked(mode=Mode.BLUE_GREEN, bake_minutes=15))
    found = await two.deployment()
    assert found.traffic.splits == (Split(rollout.version_id, 0.0),)
    assert (found.trial.alphas, found.version) == ({}, 1)
    assert await two.tick(rollout) == "", "no server counts for it yet"
    await two.passes(seconds=1)
    two.clock.advance(seconds=1)
    await two.beat("two", failing={rollout.version_id: "its golden rows differ"})
    assert await two.tick(rollout) == ""
    await two.passes(seconds=1)
    assert await two.tick(rollout) == "advanced"
    found = await two.deployment()
    assert (found.version, found.traffic.splits) == (2, (Split(rollout.from_version_id, 0.0),))
    await two.passes(minutes=15)
    await two.served(Counted(3000, 3, 0, 0))
    assert await two.tick(rollout) == "promoted"
    assert await shares(two) == (2, [])


async def test_what_is_bad_while_it_answers_alone_goes_back_to_the_old_version(fleet: Fleet):
    rollout = await fleet.start(mode=Mode.BLUE_GREEN)
    await fleet.passes(seconds=1)
    assert await fleet.tick(rollout) == "advanced"
    await fleet.passes(seconds=1)
    await fleet.served(Counted(100, 5, 0, 0))
    assert await fleet.tick(rollout) == ""
    await fleet.passes(seconds=1)
    await fleet.served(Counted(200, 40, 0, 0))
    assert await fleet.tick(rollout) == "rolled_back"
    assert await shares(fleet) == (1, [])


async def test_nothing_goes_forward_while_a_server_is_silent_or_does_not_count(two: Fleet):
    rollout = await two.start()
    await two.served(GOOD)
    await two.passes(minutes=9)
    two.clock.advance(minutes=1)
    await two.beat("one")
    assert await two.tick(rollout) == "", "the other has been silent for a minute"
    await two.beat("two", trials={})
    assert await two.tick(rollout) == "", "it has lost count"
    two.clock.advance(minutes=6)
    await two.beat("one")
    assert await two.tick(rollout) == "advanced", "it is gone"


async def test_a_server_that_begins_anew_adds_to_what_it_had_counted(fleet: Fleet):
    rollout = await fleet.start()
    for counted in (Counted(60, 0, 1000, 3), Counted(5, 0, 80, 0), Counted(50, 0, 800, 0)):
        await fleet.passes(seconds=1)
        await fleet.served(counted)
        await fleet.tick(rollout)
    story = await fleet.control.rollouts.rollout(ADMIN, rollout.id)
    assert (story.numbers["errors"].requests, story.numbers["errors"].others_bad) == (110, 3)
    assert story.steps[0].servers["one"].lives == 2


async def test_more_servers_than_before_share_what_may_be_spent(two: Fleet):
    two.names = ("one",)
    rollout = await two.start()
    assert (await two.deployment()).trial.alphas["errors"] == pytest.approx(0.01 / 3)
    two.names = ("one", "two", "three")
    await two.beat()
    assert await two.tick(rollout) == ""
    assert (await two.deployment()).trial.alphas["errors"] == pytest.approx(0.01 / 3 / 2 / 3)
    assert (await two.now(rollout)).servers == 3


async def test_whoever_changes_the_deployment_ends_the_rollout_and_keeps_what_they_did(fleet: Fleet):
    await ready_version(fleet.control, "iris", b"three")
    rollout = await fleet.start()
    with pytest.raises(RolloutRunning):
        await fleet.control.deployments.promote(ADMIN, "iris", 3)
    await fleet.control.deployments.rollback(ADMIN, "iris")
    assert await fleet.tick(rollout) == "cancelled"
    assert await shares(fleet) == (1, [])
    assert (await fleet.deployment()).trial is None
    assert "rolled the deployment back" in (await fleet.now(rollout)).reason


async def test_whoever_sets_other_shares_ends_it_and_has_them(fleet: Fleet, db: Database):
    rollout = await fleet.start()
    async with db.begin() as tx:
        held = await fleet.control.deployments.held_in(tx, ADMIN, "iris")
        traffic = Traffic((Split(rollout.version_id, 30.0),))
        await fleet.control.deployments.route_in(tx, ADMIN, held, traffic, trial=held.trial)
    assert await fleet.tick(rollout) == "cancelled"
    assert await shares(fleet) == (1, [30.0])
    assert (await fleet.deployment()).trial is None


async def test_other_settings_are_none_of_its_business(fleet: Fleet):
    rollout = await fleet.start()
    await fleet.control.deployments.configure(ADMIN, "iris", {"deadline_s": 3})
    await fleet.served(GOOD)
    assert await fleet.tick(rollout) == ""


async def test_a_version_that_is_rolled_out_is_not_put_away_meanwhile(fleet: Fleet):
    rollout = await fleet.start(steps=("5:1m",))
    for put_away in (fleet.control.lifecycle.archive, fleet.control.lifecycle.trash):
        with pytest.raises(VersionInUse):
            await put_away(ADMIN, "iris", 2)
    await fleet.passes(minutes=1)
    await fleet.served(GOOD)
    assert await fleet.tick(rollout) == "promoted"
    assert await shares(fleet) == (2, [])


async def test_a_person_takes_it_back_goes_on_or_promotes(fleet: Fleet):
    rollouts = fleet.control.rollouts
    rollout = await fleet.start()
    with pytest.raises(Stale):
        await rollouts.advance(ADMIN, rollout.id, expected=7)
    changed = await rollouts.advance(ADMIN, rollout.id, expected=rollout.revision)
    assert (changed.step, await shares(fleet)) == (1, (1, [25.0]))
    await rollouts.roll_back(ADMIN, rollout.id, "it smells")
    assert await shares(fleet) == (1, [])
    for act in (rollouts.pause, rollouts.resume, rollouts.advance, rollouts.promote, rollouts.roll_back):
        with pytest.raises(RolloutOver):
            await act(ADMIN, rollout.id)
    again = await fleet.start(steps=("5:1m",))
    assert (await rollouts.advance(ADMIN, again.id)).state is State.PROMOTED
    assert [one.id for one in await rollouts.rollouts(ADMIN, limit=5)] == [again.id, rollout.id]
    assert [one.id for one in await rollouts.rollouts(ADMIN, limit=5, before=again.id, deployment="iris")] == [rollout.id]


async def test_what_cannot_be_started_is_said_and_changes_nothing(fleet: Fleet):
    rollouts, before = fleet.control.rollouts, await fleet.deployment()
    with pytest.raises(InvalidRollout):
        await rollouts.start(ADMIN, "iris", 1, Asked())
    with pytest.raises(InvalidRollout):
        await rollouts.start(ADMIN, "iris", 2, Asked(steps=("50:1h", "20:1h")))
    with pytest.raises(DeploymentStale):
        await rollouts.start(ADMIN, "iris", 2, Asked(), expected=before.revision + 1)
    with pytest.raises(RolloutNotFound):
        await rollouts.rollout(ADMIN, "rol_none")
    assert await fleet.deployment() == before
    await fleet.start()
    with pytest.raises(RolloutUnderWay):
        await rollouts.start(ADMIN, "iris", 2, Asked())


async def test_shares_that_people_have_set_are_not_written_over(fleet: Fleet, db: Database):
    present = await fleet.deployment()
    async with db.begin() as tx:
        held = await fleet.control.deployments.held_in(tx, ADMIN, "iris")
        traffic = Traffic((Split(present.version_id or "", 10.0),))
        await fleet.control.deployments.route_in(tx, ADMIN, held, traffic, trial=None)
    with pytest.raises(TrafficTaken):
        await fleet.control.rollouts.start(ADMIN, "iris", 2, Asked())


class BrokenError(Exception):
    """What a crash raises here."""


def crashing_after(place: int) -> Callable[[Transaction, Executable], Awaitable[CursorResult[object]]]:
    """`Transaction.execute` that crashes once it has run so many statements."""
    execute, calls = Transaction.execute, itertools.count(1)

    async def crashing(tx: Transaction, statement: Executable) -> CursorResult[object]:
        done = await execute(tx, statement)
        if next(calls) == place:
            raise BrokenError
        return done

    return crashing


@pytest.mark.parametrize("end", ["advanced", "promoted", "rolled_back", "held", "cancelled"])
async def test_a_crash_at_any_moment_leaves_all_as_it_was_and_the_next_look_does_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, end: str
):
    rollout = await fleet.start(steps=("5:1m",) if end == "promoted" else ("5:1m", "20:1m"), patience_minutes=0.0)
    await fleet.passes(minutes=1)
    if end in {"advanced", "promoted"}:
        await fleet.served(GOOD)
    elif end == "rolled_back":
        await fleet.served(BAD)
    elif end == "cancelled":
        await fleet.control.deployments.rollback(ADMIN, "iris")
    before = (await fleet.deployment(), await fleet.control.rollouts.rollout(ADMIN, rollout.id), await audited(fleet))
    places = 0
    for place in itertools.count(1):
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Transaction, "execute", crashing_after(place))
                decided = await fleet.tick(rollout)
        except BrokenError:
            places = place
            after = (await fleet.deployment(), await fleet.control.rollouts.rollout(ADMIN, rollout.id), await audited(fleet))
            assert after == before, f"after statement {place}"
        else:
            assert decided == end
            break
    assert places > 3
    after = (await fleet.deployment(), await fleet.control.rollouts.rollout(ADMIN, rollout.id))
    assert after != before[:2]
    assert (await fleet.now(rollout)).revision == rollout.revision + 1


async def test_two_workers_that_look_at_once_do_it_once(fleet: Fleet):
    rollout = await fleet.start()
    await fleet.passes(minutes=10)
    await fleet.served(GOOD)
    done = await asyncio.gather(*(fleet.tick(rollout) for _ in range(4)))
    assert sorted(done) == ["", "", "", "advanced"]
    story = await fleet.control.rollouts.rollout(ADMIN, rollout.id)
    assert [one.what for one in story.events] == ["start", "advance"]
    assert story.rollout.step == 1


async def test_of_the_evidence_as_it_came_so_much_is_kept_and_its_ends_stay(fleet: Fleet, db: Database):
    rollout = await fleet.start()
    for _ in range(30):
        fleet.clock.advance(seconds=1)
        async with db.begin() as tx:
            await store.draw(tx, rollout.id, Point(fleet.clock(), 0, {}), most=8)
            assert (await tx.one(sa.select(sa.func.count()).select_from(rollout_points)))[0] <= 8
    _rollout, _needs, points = await fleet.control.rollouts.evidence(ADMIN, rollout.id)
    assert points[-1].at == fleet.clock()
    assert (fleet.clock() - points[0].at).total_seconds() == 29
    assert [one.at for one in points] == sorted(one.at for one in points)


async def test_what_servers_count_is_kept_as_it_comes(fleet: Fleet):
    rollout = await fleet.start()
    for requests in (10, 20, 20, 40):
        await fleet.passes(seconds=1)
        await fleet.served(Counted(requests, 0, 20 * requests, 1))
        await fleet.tick(rollout)
    found, needs, points = await fleet.control.rollouts.evidence(ADMIN, rollout.id)
    assert (found.id, needs) == (rollout.id, pytest.approx((math.log(300), math.log(20))))
    assert [one.shown["slow"].requests for one in points] == [10, 20, 20, 40]
