"""What holds for all inputs: every form gives the same arrays, and anything at all is arrays that fit, or `InvalidInput`."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.serving.codec import Tensors, tensor_from_flat, tensors_from, tensors_from_json, values_of

NUMBERS: dict[Dtype, st.SearchStrategy[Any]] = {
    Dtype.BOOL: st.booleans(),
    Dtype.FP16: st.floats(width=16, allow_nan=False, allow_infinity=False),
    Dtype.FP32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Dtype.FP64: st.floats(allow_nan=False, allow_infinity=False),
    **{
        dtype: st.integers(int(np.iinfo(dtype.numpy).min), int(np.iinfo(dtype.numpy).max))
        for dtype in Dtype
        if dtype.value.lstrip("U").startswith("INT")
    },
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NULLABLE = {Dtype.FP16, Dtype.FP32, Dtype.FP64, Dtype.BYTES}


def cells(spec: TensorSpec) -> st.SearchStrategy[Any]:
    values = TEXTS if spec.dtype is Dtype.BYTES else NUMBERS[spec.dtype]
    return st.none() | values if spec.nullable else values


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Signature, list[list[Any]]]:
    dtype = draw(st.sampled_from(list(Dtype)))
    names = tuple(draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True).filter(lambda names: "input" not in names)))
    nullable = dtype in NULLABLE and draw(st.booleans())
    spec = TensorSpec("input", dtype, (-1, len(names)), nullable=nullable, columns=names)
    rows = draw(st.lists(st.lists(cells(spec), min_size=len(names), max_size=len(names)), min_size=1, max_size=5))
    return Signature((spec,)), rows


@st.composite
def tables(draw: st.DrawFn) -> tuple[Signature, list[list[Any]]]:
    names = draw(st.lists(TEXTS, min_size=2, max_size=4, unique=True))
    specs = []
    for name in names:
        dtype = draw(st.sampled_from(list(Dtype)))
        shape = draw(st.sampled_from([(-1,), (-1, 1)]))
        specs.append(TensorSpec(name, dtype, shape, nullable=dtype in NULLABLE and draw(st.booleans())))
    rows = draw(st.lists(st.tuples(*map(cells, specs)).map(list), min_size=1, max_size=5))
    return Signature(tuple(specs)), rows


def same(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name])


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


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53 + 1, 2**64 - 1, 2**64, -(2**63) - 1, 10**400, 1.5, 1e300])
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(["YQ==", "data:,YQ=="]),
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "ids", "mask", "image", "input", "b64", ""]), below, max_size=4)
    ),
    max_leaves=25,
)
SIGNATURES = [
    Signature((TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),)),
    Signature((TensorSpec("input", Dtype.FP16, (-1, -1), nullable=True),)),
    Signature((TensorSpec("input", Dtype.UINT64, (-1, 1)),)),
    Signature((TensorSpec("a", Dtype.INT8, (-1,)), TensorSpec("b", Dtype.BYTES, (-1, 1), nullable=True))),
    Signature((TensorSpec("a", Dtype.BOOL, (-1,)), TensorSpec("b", Dtype.FP64, (-1,)))),
    Signature((TensorSpec("ids", Dtype.INT64, (-1, -1)), TensorSpec("mask", Dtype.BYTES, (-1, 2, 1)))),
    Signature((TensorSpec("input", Dtype.FP32, (-1, -1, -1)),)),
    Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True),
]


def fits(signature: Signature, tensors: Tensors) -> None:
    assert list(tensors) == [spec.name for spec in signature.inputs]
    assert len({array.shape[0] for array in tensors.values()}) == 1
    for spec in signature.inputs:
        array = tensors[spec.name]
        assert array.dtype == np.dtype(spec.dtype.numpy)
        assert array.ndim == len(spec.shape)
        assert all(want in {-1, got} for want, got in zip(spec.shape, array.shape, strict=True))
        assert array.shape[0] >= 1
        values = array.reshape(-1).tolist()
        if spec.dtype is Dtype.BYTES:
            kinds = bytes if signature.image else (str, type(None)) if spec.nullable else str
            assert all(isinstance(value, kinds) for value in values)
        elif array.dtype.kind == "f":
            assert not np.isinf(array).any()
            assert spec.nullable or not np.isnan(array).any()


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
