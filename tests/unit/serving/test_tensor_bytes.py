"""Tensors as bytes: what goes in comes out, and what is not exactly a tensor's bytes is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype
from modelkeep.serving.dialects.open_inference import raw

NUMBERS = [one for one in Dtype if one is not Dtype.BYTES]
SHAPES = nps.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


@given(st.sampled_from(NUMBERS).flatmap(lambda one: st.tuples(st.just(one), nps.arrays(np.dtype(one.numpy), SHAPES))))
def test_numbers_come_back_bit_by_bit(case: tuple[Dtype, np.ndarray]) -> None:
    dtype, array = case
    found = raw.array_of(dtype, array.shape, raw.bytes_of(array), "x")
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(SHAPES.flatmap(lambda shape: nps.arrays(object, shape, elements=st.binary(max_size=20) | st.text(max_size=8))))
def test_byte_strings_come_back_as_they_are_and_texts_as_utf_8(array: np.ndarray) -> None:
    found = raw.array_of(Dtype.BYTES, array.shape, raw.bytes_of(array), "x")
    given = [one.encode() if isinstance(one, str) else one for one in array.reshape(-1).tolist()]
    assert (found.shape, found.reshape(-1).tolist()) == (array.shape, given)


def test_a_missing_text_goes_out_as_an_empty_one() -> None:
    assert raw.bytes_of(np.array([None, "a"], dtype=object)) == b"\0\0\0\0\1\0\0\0a"


@given(st.sampled_from(list(Dtype)), st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), st.binary(max_size=60))
def test_any_bytes_at_all_are_a_tensor_s_or_are_refused(dtype: Dtype, shape: tuple[int, ...], data: bytes) -> None:
    try:
        array = raw.array_of(dtype, shape, data, "inputs.x")
    except InvalidInput:
        return
    assert array.shape == shape
    assert raw.bytes_of(array) == data


@pytest.mark.parametrize("count", [2**21, 2**31])
def test_more_texts_than_a_runner_reads_are_refused_before_they_are_looked_at(count: int) -> None:
    with pytest.raises(InvalidInput, match="more than"):
        raw.array_of(Dtype.BYTES, (count,), b"", "x")


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_a_length_that_is_not_the_element_s_is_refused(values: list[bytes], length: int) -> None:
    data = raw.packed(values)
    damaged = struct.pack("<I", length) + data[4:]
    if damaged == data:
        return
    try:
        found = raw.elements(damaged, len(values), "x")
    except InvalidInput:
        return
    assert raw.packed(found) == damaged  # by chance it is another tensor
