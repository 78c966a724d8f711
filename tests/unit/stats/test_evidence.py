import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.stats.evidence import FACTORS, Evidence, above, below, not_worse, upper_bound

SHARES = st.floats(0.001, 0.999)
COUNTS = st.integers(0, 10_000)


@pytest.mark.parametrize(("bad", "value"), [(1, 2.633), (2, 8.923), (3, 36.285), (5, 790.971)])
def test_bad_requests_of_the_candidate_alone_are_evidence_as_in_the_reference(bad: int, value: float) -> None:
    assert Evidence().after(0.1, bad, 0).value == pytest.approx(value, abs=5e-4)


def test_bad_requests_of_the_others_are_evidence_against_it_as_in_the_reference() -> None:
    assert Evidence().after(0.1, 0, 20).value == pytest.approx(0.19385, abs=5e-6)
    one_by_one = Evidence().after(0.1, 1, 0).after(0.1, 0, 1).after(0.1, 1, 0).after(0.1, 1, 0)
    assert one_by_one.value == pytest.approx(22.0505, abs=5e-5)


@given(SHARES, COUNTS, COUNTS, COUNTS, COUNTS)
def test_evidence_depends_on_counts_and_on_no_order(share: float, a: int, b: int, c: int, d: int) -> None:
    whole = Evidence().after(share, a + c, b + d)
    assert Evidence().after(share, a, b).after(share, c, d).logs == pytest.approx(whole.logs, rel=1e-9, abs=1e-6)
    merged = Evidence().after(share, a, b).and_of(Evidence().after(share, c, d))
    assert merged.logs == pytest.approx(whole.logs, rel=1e-9, abs=1e-6)


@given(SHARES, st.lists(SHARES, max_size=3))
def test_where_both_are_equally_often_bad_the_next_bad_request_is_expected_to_change_nothing(
    share: float, before: list[float]
) -> None:
    evidence = Evidence()
    for earlier in before:
        evidence = evidence.after(earlier, 1, 0)
    expected = share * evidence.after(share, 1, 0).value + (1 - share) * evidence.after(share, 0, 1).value
    assert expected == pytest.approx(evidence.value, rel=1e-9)


@given(SHARES, st.integers(0, 10**9), st.integers(0, 10**9))
def test_evidence_is_a_number_however_much_there_is(share: float, bad: int, others: int) -> None:
    evidence = Evidence().after(share, bad, others)
    assert math.isfinite(evidence.log_value)
    assert evidence.value >= 0
    assert evidence.worse(0.01) == (evidence.log_value >= math.log(100))


def test_it_is_worse_from_one_by_alpha_on() -> None:
    logs = (math.log(100),) * len(FACTORS)
    assert Evidence(logs).worse(0.01)
    assert not Evidence(tuple(one - 1e-9 for one in logs)).worse(0.01)


@given(SHARES, st.floats(1.05, 10))
def test_at_the_margin_the_next_bad_request_is_expected_to_say_nothing_for_the_candidate(share: float, margin: float) -> None:
    theta = margin * share / (1 - share + margin * share)
    expected = theta * math.exp(not_worse(margin, [(share, 1, 0)])) + (1 - theta) * math.exp(not_worse(margin, [(share, 0, 1)]))
    assert expected == pytest.approx(1.0, rel=1e-9)


def test_not_worse_adds_up_over_steps() -> None:
    steps = [(0.1, 3, 40), (0.5, 20, 22)]
    assert not_worse(2.0, steps) == pytest.approx(sum(not_worse(2.0, [one]) for one in steps))
    assert not_worse(2.0, []) == 0.0
    assert not_worse(2.0, [(0.5, 0, 10)]) > 0 > not_worse(2.0, [(0.5, 10, 0)])


@pytest.mark.parametrize(
    ("requests", "bound"), [(100, 0.072), (500, 0.0164), (1000, 0.0086), (3000, 0.0031), (10_000, 0.00098)]
)
def test_with_no_bad_request_the_bound_is_that_of_the_reference(requests: int, bound: float) -> None:
    assert upper_bound(0, requests, 0.01) == pytest.approx(bound, rel=0.02)


@given(st.integers(1, 5000), st.data())
def test_the_bound_lies_above_the_rate_and_comes_nearer_with_more_requests(requests: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, requests))
    bound = upper_bound(bad, requests, 0.01)
    assert bad / requests <= bound <= 1
    assert upper_bound(bad * 4, requests * 4, 0.01) <= bound + 1e-9
    assert upper_bound(bad, requests, 0.05) <= bound


def test_nothing_and_nothing_good_bound_nothing() -> None:
    assert upper_bound(0, 0, 0.01) == 1.0
    assert upper_bound(7, 7, 0.01) == 1.0


@given(st.floats(0.01, 0.99), st.integers(0, 3000), st.data())
def test_at_the_rate_itself_the_next_request_is_expected_to_change_nothing(
    rate: float, requests: int, data: st.DataObject
) -> None:
    bad = data.draw(st.integers(0, requests))

    def known(more: int, bad_more: int) -> float:
        """The logarithm of the ratio to this very rate: the larger of both, which else take a likelier one."""
        of = (rate, bad + bad_more, requests + more)
        return max(above(*of), below(*of))

    expected = rate * math.exp(known(1, 1) - known(0, 0)) + (1 - rate) * math.exp(known(1, 0) - known(0, 0))
    assert expected == pytest.approx(1.0, rel=1e-6)


@given(st.floats(0.01, 0.99), st.integers(1, 3000), st.floats(1e-6, 0.5), st.data())
def test_a_rate_lies_above_another_where_its_lower_bound_does_and_below_where_its_upper_bound_does(
    rate: float, requests: int, alpha: float, data: st.DataObject
) -> None:
    bad = data.draw(st.integers(0, requests))
    needed = -math.log(alpha)
    over, under = above(rate, bad, requests), below(rate, bad, requests)
    if abs(over - needed) > 1e-6:
        assert (over >= needed) == (1 - upper_bound(requests - bad, requests, alpha) > rate)
    if abs(under - needed) > 1e-6:
        assert (under >= needed) == (upper_bound(bad, requests, alpha) < rate)


@given(st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0]), st.integers(0, 3000), st.data())
def test_what_is_known_of_a_rate_is_always_a_number_that_can_be_written_down(
    rate: float, requests: int, data: st.DataObject
) -> None:
    bad = data.draw(st.integers(0, requests))
    for found in (above(max(rate, 1e-6), bad, requests), below(rate, bad, requests)):
        assert msgspec.json.decode(msgspec.json.encode(found), type=float) == found


def test_of_no_request_nothing_is_known() -> None:
    assert above(0.1, 0, 0) == below(0.1, 0, 0) == 0.0
