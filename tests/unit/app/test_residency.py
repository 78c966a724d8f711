"""Who has runners when there is not memory for all: the budget holds, the oldest go, and whoever is asked comes in."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelkeep.app.residency import Budget, Residency

IDLE_S = 2.0


@dataclass(eq=False)
class Tenant:
    name: str
    size: int
    keep: str = "auto"
    idle_s: float = 10.0
    asleep: bool = False
    used: float = 0.0
    state: str = "out"  # out, starting, in, leaving
    grown: int = 0
    spare: bool = False

    @property
    def expected_bytes(self) -> int:
        return self.size


class House:
    """Runners by hand: they start and leave when a test says so."""

    def __init__(self, limit: int = 100) -> None:
        self.now = 1.0
        self.tenants: list[Tenant] = []
        self.residency: Residency[Tenant] = Residency(Budget(limit, IDLE_S), self, self.begin, self.end, lambda: self.now)

    def held_bytes(self) -> int:
        return sum(one.size + one.grown for one in self.tenants if one.state != "out")

    def leaving_bytes(self) -> int:
        return sum(one.size + one.grown for one in self.tenants if one.state == "leaving")

    def bytes_of(self, tenant: Tenant) -> int:
        return tenant.size + tenant.grown if tenant.state == "in" else 0

    def begin(self, tenant: Tenant) -> None:
        assert tenant.state in {"out", "leaving"}
        tenant.state = "starting"

    def end(self, tenant: Tenant) -> None:
        if tenant.state != "out":
            tenant.state = "leaving"

    def take(self, name: str, size: int, *, urgent: bool = False, keep: str = "auto", spare: bool = False) -> Tenant:
        tenant = Tenant(name, size, keep, spare=spare)
        self.tenants.append(tenant)
        self.residency.settle(tenant, urgent=urgent)
        return tenant

    def ready(self) -> None:
        for one in self.tenants:
            if one.state == "starting":
                one.state = "in"

    def gone(self) -> None:
        for one in self.tenants:
            if one.state == "leaving":
                one.state, one.grown = "out", 0
        self.residency.look(self.tenants)

    def later(self, seconds: float = IDLE_S) -> None:
        self.now += seconds
        self.residency.relieve(self.tenants)
        self.residency.look(self.tenants)

    def states(self) -> dict[str, str]:
        return {one.name: "asleep" if one.asleep and one.state == "out" else one.state for one in self.tenants}


def full() -> House:
    """Three of 30 in 100, used one after the other."""
    house = House()
    for name in "abc":
        house.take(name, 30)
        house.now += 1
    house.ready()
    house.later()
    return house


def test_nobody_goes_for_a_spare_one_though_it_is_asked() -> None:
    house = full()
    shadow = house.take("shadow", 30, urgent=True, spare=True)
    house.residency.wake(shadow)
    house.later(100.0)
    assert house.states() == {"a": "in", "b": "in", "c": "in", "shadow": "out"}
    house.end(house.tenants[0])
    house.gone()
    assert house.states()["shadow"] == "starting", "when somebody has gone by themselves it comes in"


def test_a_spare_one_goes_first_though_it_was_used_last_and_just_now() -> None:
    house = House()
    house.take("a", 30)
    house.take("b", 30)
    shadow = house.take("shadow", 30, spare=True)
    house.ready()
    house.now += 100
    shadow.used = house.now
    house.take("d", 30, urgent=True)
    house.residency.look(house.tenants)
    assert house.states() == {"a": "in", "b": "in", "shadow": "leaving", "d": "out"}
    house.gone()
    assert house.states()["d"] == "starting"


def test_who_waits_for_room_comes_in_before_a_spare_one_that_waits_longer() -> None:
    house = full()
    shadow = house.take("shadow", 10, spare=True)
    shadow.state, shadow.asleep = "out", True
    house.take("e", 10, keep="always").state = "in"
    house.residency.wake(shadow)
    house.residency.look(house.tenants)
    assert house.states()["shadow"] == "out"
    house.take("d", 20, urgent=True)
    house.residency.look(house.tenants)
    house.gone()
    assert house.states()["d"] == "starting"


def test_a_further_runner_has_spare_ones_go_and_a_spare_one_has_nobody_go() -> None:
    house = House()
    one = house.take("a", 40)
    shadow = house.take("shadow", 40, spare=True)
    house.ready()
    assert not house.residency.grows(shadow, house.tenants, first=True), "though it would be its first"
    assert house.states() == {"a": "in", "shadow": "in"}
    assert house.residency.grows(one, house.tenants, first=True)
    assert not house.residency.grows(one, house.tenants, first=False)
    assert house.states() == {"a": "in", "shadow": "leaving"}
    house.gone()
    assert house.residency.grows(one, house.tenants, first=False)


def test_what_fits_comes_in_and_what_does_not_sleeps_without_disturbing_anyone() -> None:
    house = full()
    house.take("d", 30)
    assert house.states() == {"a": "in", "b": "in", "c": "in", "d": "asleep"}


def test_who_is_asked_comes_in_once_the_least_recently_used_has_gone() -> None:
    house = full()
    sleeper = house.take("d", 30)
    house.residency.wake(house.tenants[0])  # a is used, so b is the oldest
    house.residency.wake(sleeper)
    house.residency.look(house.tenants)
    assert house.states() == {"a": "in", "b": "leaving", "c": "in", "d": "out"}
    house.residency.look(house.tenants)
    assert house.states()["c"] == "in", "nobody else goes while one that is enough is on its way out"
    house.gone()
    assert house.states() == {"a": "in", "b": "asleep", "c": "in", "d": "starting"}


def test_a_promoted_version_has_others_make_room() -> None:
    house = full()
    house.take("d", 50, urgent=True)
    house.residency.look(house.tenants)
    house.gone()
    assert house.states() == {"a": "asleep", "b": "asleep", "c": "in", "d": "starting"}


def test_nobody_goes_who_was_used_a_moment_ago() -> None:
    house = full()
    for one in house.tenants:
        house.residency.wake(one)
    house.take("d", 30, urgent=True)
    house.residency.look(house.tenants)
    assert "leaving" not in house.states().values()
    house.later(IDLE_S)
    assert house.states()["a"] == "leaving"


def test_what_must_always_be_there_never_goes() -> None:
    house = House()
    house.take("a", 60, keep="always")
    house.take("b", 30)
    house.ready()
    house.later()
    house.take("c", 40, urgent=True)
    house.later()
    house.gone()
    assert house.states() == {"a": "in", "b": "asleep", "c": "starting"}


def test_what_is_kept_on_demand_starts_when_it_is_asked_and_goes_when_nobody_asks() -> None:
    house = House()
    one = house.take("a", 10, keep="on_demand")
    assert house.states() == {"a": "asleep"}
    house.residency.wake(one)
    house.residency.look(house.tenants)
    house.ready()
    house.later(one.idle_s - 1)
    assert house.states() == {"a": "in"}
    house.later(1)
    house.gone()
    assert house.states() == {"a": "asleep"}


def test_runners_that_grow_over_the_budget_have_the_least_recently_used_go() -> None:
    house = full()
    house.tenants[2].grown = 40
    house.later()
    assert house.states() == {"a": "leaving", "b": "in", "c": "in"}


def test_one_that_is_larger_than_the_budget_comes_in_alone() -> None:
    house = full()
    house.take("d", 500, urgent=True)
    house.residency.look(house.tenants)
    house.gone()
    assert house.states() == {"a": "asleep", "b": "asleep", "c": "asleep", "d": "starting"}


def test_one_that_is_wanted_no_more_waits_no_more() -> None:
    house = full()
    late = house.take("d", 30, urgent=True)
    assert house.residency.waits(late)
    house.tenants.remove(late)
    house.residency.forget(late)
    house.later()
    assert house.residency.waiting == 0
    assert "leaving" not in house.states().values()


def test_one_that_no_room_can_be_made_for_keeps_nobody_else_waiting() -> None:
    house = House(120)
    busy, large, small = house.take("busy", 50), house.take("large", 80), house.take("small", 10)
    for one in (large, small):
        one.asleep, one.state = True, "out"
    house.ready()
    house.residency.wake(large)
    house.residency.wake(small)
    house.residency.wake(busy)
    house.residency.look(house.tenants)
    assert house.states() == {"busy": "in", "large": "out", "small": "starting"}


def test_what_is_kept_on_demand_is_left_to_load_and_to_be_tried_again() -> None:
    house = House()
    one = house.take("a", 10, keep="on_demand")
    house.residency.wake(one)
    house.residency.look(house.tenants)
    house.later(10 * one.idle_s)
    assert house.states() == {"a": "starting"}


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    @initialize(limit=st.integers(50, 200))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.house = House(limit)

    @rule(size=st.integers(1, 60), urgent=st.booleans(), keep=st.sampled_from(["auto", "auto", "auto", "on_demand", "always"]))
    def take(self, size: int, urgent: bool, keep: str) -> None:
        if keep == "always" and sum(one.size for one in self.house.tenants if one.keep == "always") + size > self.limit / 2:
            keep = "auto"
        self.house.take(str(len(self.house.tenants)), size, urgent=urgent, keep=keep)

    @precondition(lambda self: self.house.tenants)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        self.house.residency.wake(data.draw(st.sampled_from(self.house.tenants)))
        self.house.residency.look(self.house.tenants)

    @precondition(lambda self: self.house.tenants)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.house.tenants))
        self.house.tenants.remove(one)
        self.house.residency.forget(one)
        self.house.residency.look(self.house.tenants)

    @rule()
    def ready(self) -> None:
        self.house.ready()

    @rule()
    def gone(self) -> None:
        self.house.gone()

    @rule(seconds=st.floats(0.1, 20))
    def wait(self, seconds: float) -> None:
        self.house.later(seconds)

    @invariant()
    def the_budget_holds(self) -> None:
        present = [one for one in self.house.tenants if one.state != "out"]
        assert len(present) <= 1 or self.house.held_bytes() <= self.limit

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Each is there, on its way, asleep, or waits: otherwise nothing would ever bring it back."""
        for one in self.house.tenants:
            there = one.state in {"in", "starting"}
            assert there or one.asleep or self.house.residency.waits(one), one
            assert not (one.asleep and self.house.residency.waits(one)), one
            assert one.keep != "always" or not one.asleep, one

    def teardown(self) -> None:
        """Left alone, with what leaves gone, everyone who waits comes in: unless what must stay takes the room."""
        if not hasattr(self, "house"):
            return
        for _round in range(2 * len(self.house.tenants) + 2):
            self.house.ready()
            self.house.gone()
            self.house.later()
        fixed = sum(one.size for one in self.house.tenants if one.keep == "always" and one.state != "out")
        for one in self.house.tenants:
            assert not self.house.residency.waits(one) or fixed + one.size > self.limit, one


Life.TestCase.settings = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestLife = pytest.mark.timeout(120)(Life.TestCase)
