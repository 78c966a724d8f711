"""Answers as arrays and tables: every value is the one that came over the wire."""

import json
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.client import Invalid, Prediction
from modelkeep.client.outputs import array, columns

HEAD = {"id": "p", "deployment": "d", "model": "m", "version": 1}
INTEGERS = st.integers() | st.integers(-(2**63), 2**64 - 1) | st.integers(2**53 - 2, 2**53 + 2)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def answered(**outputs):
    """Return the prediction that a server's JSON makes."""
    return Prediction.read(json.loads(json.dumps({**HEAD, "outputs": outputs})))


def test_a_whole_number_beyond_int64_keeps_its_digits():
    assert answered(y=[0, 2**64 - 1]).outputs["y"].tolist() == [0, 2**64 - 1]
    assert answered(y=[0, 2**64 - 1]).outputs["y"].dtype == np.uint64
    assert answered(y=[-1, 2**64 - 1]).outputs["y"].dtype == object
    assert answered(y=[[1, 2**53 + 1], [None, 0]]).outputs["y"].tolist() == [[1, 2**53 + 1], [None, 0]]


@given(st.lists(INTEGERS, min_size=1))
def test_any_whole_numbers_come_back_equal(values):
    found = answered(y=values)
    assert found.outputs["y"].tolist() == values
    assert found.to_pandas()["y"].tolist() == values
    if min(values) < -(2**63) or max(values) >= 2**64 or (min(values) < 0 and max(values) >= 2**63):
        for table in (found.to_arrow, found.to_polars):
            with pytest.raises(Invalid):
                table()
        return
    assert found.to_arrow()["y"].to_pylist() == values
    assert found.to_polars()["y"].to_list() == values


@given(st.lists(st.lists(INTEGERS | st.none(), min_size=2, max_size=2), min_size=1))
def test_nested_whole_numbers_with_gaps_are_no_floats_unless_they_are_the_same(rows):
    found = answered(y=rows).outputs["y"].tolist()
    for row, back in zip(rows, found, strict=True):
        for value, other in zip(row, back, strict=True):
            assert other == value or (value is None and math.isnan(other))
            assert value is None or int(other) == value
    for read in ("to_arrow", "to_polars"):
        try:
            column = getattr(answered(y=rows), read)()["y"]
        except Invalid:
            continue
        assert (column.to_pylist() if read == "to_arrow" else column.to_list()) == rows
    assert answered(y=rows).to_pandas()["y"].tolist() == rows


def test_rows_of_wide_whole_numbers_are_lists_of_them_in_every_table():
    rows = [[0, 2**64 - 1], [2**53 + 1, None]]
    assert answered(y=rows).to_arrow().schema.field("y").type == pa.list_(pa.uint64())
    assert answered(y=rows).to_polars().schema["y"] == pl.List(pl.UInt64)
    assert answered(y=[[rows]]).to_arrow()["y"].to_pylist() == answered(y=[[rows]]).to_polars()["y"].to_list() == [[rows]]


@given(st.lists(st.none() | st.booleans() | INTEGERS | FLOATS | st.text(), min_size=1))
def test_any_mixture_keeps_every_value_and_its_kind(values):
    found = answered(y=values).outputs["y"].tolist()
    whole = [abs(value) <= 2**53 for value in values if type(value) is int]
    for value, back in zip(values, found, strict=True):
        if value is None and isinstance(back, float):
            assert math.isnan(back)
        elif type(value) is int and isinstance(back, float):
            assert back == value
            assert all(whole)
        else:
            assert back == value
            assert type(back) is type(value)


@given(st.lists(FLOATS | st.none(), min_size=1))
def test_floats_are_exact_and_gaps_are_missing_everywhere(values):
    found = answered(y=values)
    assert found.to_arrow()["y"].to_pylist() == values
    assert found.to_polars()["y"].to_list() == values
    assert [None if pd.isna(one) else one for one in found.to_pandas()["y"].tolist()] == values


@given(st.lists(INTEGERS | st.none(), min_size=1))
def test_gaps_among_whole_numbers_leave_them_whole_in_a_frame(values):
    assert [None if one is pd.NA or one is None else one for one in answered(y=values).to_pandas()["y"]] == values


@pytest.mark.parametrize("values", [[True, None], [True, False], ["a", None], ["a\0", "b"], ["", "x"], [[True], [None]]])
def test_truths_and_texts_stay_what_they_are(values):
    assert answered(y=values).outputs["y"].tolist() == values
    assert answered(y=values).to_arrow()["y"].to_pylist() == values
    assert answered(y=values).to_polars()["y"].to_list() == values


def test_a_frame_has_a_column_for_each_output():
    found = Prediction.read(
        {**HEAD, "outputs": {"label": [0, 1], "probabilities": [[0.25, 0.75], [1.0, 0.0]]}, "labels": ["no", "yes"]}
    )
    frame = found.to_pandas()
    assert list(frame.columns) == ["class", "label", "probabilities"]
    assert frame["label"].dtype == "int64"
    assert frame["class"].tolist() == ["no", "yes"]
    assert frame["probabilities"].tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert found.to_arrow().schema.field("probabilities").type == pa.list_(pa.float64())
    assert found.to_polars().schema["label"] == pl.Int64


def test_labels_of_pictures_are_a_table_of_row_and_label():
    one, other = {"label": "daisy", "index": 985, "score": 0.9}, {"label": "bee", "index": 309, "score": 0.05}
    frame = Prediction.read({**HEAD, "predictions": [[one, other], [other]]}).to_pandas()
    assert frame.to_dict("list") == {
        "row": [0, 0, 1],
        "label": ["daisy", "bee", "bee"],
        "index": [985, 309, 309],
        "score": [0.9, 0.05, 0.05],
    }


def test_an_answer_that_is_no_table_says_so():
    with pytest.raises(Invalid, match="no table"):
        answered(a=[1, 2], b=[1]).to_pandas()
    with pytest.raises(Invalid, match="no one type"):
        answered(a=[1, "x"]).to_arrow()
    with pytest.raises(Invalid, match="no one type"):
        answered(a=[1, "x"]).to_polars()
    assert columns({}) == {"row": [], "label": [], "index": [], "score": []}


def test_rows_of_different_length_stay_lists():
    assert array([[1], [1, 2]]).tolist() == [[1], [1, 2]]
    assert array([]).tolist() == []
    assert array([2**1100, 0.5]).tolist() == [2**1100, 0.5]
