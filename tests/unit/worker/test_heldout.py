"""Rows are split the same way every time, and answers are measured as the documentation says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modelkeep.worker.heldout import different, measure, split

NUMBERS = st.floats(-1e3, 1e3, width=32)
SCORES = st.tuples(st.integers(20, 40), st.integers(2, 5)).flatmap(lambda shape: arrays(np.float32, shape, elements=NUMBERS))


@given(st.integers(0, 500))
def test_every_row_is_on_one_side_and_the_sides_are_halves(count):
    calibrating, held = split(count)
    assert sorted([*calibrating, *held]) == list(range(count))
    assert 0 <= len(held) - len(calibrating) <= 1
    again = split(count)
    assert (calibrating == again[0]).all()
    assert (held == again[1]).all()


def test_sorted_rows_come_to_both_sides():
    calibrating, held = split(1000)
    assert 200 < (calibrating < 500).sum() < 300
    assert 200 < (held < 500).sum() < 300


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_rows_that_are_alike_count_once_in_their_order(values):
    rows = {"x": np.array(values, np.float32).reshape(-1, 1), "y": np.array([f"t{value}".encode() for value in values], object)}
    places = different(rows)
    kept = [values[place] for place in places]
    assert kept == list(dict.fromkeys(values))


@given(SCORES)
def test_an_answer_is_nothing_apart_from_itself(scores):
    for top in ("scores", ""):
        assert measure({"scores": scores}, {"scores": scores.copy()}, top) == 0


@given(SCORES, st.data())
def test_the_share_of_changed_classes_bounds_any_loss_of_accuracy(scores, data):
    other = data.draw(arrays(np.float32, scores.shape, elements=NUMBERS))
    labels = data.draw(arrays(np.int64, len(scores), elements=st.integers(0, scores.shape[1] - 1)))
    share = measure({"scores": scores}, {"scores": other}, "scores")
    right, still = (scores.argmax(1) == labels).mean(), (other.argmax(1) == labels).mean()
    assert 0 <= share <= 1
    assert abs(right - still) <= share + 1e-12


@given(SCORES, st.floats(0.125, 8), st.floats(0.01, 10))
def test_a_deviation_has_no_unit(scores, factor, shift):
    wanted = scores.astype(np.float64) + np.linspace(0, 50, len(scores))[:, None]  # so that each place varies
    given_ = wanted + shift
    one = measure({"y": wanted}, {"y": given_})
    two = measure({"y": wanted * factor}, {"y": given_ * factor})
    assert one == pytest.approx(two, rel=1e-6)
    assert one > 0


def test_a_deviation_is_the_mean_difference_in_standard_deviations():
    wanted = np.array([[0.0, 100.0], [2.0, 300.0]] * 10)  # standard deviations 1 and 100
    assert measure({"y": wanted}, {"y": wanted + np.array([0.5, 10.0])}) == pytest.approx((0.5 + 0.1) / 2)


def test_a_small_output_is_not_hidden_behind_a_large_one():
    wanted = {"big": np.linspace(0, 1e6, 20)[:, None], "small": np.linspace(0, 1, 20)[:, None]}
    given_ = {"big": wanted["big"], "small": wanted["small"] + 1}
    assert measure(wanted, given_) > 3


@pytest.mark.parametrize(
    ("wanted", "given_", "share"),
    [
        (np.array([[0.0, 1.0]] * 20), np.array([[0.0, 1.0]] * 19 + [[np.nan, 1.0]]), 0.05),
        (np.array([[0.0, 1.0]] * 20), np.zeros((20, 3)), np.inf),
        (np.array([["a"]] * 20, object), np.array([["a"]] * 15 + [["b"]] * 5, object), 0.25),
        (np.arange(20), np.arange(20) + (np.arange(20) < 2), 0.1),
        (np.zeros((20, 2), np.int64), np.zeros((20, 2)), np.inf),
    ],
)
def test_what_is_lost_or_of_another_kind_counts(wanted, given_, share):
    assert measure({"scores": wanted}, {"scores": given_}, "scores") == pytest.approx(share)


def test_missing_and_unchanging_answers_are_not_good_ones():
    constant = np.ones((20, 1))
    assert measure({"y": constant}, {"y": constant + 0.1}) == np.inf
    assert measure({"y": constant}, {"y": np.full((20, 1), np.nan)}) == np.inf
    assert measure({"y": constant}, {"z": constant}) == np.inf
