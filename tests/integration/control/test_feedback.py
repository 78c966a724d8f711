"""Feedback over each kind of database: taken item by item, joined to its predictions, kept from others, and forgotten."""

import asyncio
import itertools
import random
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from fixtures.control import ADMIN, TestClock
from fixtures.history import Loader, record
from fixtures.tenants import Tenants
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Role, Scope
from modelkeep.contracts.actor import Actor
from modelkeep.contracts.errors import Unavailable
from modelkeep.contracts.prediction import PredictionRecord, RecordFound
from modelkeep.control.feedback import service as module
from modelkeep.control.feedback import store
from modelkeep.control.feedback.errors import DeploymentNeeded
from modelkeep.control.feedback.rules import MOST_REVISIONS
from modelkeep.control.feedback.service import Feedback
from modelkeep.control.predictions.errors import PredictionNotFound
from modelkeep.control.predictions.service import Predictions
from modelkeep.infra.db import Database
from modelkeep.worker.feedback import FeedbackKeeper

VERDICTS = ("right", "wrong")
UNKNOWN = "prd_01J9Z3K6T2Q8W4V5R7X0Y1B2C4"


@pytest.fixture
def load(predictions: Predictions) -> Loader:
    return Loader(predictions)


@pytest.fixture
def feedback(control: ControlPlane) -> Feedback:
    return control.feedback


@pytest.fixture
async def ada(tenants: Tenants) -> Actor:
    """An administrator whom the installation knows, and whose right to tell can be looked at again."""
    await tenants.person("ada", Role.ADMIN)
    return await tenants.actor("ada")


async def told(feedback: Feedback, predictions: Predictions, *items: Any, by: Actor = ADMIN) -> list[str]:
    """What became of each item."""
    return [one.status.value for one in await feedback.tell(by, items, predictions.found)]


def say(one: PredictionRecord | str, verdict: str = "wrong", **more: object) -> dict[str, object]:
    return {"prediction": one if isinstance(one, str) else one.id, "verdict": verdict, **more}


async def held(feedback: Feedback, **wanted: Any) -> dict[str, tuple[str, str | None]]:
    """Verdict and truth that hold, by prediction."""
    found = await feedback.page(ADMIN, limit=2000, **wanted)
    return {one.now.prediction_id: (one.now.verdict, one.now.truth) for one in found}


async def test_items_are_taken_one_by_one_and_what_is_wrong_keeps_no_other(
    feedback: Feedback, predictions: Predictions, load: Loader
):
    one, two = record(), record()
    await load([one, two])
    outcomes = await feedback.tell(
        ADMIN,
        [say(one, truth={"label": "leaves"}, note="left"), say(two, "perhaps"), 7, say(UNKNOWN), say(two, "right"), say("x")],
        predictions.found,
    )
    assert [one.status.value for one in outcomes] == ["accepted", "refused", "refused", "parked", "accepted", "refused"]
    assert [one.prediction for one in outcomes] == [one.id, two.id, "", UNKNOWN, two.id, ""]
    assert outcomes[1].reason == "verdict: right or wrong."
    assert await held(feedback) == {one.id: ("wrong", '{"label":"leaves"}'), two.id: ("right", None)}


async def test_the_same_once_more_changes_nothing_and_the_last_by_its_moment_holds(
    feedback: Feedback, predictions: Predictions, load: Loader
):
    one = record()
    await load([one])
    early, late = say(one, at="2025-12-01T00:00:00Z"), say(one, "right", at="2025-12-02T00:00:00Z")
    assert await told(feedback, predictions, late) == ["accepted"]
    assert await told(feedback, predictions, early, early, late) == ["accepted", "unchanged", "unchanged"]
    assert await held(feedback) == {one.id: ("right", None)}
    assert [one.verdict for one in await feedback.revisions(ADMIN, one.id, predictions.found)] == ["right", "wrong"]
    assert await told(feedback, predictions, say(one)) == ["accepted"], "now is later than both"
    assert await told(feedback, predictions, say(one)) == ["unchanged"], "what is not dated and holds is nothing new"
    assert await held(feedback) == {one.id: ("wrong", None)}


async def test_whatever_order_it_comes_in_and_how_often_the_same_holds(
    feedback: Feedback, predictions: Predictions, load: Loader, db: Database
):
    records = [record() for _ in range(40)]
    await load(records)
    dice = random.Random(20261123)
    days = range(1, 6)
    said = [
        say(
            one,
            dice.choice(("right", "wrong")),
            truth=dice.choice((None, 1, "x")),
            at=f"2025-12-0{dice.choice(days)}T00:00:00Z",
        )
        for one in records
        for _ in range(4)
    ]
    results = []
    for _ in range(3):
        arriving = said + dice.sample(said, len(said) * 3 // 10)
        dice.shuffle(arriving)
        for begin in range(0, len(arriving), 50):
            await told(feedback, predictions, *arriving[begin : begin + 50])
        revisions = {
            one.id: {told.digest for told in await feedback.revisions(ADMIN, one.id, predictions.found)} for one in records
        }
        results.append((await held(feedback), revisions))
        async with db.begin() as tx:
            assert await store.forget(tx, [one.id for one in records]) == len(records)
    assert results[0] == results[1] == results[2]
    assert len({verdict for verdict, _ in results[0][0].values()}) == 2


async def test_one_prediction_is_told_of_so_often_and_no_more(feedback: Feedback, predictions: Predictions, load: Loader):
    one = record()
    await load([one])
    many = [say(one, note=str(number), at="2025-12-01T00:00:00Z") for number in range(MOST_REVISIONS + 1)]
    outcomes = await told(feedback, predictions, *many)
    assert outcomes == ["accepted"] * MOST_REVISIONS + ["refused"]
    assert await told(feedback, predictions, many[0], many[-1]) == ["unchanged", "refused"]
    other = msgspec.structs.replace(ADMIN, id="key_2", user="usr_2")
    assert await told(feedback, predictions, many[0], many[-1], by=other) == ["unchanged", "accepted"], "none are fewer for it"
    again = msgspec.structs.replace(ADMIN, id="key_3")
    assert await told(feedback, predictions, say(one, at="2025-12-03T00:00:00Z"), by=again) == ["refused"], "by another key"


async def test_what_overtakes_its_prediction_waits_and_is_joined_once(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, ada: Actor
):
    one = record()
    assert (
        await told(feedback, predictions, say(one), say(one), say(one, "right", at="2025-12-01T00:00:00Z"), by=ada)
        == ["parked"] * 3
    )
    assert await told(feedback, predictions, say(one), by=ada) == ["parked"], "what waits already waits once"
    assert await feedback.join(predictions.found) == (0, 0), "it is not looked for at once"
    clock.advance(seconds=2)
    assert await feedback.join(predictions.found) == (0, 0)
    await load([one])
    assert await held(feedback) == {}
    clock.advance(seconds=2)
    assert await feedback.join(predictions.found) == (2, 0)
    assert await held(feedback) == {one.id: ("wrong", None)}, "what is not dated is of the moment when it was told"
    clock.advance(days=2)
    assert await feedback.join(predictions.found) == (0, 0), "nothing waits any more"
    assert len(await feedback.revisions(ADMIN, one.id, predictions.found)) == 2


async def test_among_many_quiet_deployments_a_prediction_is_found_in_whatever_block_it_lies(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, ada: Actor
):
    """Each deployment has a block of the whole day: more of them may hold an id than a request looks into."""
    morning = clock().timestamp() - 7200
    each = [[record(morning + hour * 3600, deployment=f"d{at}") for hour in range(3)] for at in range(80)]
    await load([one for records in each for one in records])
    middle = [records[1] for records in each]
    outcomes = await feedback.tell(ada, [say(one) for one in middle], predictions.found_soon)
    assert {one.status.value for one in outcomes} == {"accepted", "parked"}
    for one in middle:
        await feedback.revisions(ADMIN, one.id, predictions.found)
    clock.advance(seconds=2)
    await feedback.join(predictions.found)
    assert set(await held(feedback)) == {one.id for one in middle}


async def test_of_two_workers_one_joins_it(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, ada: Actor
):
    one = record()
    await told(feedback, predictions, say(one), by=ada)
    await load([one])
    clock.advance(seconds=2)
    inner: list[tuple[int, int]] = []

    async def slow(ids: Collection[str]) -> Mapping[str, RecordFound]:
        if not inner:
            inner.append((-1, -1))
            inner[0] = await feedback.join(predictions.found)
        return await predictions.found(ids)

    assert await feedback.join(slow) == (0, 0)
    assert inner == [(1, 0)]


async def test_what_waits_too_long_or_is_too_much_is_said_to_be(
    feedback: Feedback, predictions: Predictions, clock: TestClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_PARKED_OF_ONE", 2)
    unknown = [record() for _ in range(3)]
    outcomes = await feedback.tell(ADMIN, [say(one) for one in unknown], predictions.found)
    assert [one.status.value for one in outcomes] == ["parked", "parked", "refused"]
    assert "send it again later" in outcomes[2].reason
    clock.advance(days=1, seconds=1)
    assert await feedback.join(predictions.found) == (0, 2)
    assert await told(feedback, predictions, say(unknown[0])) == ["parked"], "there is room again"


async def test_what_waits_is_bounded_for_each_person_whatever_they_tell_with(
    feedback: Feedback, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_PARKED_OF_ONE", 2)
    unknown = [record() for _ in range(3)]

    def telling(key: str, user: str) -> Actor:
        return msgspec.structs.replace(ADMIN, id=key, user=user)

    assert await told(feedback, predictions, say(unknown[0]), by=telling("key_1", "usr_1")) == ["parked"]
    assert await told(feedback, predictions, say(unknown[1]), by=telling("key_2", "usr_1")) == ["parked"]
    for key in ("key_1", "key_3", "ses_4"):
        assert await told(feedback, predictions, say(unknown[2]), by=telling(key, "usr_1")) == ["refused"]
    assert await told(feedback, predictions, say(unknown[2]), by=telling("key_1", "usr_2")) == ["parked"]
    assert await told(feedback, predictions, *map(say, unknown), by=telling("key_5", "")) == ["parked", "parked", "refused"]
    assert await told(feedback, predictions, say(unknown[2]), by=telling("key_6", "")) == ["parked"], (
        "nobody's keys stand alone"
    )


async def test_what_waits_already_may_be_told_again_where_no_more_may_wait(
    feedback: Feedback, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_PARKED_OF_ONE", 2)
    unknown = [record() for _ in range(3)]
    assert await told(feedback, predictions, *map(say, unknown)) == ["parked", "parked", "refused"]
    assert await told(feedback, predictions, *map(say, reversed(unknown))) == ["refused", "parked", "parked"]
    monkeypatch.setattr(module, "MOST_PARKED_OF_ONE", 3)
    again = [say(one) for one in (unknown[0], unknown[2], unknown[2], unknown[1])]
    assert await told(feedback, predictions, *again) == ["parked"] * 4, "a repeat takes no room"


async def test_of_several_early_tellings_without_a_moment_the_last_holds(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, ada: Actor
):
    one = record()
    for verdict in ("right", "wrong", "right"):
        assert await told(feedback, predictions, say(one, verdict), by=ada) == ["parked"]
        clock.advance(minutes=10)
    await load([one])
    assert await feedback.join(predictions.found) == (2, 0)
    assert await held(feedback) == {one.id: ("right", None)}


async def test_what_is_told_again_and_again_waits_no_longer_for_it(
    feedback: Feedback, predictions: Predictions, clock: TestClock
):
    for _ in range(3):
        assert await told(feedback, predictions, say(UNKNOWN)) == ["parked"]
        clock.advance(hours=8, seconds=1)
    assert await feedback.join(predictions.found) == (0, 1)


async def test_what_is_told_again_while_it_is_joined_is_about_the_last_moment(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, ada: Actor
):
    one = record()
    await told(feedback, predictions, say(one, "right"), by=ada)
    clock.advance(seconds=2)
    await told(feedback, predictions, say(one, "wrong"), by=ada)
    clock.advance(seconds=2)

    async def slow(ids: Collection[str]) -> Mapping[str, RecordFound]:
        await told(feedback, predictions, say(one, "right"), by=ada)
        await load([one])
        return await predictions.found(ids)

    assert await feedback.join(slow) == (2, 0)
    assert await held(feedback) == {one.id: ("right", None)}


async def test_what_was_not_there_is_looked_for_less_and_less(feedback: Feedback, predictions: Predictions, clock: TestClock):
    await told(feedback, predictions, say(UNKNOWN))
    looks = []

    async def looked(ids: Collection[str]) -> Mapping[str, RecordFound]:
        looks.append(clock())
        return {}

    for _ in range(3600):
        clock.advance(seconds=1)
        await feedback.join(looked)
    gaps = [(later - earlier) / timedelta(seconds=1) for earlier, later in itertools.pairwise(looks)]
    assert gaps[:4] == [2, 4, 8, 16]
    assert max(gaps) == 600
    assert len(looks) < 20


async def test_to_another_tenant_a_prediction_does_not_exist_whatever_they_tell(
    tenants: Tenants, feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock
):
    await tenants.person("ruth", Role.DEVELOPER, tenants.places["red"])
    await tenants.person("bea", Role.DEVELOPER, tenants.places["blue"])
    ruth, bea = await tenants.actor("ruth"), await tenants.actor("bea")
    one = record(deployment="red-model")
    await load([one])
    assert await told(feedback, predictions, say(one), by=bea) == await told(feedback, predictions, say(UNKNOWN), by=bea)
    clock.advance(seconds=2)
    assert await feedback.join(predictions.found) == (0, 0)
    assert await held(feedback) == {}
    with pytest.raises(PredictionNotFound):
        await feedback.revisions(bea, one.id, predictions.found)
    assert await told(feedback, predictions, say(one, "right"), by=ruth) == ["accepted"]
    assert [one.now.by for one in await feedback.page(ruth, limit=10)] == ["ruth"]
    assert await feedback.page(bea, limit=10) == []
    with pytest.raises(PredictionNotFound):
        await feedback.revisions(bea, one.id, predictions.found)
    clock.advance(days=2)
    assert await feedback.join(predictions.found) == (0, 2)
    assert await held(feedback) == {one.id: ("right", None)}


@pytest.mark.usefixtures("ada")
async def test_who_may_no_more_when_it_is_joined_has_told_nothing(
    tenants: Tenants, feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock
):
    await tenants.person("ruth", Role.DEVELOPER, tenants.places["red"])
    ruth = await tenants.actor("ruth")
    one = record(deployment="red-model")
    assert await told(feedback, predictions, say(one), by=ruth) == ["parked"]
    await tenants.control.users.set_active(ADMIN, tenants.people["ruth"], active=False)
    await load([one])
    clock.advance(days=1, seconds=2)
    assert await feedback.join(predictions.found) == (0, 1)
    assert await held(feedback) == {}


async def test_who_may_predict_may_tell_and_not_read_and_a_reader_not_tell(
    tenants: Tenants, feedback: Feedback, predictions: Predictions, load: Loader
):
    one = record(deployment="red-model")
    await load([one])
    await tenants.person("pia", Role.PREDICTOR, tenants.places["red-model"])
    await tenants.person("otto", Role.AUDITOR, tenants.places["red-model"])
    pia, otto = await tenants.actor("pia"), await tenants.actor("otto")
    assert await told(feedback, predictions, say(one), by=otto) == ["parked"]
    assert await told(feedback, predictions, say(one), by=pia) == ["accepted"]
    assert await feedback.page(pia, limit=10) == []
    assert len(await feedback.page(otto, limit=10)) == 1
    assert not pia.may(Scope.PREDICTIONS_READ)


async def test_a_list_is_of_what_is_wanted_newest_prediction_first(feedback: Feedback, predictions: Predictions, load: Loader):
    records = [record(deployment=name, version=number, version_id=f"ver_{number}") for name in ("a", "b") for number in (1, 2)]
    await load(records)
    await told(feedback, predictions, *(say(one, "right" if one.version == 1 else "wrong") for one in records))
    ids = [one.id for one in records][::-1]
    assert list(await held(feedback)) == ids
    assert list(await held(feedback, before=ids[1])) == ids[2:]
    assert list(await held(feedback, deployment="a")) == ids[2:]
    assert list(await held(feedback, version="ver_2")) == [ids[0], ids[2]]
    assert list(await held(feedback, version="2", deployment="a")) == [ids[2]]
    with pytest.raises(DeploymentNeeded):
        await held(feedback, version="2")
    assert list(await held(feedback, verdict="right", deployment="b")) == [ids[1]]


async def test_feedback_goes_with_the_history_that_it_is_about(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock
):
    keeper = FeedbackKeeper(feedback, predictions)
    old, new = record(at=(clock() - timedelta(days=40)).timestamp()), record(at=clock().timestamp())
    await load([old, new])
    assert await told(feedback, predictions, say(old), say(new)) == ["accepted", "accepted"]
    await keeper.forget()
    assert set(await held(feedback)) == {old.id, new.id}
    await predictions.retire(keep_days=30, kept={}, max_bytes=1 << 30)
    await keeper.forget()
    assert set(await held(feedback)) == {new.id}
    with pytest.raises(PredictionNotFound):
        await feedback.revisions(ADMIN, old.id, predictions.found)


async def test_many_predictions_are_forgotten_in_parts(
    feedback: Feedback, predictions: Predictions, load: Loader, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    records = [record() for _ in range(10)]
    await load(records)
    await told(feedback, predictions, *(say(one) for one in records))
    gone = {one.id for one in records[::2]}

    async def missing(ids: Collection[str]) -> Collection[str]:
        return gone & set(ids)

    assert await feedback.forget(missing) == 5
    assert set(await held(feedback)) == {one.id for one in records} - gone


class Watched:
    """A history that says what is asked of it, fails where it is told to, and keeps whoever asks what is missing waiting."""

    def __init__(self, history: Predictions) -> None:
        self._history = history
        self.fails = 0
        self.looked = 0
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.standing = history.standing

    async def found(self, ids: Collection[str]) -> Mapping[str, RecordFound]:
        if self.fails:
            self.fails -= 1
            raise Unavailable("away")
        return await self._history.found(ids)

    async def missing(self, ids: Collection[str]) -> Collection[str]:
        self.looked += 1
        self.asked.set()
        await self.go_on.wait()
        return await self._history.missing(ids)


async def joined(feedback: Feedback, one: PredictionRecord) -> None:
    """Return once this was joined."""
    async with asyncio.timeout(30):
        while one.id not in await held(feedback):
            await asyncio.sleep(0.01)


async def test_joining_goes_on_while_it_is_forgotten(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, ada: Actor
):
    one, early = record(), record()
    await load([one])
    await told(feedback, predictions, say(one))
    history = Watched(predictions)
    history.go_on.clear()
    running = asyncio.create_task(FeedbackKeeper(feedback, history, every_s=0.01).run())  # type: ignore[arg-type]
    await history.asked.wait()
    assert await told(feedback, predictions, say(early), by=ada) == ["parked"]
    await load([early])
    clock.advance(seconds=2)
    await joined(feedback, early)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_all_that_was_told_of_is_looked_for_where_something_has_gone_and_once_a_day(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, monkeypatch: pytest.MonkeyPatch
):
    moments = [clock().timestamp() - days * 86_400 for days in (40, 20, 1, 0)]
    records = [record(at=at, deployment=name) for at, name in zip(moments, "abca", strict=True)]
    await load(records)
    await told(feedback, predictions, *map(say, records))
    history = Watched(predictions)
    keeper = FeedbackKeeper(feedback, history)  # type: ignore[arg-type] # a history that is watched
    looks = []

    async def looked() -> None:
        await keeper.forget()
        looks.append((history.looked, len(await held(feedback))))

    await looked()
    await looked()
    await predictions.retire(keep_days=30, kept={}, max_bytes=1 << 30)  # a day
    await looked()
    await predictions.retire(keep_days=30, kept={"b": 10}, max_bytes=1 << 30)  # a deployment's part of one
    await looked()
    await load([record(at=moments[3])])
    await looked()
    await predictions.retire(keep_days=30, kept={}, max_bytes=1)  # what does not fit
    await looked()
    await looked()
    assert looks == [(1, 4), (1, 4), (2, 3), (3, 2), (3, 2), (4, 0), (4, 0)]
    await load([new := record(at=moments[3])])
    await told(feedback, predictions, say(new))
    monkeypatch.setattr("modelkeep.worker.feedback._ANYWAY_EVERY_S", 0.0)
    await keeper.forget()
    assert history.looked == 5


async def test_a_keeper_whose_database_is_away_goes_on(
    feedback: Feedback, predictions: Predictions, load: Loader, clock: TestClock, ada: Actor
):
    one = record()
    await told(feedback, predictions, say(one), by=ada)
    await load([one])
    clock.advance(seconds=2)
    history = Watched(predictions)
    history.fails = 2
    running = asyncio.create_task(FeedbackKeeper(feedback, history, every_s=0.01).run())  # type: ignore[arg-type]
    await joined(feedback, one)
    assert history.fails == 0
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
