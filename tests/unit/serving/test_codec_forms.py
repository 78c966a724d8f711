"""Every layout takes every form of rows that the documentation promises, and all forms mean the same."""

import base64
import json

import numpy as np
import pytest

from modelkeep.contracts.signature import Dtype, Layout, Signature, TensorSpec
from modelkeep.serving.codec import Tensors, tensor_from_flat, tensors_from, tensors_from_json, values_of

MATRIX = Signature((TensorSpec("input", Dtype.FP32, (-1, 2), columns=("a", "b")),))
TABLE = Signature(
    (
        TensorSpec("age", Dtype.INT64, (-1, 1)),
        TensorSpec("name", Dtype.BYTES, (-1, 1), nullable=True),
        TensorSpec("height", Dtype.FP64, (-1, 1), nullable=True),
        TensorSpec("member", Dtype.BOOL, (-1, 1)),
    )
)
TENSORS = Signature((TensorSpec("ids", Dtype.INT64, (-1, -1)), TensorSpec("mask", Dtype.INT8, (-1, 2, 1))))
IMAGE = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True)


def read(signature: Signature, inputs: object) -> Tensors:
    return tensors_from_json(signature, json.dumps(inputs).encode())


def test_the_signatures_of_this_file_have_the_layouts_they_are_named_for() -> None:
    assert [one.layout for one in (MATRIX, TABLE, TENSORS, IMAGE)] == [
        Layout.MATRIX,
        Layout.TABLE,
        Layout.TENSORS,
        Layout.IMAGE,
    ]


@pytest.mark.parametrize(
    "inputs",
    [
        [[1, 2.5], [3, 4]],
        [{"a": 1, "b": 2.5}, {"b": 4, "a": 3}],
        {"b": [2.5, 4], "a": [1, 3]},
        {"input": [[1, 2.5], [3, 4]]},
    ],
)
def test_a_matrix_comes_as_rows_records_columns_or_by_its_name(inputs: object) -> None:
    tensors = read(MATRIX, inputs)
    assert list(tensors) == ["input"]
    assert tensors["input"].dtype == np.float32
    assert tensors["input"].tolist() == [[1, 2.5], [3, 4]]


def test_a_column_named_like_the_matrix_itself_is_a_column() -> None:
    signature = Signature((TensorSpec("a", Dtype.FP32, (-1, 2), columns=("a", "b")),))
    assert read(signature, {"a": [1, 3], "b": [2, 4]})["a"].tolist() == [[1, 2], [3, 4]]


def test_a_matrix_of_any_width_takes_the_width_of_its_first_row() -> None:
    signature = Signature((TensorSpec("x", Dtype.INT32, (-1, -1)),))
    assert read(signature, [[1, 2, 3], [4, 5, 6]])["x"].shape == (2, 3)


@pytest.mark.parametrize(
    "inputs",
    [
        [[1, "Ann", 1.7, True], [2, None, None, False]],
        [
            {"age": 1, "name": "Ann", "height": 1.7, "member": True},
            {"member": False, "age": 2, "name": None, "height": None},
        ],
        {"age": [1, 2], "name": ["Ann", None], "height": [1.7, None], "member": [True, False]},
        {"age": [[1], [2]], "name": [["Ann"], [None]], "height": [[1.7], [None]], "member": [[1], [0]]},
    ],
)
def test_a_table_keeps_the_type_of_each_column_in_every_form(inputs: object) -> None:
    tensors = read(TABLE, inputs)
    assert [array.dtype.name for array in tensors.values()] == ["int64", "object", "float64", "bool"]
    assert all(array.shape == (2, 1) for array in tensors.values())
    assert tensors["age"].ravel().tolist() == [1, 2]
    assert tensors["name"].ravel().tolist() == ["Ann", None]
    np.testing.assert_array_equal(tensors["height"].ravel(), [1.7, np.nan])
    assert tensors["member"].ravel().tolist() == [True, False]


def test_a_column_of_one_axis_stays_of_one_axis() -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1,)), TensorSpec("y", Dtype.FP32, (-1, 1))))
    tensors = read(signature, [[1, 2], [3, 4]])
    assert (tensors["x"].shape, tensors["y"].shape) == ((2,), (2, 1))


@pytest.mark.parametrize(
    "inputs",
    [
        {"ids": [[1, 2, 3], [4, 5, 6]], "mask": [[[1], [0]], [[0], [1]]]},
        [{"ids": [1, 2, 3], "mask": [[1], [0]]}, {"mask": [[0], [1]], "ids": [4, 5, 6]}],
    ],
)
def test_named_tensors_come_whole_or_row_by_row(inputs: object) -> None:
    tensors = read(TENSORS, inputs)
    assert tensors["ids"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tensors["mask"].tolist() == [[[1], [0]], [[0], [1]]]
    assert tensors["mask"].dtype == np.int8


def test_a_single_tensor_needs_no_name() -> None:
    signature = Signature((TensorSpec("cube", Dtype.FP32, (-1, 2, 2)),))
    assert read(signature, [[[1, 2], [3, 4]]])["cube"].tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize("wrap", [lambda text: [text], lambda text: {"image": [text]}, lambda text: [{"b64": text}]])
def test_pictures_come_as_base64_plain_or_wrapped(wrap) -> None:
    text = base64.b64encode(b"\x89PNG...").decode()
    assert read(IMAGE, wrap(text))["image"].tolist() == [b"\x89PNG..."]
    assert read(IMAGE, wrap(f"data:image/png;base64,{text}"))["image"].tolist() == [b"\x89PNG..."]


def test_pictures_that_are_bytes_already_pass_as_they_are() -> None:
    assert tensors_from(IMAGE, [b"one", b"two"])["image"].tolist() == [b"one", b"two"]


def test_wide_integers_keep_every_digit() -> None:
    signature = Signature((TensorSpec("u", Dtype.UINT64, (-1, 1)), TensorSpec("i", Dtype.INT64, (-1, 1))))
    tensors = read(signature, [[2**64 - 1, -(2**63)], [2**53 + 1, 2**53 + 1]])
    assert values_of(tensors["u"]) == [[2**64 - 1], [2**53 + 1]]
    assert values_of(tensors["i"]) == [[-(2**63)], [2**53 + 1]]


def test_a_whole_number_written_as_a_float_is_an_integer() -> None:
    signature = Signature((TensorSpec("x", Dtype.INT8, (-1, 2)),))
    assert read(signature, [[1.0, -128.0]])["x"].tolist() == [[1, -128]]


def test_missing_values_are_taken_where_the_signature_says_so() -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 2), nullable=True),))
    np.testing.assert_array_equal(read(signature, [[1, None]])["x"], [[1, np.nan]])


def test_open_inference_data_comes_flat_or_nested() -> None:
    spec = TensorSpec("x", Dtype.INT16, (2, 2))
    flat = tensor_from_flat(spec, [1, 2, 3, 4], (2, 2), "inputs.x")
    nested = tensor_from_flat(spec, [[1, 2], [3, 4]], (2, 2), "inputs.x")
    assert flat.tolist() == nested.tolist() == [[1, 2], [3, 4]]


def test_outputs_become_text_numbers_and_base64() -> None:
    array = np.empty((2, 2), dtype=object)
    array[:] = [["ż", b"caf\xc3\xa9"], [b"\xff\x00", None]]
    assert values_of(array) == [["ż", "café"], ["/wA=", None]]
    assert values_of(np.array([0.1], dtype=np.float32)) == [float(np.float32(0.1))]
