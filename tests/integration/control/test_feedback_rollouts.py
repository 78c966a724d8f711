"""Rollouts that feedback decides, over each kind of database: labels alone, of the step that they are about, however late."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from fixtures.control import ADMIN, TestClock
from fixtures.history import Loader, record
from fixtures.rollouts import Fleet, fleet_of
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.contracts.traffic import Counted
from modelkeep.control.deployments.planning import Change
from modelkeep.control.feedback import store
from modelkeep.control.feedback.rules import Labels
from modelkeep.control.predictions.service import Predictions
from modelkeep.control.rollouts.errors import InvalidRollout
from modelkeep.control.rollouts.rules import Mode, Rollout, State
from modelkeep.infra.db import Database, Transaction

SIGNALS = ("errors", "feedback")
GOOD = Counted(150, 0, 1350, 0)


@pytest.fixture
async def fleet(control: ControlPlane, clock: TestClock) -> Fleet:
    return await fleet_of(control, clock)


@pytest.fixture
def load(predictions: Predictions) -> Loader:
    return Loader(predictions)


def predicted(
    fleet: Fleet, rollout: Rollout, count: int, *, candidate: bool, step: int | None = 0, unit: int | None = None
) -> list[PredictionRecord]:
    """Predictions of one of the two versions, counted by a step's trial; by none where that is None."""
    version = (rollout.version_id, rollout.version) if candidate else (rollout.from_version_id, rollout.from_version)
    trial = "" if step is None else f"{rollout.id}:{step}"
    facts = {"deployment": "iris", "version_id": version[0], "version": version[1], "trial": trial, "unit": unit}
    return [record(at=fleet.clock().timestamp(), **facts) for _ in range(count)]


class Telling:
    """Loads predictions and tells of them."""

    def __init__(self, fleet: Fleet, predictions: Predictions, load: Loader) -> None:
        self._fleet, self._predictions, self._load = fleet, predictions, load

    async def __call__(self, records: Iterable[PredictionRecord], verdict: str = "wrong", *, loaded: bool = False) -> None:
        known = list(records)
        if not loaded:
            await self._load(known)
        items = [{"prediction": one.id, "verdict": verdict} for one in known]
        outcomes = await self._fleet.control.feedback.tell(ADMIN, items, self._predictions.found)
        assert {one.status.value for one in outcomes} == {"accepted"}


@pytest.fixture
def tell(fleet: Fleet, predictions: Predictions, load: Loader) -> Telling:
    return Telling(fleet, predictions, load)


async def test_wrong_labels_alone_take_a_version_back(fleet: Fleet, tell: Telling):
    rollout = await fleet.start(signals=SIGNALS, steps=("10:10m",))
    await fleet.served(GOOD)
    await tell(predicted(fleet, rollout, 60, candidate=False), "right")
    await tell(predicted(fleet, rollout, 2, candidate=False))
    assert await fleet.tick(rollout) == ""
    await tell(predicted(fleet, rollout, 8, candidate=True))
    assert await fleet.tick(rollout) == "rolled_back"
    after = await fleet.now(rollout)
    assert after.reason.startswith("feedback: 8 of 8 requests of which was told were bad, and 2 of 62")
    story = await fleet.control.rollouts.rollout(ADMIN, rollout.id)
    known = story.numbers["feedback"]
    assert (known.requests, known.bad, known.others, known.others_bad) == (8, 8, 62, 2)
    assert known.log_e >= known.needs
    points = (await fleet.control.rollouts.evidence(ADMIN, rollout.id))[2]
    assert points[-1].shown["feedback"].bad == 8


async def test_labels_of_what_no_trial_counts_say_nothing_whoever_answered(fleet: Fleet, tell: Telling):
    rollout = await fleet.start(signals=SIGNALS, steps=("10:10m",))
    await fleet.served(GOOD)
    await tell(predicted(fleet, rollout, 50, candidate=True, step=None))
    assert await fleet.tick(rollout) == ""
    assert (await fleet.control.rollouts.rollout(ADMIN, rollout.id)).numbers["feedback"].bad == 0


async def test_labels_are_counted_once_in_a_look_after_which_nothing_follows(
    fleet: Fleet, tell: Telling, monkeypatch: pytest.MonkeyPatch
):
    rollout = await fleet.start(signals=SIGNALS, steps=("10:10m",))
    await fleet.served(GOOD)
    await tell(predicted(fleet, rollout, 2, candidate=True))
    looks, inner = [], fleet.control.feedback.labels_in

    async def counted(tx: Transaction, trials: Sequence[str]) -> Mapping[str, Mapping[str, Labels]]:
        looks.append(trials)
        return await inner(tx, trials)

    monkeypatch.setattr(fleet.control.feedback, "labels_in", counted)
    assert await fleet.tick(rollout) == ""
    assert (await fleet.control.rollouts.rollout(ADMIN, rollout.id)).steps[0].counts.of("feedback") == Counted(2, 2, 0, 0)
    assert len(looks) == 1


async def test_what_a_rollout_counts_every_second_is_read_from_an_index_alone(db: Database, control: ControlPlane):
    statements: list[sa.Select[Any]] = []

    class Asked:
        async def all(self, statement: sa.Select[Any]) -> list[Any]:
            statements.append(statement)
            return []

    await store.labels(Asked(), ["rol_1:0", "rol_1:1"])  # type: ignore[arg-type] # all that it asks of a transaction
    async with db.read() as tx:
        sqlite = tx.connection.dialect.name == "sqlite"
        if not sqlite:
            for plainer in ("enable_seqscan", "enable_bitmapscan"):  # which an empty table is better served by
                await tx.execute(sa.text(f"SET LOCAL {plainer} = off"))
        said = statements[0].compile(dialect=tx.connection.dialect, compile_kwargs={"literal_binds": True})
        plan = await tx.all(sa.text(f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{str(said).replace(':', chr(92) + ':')}"))
    text = "\n".join(str(row) for row in plan)
    assert ("USING COVERING INDEX ix_feedback_trial" if sqlite else "Index Only Scan using ix_feedback_trial") in text, text


async def test_without_the_signal_labels_change_nothing(fleet: Fleet, tell: Telling):
    rollout = await fleet.start(steps=("10:10m",))
    await fleet.served(GOOD)
    await tell(predicted(fleet, rollout, 50, candidate=True))
    assert await fleet.tick(rollout) == ""
    assert set((await fleet.control.rollouts.rollout(ADMIN, rollout.id)).numbers) == {"errors", "slow", "poor"}


async def test_labels_that_come_late_count_for_the_step_in_which_was_predicted(fleet: Fleet, tell: Telling, load: Loader):
    rollout = await fleet.start(signals=SIGNALS, steps=("10:10m", "50:10m"))
    early = predicted(fleet, rollout, 5, candidate=True)
    await load(early)
    await fleet.passes(minutes=10)
    await fleet.served(GOOD)
    assert await fleet.tick(rollout) == "advanced"
    await fleet.next_step()
    await tell(early[:2], loaded=True)
    assert await fleet.tick(rollout) == ""
    story = await fleet.control.rollouts.rollout(ADMIN, rollout.id)
    assert story.steps[0].counts.of("feedback") == Counted(2, 2, 0, 0)
    assert story.steps[1].counts.of("feedback") == Counted()
    assert story.numbers["feedback"].log_e == pytest.approx(2.19, abs=0.01), "with the share of its own step, a tenth"
    await tell(early[2:], loaded=True)
    assert await fleet.tick(rollout) == "rolled_back"


async def test_a_canary_needs_no_labels_and_requests_are_what_it_needs(fleet: Fleet, tell: Telling):
    rollout = await fleet.start(signals=("feedback",), steps=("10:10m",), least=100)
    await fleet.passes(minutes=10)
    await tell(predicted(fleet, rollout, 200, candidate=True), "right")
    await fleet.served(Counted(99, 0, 900, 0))
    assert await fleet.tick(rollout) == "", "200 labels are no requests"
    await fleet.served(GOOD)
    assert await fleet.tick(rollout) == "promoted"


async def test_where_evidence_is_wanted_labels_have_to_show_it(fleet: Fleet, tell: Telling):
    rollout = await fleet.start(signals=("feedback",), mode=Mode.EVIDENCE, steps=("50:1d",), least=1)
    await fleet.served(GOOD)
    assert await fleet.tick(rollout) == ""
    await tell(predicted(fleet, rollout, 30, candidate=False))
    assert await fleet.tick(rollout) == "promoted"


async def test_servers_are_not_told_to_stop_a_version_for_what_they_cannot_count(fleet: Fleet):
    rollout = await fleet.start(signals=SIGNALS, steps=("10:10m", "50:10m"))
    assert set((await fleet.deployment()).trial.alphas) == {"errors"}
    await fleet.passes(minutes=10)
    await fleet.served(GOOD)
    assert await fleet.tick(rollout) == "advanced"
    trial = (await fleet.deployment()).trial
    assert (set(trial.alphas), set(trial.before)) == ({"errors"}, {"errors"})


async def test_where_callers_stay_together_one_is_wrong_once_in_each_step(fleet: Fleet, tell: Telling):
    await fleet.control.deployments.change(ADMIN, "iris", Change(traffic={"sticky": "caller"}))
    rollout = await fleet.start(signals=("feedback",), steps=("10:10m",))
    await fleet.served(GOOD)
    await tell(predicted(fleet, rollout, 50, candidate=True, unit=7))
    assert await fleet.tick(rollout) == ""
    assert (await fleet.control.rollouts.rollout(ADMIN, rollout.id)).numbers["feedback"].bad == 1
    for unit in range(8, 14):
        await tell(predicted(fleet, rollout, 1, candidate=True, unit=unit))
    assert await fleet.tick(rollout) == "rolled_back"


async def test_a_correction_takes_its_part_back(fleet: Fleet, tell: Telling):
    rollout = await fleet.start(signals=SIGNALS, steps=("10:10m",))
    wrong = predicted(fleet, rollout, 2, candidate=True)
    await tell(wrong)
    assert await fleet.tick(rollout) == ""
    fleet.clock.advance(seconds=1)
    await tell(wrong, "right", loaded=True)
    assert await fleet.tick(rollout) == ""
    known = (await fleet.control.rollouts.rollout(ADMIN, rollout.id)).numbers["feedback"]
    assert (known.requests, known.bad, known.log_e) == (2, 0, 0.0)


async def test_where_one_version_answers_alone_labels_need_a_bound_of_their_own(fleet: Fleet, tell: Telling):
    rollout = await fleet.start(mode=Mode.BLUE_GREEN, signals=("feedback",))
    assert rollout.plan.gate.bounds == {}
    await fleet.beat()
    assert await fleet.tick(rollout) == "advanced"
    await fleet.next_step()
    await tell(predicted(fleet, rollout, 50, candidate=True, step=1))
    assert await fleet.tick(rollout) == ""
    await fleet.control.rollouts.roll_back(ADMIN, rollout.id)
    bound = await fleet.start(mode=Mode.BLUE_GREEN, signals=("feedback",), bounds={"feedback": 0.2})
    await fleet.beat()
    assert await fleet.tick(bound) == "advanced"
    await fleet.next_step()
    await tell(predicted(fleet, bound, 50, candidate=True, step=1))
    assert await fleet.tick(bound) == "rolled_back"
    assert (await fleet.now(bound)).state is State.ROLLED_BACK


async def test_what_is_no_signal_is_refused_by_its_name(fleet: Fleet):
    with pytest.raises(InvalidRollout, match="feedback"):
        await fleet.start(signals=("disagreement",))
