"""What does not fit is refused with the place and a code, and never changed quietly."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.serving.codec import check_rows, check_shape, tensor_from_flat, tensors_from, tensors_from_json

NAMED = Signature((TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),))
BARE = Signature((TensorSpec("input", Dtype.FP32, (-1, 2)),))
WHOLE = Signature((TensorSpec("input", Dtype.UINT8, (-1, 2)),))
TABLE = Signature(
    (TensorSpec("n", Dtype.INT32, (-1,)), TensorSpec("t", Dtype.BYTES, (-1,)), TensorSpec("y", Dtype.BOOL, (-1,)))
)
TENSORS = Signature((TensorSpec("ids", Dtype.INT64, (-1, 2)), TensorSpec("mask", Dtype.INT64, (-1, 2, 1))))
CUBE = Signature((TensorSpec("cube", Dtype.FP32, (-1, 2, 2)),))
IMAGE = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True)

REFUSED: list[tuple[Signature, object, str, str]] = [
    # a matrix of floats
    (NAMED, [["1", 2]], "inputs[0][0]", "not_a_number"),
    (NAMED, [[1, True]], "inputs[0][1]", "not_a_number"),
    (NAMED, [[1, [2]]], "inputs[0][1]", "not_a_number"),
    (NAMED, [[1, 2], [3, None]], "inputs[1][1]", "missing_value"),
    (NAMED, [[1, 1e39]], "inputs[0][1]", "out_of_range"),
    (NAMED, [[1, 10**400]], "inputs[0][1]", "out_of_range"),
    (NAMED, [[1, 2], [3]], "inputs[1]", "column_count"),
    (NAMED, [[1, 2, 3]], "inputs[0]", "column_count"),
    (NAMED, [1, 2], "inputs[0]", "not_a_row"),
    (NAMED, [[1, 2], {"a": 1, "b": 2}], "inputs[1]", "not_a_row"),
    (NAMED, [{"a": 1, "b": 2}, [1, 2]], "inputs[1]", "not_a_record"),
    (NAMED, [{"a": 1}], "inputs[0].b", "missing_column"),
    (NAMED, [{"a": 1, "b": 2, "c": 3}], "inputs[0].c", "unknown_column"),
    (NAMED, [{"a": 1, "b": 2}, {"a": 1, "b": "x"}], "inputs[1].b", "not_a_number"),
    (NAMED, {"a": [1]}, "inputs.b", "missing_column"),
    (NAMED, {}, "inputs.a", "missing_column"),
    (NAMED, {"a": [1, "x"], "b": [1]}, "inputs.a[1]", "not_a_number"),
    (NAMED, {"a": [1], "b": [2], "c": [3]}, "inputs.c", "unknown_column"),
    (NAMED, {"a": [1], "b": [2, 3]}, "inputs", "row_count"),
    (NAMED, {"a": [1], "b": 2}, "inputs.b", "not_a_list"),
    (NAMED, {"a": [1], "b": ["x"]}, "inputs.b[0]", "not_a_number"),
    (NAMED, {"input": [["x", 1]]}, "inputs.input[0][0]", "not_a_number"),
    (NAMED, {"input": [[1, 2]], "more": 1}, "inputs.more", "unknown_column"),
    (NAMED, {"input": 5}, "inputs.input", "not_a_list"),
    (NAMED, [], "inputs", "no_rows"),
    (NAMED, {"a": [], "b": []}, "inputs", "no_rows"),
    (NAMED, None, "inputs", "not_a_list"),
    (NAMED, "text", "inputs", "not_a_list"),
    (NAMED, 5, "inputs", "not_a_list"),
    (BARE, [{"a": 1}], "inputs[0]", "no_column_names"),
    (BARE, {"a": [1]}, "inputs", "no_column_names"),
    # whole numbers
    (WHOLE, [[1, 1.5]], "inputs[0][1]", "not_an_integer"),
    (WHOLE, [[1, True]], "inputs[0][1]", "not_an_integer"),
    (WHOLE, [[1, "2"]], "inputs[0][1]", "not_an_integer"),
    (WHOLE, [[1, None]], "inputs[0][1]", "missing_value"),
    (WHOLE, [[1, 256]], "inputs[0][1]", "out_of_range"),
    (WHOLE, [[1, -1]], "inputs[0][1]", "out_of_range"),
    (WHOLE, [[1, 1e300]], "inputs[0][1]", "out_of_range"),
    # a table
    (TABLE, [[1, "x", True], [2, "y"]], "inputs[1]", "column_count"),
    (TABLE, [[1, 2, True]], "inputs[0][1]", "not_a_text"),
    (TABLE, [[1, None, True]], "inputs[0][1]", "missing_value"),
    (TABLE, [[1, "x", "true"]], "inputs[0][2]", "not_a_boolean"),
    (TABLE, [[1, "x", 2]], "inputs[0][2]", "not_a_boolean"),
    (TABLE, [[1, "x", 1.0]], "inputs[0][2]", "not_a_boolean"),
    (TABLE, [[1, "x", None]], "inputs[0][2]", "missing_value"),
    (TABLE, [{"n": 1, "t": 2, "y": True}], "inputs[0].t", "not_a_text"),
    (TABLE, {"n": [1], "t": [2], "y": [True]}, "inputs.t[0]", "not_a_text"),
    (TABLE, {"n": [1], "t": ["x"]}, "inputs.y", "missing_column"),
    (TABLE, {"n": [1], "t": ["x"], "y": [True], "z": []}, "inputs.z", "unknown_column"),
    (TABLE, {"n": [1, 2], "t": ["x"], "y": [True]}, "inputs.n", "row_count"),
    (TABLE, [7], "inputs[0]", "not_a_row"),
    # named tensors
    (TENSORS, [[1, 2]], "inputs", "not_named"),
    (TENSORS, {"ids": [[1, 2]]}, "inputs.mask", "missing_input"),
    (TENSORS, {"ids": [[1, 2]], "mask": [[[1], [1]]], "x": 1}, "inputs.x", "unknown_column"),
    (TENSORS, {"ids": [[1, 2]], "mask": [[1, 1]]}, "inputs.mask", "shape_mismatch"),
    (TENSORS, {"ids": [[1, 2, 3]], "mask": [[[1], [1]]]}, "inputs.ids", "shape_mismatch"),
    (TENSORS, {"ids": [[1, "x"]], "mask": [[[1], [1]]]}, "inputs.ids (value 1)", "not_an_integer"),
    (TENSORS, {"ids": [[1, 2], [1, 2]], "mask": [[[1], [1]]]}, "inputs.ids", "row_count"),
    (TENSORS, {"ids": 5, "mask": [[[1], [1]]]}, "inputs.ids", "shape_mismatch"),
    (CUBE, [[[1, 2], [3, 4]], [[1, 2], [3]]], "inputs", "ragged"),
    (CUBE, [[[1, 2], [3, 4]], [[1, 2], 3, 4]], "inputs", "ragged"),
    (CUBE, [[[1, 2], [3]], [[4], [5, 6, 7]]], "inputs", "ragged"),  # as many values as the shape needs
    (CUBE, [[[1, 2], [3, [4]]]], "inputs (value 3)", "not_a_number"),
    # pictures
    (IMAGE, ["***"], "inputs[0]", "invalid_base64"),
    (IMAGE, ["YQ=="[:-1]], "inputs[0]", "invalid_base64"),
    (IMAGE, ["YQ==", 5], "inputs[1]", "not_a_picture"),
    (IMAGE, [{"base64": "YQ=="}], "inputs[0]", "not_a_picture"),
    (IMAGE, {"picture": ["YQ=="]}, "inputs.picture", "unknown_column"),
    (IMAGE, {}, "inputs.image", "missing_input"),
    (IMAGE, "YQ==", "inputs", "not_a_list"),
    (IMAGE, [], "inputs", "no_rows"),
]


def refusal(call: Callable[[], object]) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        call()
    return refused.value


@pytest.mark.parametrize(("signature", "inputs", "path", "code"), REFUSED)
def test_a_refusal_names_the_first_place_at_fault_and_its_code(signature, inputs, path, code) -> None:
    error = refusal(lambda: tensors_from_json(signature, json.dumps(inputs).encode()))
    assert (error.fields[0].path, error.fields[0].code) == (path, code)
    assert error.kind == "invalid"


def test_every_value_at_fault_is_named() -> None:
    error = refusal(lambda: tensors_from(NAMED, [["a", 1], [2, None], [True, 3]]))
    assert [(one.path, one.code) for one in error.fields] == [
        ("inputs[0][0]", "not_a_number"),
        ("inputs[1][1]", "missing_value"),
        ("inputs[2][0]", "not_a_number"),
    ]


def test_a_value_at_fault_is_named_once() -> None:
    error = refusal(lambda: tensors_from(NAMED, [["a", 10**400]] * 9))
    assert [one.path for one in error.fields] == [f"inputs[{row}][{column}]" for row in range(9) for column in range(2)]


def test_no_more_than_twenty_faults_are_named() -> None:
    assert len(refusal(lambda: tensors_from(NAMED, [["a", "b"]] * 1000)).fields) == 20


def test_a_long_unknown_name_is_cut_before_it_goes_back() -> None:
    error = refusal(lambda: tensors_from(NAMED, [{"a": 1, "b": 2, "x" * 10_000: 3}]))
    assert len(error.message) < 200


def test_a_refusal_never_shows_the_value() -> None:
    for inputs in ([["s3cret", 1]], [{"a": "s3cret", "b": 1}], {"a": ["s3cret"], "b": [1]}, "s3cret", ["s3cret"]):
        error = refusal(lambda inputs=inputs: tensors_from(NAMED, inputs))
        assert "s3cret" not in str(error) + repr(error.fields)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[1,",
        b"nan",
        b"[[NaN, 1]]",
        b"[[Infinity, 1]]",
        b"[[1e999, 2]]",
        b"\xff\xfe",
        b'["\\ud800"]',
        b"[" + b"9" * 5000,
    ],
)
@pytest.mark.parametrize("signature", [NAMED, WHOLE, TABLE, TENSORS, IMAGE])
def test_what_is_no_json_is_refused(signature, raw) -> None:
    assert refusal(lambda: tensors_from_json(signature, raw)).fields[0].code == "invalid_json"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_a_megabyte_of_brackets_is_refused(opening) -> None:
    raw = opening * (1_000_000 // len(opening))
    for signature in (NAMED, WHOLE, TABLE, TENSORS, IMAGE):
        assert refusal(lambda signature=signature: tensors_from_json(signature, raw)).fields[0].code == "invalid_json"


def test_lists_nested_deeper_than_the_stack_are_refused() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    for signature in (NAMED, WHOLE, TABLE, TENSORS, CUBE, IMAGE):
        refusal(lambda signature=signature: tensors_from(signature, deep))
    while isinstance(deep, list):  # taken apart by hand: freeing it at once would exhaust the interpreter's own stack
        deep = deep.pop()


FLAT: list[tuple[object, tuple[int, ...], str]] = [
    ([1, 2, 3], (2, 2), "shape_mismatch"),
    ([1, 2, 3, 4, 5], (2, 2), "shape_mismatch"),
    ([[1, 2], [3, 4], [5, 6]], (2, 3), "shape_mismatch"),  # transposed: as many values, other rows
    ([[1, 2, 3], [4]], (2, 2), "shape_mismatch"),
    ([[1, 2], [3]], (2, 2), "ragged"),
    ([[1, 2], 3], (2, 2), "ragged"),
    ([[[1], [2]]], (2, 1), "shape_mismatch"),
    (5, (1,), "not_a_list"),
    (None, (1,), "not_a_list"),
    ("12", (2,), "not_a_list"),
    ({"0": 1}, (1,), "not_a_list"),
]


@pytest.mark.parametrize(("data", "shape", "code"), FLAT)
def test_open_inference_data_is_flat_or_nested_exactly_as_its_shape(data, shape, code) -> None:
    error = refusal(lambda: tensor_from_flat(TensorSpec("x", Dtype.INT64, shape), data, shape, "inputs.x"))
    assert (error.fields[0].path, error.fields[0].code) == ("inputs.x", code)


def test_open_inference_names_the_value_at_fault() -> None:
    error = refusal(lambda: tensor_from_flat(TensorSpec("x", Dtype.INT8, (2, 2)), [[1, 2], [3, 128]], (2, 2), "inputs.x"))
    assert (error.fields[0].path, error.fields[0].code) == ("inputs.x[3]", "out_of_range")


def test_rows_must_agree_among_inputs() -> None:
    error = refusal(lambda: check_rows({"a": np.zeros(2), "b": np.zeros(3)}))
    assert [(one.path, one.code) for one in error.fields] == [("inputs.a", "row_count"), ("inputs.b", "row_count")]


@pytest.mark.parametrize(("want", "shape"), [((-1, 2), (3, 2)), ((-1, -1), (3, 7)), ((-1,), (0,))])
def test_minus_one_is_any_length(want, shape) -> None:
    check_shape(TensorSpec("x", Dtype.FP32, want), shape, "inputs.x")


@pytest.mark.parametrize(("want", "shape"), [((-1, 2), (3, 3)), ((-1, 2), (3,)), ((-1,), (3, 1))])
def test_a_shape_that_does_not_fit_is_refused(want, shape) -> None:
    assert refusal(lambda: check_shape(TensorSpec("x", Dtype.FP32, want), shape, "inputs.x")).fields[0].code == "shape_mismatch"
