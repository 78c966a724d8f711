"""The worker's eye on rollouts: each is looked at, one that fails does not keep the others, and what is decided is counted."""

import asyncio

import pytest
from structlog.testing import capture_logs

from fixtures.control import ADMIN, TestClock, ready_version
from fixtures.rollouts import fleet_of
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.traffic import Counted
from modelkeep.control.rollouts.asked import Asked
from modelkeep.control.rollouts.rules import State
from modelkeep.worker.releasing import Releaser

BAD = Counted(30, 8, 570, 2)


class Heard:
    """What was told for the metrics."""

    def __init__(self) -> None:
        self.decisions: list[str] = []

    def rollout_decided(self, decision: str) -> None:
        self.decisions.append(decision)


async def test_what_is_worse_is_taken_back_told_and_counted_once(control: ControlPlane, clock: TestClock):
    fleet, heard = await fleet_of(control, clock), Heard()
    rollout = await fleet.start()
    await fleet.served(BAD)
    releasers = [Releaser(control.rollouts, told=heard) for _ in range(2)]
    with capture_logs() as logs:
        await asyncio.gather(*(one.round() for one in releasers))
        await releasers[0].round()
    assert heard.decisions == ["rolled_back"]
    (said,) = [one for one in logs if one["event"] == "rolled_back"]
    assert (said["log_level"], said["rollout"], said["signal"]) == ("warning", rollout.id, "errors")


@pytest.mark.parametrize("error", [Unavailable("The database is away."), RuntimeError("a mistake")])
async def test_one_that_cannot_be_looked_at_does_not_keep_the_others(
    control: ControlPlane, clock: TestClock, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    fleet, heard = await fleet_of(control, clock), Heard()
    await control.models.create(ADMIN, "rose")
    for content in (b"three", b"four"):
        await ready_version(control, "rose", content)
    broken = await control.rollouts.start(ADMIN, "rose", 2, Asked())
    rollout = await fleet.start()
    await fleet.served(BAD)
    tick = control.rollouts.tick

    async def ticking(rollout_id: str) -> str:
        if rollout_id == broken.id:
            raise error
        return await tick(rollout_id)

    monkeypatch.setattr(control.rollouts, "tick", ticking)
    with capture_logs() as logs:
        await Releaser(control.rollouts, told=heard).round()
    assert heard.decisions == ["rolled_back"]
    assert (await fleet.now(rollout)).state is State.ROLLED_BACK
    assert {one["event"] for one in logs} >= {"rollout_waits" if isinstance(error, Unavailable) else "rollout_failed"}


async def test_a_worker_that_ends_between_two_looks_leaves_the_next_one_all_there_is_to_know(
    control: ControlPlane, clock: TestClock
):
    fleet, heard = await fleet_of(control, clock), Heard()
    rollout = await fleet.start(steps=("5:1m", "50:1m"))
    for counted in (Counted(60, 0, 900, 3), Counted(150, 1, 2800, 20)):
        first = asyncio.create_task(Releaser(control.rollouts, told=heard, every_s=0.001).run())
        await fleet.passes(seconds=31)
        await fleet.served(counted)
        async with asyncio.timeout(20):
            while (await control.rollouts.rollout(ADMIN, rollout.id)).steps[0].counts.of("errors") != counted:
                await asyncio.sleep(0.005)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    second = Releaser(control.rollouts, told=heard)
    await second.round()
    assert heard.decisions == ["advanced"]
    assert (await fleet.now(rollout)).step == 1
