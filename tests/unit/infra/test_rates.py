"""What a caller is told of a rate is what happens: so many more at once, and one more after so long."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.rates import read, read_classes
from modelkeep.contracts.snapshot import Rate
from modelkeep.infra.rates import Headers, OwnRates, spacing, together, told

RATES = st.builds(Rate, per_minute=st.integers(1, 100_000), burst=st.integers(1, 40))
PAUSES = st.lists(st.just(0.0) | st.floats(0.001, 2) | st.floats(0, 100), min_size=1, max_size=40)


def state(headers: Headers) -> tuple[int, int]:
    """How many more, and after how many seconds, as a caller reads it."""
    found = re.fullmatch(rb'"key";r=([0-9]+);t=([0-9]+)', dict(headers)[b"ratelimit"])
    assert found is not None
    return int(found[1]), int(found[2])


class Asker:
    """Asks one bucket, on a clock of its own."""

    def __init__(self, rate: Rate) -> None:
        self.rates, self.rate, self.now = OwnRates(), rate, 5_000_000.0

    def ask(self) -> float:
        return self.rates.take("k", *spacing(self.rate), self.now)

    def room(self) -> int:
        """How many are let through at this moment, all of them asked."""
        count = 0
        while self.ask() <= 0:
            count += 1
        return count


@given(rate=RATES, pauses=PAUSES)
def test_as_many_are_let_through_at_once_as_the_answer_before_said(rate: Rate, pauses: list[float]) -> None:
    asker = Asker(rate)
    for pause in pauses:
        asker.now += pause
        taken = asker.ask()
        left, _seconds = state(told("key", rate, taken))
        saved = dict(asker.rates._due)
        assert asker.room() == left
        asker.rates._due = saved


@given(rate=RATES, pauses=PAUSES)
def test_who_waits_as_told_is_let_through_and_a_second_sooner_is_not(rate: Rate, pauses: list[float]) -> None:
    asker = Asker(rate)
    for pause in pauses:
        asker.now += pause
        asker.room()
        taken = asker.ask()
        left, seconds = state(told("key", rate, taken))
        assert left == 0
        if seconds > 1:
            asker.now += seconds - 1.001
            assert asker.ask() > 0
            asker.now += 1.001
        else:
            asker.now += seconds
        assert asker.ask() <= 0


@given(rate=RATES, asked=st.integers(1, 40))
def test_after_the_time_told_the_whole_burst_is_there_again(rate: Rate, asked: int) -> None:
    asker = Asker(rate)
    taken = 1.0
    for _ in range(min(asked, rate.burst)):
        taken = asker.ask()
    left, seconds = state(told("key", rate, taken))
    asker.now += seconds
    assert asker.room() >= (rate.burst if left else 1)


def test_the_policy_is_the_rate_of_a_minute() -> None:
    assert told("user", Rate(100, 16), -0.6) == (
        (b"ratelimit-policy", b'"user";q=100;w=60'),
        (b"ratelimit", b'"user";r=15;t=1'),
    )


def test_of_several_rates_the_fields_are_lists() -> None:
    both = together([told("key", Rate(100, 16), -0.6), told("deployment", Rate(60, 1), 12.5)])
    assert dict(both) == {
        b"ratelimit-policy": b'"key";q=100;w=60, "deployment";q=60;w=60',
        b"ratelimit": b'"key";r=15;t=1, "deployment";r=0;t=13',
    }
    assert together([]) == ()


def test_names_whose_time_has_passed_are_forgotten() -> None:
    rates = OwnRates()
    for number in range(100_000):
        assert rates.take(f"n{number}", 1.0, 0.0, float(number)) < 0
    assert len(rates._due) < 2500


def test_a_name_that_is_at_its_limit_is_never_forgotten() -> None:
    rates = OwnRates()
    assert rates.take("held", 1e6, 0.0, 0.0) < 0
    for number in range(20_000):
        rates.take(f"n{number}", 1.0, 0.0, float(number))
    assert rates.take("held", 1e6, 0.0, 20_000.0) > 0


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/min", Rate(100, 16)), ("3/min", Rate(3, 1)), ("100/min:20", Rate(100, 20)), ("1/min:1", Rate(1, 1))],
)
def test_a_rate_is_read(text: str, rate: Rate) -> None:
    assert read(text) == rate


@pytest.mark.parametrize(
    "text", ["", "100", "100/s", "0/min", "-1/min", "100/min:0", "100/min:", "1e3/min", "\u0661/min", "999999999/min"]
)
def test_what_is_no_rate_is_none(text: str) -> None:
    assert read(text) is None


def test_classes_are_read() -> None:
    assert read_classes("batch=6000/min, trial = 10/min:2") == {"batch": Rate(6000, 1000), "trial": Rate(10, 2)}
    assert read_classes("") == {}


@pytest.mark.parametrize("text", ["batch", "batch=", "=1/min", "user=1/min", "unlimited=1/min", "a=1/min,a=2/min", "A=1/min"])
def test_what_are_no_classes_is_none(text: str) -> None:
    assert read_classes(text) is None
