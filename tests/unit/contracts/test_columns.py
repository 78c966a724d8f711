"""Columns are matched by name where both sides have names, and by place where one has none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.columns import ColumnsDiffer, listed, places

NAMES = st.lists(st.text(min_size=1, max_size=5), unique=True, min_size=1, max_size=8)


@given(NAMES, st.randoms())
def test_named_columns_are_found_in_whatever_order_they_come(wanted, random):
    given_names = random.sample(wanted, len(wanted))
    assert [given_names[at] for at in places(given_names, wanted)] == wanted


@given(NAMES)
def test_where_one_side_has_no_names_the_place_counts(names):
    nameless = [""] * len(names)
    assert places(nameless, names) == places(names, nameless) == list(range(len(names)))


def test_another_name_is_told_both_ways():
    with pytest.raises(ColumnsDiffer, match=r"missing: b; not the model's: c\.") as told:
        places(["a", "c"], ["a", "b"])
    assert "The sample's columns differ" in str(told.value)
    with pytest.raises(ColumnsDiffer) as only_missing:
        places(["a"], ["a", "b"])
    assert str(only_missing.value).endswith("differ; missing: b.")


def test_by_place_the_name_does_not_matter_and_the_number_does():
    assert places(["any"], ["text"], by_name=False) == [0]
    with pytest.raises(ColumnsDiffer, match="takes 2 columns; the sample has 1: x"):
        places(["x"], ["", ""])
    with pytest.raises(ColumnsDiffer, match=r"takes 2 columns; the sample has 3\."):
        places(["", "", ""], ["a", "b"])


def test_long_lists_are_cut():
    names = [f"n{at}" for at in range(23)]
    assert listed(names[:20]) == ", ".join(names[:20])
    assert listed(names).endswith("n19 and 3 more")
