"""Golden rows: what is packed comes back, what is damaged is refused, and another answer is told from the same one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelkeep.sandbox import frames, golden
from modelkeep.sandbox.agreement import ABSOLUTE, RELATIVE, Differs, differing

ROWS = {"x": np.array([[1.0, 2.0]]), "name": np.array(["a"], dtype=object)}
ANSWERS = {"label": np.array(["yes"], dtype=object), "score": np.array([[0.25, 0.75]], dtype=np.float32)}

columns = st.one_of(
    arrays.arrays(np.float64, (3, 2)),
    arrays.arrays(np.float32, (3,)),
    arrays.arrays(np.int64, (3,)),
    arrays.arrays(np.bool_, (3,)),
    st.lists(st.none() | st.text(max_size=5), min_size=3, max_size=3).map(lambda texts: np.array(texts, dtype=object)),
)
answers = st.dictionaries(st.text(min_size=1, max_size=5), columns, min_size=1, max_size=3)


@given(answers, answers)
def test_what_is_packed_comes_back_and_is_answered_rightly_by_itself(inputs, outputs):
    found = golden.unpack(golden.pack(inputs, outputs))
    for wanted, given_ in ((inputs, found.inputs), (outputs, found.outputs)):
        assert list(wanted) == list(given_)
        for name, array in wanted.items():
            np.testing.assert_array_equal(array, given_[name])
            assert array.dtype == given_[name].dtype
    golden.check(found, frames.Result(1, 0.0), outputs)


@given(st.data())
def test_a_file_that_is_cut_or_longer_is_refused(data):
    whole = golden.pack(ROWS, ANSWERS)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for damaged in (whole[:cut], whole + whole[:cut] + b"x", whole + whole):
        with pytest.raises(frames.FrameError):
            golden.unpack(damaged)


def test_a_file_of_other_frames_is_refused():
    with pytest.raises(frames.FrameError, match="no golden rows"):
        golden.unpack(b"".join(frames.encode(frames.Result(0, 0.0), ROWS)) * 2)


def test_rows_that_are_too_large_are_not_packed():
    with pytest.raises(frames.FrameError, match="too large"):
        golden.pack({"x": np.zeros(golden.MAX_BYTES, np.uint8)}, ANSWERS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": np.array(["no"], dtype=object)}, "'label' differs in 1 of 1 rows"),
        ({"score": np.array([[0.25, 0.7502]], dtype=np.float32)}, "'score' differs by 0.0002"),
        ({"score": np.array([[0.25, np.nan]], dtype=np.float32)}, "'score' differs"),
        ({"score": np.array([[0.25, 0.75]])}, "float64"),
        ({"score": np.array([0.25], dtype=np.float32)}, r"\[1\], not float32 \[1, 2\]"),
        ({"more": np.array([1.0])}, "outputs are label, score, more"),
    ],
)
def test_another_answer_is_told_where_it_differs(change, says):
    rows = golden.Golden(ROWS, ANSWERS)
    with pytest.raises(Differs, match=says):
        golden.check(rows, frames.Result(1, 0.0), ANSWERS | change)


def test_a_failure_is_another_answer():
    with pytest.raises(Differs, match="fails over rows that it answered: no more"):
        golden.check(golden.Golden(ROWS, ANSWERS), frames.RunFailed(1, "model_failed", "no more"), {})


@given(st.floats(-1e6, 1e6), st.floats(-3, 3))
def test_numbers_may_differ_by_the_tolerance_and_no_more(wanted, share):
    allowed = ABSOLUTE + RELATIVE * abs(wanted)
    given_ = wanted + share * allowed
    arrays_ = {"y": np.array([wanted])}, {"y": np.array([given_])}
    if abs(share) < 0.99:
        assert differing(*arrays_) == pytest.approx(abs(given_ - wanted))
    elif abs(share) > 1.01:
        with pytest.raises(Differs):
            differing(*arrays_)


def test_numbers_that_are_a_label_may_not_differ_at_all():
    with pytest.raises(Differs, match="'label' differs in 1 of 2 rows"):
        differing({"label": np.array([1.0, 2.0])}, {"label": np.array([1.0, 2.00001])})
    assert differing({"label": np.array([1.0, np.nan])}, {"label": np.array([1.0, np.nan])}) == 0.0
