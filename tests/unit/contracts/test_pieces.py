"""A model of few rows at once answers any number of them, each piece as large as it may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.pieces import in_pieces


@given(rows=st.integers(1, 30), least=st.integers(1, 8), more=st.integers(0, 8), bounded=st.booleans())
def test_every_row_gets_its_own_answer_and_no_piece_is_of_a_size_that_is_not_taken(rows, least, more, bounded):
    most = least + more if bounded else 0
    sizes = []

    def once(inputs):
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2, "z": inputs["x"].sum(1)}

    x = np.arange(rows * 2).reshape(rows, 2)
    answer = in_pieces({"x": x}, least, most, once)
    np.testing.assert_array_equal(answer["y"], x * 2)
    np.testing.assert_array_equal(answer["z"], x.sum(1))
    assert all(least <= size and (not most or size <= most) for size in sizes)
    assert len(sizes) == (-(-rows // most) if most else 1)


@pytest.mark.parametrize("answer", [np.ones(1), np.ones(3)])
def test_an_answer_that_is_not_row_by_row_is_refused(answer):
    with pytest.raises(RuntimeError, match="the rows come first"):
        in_pieces({"x": np.ones((3, 1))}, 2, 2, lambda _inputs: {"y": np.asarray(answer)})


def test_one_value_for_all_rows_is_that_of_the_first_piece():
    answer = in_pieces({"x": np.arange(5.0)}, 2, 2, lambda inputs: {"y": inputs["x"], "loss": np.asarray(inputs["x"].sum())})
    assert answer["y"].tolist() == [0, 1, 2, 3, 4]
    assert answer["loss"].tolist() == 1
