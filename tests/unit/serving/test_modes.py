"""How requests share runs, for every cost that a model may have and every wish of a deployment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.snapshot import Batching
from modelkeep.serving.modes import Cost, Plan, cost_from, plan, suggested

MOST = 256
LONGEST_WAIT_S = 0.002
HANDING_OVER_S = 0.0005
SECONDS = st.floats(0, 10)
COSTS = st.builds(Cost, SECONDS, SECONDS)
WISHES = st.builds(
    Batching,
    mode=st.sampled_from(["auto", "off", "cheap", "flat", "compute"]),
    max_rows=st.integers(0, 1000),
    max_wait_ms=st.just(-1.0) | st.floats(0, 100),
    latency_target_ms=st.just(0.0) | st.floats(0.01, 10_000),
)


@given(fixed=st.floats(0, 1000), marginal=st.floats(0, 100), few=st.integers(1, 8), more=st.integers(1, 64))
def test_a_straight_line_is_found_from_any_two_of_its_points(fixed: float, marginal: float, few: int, more: int) -> None:
    cost = cost_from({str(rows): fixed + rows * marginal for rows in (few + more, few)})
    assert cost is not None
    for rows in (1, few, few + more, 1000):
        assert cost.of(rows) == pytest.approx((fixed + rows * marginal) / 1000, rel=1e-6, abs=1e-8 * rows)


@given(points=st.dictionaries(st.integers(1, 1000).map(str), st.floats(0, 10_000), min_size=1, max_size=4))
def test_no_measurement_makes_a_cost_that_is_negative_or_falls_with_rows(points: dict[str, float]) -> None:
    cost = cost_from(points)
    assert cost is not None
    assert cost.fixed >= 0
    assert cost.marginal >= 0
    fewest = min(points, key=int)
    assert cost.of(int(fewest)) >= points[fewest] / 1000 * (1 - 1e-9)


def test_nothing_measured_is_no_cost_and_one_point_is_a_cost_for_any_number_of_rows() -> None:
    assert cost_from({}) is None
    assert cost_from({"1": 3.5}) == Cost(0.0035, 0.0)


def test_points_are_ordered_by_number_and_not_as_text() -> None:
    cost = cost_from({"64": 65.0, "8": 9.0})
    assert cost is not None
    assert (cost.fixed, cost.marginal) == (pytest.approx(0.001), pytest.approx(0.001))


def test_what_gets_cheaper_with_rows_costs_the_same_for_all() -> None:
    assert cost_from({"1": 5.0, "64": 4.0}) == Cost(0.005, 0.0)


@pytest.mark.parametrize(
    ("one", "many", "mode"),
    [
        (3.5, 3.9, "flat"),  # a forest of scikit-learn itself
        (0.005, 0.1, "cheap"),  # the same forest, compiled
        (0.4999, 0.5, "cheap"),
        (0.3, 0.3 + 63 * 0.25, "cheap"),  # one row decides
        (40.0, 2560.0, "compute"),  # a picture a row
        (10.0, 10.0 + 63 * 5.0, "compute"),  # half of one row's cost is the row's
        (10.0, 10.0 + 63 * 4.9, "cheap"),
        (5.0, 5.0 + 63 * 1.0, "flat"),  # four times the cost of a row is fixed
        (5.0, 5.0 + 63 * 1.01, "cheap"),
    ],
)
def test_the_mode_follows_what_was_measured_at_1_and_64_rows(one: float, many: float, mode: str) -> None:
    assert suggested(cost_from({"1": one, "64": many})) == mode


def test_half_a_millisecond_a_run_is_not_cheap_any_more_and_an_unknown_cost_is() -> None:
    assert suggested(Cost(0.0005, 0.0)) == "flat"
    assert suggested(Cost(0.000499, 0.0)) == "cheap"
    assert suggested(None) == "cheap"


@given(one=st.floats(0.0005, 10), less=st.floats(0, 1), more=st.floats(0, 1))
def test_the_larger_the_part_of_a_row_the_less_requests_share(one: float, less: float, more: float) -> None:
    order = ["flat", "cheap", "compute"]
    less, more = sorted((less, more))
    modes = [order.index(suggested(Cost(one * (1 - part), one * part))) for part in (less, more)]
    assert modes == sorted(modes)


@given(cost=st.none() | COSTS, wish=WISHES)
def test_a_plan_keeps_the_bounds_of_deployment_and_installation(cost: Cost | None, wish: Batching) -> None:
    made = plan(wish, cost, MOST)
    assert 1 <= made.max_rows <= MOST
    if wish.max_rows:
        assert made.max_rows <= wish.max_rows
    assert made.mode == (suggested(cost) if wish.mode == "auto" else wish.mode)
    assert made.together == (made.mode in {"cheap", "flat"})
    assert made.spread == (made.mode != "cheap")
    if not made.together:
        assert made.max_wait_s == 0, "nobody waits for others with whom no run is shared"
    elif wish.max_wait_ms >= 0:
        assert 0 <= made.max_wait_s <= wish.max_wait_ms / 1000
    else:
        assert 0 <= made.max_wait_s <= (LONGEST_WAIT_S if made.mode == "flat" else HANDING_OVER_S)
        assert cost is None or made.mode == "cheap" or made.max_wait_s <= cost.of(1)


@given(cost=COSTS, wish=WISHES)
def test_who_just_missed_a_run_is_still_answered_within_the_latency_target_if_one_row_can_be(
    cost: Cost, wish: Batching
) -> None:
    target = wish.latency_target_ms / 1000
    made = plan(wish, cost, MOST)
    longest = cost.of(made.max_rows)
    if target and cost.of(1) <= target / 2:
        assert 2 * longest + made.max_wait_s <= target * (1 + 1e-9)
    if target and cost.of(1) <= target:
        assert longest + made.max_wait_s <= target * (1 + 1e-9)
    elif target:
        assert made.max_wait_s == 0
        assert made.max_rows == 1 or cost.marginal == 0


@given(cost=COSTS, wish=WISHES)
def test_a_latency_target_allows_all_the_rows_that_fit_into_it(cost: Cost, wish: Batching) -> None:
    made = plan(wish, cost, MOST)
    bound = min(wish.max_rows or MOST, MOST)
    if made.max_rows < bound and cost.of(1) <= wish.latency_target_ms / 2000:
        assert cost.of(made.max_rows + 1) > wish.latency_target_ms / 2000 * (1 - 1e-9)


@given(cost=COSTS, wish=WISHES, more=st.floats(1, 100))
def test_a_longer_target_allows_no_fewer_rows_and_no_target_the_most(cost: Cost, wish: Batching, more: float) -> None:
    def rows(target_ms: float) -> int:
        return plan(Batching(wish.mode, wish.max_rows, wish.max_wait_ms, target_ms), cost, MOST).max_rows

    assert rows(wish.latency_target_ms) <= rows(wish.latency_target_ms * more) <= rows(0.0)


def test_plans_of_the_usual_models() -> None:
    assert plan(Batching(), Cost(0.0035, 0.00001), MOST) == Plan("flat", MOST, 0.002, together=True)
    assert plan(Batching(), Cost(0.001, 0.00001), MOST).max_wait_s == pytest.approx(0.00101)
    assert plan(Batching(), Cost(0.000005, 0.000001), MOST) == Plan("cheap", MOST, HANDING_OVER_S, together=True)
    assert plan(Batching(), Cost(0.001, 0.04), MOST) == Plan("compute", MOST, 0.0, together=False)
    assert plan(Batching(mode="flat"), None, MOST) == Plan("flat", MOST, 0.002, together=True)
    assert plan(Batching(max_wait_ms=5.0, latency_target_ms=10.0), Cost(0.004, 0.0), MOST).max_wait_s == pytest.approx(0.002)
    assert plan(Batching(latency_target_ms=0.3), None, MOST).max_wait_s == pytest.approx(0.00015)
    assert plan(Batching(max_wait_ms=0.0), Cost(0.0035, 0.0), MOST).max_wait_s == 0
    assert plan(Batching(latency_target_ms=10.0), Cost(0.001, 0.0004), MOST).max_rows == 10


@given(wish=WISHES, cost=st.none() | COSTS)
def test_rows_that_depend_on_each_other_never_share_a_run_with_another_request_s(wish: Batching, cost: Cost | None) -> None:
    assert not plan(wish, cost, MOST, independent=False).together
