"""Drawn rows are the same for the same sample, fit the signature, and hold what both forms of a model must agree on."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.contracts.missing import MARK
from modelkeep.contracts.signature import DATETIME, Dtype, Signature, TensorSpec
from modelkeep.worker.drawn import drawn_rows

DATES = ["2026-05-17", "2025-01-01T08:30:00Z"]
VALUES = {
    Dtype.FP64: st.floats(-1e6, 1e6) | st.just(float("nan")),
    Dtype.FP32: st.floats(-1e6, 1e6, width=32),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.UINT64: st.integers(0, 2**64 - 1),
    Dtype.BOOL: st.booleans(),
    Dtype.BYTES: st.text() | st.none(),
}


@st.composite
def tables(draw):
    count = draw(st.integers(1, 6))
    inputs, sample = [], {}
    for at in range(draw(st.integers(1, 5))):
        dtype = draw(st.sampled_from(list(VALUES)))
        is_date = dtype is Dtype.BYTES and draw(st.booleans())
        column = np.empty(count, dtype=dtype.numpy)
        column[:] = draw(st.lists(st.sampled_from(DATES) if is_date else VALUES[dtype], min_size=count, max_size=count))
        name = f"c{at}"
        nullable = dtype in {Dtype.FP64, Dtype.FP32, Dtype.BYTES} and draw(st.booleans())
        inputs.append(TensorSpec(name, dtype, (-1,), nullable=nullable, kind=DATETIME if is_date else ""))
        sample[name] = column
    return Signature(tuple(inputs)), sample


@settings(max_examples=60, deadline=None)
@given(tables())
def test_every_table_gets_enough_rows_of_its_datatypes_always_the_same(table):
    signature, sample = table
    rows, again = drawn_rows(signature, sample), drawn_rows(signature, sample)
    assert list(rows) == [one.name for one in signature.inputs]
    for one in signature.inputs:
        column = rows[one.name]
        assert column.dtype == np.dtype(one.dtype.numpy)
        assert column.shape == (len(rows["c0"]),)
        assert len(column) >= 256
        assert repr(column.tolist()) == repr(again[one.name].tolist())
        missing = bool(pd.isna(column).any())
        if one.nullable:
            assert missing
        elif one.dtype in {Dtype.FP64, Dtype.FP32}:
            assert not missing
        if one.kind == DATETIME:
            assert set(column.tolist()) <= {*DATES, None}


@pytest.fixture
def rows():
    inputs = (
        TensorSpec("age", Dtype.FP64, (-1,), nullable=True),
        TensorSpec("city", Dtype.BYTES, (-1,)),
        TensorSpec("account", Dtype.INT64, (-1,)),
    )
    cities = np.array(["Bern", "Oslo", "Bern"], dtype=object)
    sample = {"age": np.array([20.0, 40.0, 30.0]), "city": cities, "account": np.array([2**53 + 1, 5, 6])}
    return drawn_rows(Signature(inputs), sample, [(25.5,), (), ()])


def test_texts_are_those_of_the_sample_and_unheard_of_ones_with_accents_and_without_letters(rows):
    texts = rows["city"].tolist()
    assert {"Bern", "Oslo", "", MARK} < set(texts)
    assert None not in texts
    assert any(not text.isascii() for text in texts)
    assert max(map(len, texts)) > 1000


def test_numbers_lie_on_edges_and_next_to_them_and_far_away(rows):
    ages = set(rows["age"].tolist())
    assert {25.5, float(np.nextafter(25.5, np.inf)), float(np.nextafter(25.5, -np.inf)), 1e39} < ages
    accounts = set(rows["account"].tolist())
    assert {2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, -(2**63)} < accounts


def test_most_rows_hold_nothing_unheard_of_so_that_a_refusal_hides_no_difference(rows):
    known = [city in {"Bern", "Oslo"} for city in rows["city"].tolist()]
    assert sum(known) > 0.8 * len(known)
