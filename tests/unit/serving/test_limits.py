"""Limits of keys against plain references: what the rate lets through in any minute, bursts, and predictions under way."""

import time
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.standings import through
from modelkeep.contracts.access import Scope
from modelkeep.contracts.errors import Kind, Limited
from modelkeep.contracts.snapshot import Rate, ServedKey
from modelkeep.infra.rates import OwnRates, spacing
from modelkeep.serving.limits import Limits, OwnCounts, TooManyAtOnce
from modelkeep.serving.messages import Request

MINUTE = 60.0
TINY_S = 2e-5


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def key(rate: Rate | None = None, concurrency: int = 0, name: str = "k") -> ServedKey:
    return ServedKey(name, name.encode(), name, through(Scope.PREDICT), rate=rate, concurrency=concurrency)


def of(who: ServedKey) -> Request:
    """A request with this key."""
    request = Request("POST", "/", ())
    request.key = who
    return request


def asked(limits: Limits, who: ServedKey) -> float:
    """Ask once: 0 when it is let through, else the seconds to wait."""
    try:
        limits.admit(of(who))
    except Limited as refused:
        return refused.retry_after_s or -1.0
    limits.release(who)
    return 0.0


def own_count(limits: Limits) -> dict[str, int]:
    """What this process has under way, by key."""
    assert isinstance(limits._counts, OwnCounts)
    return limits._counts.count


class Bucket:
    """The reference: a bucket of `burst` tokens that fills by `per_minute`."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self.tokens = float(max(1, rate.burst))
        self.at = now

    def take(self, now: float) -> float | None:
        """Whether there is a token; None where it is a matter of rounding."""
        self.tokens = min(max(1, self.rate.burst), self.tokens + (now - self.at) * self.rate.per_minute / MINUTE)
        self.at = now
        if abs(self.tokens - 1) < TINY_S * max(1, self.rate.per_minute / MINUTE):
            return None
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


RATES = st.builds(Rate, per_minute=st.integers(1, 600), burst=st.integers(0, 20))
PAUSES = st.lists(st.just(0.0) | st.floats(0.001, 2) | st.floats(0, 100), min_size=1, max_size=60)


@given(rate=RATES, pauses=PAUSES)
def test_the_rate_lets_through_what_a_bucket_of_tokens_would(rate: Rate, pauses: list[float]) -> None:
    clock = Clock()
    limits, bucket = Limits(OwnRates(), clock), Bucket(rate, clock.now)
    for pause in pauses:
        clock.now += pause
        expected = bucket.take(clock.now)
        taken = asked(limits, key(rate)) == 0
        if expected is None:  # on the edge: follow what was decided
            bucket.tokens -= taken
        else:
            assert taken == expected


@given(rate=RATES, pauses=PAUSES)
def test_no_minute_has_more_than_the_rate_and_one_burst(rate: Rate, pauses: list[float]) -> None:
    clock = Clock()
    limits = Limits(OwnRates(), clock)
    taken: list[float] = []
    for pause in pauses:
        clock.now += pause
        while not asked(limits, key(rate)):
            taken.append(clock.now)
    for at, first in enumerate(taken):
        assert bisect_left(taken, first + MINUTE) - at <= rate.per_minute + max(1, rate.burst)


@given(rate=RATES, pauses=PAUSES)
def test_who_waits_as_long_as_it_is_told_is_let_through_and_not_sooner(rate: Rate, pauses: list[float]) -> None:
    clock = Clock()
    limits = Limits(OwnRates(), clock)
    for pause in pauses:
        clock.now += pause
        wait = asked(limits, key(rate))
        if wait:
            clock.now += wait * 0.99 - TINY_S
            assert asked(limits, key(rate)) > 0
            clock.now += wait * 0.01 + 2 * TINY_S
            assert asked(limits, key(rate)) == 0


@given(rate=RATES)
def test_a_key_that_has_rested_may_ask_its_burst_at_once_and_then_evenly(rate: Rate) -> None:
    clock = Clock()
    limits, who = Limits(OwnRates(), clock), key(rate)
    burst = max(1, rate.burst)
    assert [asked(limits, who) == 0 for _ in range(burst + 1)] == [True] * burst + [False]
    for _ in range(5):
        clock.now += MINUTE / rate.per_minute + TINY_S
        assert asked(limits, who) == 0
        assert asked(limits, who) > 0


@pytest.mark.parametrize("per_minute", [7, 314, 997, 60_000])
def test_a_large_burst_is_let_through_whole_though_the_clock_has_run_for_months(per_minute: int) -> None:
    clock = Clock()
    clock.now = 9_876_543.21
    limits, who = Limits(OwnRates(), clock), key(Rate(per_minute, 1000))
    assert [asked(limits, who) == 0 for _ in range(1001)] == [True] * 1000 + [False]


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    limits, who = Limits(OwnRates()), key(Rate(60, 1))
    assert asked(limits, who) == 0
    assert asked(limits, who) <= 1
    assert limits._clock is time.monotonic


def test_a_refusal_says_what_may_be_asked_and_when() -> None:
    clock = Clock()
    limits, who = Limits(OwnRates(), clock), key(Rate(6, 1))
    assert asked(limits, who) == 0
    with pytest.raises(Limited, match="6 times a minute") as refused:
        limits.admit(of(who))
    assert refused.value.retry_after_s == pytest.approx(10)
    assert refused.value.kind is Kind.LIMITED


def test_even_requests_and_the_burst_ahead_of_them() -> None:
    assert spacing(Rate(120, 5)) == (0.5, 2.0)
    assert spacing(Rate(60, 0)) == (1.0, 0.0)


def test_keys_do_not_use_up_each_others_rate_or_places() -> None:
    limits = Limits(OwnRates(), Clock())
    rate = Rate(60, 1)
    assert asked(limits, key(rate, name="a")) == 0
    assert asked(limits, key(rate, name="a")) > 0
    assert asked(limits, key(rate, name="b")) == 0
    limits.admit(of(key(concurrency=1, name="c")))
    limits.admit(of(key(concurrency=1, name="d")))


@given(most=st.integers(1, 5), steps=st.lists(st.booleans(), max_size=60))
def test_as_many_predictions_are_under_way_as_may_be(most: int, steps: list[bool]) -> None:
    limits, who = Limits(OwnRates(), Clock()), key(concurrency=most)
    under_way = 0
    for begins in steps:
        if begins and under_way < most:
            limits.admit(of(who))
            under_way += 1
        elif begins:
            with pytest.raises(TooManyAtOnce) as refused:
                limits.admit(of(who))
            assert refused.value.retry_after_s == 1
        elif under_way:
            limits.release(who)
            under_way -= 1
        assert own_count(limits).get(who.id, 0) == under_way
    assert (who.id in own_count(limits)) == bool(under_way), "a key that asks no more is forgotten"


def test_a_key_without_limits_is_never_refused_and_never_counted() -> None:
    limits, who = Limits(OwnRates(), Clock()), key()
    for _ in range(1000):
        limits.admit(of(who))
    limits.release(who)
    assert not own_count(limits)


def test_a_request_that_finds_no_place_is_not_counted_against_the_rate() -> None:
    clock = Clock()
    limits, who = Limits(OwnRates(), clock), key(Rate(60, 2), concurrency=1)
    limits.admit(of(who))
    for _ in range(5):
        with pytest.raises(TooManyAtOnce):
            limits.admit(of(who))
    limits.release(who)
    limits.admit(of(who))


def test_a_request_over_the_rate_takes_no_place() -> None:
    clock = Clock()
    limits, who = Limits(OwnRates(), clock), key(Rate(60, 1), concurrency=1)
    assert asked(limits, who) == 0
    assert asked(limits, who) > 0
    clock.now += 1
    limits.admit(of(who))


def test_a_bound_that_came_while_predictions_were_under_way_counts_from_then_on() -> None:
    limits = Limits(OwnRates(), Clock())
    before, after = key(), key(concurrency=1)
    limits.admit(of(before))
    limits.admit(of(after))
    limits.release(before)
    with pytest.raises(TooManyAtOnce):
        limits.admit(of(after))
    limits.release(after)
    limits.admit(of(after))
