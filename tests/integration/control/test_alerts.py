"""Alerts over each kind of database: raised by what becomes of rollouts, in the same transaction, and settled by it."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import Executable

from fixtures.control import ADMIN, TestClock, ready_version
from fixtures.rollouts import Fleet, fleet_of
from fixtures.tenants import Tenants
from modelkeep.app.control_plane import ControlPlane
from modelkeep.contracts.access import Role
from modelkeep.contracts.errors import Forbidden
from modelkeep.contracts.traffic import Counted
from modelkeep.control.alerts import store
from modelkeep.control.alerts.errors import AlertNotFound, AlertOver
from modelkeep.control.alerts.events import AlertRaised
from modelkeep.control.alerts.rules import MOST_EVIDENCE, Alert, Evidence, News, Severity, State, Wanted
from modelkeep.control.rollouts.asked import Asked
from modelkeep.infra.db import Database, Transaction

GOOD = Counted(150, 1, 2850, 20)
BAD = Counted(30, 8, 570, 2)


@pytest.fixture
async def fleet(control: ControlPlane, clock: TestClock) -> Fleet:
    return await fleet_of(control, clock)


@pytest.fixture
def raised(control: ControlPlane) -> list[AlertRaised]:
    """What listeners are told."""
    facts: list[AlertRaised] = []

    async def told(tx: Transaction, fact: AlertRaised) -> None:
        facts.append(fact)

    control.events.subscribe(AlertRaised, told)
    return facts


async def taken_back(fleet: Fleet) -> str:
    """Start a rollout and have it taken back for what is counted; its id."""
    rollout = await fleet.start()
    await fleet.served(BAD)
    assert await fleet.tick(rollout) == "rolled_back"
    fleet.counts = {}
    return rollout.id


async def held_one(fleet: Fleet) -> str:
    """Start a rollout and have it held; its id."""
    rollout = await fleet.start(patience_minutes=0.0, steps=("5:1m", "20:1m"))
    await fleet.passes(minutes=1)
    assert await fleet.tick(rollout) == "held"
    return rollout.id


async def alerts(fleet: Fleet, state: State | None = None) -> list[Alert]:
    return await fleet.control.alerts.alerts(ADMIN, Wanted(state), limit=100)


async def test_a_version_that_is_taken_back_raises_an_alert_with_its_evidence(fleet: Fleet, raised: list[AlertRaised]):
    rollout = await taken_back(fleet)
    (alert,) = await alerts(fleet)
    now = fleet.clock()
    assert alert.labels == {"kind": "rollout.rolled_back", "deployment": "iris", "model": "iris", "version": "2"}
    assert (alert.severity, alert.state(now), alert.count, alert.opened_at) == (Severity.PAGE, State.FIRING, 1, now)
    assert alert.title == "iris: version 2 was taken back by itself (errors)."
    assert "8 of 30 requests were bad" in alert.text
    (seen,) = alert.evidence
    assert (seen.rollout, seen.signal, seen.link) == (rollout, "errors", f"/api/v1/rollouts/{rollout}/evidence")
    known = (await fleet.control.rollouts.rollout(ADMIN, rollout)).numbers["errors"]
    assert (seen.numbers["errors"]["bad"], seen.numbers["errors"]["log_e"]) == (8, known.log_e)
    assert seen.numbers["errors"]["log_e"] > seen.numbers["errors"]["needs"]
    assert raised == [AlertRaised(alert.id, "rollout.rolled_back", "page", alert.model_id, "iris", 1)]
    assert await fleet.control.alerts.alert(ADMIN, alert.id) == alert
    assert await fleet.control.alerts.firing() == {"page": 1, "ticket": 0, "info": 0}


async def test_two_rollbacks_in_a_row_are_one_alert_counted_twice(fleet: Fleet, raised: list[AlertRaised]):
    first = await taken_back(fleet)
    fleet.clock.advance(minutes=5)
    second = await taken_back(fleet)
    (alert,) = await alerts(fleet)
    assert (alert.count, alert.last_at - alert.opened_at >= timedelta(minutes=5)) == (2, True)
    assert [one.rollout for one in alert.evidence] == [first, second]
    assert [(one.alert, one.count) for one in raised] == [(alert.id, 1), (alert.id, 2)]


async def test_another_version_or_what_comes_after_the_end_is_an_alert_of_its_own(fleet: Fleet):
    await taken_back(fleet)
    (first,) = await alerts(fleet)
    await fleet.control.alerts.resolve(ADMIN, first.id, "it was the network")
    await taken_back(fleet)
    await ready_version(fleet.control, "iris", b"three")
    await fleet.beat()
    rollout = await fleet.control.rollouts.start(ADMIN, "iris", 3, Asked())
    await fleet.served(BAD)
    assert await fleet.tick(rollout) == "rolled_back"
    found = await alerts(fleet)
    assert [(one.labels["version"], one.state(fleet.clock()), one.count) for one in found] == [
        ("3", State.FIRING, 1),
        ("2", State.FIRING, 1),
        ("2", State.RESOLVED, 1),
    ]
    assert found[1].fingerprint == found[2].fingerprint != found[0].fingerprint


async def test_what_a_person_takes_back_is_no_alert(fleet: Fleet):
    rollout = await fleet.start()
    await fleet.control.rollouts.roll_back(ADMIN, rollout.id, "it smells")
    assert await alerts(fleet) == []


async def test_a_promotion_later_on_resolves_what_was_taken_back_there(fleet: Fleet):
    await taken_back(fleet)
    rollout = await fleet.start()
    assert [one.resolved_at for one in await alerts(fleet)] == [None], "the next try alone settles nothing"
    await fleet.control.rollouts.promote(ADMIN, rollout.id)
    (alert,) = await alerts(fleet)
    assert (alert.resolved_by, alert.resolved_at) == ("modelkeep", fleet.clock())
    assert rollout.id in alert.resolved_why
    assert await fleet.control.alerts.firing() == {"page": 0, "ticket": 0, "info": 0}


async def test_a_promotion_elsewhere_resolves_nothing_here(fleet: Fleet):
    await taken_back(fleet)
    await fleet.control.models.create(ADMIN, "rose")
    for content in (b"rose one", b"rose two"):
        await ready_version(fleet.control, "rose", content)
    rollout = await fleet.control.rollouts.start(ADMIN, "rose", 2, Asked())
    await fleet.control.rollouts.promote(ADMIN, rollout.id)
    assert [one.state(fleet.clock()) for one in await alerts(fleet)] == [State.FIRING]


@pytest.mark.parametrize("act", ["resume", "advance", "promote", "roll_back"])
async def test_what_is_held_is_a_ticket_until_a_person_decides(fleet: Fleet, act: str):
    rollout = await held_one(fleet)
    (alert,) = await alerts(fleet)
    assert (alert.kind, alert.severity, alert.state(fleet.clock())) == ("rollout.held", Severity.TICKET, State.FIRING)
    assert set(alert.evidence[0].numbers) == {"errors", "slow", "poor"}
    await getattr(fleet.control.rollouts, act)(ADMIN, rollout)
    (alert,) = await alerts(fleet)
    assert (alert.state(fleet.clock()), alert.resolved_by) == (State.RESOLVED, "modelkeep")


async def test_what_is_held_ends_with_the_rollout(fleet: Fleet):
    rollout = await held_one(fleet)
    await fleet.control.deployments.rollback(ADMIN, "iris")
    assert await fleet.control.rollouts.tick(rollout) == "cancelled"
    (alert,) = await alerts(fleet)
    assert alert.resolved_why == "The rollout was cancelled."


async def test_what_is_held_and_turns_out_to_be_worse_is_a_page_and_no_ticket(fleet: Fleet):
    rollout = await held_one(fleet)
    await fleet.served(BAD)
    assert await fleet.control.rollouts.tick(rollout) == "rolled_back"
    assert [(one.kind, one.state(fleet.clock())) for one in await alerts(fleet)] == [
        ("rollout.rolled_back", State.FIRING),
        ("rollout.held", State.RESOLVED),
    ]


async def test_an_alert_quotes_nothing_that_a_version_says_of_itself(fleet: Fleet):
    rollout = await fleet.start(patience_minutes=0.0, steps=("5:1m",))
    fleet.clock.advance(minutes=1)
    await fleet.beat(failing={rollout.version_id: "load: the secret of row 7"})
    assert await fleet.tick(rollout) == "held"
    assert "row 7" in (await fleet.now(rollout)).reason
    (alert,) = await alerts(fleet)
    assert b"row 7" not in msgspec.json.encode(alert)


class BrokenError(Exception):
    """The process is gone here."""


@pytest.mark.parametrize("end", ["rolled_back", "held"])
async def test_a_transaction_that_fails_leaves_no_alert(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, end: str):
    rollout = await fleet.start(patience_minutes=0.0, steps=("5:1m",))
    await fleet.passes(minutes=1)
    if end == "rolled_back":
        await fleet.served(BAD)
    execute, added, places = AsyncConnection.execute, 0, 0
    for place in itertools.count(1):
        calls = itertools.count(1)

        async def crashing(
            connection: AsyncConnection,
            statement: Executable,
            *more: object,
            last: int = place,
            calls: Iterator[int] = calls,
        ) -> CursorResult[object]:
            nonlocal added
            done = await execute(connection, statement, *more)
            added += isinstance(statement, sa.Insert) and statement.table.name == "alerts"
            if next(calls) == last:
                raise BrokenError
            return done

        with monkeypatch.context() as patch:
            patch.setattr(AsyncConnection, "execute", crashing)
            try:
                assert await fleet.tick(rollout) == end
                break
            except BrokenError:
                places += 1
        assert await alerts(fleet) == [], f"after statement {place}"
    assert added > 1, "some of them died after the alert was written"
    assert places > 3
    assert len(await alerts(fleet)) == 1


async def test_where_the_deployment_or_the_model_goes_its_alerts_are_over(fleet: Fleet, db: Database):
    await taken_back(fleet)
    (first,) = await alerts(fleet)
    await fleet.control.deployments.create(ADMIN, "iris-eu", "iris")
    eu = msgspec.structs.replace(news(first.model_id), labels={**first.labels, "deployment": "iris-eu"})
    async with db.begin() as tx:
        await fleet.control.alerts.raise_in(tx, eu)
    await fleet.control.deployments.delete(ADMIN, "iris-eu")
    assert [(one.deployment, one.resolved_why) for one in await alerts(fleet)] == [
        ("iris-eu", "The deployment was deleted."),
        ("iris", ""),
    ]
    life = fleet.control.lifecycle
    await life.archive(ADMIN, "iris")
    await life.trash(ADMIN, "iris")
    for erasure in await life.purge(ADMIN, "iris", reason="a test"):
        await life.erased(await life.measured(erasure.id, (), ()), left=0)
    (one,) = await fleet.control.alerts.alerts(ADMIN, Wanted(deployment="iris"), limit=5)
    assert one.resolved_why == "The model was purged."


# ---- what people do


async def test_who_looks_at_it_is_known_until_it_fires_again(fleet: Fleet):
    await taken_back(fleet)
    (alert,) = await alerts(fleet)
    taken = await fleet.control.alerts.acknowledge(ADMIN, alert.id, minutes=30, note=" mine ")
    assert (taken.acknowledged_by, taken.acknowledged_note) == ("ada", "mine")
    assert [len(await alerts(fleet, state)) for state in State] == [0, 1, 0]
    await taken_back(fleet)
    assert [(one.count, one.state(fleet.clock())) for one in await alerts(fleet)] == [(2, State.ACKNOWLEDGED)]
    fleet.clock.now = taken.acknowledged_until
    assert [len(await alerts(fleet, state)) for state in State] == [1, 0, 0]
    assert await fleet.control.alerts.firing() == {"page": 1, "ticket": 0, "info": 0}
    over = await fleet.control.alerts.resolve(ADMIN, alert.id, "version 3 is better")
    assert (over.resolved_by, over.resolved_why) == ("ada", "version 3 is better")
    assert [len(await alerts(fleet, state)) for state in State] == [0, 0, 1]
    for again in (
        fleet.control.alerts.resolve(ADMIN, alert.id, "twice"),
        fleet.control.alerts.acknowledge(ADMIN, alert.id),
    ):
        with pytest.raises(AlertOver):
            await again
    trail = [one for one in await fleet.control.audit.entries(limit=100) if one.action.startswith("alert.")]
    assert [(one.action, one.target, one.details["version"], one.details["note"]) for one in reversed(trail)] == [
        ("alert.acknowledge", alert.id, "2", "mine"),
        ("alert.resolve", alert.id, "2", "version 3 is better"),
    ]


async def test_of_two_who_resolve_at_once_one_is_first(fleet: Fleet):
    await taken_back(fleet)
    (alert,) = await alerts(fleet)
    done = await asyncio.gather(
        *(fleet.control.alerts.resolve(ADMIN, alert.id, f"by {number}") for number in range(4)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in done) == ["Alert", "AlertOver", "AlertOver", "AlertOver"]
    (kept,) = await alerts(fleet)
    assert kept in done


async def test_whoever_may_not_see_the_model_finds_no_alert_and_whoever_may_not_operate_it_changes_none(
    tenants: Tenants, control: ControlPlane, db: Database
):
    for name in ("red", "blue"):
        async with db.begin() as tx:
            await control.alerts.raise_in(tx, news(tenants.places[f"{name}-model"].model, model=f"{name}-model"))
        await tenants.person(name, Role.RELEASER, tenants.places[name])
    await tenants.person("viewer", Role.VIEWER, tenants.places["red"])
    red, blue, viewer = [await tenants.actor(name) for name in ("red", "blue", "viewer")]
    (of_red,) = await control.alerts.alerts(red, limit=10)
    assert of_red.model == "red-model"
    assert await control.alerts.alerts(viewer, limit=10) == [of_red]
    assert [one.model for one in await control.alerts.alerts(blue, limit=10)] == ["blue-model"]
    assert await control.alerts.alerts(blue, Wanted(model="red-model"), limit=10) == []
    with pytest.raises(AlertNotFound):
        await control.alerts.alert(blue, of_red.id)
    for act in (lambda by: control.alerts.acknowledge(by, of_red.id), lambda by: control.alerts.resolve(by, of_red.id, "x")):
        with pytest.raises(AlertNotFound):
            await act(blue)
        with pytest.raises(Forbidden):
            await act(viewer)
    assert await control.alerts.alert(viewer, of_red.id) == of_red
    assert (await control.alerts.resolve(red, of_red.id, "x")).resolved_by == red.name


# ---- many at once, and for long


def news(model_id: str, *, model: str = "iris", at: object = None, rollout: str = "rol_1") -> News:
    """News as a rollback makes it."""
    labels = {"kind": "rollout.rolled_back", "deployment": model, "model": model, "version": "2"}
    seen = Evidence(at or TestClock().now, rollout, "/api/v1/rollouts/rol_1/evidence", "errors", {"errors": {"bad": 8.0}})
    return News(Severity.PAGE, model_id, labels, "t", "x", seen)


async def test_the_same_from_everywhere_at_once_is_one_alert(fleet: Fleet, db: Database):
    model_id = (await fleet.deployment()).model_id

    async def raising(number: int) -> None:
        async with db.begin() as tx:
            await fleet.control.alerts.raise_in(tx, news(model_id, rollout=f"rol_{number}"))

    await asyncio.gather(*(raising(number) for number in range(30)))
    (alert,) = await alerts(fleet)
    assert (alert.count, len(alert.evidence), len({one.rollout for one in alert.evidence})) == (
        30,
        MOST_EVIDENCE,
        MOST_EVIDENCE,
    )


async def test_the_same_that_is_resolved_in_between_opens_anew(fleet: Fleet, db: Database, monkeypatch: pytest.MonkeyPatch):
    """It was looked for, and not there; then it was; and by the next look it is over again."""
    model_id = (await fleet.deployment()).model_id
    add, refusals = store.add, iter([False, False])

    async def refusing(tx: Transaction, alert: Alert) -> bool:
        return next(refusals, True) and await add(tx, alert)

    monkeypatch.setattr(store, "add", refusing)
    async with db.begin() as tx:
        await fleet.control.alerts.raise_in(tx, news(model_id))
    assert [one.count for one in await alerts(fleet)] == [1]


async def test_what_was_resolved_is_forgotten_after_ninety_days_and_what_was_not_stays(fleet: Fleet, db: Database):
    model_id = (await fleet.deployment()).model_id
    for model in ("iris", "rose"):
        async with db.begin() as tx:
            await fleet.control.alerts.raise_in(tx, news(model_id, model=model))
    (rose, _iris) = await alerts(fleet)
    await fleet.control.alerts.resolve(ADMIN, rose.id, "done")
    fleet.clock.advance(days=90)
    await fleet.control.tidy()
    assert len(await alerts(fleet)) == 2
    fleet.clock.advance(seconds=1)
    await fleet.control.tidy()
    assert [one.deployment for one in await alerts(fleet)] == ["iris"]


async def test_only_one_of_a_fingerprint_stands_in_the_database_itself(fleet: Fleet, db: Database):
    await taken_back(fleet)
    (alert,) = await alerts(fleet)
    async with db.begin() as tx:
        assert not await store.add(tx, msgspec.structs.replace(alert, id="alr_other"))
        assert (await tx.one(sa.select(sa.func.count()).select_from(store.alerts)))[0] == 1
