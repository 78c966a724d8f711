"""How two versions' answers compare, held against the plainest way to say it: one value at a time, in Python's own words."""

import math
from bisect import bisect_left
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.shadow import DISTANCES, MOST_PAIRS, MOST_WORST, Compared
from modelkeep.contracts.snapshot import Recording
from modelkeep.serving.disagreement import ABSOLUTE, LEARNED_FROM, RELATIVE, Disagreement, Pair, Slices
from modelkeep.stats.counts import quantile, share_bounds

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64),
    st.sampled_from([0.0, -0.0, 1.0, 1.005, 1.02, 100.0, 100.9, 101.1, math.nan, math.inf, -math.inf]),
)
KEEPS = Recording()


def gap(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if math.isnan(one) or math.isnan(other):
        return math.inf
    return abs(one - other)


def part(one: float, other: float) -> float:
    apart = gap(one, other)
    return 0.0 if apart == 0 else math.inf if math.isinf(apart) else apart / max(abs(one), abs(other))


def close(one: float, other: float) -> bool:
    apart = gap(one, other)
    return apart == 0 or (math.isfinite(apart) and apart <= ABSOLUTE + RELATIVE * abs(one))


def compared(
    primary: np.ndarray, shadow: np.ndarray, *, scores: str = "", name: str = "y", rows: int | None = None
) -> Compared:
    found = Disagreement(scores)
    count = len(primary) if rows is None else rows
    found.take(Pair("prd_1", 0.0, count, {}, {name: primary}, {name: shadow}, KEEPS))
    return found.seen()


@given(st.lists(st.tuples(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS)), min_size=1, max_size=8))
def test_numbers_compare_as_the_plainest_way_has_it(rows: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    primary, shadow = np.array([one for one, _other in rows]), np.array([other for _one, other in rows])
    seen = compared(primary, shadow)
    (output,) = seen.outputs
    pairs = [list(zip(one, other, strict=True)) for one, other in rows]
    assert seen.differ == output.differ == sum(not all(close(*pair) for pair in row) for row in pairs)
    absolute = Counter(bisect_left(DISTANCES, max(gap(*pair) for pair in row)) for row in pairs)
    assert {at: count for at, count in enumerate(output.absolute) if count} == absolute
    assert sum(output.relative) == len(rows)
    for row in pairs:
        far = max(part(*pair) for pair in row)
        if 0 < far < math.inf:
            near = bisect_left(DISTANCES, far)
            assert any(output.relative[at] for at in (near - 1, near, near + 1)), "but for rounding at a bound"
    finite = [found for row in pairs if math.isfinite(found := max(gap(*pair) for pair in row))]
    assert output.largest == max(finite, default=0.0)
    assert len(msgspec.json.decode(msgspec.json.encode(seen), type=Compared).worst) == len(seen.worst), "it can be written"


@given(st.lists(st.tuples(*[st.sampled_from(["a", "b", None, b"c", "1"])] * 2), min_size=1, max_size=10))
def test_labels_are_the_same_or_not(rows: list[tuple[str | None, str | None]]) -> None:
    primary = np.array([one for one, _other in rows], dtype=object)
    shadow = np.array([other for _one, other in rows], dtype=object)
    seen = compared(primary, shadow)
    assert seen.differ == sum(one != other for one, other in rows)
    (output,) = seen.outputs
    said = lambda value: value.decode() if isinstance(value, bytes) else str(value)  # noqa: E731 - an oracle
    assert {(one.primary, one.shadow): one.rows for one in output.pairs} == Counter((said(a), said(b)) for a, b in rows)
    assert output.absolute == ()


@given(
    st.lists(st.tuples(*[st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.7]), min_size=3, max_size=3)] * 2), min_size=1, max_size=8)
)
def test_of_scores_the_best_class_counts_and_one_that_shares_the_highest_is_as_good(
    rows: list[tuple[list[float], list[float]]],
) -> None:
    def best(scores: list[float]) -> set[int]:
        return {at for at, score in enumerate(scores) if score == max(scores)}

    primary, shadow = (np.array([row[side] for row in rows]) for side in (0, 1))
    seen = compared(primary, shadow, scores="y")
    assert seen.differ == sum(not best(one) & best(other) for one, other in rows)
    assert sum(seen.outputs[0].absolute) == len(rows), "how far scores are apart is counted all the same"


@pytest.mark.parametrize(
    ("primary", "shadow", "differ"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), 2),
        (np.zeros(2), np.array(["0", "0"], dtype=object), 2),
        (np.zeros(2, np.float32), np.zeros(2, np.float64), 0),
        (np.array([1, 2]), np.array([1, 3]), 1),
        (np.array([2**53, 0]), np.array([2**53 + 1, 0]), 1),
        (np.array([1, 2]), np.array([1.0, 2.0]), 0),
        (np.zeros((2, 0)), np.zeros((2, 0)), 0),
        (np.array([True, False]), np.array([True, True]), 1),
    ],
)
def test_other_shapes_and_kinds_are_taken_as_they_come(primary: np.ndarray, shadow: np.ndarray, differ: int) -> None:
    assert compared(primary, shadow).differ == differ


def test_an_output_named_label_is_a_label_though_it_is_a_number() -> None:
    seen = compared(np.array([1.0, 100.0]), np.array([1.0, 100.5]), name="label")
    assert (seen.differ, seen.outputs[0].kind) == (1, "labels")


def test_answers_without_an_output_in_common_differ_in_every_row() -> None:
    found = Disagreement()
    found.take(Pair("prd_1", 0.0, 3, {}, {"y": np.zeros(3)}, {"z": np.zeros(3)}, KEEPS))
    assert (found.seen().differ, found.seen().outputs) == (3, ())


def test_pairs_of_classes_are_bounded_and_the_rest_is_counted() -> None:
    primary = np.array([f"c{at}" for at in range(200)], dtype=object)
    (output,) = compared(primary, primary).outputs
    assert (len(output.pairs), output.unpaired) == (MOST_PAIRS, 200 - MOST_PAIRS)


@given(st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=6), min_size=1, max_size=15))
def test_the_worst_rows_are_those_that_a_sort_of_all_has_first(requests: list[list[float]]) -> None:
    found = Disagreement()
    every: list[tuple[tuple[bool, float], str, int]] = []
    for number, errors in enumerate(requests):
        shadow = np.array([1 + error for error in errors])
        found.take(Pair(f"prd_{number}", 0.0, len(errors), {}, {"y": np.ones(len(errors))}, {"y": shadow}, KEEPS))
        every += [((not close(1.0, said), part(1.0, said)), f"prd_{number}", at) for at, said in enumerate(shadow.tolist())]
    shown = found.seen().worst
    wanted = sorted((key for key, *_which in every if key > (False, 0.0)), reverse=True)[:MOST_WORST]
    assert [(one.differs, one.distance) for one in shown] == [(differs, pytest.approx(far)) for differs, far in wanted]
    assert {(one.prediction, one.row) for one in shown} <= {(name, at) for _key, name, at in every}


COLUMN = st.lists(st.one_of(st.floats(-5, 5), st.just(math.nan)), min_size=1, max_size=40)


@given(st.lists(st.tuples(COLUMN, st.randoms(use_true_random=False)), min_size=1, max_size=30), st.booleans())
def test_slices_hold_every_row_once_in_the_bin_that_it_is_in(parts: list, early: bool) -> None:
    slices, rows = Slices(), []
    for values, chance in parts:
        differ = np.array([chance.random() < 0.3 for _ in values])
        slices.take({"x": np.array(values)}, differ, KEEPS)
        rows += list(zip(values, differ.tolist(), strict=True))
        if early:
            slices.seen()
    seen = slices.seen()
    for one in seen:
        if one.missing:
            mine = [differ for value, differ in rows if math.isnan(value)]
        else:
            low, high = -math.inf if one.low is None else one.low, math.inf if one.high is None else one.high
            mine = [differ for value, differ in rows if low <= value < high]
        assert (one.rows, one.differ) == (len(mine), sum(mine)), one
    assert sum(one.rows for one in seen) == len(rows)
    assert len(seen) <= 9


@given(st.lists(st.sampled_from([*"abcdefghijk", None]), min_size=1, max_size=700), st.integers(1, 100))
def test_slices_of_texts_are_the_commonest_of_the_first_rows_and_the_others(texts: list, step: int) -> None:
    slices, learned, taken = Slices(), [], 0
    for at in range(0, len(texts), step):
        piece = texts[at : at + step]
        slices.take({"t": np.array(piece, dtype=object)}, np.array([one == "a" for one in piece]), KEEPS)
        taken += len(piece)
        if taken - len(piece) < LEARNED_FROM:
            learned += piece
    common = [text for text, _count in Counter(one for one in learned if one is not None).most_common(7)]
    wanted: Counter[str] = Counter("missing" if one is None else one if one in common else "others" for one in texts)
    seen = slices.seen()
    named = {"missing" if one.missing else "others" if one.others else one.category: one for one in seen}
    assert {name: one.rows for name, one in named.items()} == wanted
    assert sum(one.differ for one in seen) == texts.count("a")
    assert all(not one.differ for name, one in named.items() if name != "a" or "a" not in common) or "a" not in common


def test_no_more_than_32_columns_are_told_apart() -> None:
    slices = Slices()
    slices.take({"x": np.zeros((600, 50)), "y": np.zeros(600)}, np.zeros(600, dtype=bool), KEEPS)
    assert len({one.column for one in slices.seen()}) == 32


@given(st.lists(st.integers(0, 5), min_size=4, max_size=4), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_bound_that_so_many_are_within(counts: list[int], wanted: float) -> None:
    bounds = (1.0, 2.0, 3.0)
    values = [bound for bound, count in zip((*bounds, math.inf), counts, strict=True) for _ in range(count)]
    found = quantile(bounds, counts, wanted)
    if not values:
        assert found is None
    else:
        assert found == values[max(0, math.ceil(wanted * len(values) - 1e-9) - 1)]


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_share_is_within_its_bounds_and_they_meet_as_it_is_known_better(found: int, more: int) -> None:
    of = found + more
    low, high = share_bounds(found, of)
    assert 0 <= low <= high <= 1
    if of:
        assert low <= found / of + 1e-12
        assert found / of <= high + 1e-12
        assert share_bounds(10 * found, 10 * of)[1] - share_bounds(10 * found, 10 * of)[0] <= high - low
