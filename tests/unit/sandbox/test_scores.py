"""Which output holds the scores of classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelkeep.contracts.signature import Dtype, TensorSpec
from modelkeep.sandbox.scores import are_probabilities, score_output, softmax

LABEL = TensorSpec("label", Dtype.INT64, (-1,))
ROWS = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=st.floats(-1e4, 1e4, width=32)
)


def matrix(name, width=3, dtype=Dtype.FP32):
    return TensorSpec(name, dtype, (-1, width))


@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        ([LABEL, matrix("probabilities")], "probabilities"),
        ([matrix("embedding", 16), matrix("logits")], "logits"),
        ([matrix("anything")], "anything"),
        ([matrix("a"), matrix("b")], ""),
        ([matrix("a", 1)], ""),
        ([matrix("counts", dtype=Dtype.INT64)], ""),
        ([LABEL], ""),
        ([], ""),
    ],
)
def test_the_score_output_is_the_usual_name_or_the_only_matrix_of_floats(outputs, name):
    assert score_output(outputs) == name


@given(ROWS)
def test_softmax_makes_distributions_and_keeps_the_order(scores):
    made = softmax(scores)
    assert made.dtype == scores.dtype
    assert are_probabilities(made)
    best = scores.argmax(axis=1)[:, None]  # scores that differ by a rounding error may end up equal
    assert (np.take_along_axis(made, best, axis=1) == made.max(axis=1, keepdims=True)).all()


def test_softmax_of_known_scores():
    assert np.allclose(softmax(np.array([[0.0, np.log(3.0)]])), [[0.25, 0.75]])


def test_raw_scores_are_no_probabilities():
    assert not are_probabilities(np.array([[2.0, -1.0]]))
    assert not are_probabilities(np.array([[0.5, 0.1]]))
    assert are_probabilities(np.array([[0.5, 0.5]]))
