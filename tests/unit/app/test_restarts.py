"""Restarts: soon at first, later each time, held back when it is hopeless, and forgotten after a quiet minute."""

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.app.restarts import DEATHS_TO_HOLD, HOLD_S, WINDOW_S, Decision, Restarts


def test_a_first_death_is_mended_almost_at_once() -> None:
    assert Restarts().died(1000.0) == Decision(0.1)


def test_each_further_death_waits_twice_as_long_until_the_fifth_is_held_back() -> None:
    restarts = Restarts()
    delays = [restarts.died(now) for now in (0.0, 1.0, 2.0, 3.0, 4.0)]
    assert delays == [Decision(0.1), Decision(0.2), Decision(0.4), Decision(0.8), Decision(HOLD_S, held=True)]


def test_what_dies_again_right_after_it_was_held_back_is_not_held_for_ever() -> None:
    restarts = Restarts()
    for now in range(5):
        decision = restarts.died(float(now))
    assert decision.held
    assert restarts.died(4 + HOLD_S + 0.5) == Decision(0.1)


def test_a_quiet_minute_is_forgiven() -> None:
    restarts = Restarts()
    for now in (0.0, 1.0, 2.0):
        restarts.died(now)
    assert restarts.died(2.0 + WINDOW_S + 0.1) == Decision(0.1)


def test_deaths_that_keep_apart_are_never_held_back() -> None:
    restarts = Restarts()
    assert not any(restarts.died(at * (WINDOW_S / 3)).held for at in range(100))


def test_a_delay_has_a_longest() -> None:
    restarts = Restarts(longest_delay_s=0.3)
    assert [restarts.died(0.0).delay_s for _ in range(4)] == [0.1, 0.2, 0.3, 0.3]


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0.05, 30))
def test_it_is_held_back_exactly_when_a_minute_saw_five_deaths(pauses: list[float], longest: float) -> None:
    restarts, now, deaths = Restarts(longest_delay_s=longest), 0.0, list[float]()
    for pause in pauses:
        now += pause
        deaths.append(now)
        recent = [death for death in deaths if now - death <= WINDOW_S]
        decision = restarts.died(now)
        assert decision.held == (len(recent) >= DEATHS_TO_HOLD)
        assert 0 < decision.delay_s <= (HOLD_S if decision.held else longest)
    assert len(restarts._deaths) <= len(deaths)
