"""Rollouts that begin in the shadow, over each kind of database: what the deployment is asked to do, and what is left of it."""

import pytest

from fixtures.control import ADMIN, TestClock
from fixtures.rollouts import Fleet, fleet_of
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.traffic import Counted, Split, Traffic
from modelkeep.control.rollouts.errors import InvalidRollout, TrafficTaken
from modelkeep.control.rollouts.events import RolloutRolledBack
from modelkeep.control.rollouts.rules import Mode, Rollout, State
from modelkeep.infra.db import Database, Transaction

GOOD = Counted(150, 1, 2850, 20)


@pytest.fixture
async def fleet(control: ControlPlane, clock: TestClock) -> Fleet:
    return await fleet_of(control, clock)


async def route(fleet: Fleet, db: Database, traffic: Traffic) -> None:
    """Have the deployment share its requests out so, whatever is under way."""
    async with db.begin() as tx:
        held = await fleet.control.deployments.held_in(tx, ADMIN, "iris")
        await fleet.control.deployments.route_in(tx, ADMIN, held, traffic, trial=held.trial)


async def traffic(fleet: Fleet) -> Traffic:
    return (await fleet.deployment()).traffic


async def leave_the_shadow(fleet: Fleet, rollout: Rollout) -> None:
    await fleet.passes(minutes=10)
    await fleet.asked_beside(120, 5)
    assert await fleet.tick(rollout) == "advanced"
    await fleet.next_step()


async def test_it_is_asked_in_the_shadow_then_answers_its_shares_and_takes_over(fleet: Fleet):
    rollout = await fleet.start(steps=("5:1m",), shadow="20:10m")
    beside = Split(rollout.version_id, 20.0)
    assert await traffic(fleet) == Traffic(shadow=beside), "it answers nobody"
    trial = (await fleet.deployment()).trial
    assert (trial.shadow, trial.share, trial.alphas) == (True, 0.5, {})
    await fleet.passes(minutes=10)
    await fleet.asked_beside(99, 5)
    assert await fleet.tick(rollout) == "", "a request too few"
    await fleet.asked_beside(300, 20, errors=2, others_errors=40)
    assert await fleet.tick(rollout) == "advanced"
    assert await traffic(fleet) == Traffic((Split(rollout.version_id, 5.0),))
    trial = (await fleet.deployment()).trial
    assert (trial.step, trial.shadow, trial.before) == (1, False, {})
    assert trial.alphas == pytest.approx(dict.fromkeys(("errors", "slow", "poor"), 0.01 / 6))
    await fleet.next_step()
    await fleet.passes(minutes=1)
    await fleet.served(GOOD)
    assert await fleet.tick(rollout) == "promoted"
    assert ((await fleet.deployment()).version, await traffic(fleet)) == (2, Traffic())
    story = await fleet.control.rollouts.rollout(ADMIN, rollout.id)
    assert [(one.percent, one.shadow, one.decision) for one in story.steps] == [
        (20.0, True, "advanced"),
        (5.0, False, "promoted"),
    ]
    assert story.steps[0].numbers["errors"].others_bad == 40
    assert (story.numbers["errors"].others_bad, story.numbers["disagreement"].bad) == (20, 20)
    back = await fleet.control.deployments.rollback(ADMIN, "iris")
    assert (back.version, back.traffic) == (1, Traffic()), "no step of a rollout that is over comes back"


async def test_one_that_answers_otherwise_is_taken_out_of_the_shadow(fleet: Fleet):
    facts: list[RolloutRolledBack] = []

    async def told(tx: Transaction, fact: RolloutRolledBack) -> None:
        facts.append(fact)

    fleet.control.events.subscribe(RolloutRolledBack, told)
    rollout = await fleet.start(shadow="20:10m")
    await fleet.asked_beside(60, 30)
    assert await fleet.tick(rollout) == "rolled_back"
    assert facts[0].signal == "disagreement"
    found = await fleet.deployment()
    assert (found.version, found.traffic, found.trial) == (1, Traffic(), None)
    assert (await fleet.now(rollout)).state is State.ROLLED_BACK


async def test_a_bound_says_how_many_may_be_answered_otherwise(fleet: Fleet):
    rollout = await fleet.start(shadow="20:10m", bounds={"disagreement": 0.6})
    await fleet.passes(minutes=10)
    await fleet.asked_beside(200, 100)
    assert await fleet.tick(rollout) == "advanced"


async def test_one_that_fails_what_the_promoted_version_answers_is_taken_out_too(fleet: Fleet):
    rollout = await fleet.start(shadow="20:10m")
    await fleet.asked_beside(1000, 20, errors=20, others_errors=1)
    assert await fleet.tick(rollout) == "rolled_back"
    assert "errors" in (await fleet.now(rollout)).reason


async def test_where_there_is_a_shadow_another_is_not_begun(fleet: Fleet, db: Database):
    theirs = Traffic(shadow=Split((await fleet.deployment()).version_id or "", 5.0))
    await route(fleet, db, theirs)
    with pytest.raises(TrafficTaken, match="a shadow already"):
        await fleet.start(shadow="20:10m")
    with pytest.raises(InvalidRollout, match="in the shadow"):
        await fleet.start(signals=("errors", "disagreement"))
    assert await traffic(fleet) == theirs
    rollout = await fleet.start()
    await fleet.control.rollouts.roll_back(ADMIN, rollout.id)
    assert await traffic(fleet) == theirs, "one that begins without leaves it alone"


@pytest.mark.parametrize("left", [Traffic(), Traffic(shadow=Split("ver_2", 60.0)), Traffic((Split("ver_2", 1.0),))])
async def test_whoever_takes_the_shadow_away_ends_the_rollout_and_keeps_what_they_did(
    fleet: Fleet, db: Database, left: Traffic
):
    rollout = await fleet.start(shadow="20:10m")
    await route(fleet, db, left)
    assert await fleet.tick(rollout) == "cancelled"
    found = await fleet.deployment()
    assert (found.traffic, found.trial) == (left, None)


async def test_a_person_takes_it_out_of_the_shadow_or_goes_on(fleet: Fleet):
    rollout = await fleet.start(shadow="20:10m", steps=("5:1m",))
    await fleet.control.rollouts.pause(ADMIN, rollout.id)
    assert (await traffic(fleet)).shadow is not None
    await fleet.control.rollouts.roll_back(ADMIN, rollout.id)
    assert await traffic(fleet) == Traffic()
    again = await fleet.start(shadow="20:10m", steps=("5:1m",))
    assert (await fleet.control.rollouts.advance(ADMIN, again.id)).step == 1
    assert await traffic(fleet) == Traffic((Split(again.version_id, 5.0),))
    await fleet.control.deployments.rollback(ADMIN, "iris")
    assert await fleet.tick(again) == "cancelled"
    assert await traffic(fleet) == Traffic(), "neither the share nor the shadow comes back"
    once = await fleet.start(shadow="20:10m")
    await fleet.control.rollouts.promote(ADMIN, once.id)
    assert ((await fleet.deployment()).version, await traffic(fleet)) == (2, Traffic())


async def test_blue_and_green_begin_in_the_shadow_too(fleet: Fleet):
    rollout = await fleet.start(mode=Mode.BLUE_GREEN, shadow="100:10m", bake_minutes=5)
    assert await traffic(fleet) == Traffic(shadow=Split(rollout.version_id, 100.0))
    assert (await fleet.deployment()).version == 1
    await leave_the_shadow(fleet, rollout)
    assert await traffic(fleet) == Traffic((Split(rollout.version_id, 0.0),))
    assert await fleet.tick(rollout) == "advanced"
    found = await fleet.deployment()
    assert (found.version, found.traffic) == (2, Traffic((Split(rollout.from_version_id, 0.0),)))


async def test_a_proof_is_asked_for_where_the_rollout_goes_by_evidence(fleet: Fleet):
    rollout = await fleet.start(mode=Mode.EVIDENCE, shadow="20:10m", patience_minutes=60.0)
    await fleet.passes(minutes=10)
    await fleet.asked_beside(200, 18)
    assert await fleet.tick(rollout) == "", "its time in the shadow is the shortest"
    await fleet.asked_beside(2000, 120)
    assert await fleet.tick(rollout) == "advanced"
