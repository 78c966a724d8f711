"""What holds for all inputs: every form gives the same arrays, and anything at all is arrays that fit, or `InvalidInput`."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.signatures import ANYTHING, NUMBERS, SIGNATURES, fits, matrices, same, tables
from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.serving.codec import tensor_from_flat, tensors_from, tensors_from_json, values_of


@given(matrices())
def test_all_forms_of_a_matrix_give_the_same_array(case: tuple[Signature, list[list[Any]]]) -> None:
    signature, rows = case
    spec = signature.inputs[0]
    records = [dict(zip(spec.columns, row, strict=True)) for row in rows]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(spec.columns)}
    expected = tensors_from_json(signature, json.dumps(rows).encode())
    back = [[None if value != value else value for value in row] for row in values_of(expected["input"])]  # noqa: PLR0124
    assert back == rows
    for form in (rows, records, columns, {"input": rows}):
        same(tensors_from(signature, form), expected)
        same(tensors_from_json(signature, json.dumps(form).encode()), expected)


@given(tables())
def test_all_forms_of_a_table_give_the_same_arrays(case: tuple[Signature, list[list[Any]]]) -> None:
    signature, rows = case
    names = [spec.name for spec in signature.inputs]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    tall = {name: [[value] for value in values] for name, values in columns.items()}
    expected = tensors_from(signature, rows)
    for place, spec in enumerate(signature.inputs):
        back = [None if value != value else value for value in values_of(expected[spec.name].reshape(-1))]  # noqa: PLR0124
        assert back == [row[place] for row in rows]
    for form in ([dict(zip(names, row, strict=True)) for row in rows], columns, tall):
        same(tensors_from_json(signature, json.dumps(form).encode()), expected)


@st.composite
def nested(draw: st.DrawFn) -> tuple[Dtype, tuple[int, ...], Any]:
    dtype = draw(st.sampled_from([one for one in Dtype if one is not Dtype.BYTES]))
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    count = math.prod(shape)
    values = draw(st.lists(NUMBERS[dtype], min_size=count, max_size=count))
    return dtype, shape, values


@given(nested())
def test_flat_and_nested_data_give_the_same_tensor(case: tuple[Dtype, tuple[int, ...], list[Any]]) -> None:
    dtype, shape, values = case
    spec = TensorSpec("x", dtype, shape)
    array = tensor_from_flat(spec, values, shape, "inputs.x")
    assert (array.dtype.name, array.shape, array.reshape(-1).tolist()) == (dtype.numpy, shape, values)
    np.testing.assert_array_equal(tensor_from_flat(spec, array.tolist(), shape, "inputs.x"), array)


def named(refused: InvalidInput) -> None:
    assert refused.fields
    assert all(one.path.startswith("inputs") and one.code for one in refused.fields)


@given(st.sampled_from(SIGNATURES), ANYTHING)
@example(SIGNATURES[1], [])
@example(SIGNATURES[2], [[2**53 + 1], [2**64 - 1]])
@example(SIGNATURES[6], [[[1, 2], [3]], [[4], [5, 6, 7]]])
def test_any_json_at_all_gives_arrays_that_fit_or_is_refused(signature: Signature, inputs: object) -> None:
    try:
        tensors = tensors_from_json(signature, json.dumps(inputs).encode())
    except InvalidInput as refused:
        named(refused)
    else:
        fits(signature, tensors)


@given(st.sampled_from(SIGNATURES), st.binary(max_size=60))
def test_any_bytes_at_all_give_arrays_that_fit_or_are_refused(signature: Signature, raw: bytes) -> None:
    try:
        tensors = tensors_from_json(signature, raw)
    except InvalidInput as refused:
        named(refused)
    else:
        fits(signature, tensors)


@given(
    st.sampled_from(list(Dtype)),
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    ANYTHING,
)
def test_any_open_inference_data_gives_its_shape_or_is_refused(dtype: Dtype, shape: tuple[int, ...], data: object) -> None:
    try:
        array = tensor_from_flat(TensorSpec("x", dtype, shape, nullable=True), data, shape, "inputs.x")
    except InvalidInput as refused:
        named(refused)
    else:
        assert array.shape == shape
        assert array.dtype == np.dtype(dtype.numpy)
