"""How many runners a version wants: up under load, down after idleness, within bounds, and at rest under a constant load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.snapshot import Replicas
from modelkeep.serving import scaling
from modelkeep.serving.scaling import Scale, cores


class Load:
    """A version under a load, in runners' seconds a second; looked at once a second. Runners come as soon as wanted."""

    def __init__(self, least: int = 1, most: int = 8, threads: int = 1) -> None:
        self.now = 0.0
        self.busy_s = 0.0
        self.scale = Scale(Replicas(least, most), lambda: self.now, threads=threads)
        self.replicas = self.scale.wanted

    def second(self, load: float, *, spread: bool = True, come: bool = True, waiting: int | None = None) -> int:
        """Let a second pass and look; returns how many are wanted."""
        self.now += 1
        self.busy_s += min(load, self.replicas)
        before = self.scale.wanted
        if waiting is None:
            waiting = load >= self.replicas
        changed = self.scale.look(self.busy_s, waiting, self.replicas, spread=spread)
        assert changed == (self.scale.wanted != before)
        assert abs(self.scale.wanted - before) <= 1
        if come:
            self.replicas = self.scale.wanted
        return self.scale.wanted

    def seconds(self, number: int, load: float, **more: bool) -> list[int]:
        return [self.second(load, **more) for _ in range(number)]


def test_one_more_after_two_looks_under_load_and_not_after_one() -> None:
    assert Load().seconds(4, 9.0) == [1, 2, 2, 3]


def test_one_look_without_load_begins_anew() -> None:
    load = Load()
    assert [load.second(each) for each in (9.0, 0.5, 9.0, 0.5, 9.0, 9.0)] == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize(("used", "waiting", "wanted"), [(0.8, 1, 2), (0.79, 1, 1), (1.0, 0, 1), (1.0, 1, 2)])
def test_more_are_wanted_only_where_the_runners_are_busy_and_requests_wait(used: float, waiting: int, wanted: int) -> None:
    load = Load()
    load.second(used, waiting=waiting)
    assert load.second(used, waiting=waiting) == wanted


def test_no_more_are_wanted_before_those_that_were_have_come() -> None:
    load = Load()
    assert load.seconds(20, 9.0, come=False) == [1, *[2] * 19]
    load.replicas = 2
    assert load.second(9.0) == 3


def test_one_less_after_half_a_minute_in_which_the_others_would_have_been_half_idle() -> None:
    load = Load(most=3)
    load.seconds(10, 9.0)
    assert load.replicas == 3
    assert load.seconds(61, 0.0) == [*[3] * 29, *[2] * 30, *[1] * 2]


def test_idleness_that_is_broken_off_begins_anew() -> None:
    load = Load(most=2)
    load.seconds(4, 9.0)
    assert load.seconds(29, 0.1) == [2] * 29
    assert load.second(0.5) == 2
    assert load.seconds(29, 0.1) == [2] * 29
    assert load.second(0.1) == 1


def test_where_runners_cannot_help_there_are_no_more_than_must_be() -> None:
    assert Load().seconds(10, 9.0, spread=False) == [1] * 10
    load = Load(least=2)
    load.seconds(6, 9.0)
    assert load.replicas == 5
    assert load.seconds(5, 9.0, spread=False) == [4, 3, 2, 2, 2]


def test_without_any_runner_and_without_time_between_nothing_is_concluded() -> None:
    load = Load()
    load.replicas = 0
    assert load.seconds(5, 9.0, come=False) == [1] * 5
    for _ in range(5):
        assert not load.scale.look(load.busy_s, 5, 1, spread=True)


@given(least=st.integers(0, 4), most=st.integers(0, 8), loads=st.lists(st.floats(0, 12), max_size=80), spread=st.booleans())
def test_what_is_wanted_stays_within_the_bounds(least: int, most: int, loads: list[float], spread: bool) -> None:
    load = Load(least, most)
    for each in loads:
        assert max(1, least) <= load.second(each, spread=spread) <= max(1, least, most or cores())


@given(load=st.floats(0, 10), began=st.integers(1, 8))
def test_a_constant_load_comes_to_rest_with_enough_runners_and_stays_there(load: float, began: int) -> None:
    version = Load(began, 8)
    version.scale.configure(Replicas(1, 8))
    version.seconds(300, load)
    rest = version.seconds(100, load)
    assert len(set(rest)) == 1, "it flaps"
    assert rest[0] >= min(load, 8) * (1 - 1e-9)
    assert rest[0] <= max(1.0, 2 * load + 2), "far more than needed"


@given(load=st.floats(0, 10), began=st.integers(1, 8))
def test_under_a_constant_load_the_number_goes_one_way_only(load: float, began: int) -> None:
    version = Load(began, 8)
    version.scale.configure(Replicas(1, 8))
    wanted = [began, *version.seconds(300, load)]
    assert wanted in (sorted(wanted), sorted(wanted, reverse=True))


def test_new_bounds_hold_at_once() -> None:
    scale = Scale(Replicas(1, 8))
    scale.configure(Replicas(3, 8))
    assert scale.wanted == 3
    scale.configure(Replicas(1, 2))
    assert scale.wanted == 2
    scale.configure(Replicas(5, 2))
    assert scale.wanted == 5


@pytest.mark.parametrize(
    ("least", "most", "threads", "runners"), [(1, 0, 2, 3), (1, 0, 4, 1), (1, 0, 9, 1), (2, 0, 9, 2), (1, 5, 9, 5)]
)
def test_runners_that_use_several_threads_are_fewer_where_no_bound_is_set(
    least: int, most: int, threads: int, runners: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "cores", lambda: 7)
    load = Load(least, most, threads)
    assert max(load.seconds(30, 9.0)) == runners


def test_no_bound_is_as_many_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "cores", lambda: 3)
    load = Load(most=0)
    assert max(load.seconds(30, 9.0)) == 3
    assert cores() >= 1
