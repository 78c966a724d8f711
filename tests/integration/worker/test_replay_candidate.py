"""The last days of the history are answered again by another version, and both are compared as a shadow is."""

import json

import msgspec
import pytest

from fixtures.control import ADMIN, TestClock
from fixtures.history import Loader, record
from fixtures.replays import PAIRS, Place, echo
from fixtures.runners import Bench
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.prediction import PredictionRecord
from modelkeep.control.models.errors import VersionNotFound
from modelkeep.control.models.rules import Version
from modelkeep.control.predictions.service import Predictions
from modelkeep.control.replays.errors import InvalidReplay
from modelkeep.control.replays.rules import MOST_OF_DAYS, Asked, Replay, Skip, State, read_asked
from modelkeep.infra.db import Database

DAY = 86_400.0


@pytest.fixture
async def place(db: Database, control: ControlPlane, clock: TestClock, bench: Bench) -> Place:
    predictions = Predictions(db, clock)
    return Place(db, control, clock, predictions, bench, Loader(predictions))


def asked(
    place: Place, version: Version, rows: list[list[float]], *, ago_s: float = 0.0, **changes: object
) -> PredictionRecord:
    """A prediction of this version, made so long ago."""
    given = {
        "version_id": version.id,
        "version": version.number,
        "deployment": version.model,
        "rows": len(rows),
        "inputs": json.dumps({"inputs": rows}).encode(),
        "outputs": json.dumps({"outputs": {"input": rows}}).encode(),
        "at": place.clock().timestamp() - ago_s,
    }
    return record(**{**given, **changes})


def done(replay: Replay) -> Replay:
    assert replay.state is State.DONE, replay.failure
    return replay


async def test_what_was_asked_in_the_last_days_is_answered_by_another_version(place: Place) -> None:
    first = await place.version(echo())
    second = await place.version(echo(factor=1.5))
    recent = [asked(place, first, [[float(number), 0.0], [0.0, 0.0]], ago_s=60.0 * number) for number in range(20)]
    old = asked(place, first, [[1.0, 1.0]], ago_s=8 * DAY)
    of_another = asked(place, second, [[3.0, 3.0]], ago_s=60.0)
    await place.load([old, *recent, of_another])
    replay = done(await place.replay(first, Asked(days=7, candidate=2)))
    found = replay.summary
    assert found is not None
    assert (found.predictions, found.replayed, found.skipped) == (21, 21, {}), "whichever version answered then"
    assert (found.rows, found.rows_equal, found.rows_refused) == (41, 21, 0)
    candidate = found.candidate
    assert candidate is not None
    assert (candidate.version, candidate.rows, candidate.differ) == (2, 41, 20)
    (output,) = candidate.outputs
    assert (output.kind, output.rows, output.differ, output.largest) == ("numbers", 41, 20, 9.5)
    assert output.relative.p50 == 0.0
    assert output.relative.p99 == pytest.approx(10 ** (-1 / 3))
    slices = [one for one in candidate.slices if one.column == "input[1]"]
    assert [(one.says, one.rows, one.differ) for one in slices] == [("any", 41, 20)], "nearly all are zeros: there is one bin"
    assert candidate.replayed_ms.p50 is not None
    worst = replay.details.worst
    assert [one.distance for one in worst] == [pytest.approx(1 / 3)] * 20
    assert worst[0].shadow["input"] == [1.5 * one for one in worst[0].primary["input"]]
    assert replay.details.differing == ()


async def test_days_alone_are_of_the_version_that_is_replayed(place: Place) -> None:
    first = await place.version(echo())
    second = await place.version(echo())
    await place.load([asked(place, first, [[1.0, 1.0]], ago_s=ago) for ago in (8 * DAY, 3 * DAY, 60.0)])
    await place.load([asked(place, second, [[1.0, 1.0]])])
    assert done(await place.replay(first, Asked(days=7))).summary.replayed == 2
    assert done(await place.replay(first, Asked(days=9))).summary.replayed == 3
    assert done(await place.replay(first, Asked(days=9, last=1))).summary.replayed == 1


async def test_a_candidate_answers_named_predictions_and_rows_of_ones_own_too(place: Place) -> None:
    first = await place.version(echo())
    second = await place.version(echo(factor=2.0))
    mine, other = asked(place, first, [[1.0, 1.0]]), asked(place, second, [[1.0, 1.0]])
    await place.load([mine, other])
    named = done(await place.replay(first, Asked(predictions=(mine.id, other.id), candidate=2)))
    assert (named.summary.candidate.rows, named.summary.skipped) == (1, {Skip.OTHER_VERSION.value: 1})
    own = done(await place.replay(first, Asked(rows=True, candidate=2), [[1.0, 2.0], [0.0, 0.0]]))
    assert (own.summary.candidate.rows, own.summary.candidate.differ, own.details.worst) == (2, 1, ())


async def test_one_with_other_inputs_cannot_be_asked_the_same(place: Place) -> None:
    first = await place.version(echo())
    other = msgspec.structs.replace(PAIRS.inputs[0], columns=("a", "b"))
    await place.version(echo(), signature=msgspec.structs.replace(PAIRS, inputs=(other,)))
    await place.load([asked(place, first, [[1.0, 1.0]])])
    replay = await place.replay(first, Asked(days=1, candidate=2))
    assert replay.failure is not None
    assert replay.failure.code == "other_inputs"


async def test_rows_are_shown_as_policy_has_it_and_go_with_their_predictions(place: Place) -> None:
    first = await place.version(echo())
    await place.version(echo(factor=2.0))
    shown = asked(place, first, [[1.0, 1.0]])
    await place.load([shown])
    replay = done(await place.replay(first, Asked(days=1, candidate=2)))
    assert [one.prediction for one in replay.details.worst] == [shown.id]

    async def missing(ids: object) -> set[str]:
        return set(ids)  # type: ignore[call-overload,no-any-return]

    assert await place.control.replays.forget_shown(missing) == 1
    again = await place.control.replays.replay(ADMIN, replay.id)
    assert (again.details.worst, again.details.forgotten) == ((), 1)
    await place.control.deployments.configure(ADMIN, first.model, {"recording": {"outputs": "drop", "inputs": "drop"}})
    hidden = done(await place.replay(first, Asked(days=1, candidate=2)))
    assert [(one.primary, one.shadow, one.inputs) for one in hidden.details.worst] == [({}, {}, {})]
    assert hidden.summary.candidate.slices == ()


async def test_a_candidate_that_there_is_not_is_refused(place: Place) -> None:
    first = await place.version(echo())
    with pytest.raises(VersionNotFound):
        await place.control.replays.ask(ADMIN, first.model, 1, Asked(days=1, candidate=9))


def test_days_go_with_a_bound_and_with_nothing_else() -> None:
    assert read_asked(None, None, None, days=7) == Asked(days=7)
    assert read_asked(None, 5, None, days=7, candidate=3) == Asked(days=7, last=5, candidate=3)
    assert (Asked(days=7).most, Asked(days=7, last=5).most) == (MOST_OF_DAYS, 5)
    for wrong in ({"predictions": ["prd_1"]}, {"rows": [[1]]}):
        with pytest.raises(InvalidReplay):
            read_asked(wrong.get("predictions"), None, wrong.get("rows"), days=7)
    with pytest.raises(InvalidReplay):
        read_asked(None, None, None, candidate=3)
