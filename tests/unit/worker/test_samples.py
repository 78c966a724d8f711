"""Samples of every form are read with the right types, or refused with a sentence that helps."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixtures import artifacts
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import Column
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.worker.samples import MOST_ROWS, RefusedError, fit, make_up, read_sample

MATRIX = Signature((TensorSpec("input", Dtype.FP64, (-1, 2), columns=("a", "b")),))
TABLE = Signature((TensorSpec("a", Dtype.FP64, (-1,)), TensorSpec("b", Dtype.BYTES, (-1,)), TensorSpec("c", Dtype.BOOL, (-1,))))


def read(text, filename="s.csv"):
    return read_sample(text.encode() if isinstance(text, str) else text, filename, picture=False)


def refusal(call, *args):
    with pytest.raises(RefusedError) as refused:
        call(*args)
    return refused.value.rejection


@pytest.mark.parametrize(
    ("cells", "dtype", "nullable"),
    [
        (["1", "2"], Dtype.INT64, False),
        (["-1", "+2"], Dtype.INT64, False),
        (["1", "2.5"], Dtype.FP64, False),
        (["1e3", "nan"], Dtype.FP64, True),
        (["1", ""], Dtype.INT64, True),
        (["1", "NA"], Dtype.INT64, True),
        (["true", "False"], Dtype.BOOL, False),
        (["true", ""], Dtype.BOOL, True),
        (["x", "1"], Dtype.BYTES, False),
        (["NA", "NL"], Dtype.BYTES, False),
        (["", "x"], Dtype.BYTES, True),
        (["", ""], Dtype.BYTES, True),
    ],
)
def test_the_type_of_a_csv_column_follows_from_its_cells(cells, dtype, nullable):
    sample = read("name,other\n" + "".join(f"{cell},x\n" for cell in cells))
    assert sample.columns[0] == Column("name", dtype, nullable)


@pytest.mark.parametrize(
    ("cells", "dtype", "nullable"),
    [
        ("[1, 2]", Dtype.INT64, False),
        ("[1, 2.5]", Dtype.FP64, False),
        ("[1, null]", Dtype.INT64, True),
        ("[true, false]", Dtype.BOOL, False),
        ('["x", null]', Dtype.BYTES, True),
        ("[null, null]", Dtype.FP64, True),
        ('["x", 1]', Dtype.BYTES, False),
    ],
)
def test_the_type_of_a_json_column_follows_from_its_values(cells, dtype, nullable):
    assert read(f'{{"name": {cells}, "other": [1, 2]}}', "s.json").columns[0] == Column("name", dtype, nullable)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n",
        "b;a\n2;1\n4;3\n",
        "a\tb\n1\t2\n\n3\t4\n",
        '"a","b"\r\n"1","2"\r\n"3","4"\r\n',
        "[[1, 2], [3, 4]]",
        '[{"a": 1, "b": 2}, {"b": 4, "a": 3}]',
        '{"a": [1, 3], "b": [2, 4]}',
        '{"a": {"0": 1, "1": 3}, "b": {"0": 2, "1": 4}}',
        '{"inputs": [[1, 2], [3, 4]]}',
        '{"input": [[1, 2], [3, 4]]}',
    ],
)
def test_every_form_becomes_the_same_matrix(text):
    assert fit(read(text), MATRIX)["input"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_table_keeps_types_and_missing_values():
    arrays = fit(read("a,b,c\n1,007,true\n,,false\n"), TABLE)
    assert arrays["a"].tolist()[0] == 1.0
    assert np.isnan(arrays["a"][1])
    assert arrays["b"].tolist() == ["007", None]
    assert arrays["c"].tolist() == [True, False]


def test_booleans_of_a_csv_count_as_numbers_where_numbers_are_wanted_and_those_of_json_do_not_as_in_requests():
    assert fit(read("a,b\ntrue,0\nfalse,1\n"), MATRIX)["input"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert "Write 1 for true" in refusal(fit, read("[[true, 0]]"), MATRIX).detail


def test_numbers_count_as_booleans_where_those_are_wanted():
    assert fit(read("a,b,c\n1,x,1\n2,y,0\n"), TABLE)["c"].tolist() == [True, False]


def test_one_column_is_taken_under_any_name():
    texts = Signature((TensorSpec("text", Dtype.BYTES, (-1,)),))
    assert fit(read("review\ngood\nbad\n"), texts)["text"].tolist() == ["good", "bad"]
    assert fit(read('["good", "bad"]'), texts)["text"].tolist() == ["good", "bad"]


def test_tensors_are_taken_as_they_stand_in_json():
    tensors = Signature((TensorSpec("ids", Dtype.INT64, (-1, -1)), TensorSpec("bias", Dtype.FP32, (-1,))))
    arrays = fit(read('{"ids": [[1, 2]], "bias": [0.5]}'), tensors)
    assert arrays["ids"].tolist() == [[1, 2]]
    assert "ids [-1, -1]" in refusal(fit, read("a,b\n1,2\n"), tensors).detail


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,c\n1,2\n", ["missing: b", "not the model's: c"]),
        ("a\n1\n", ["missing: b"]),
        ("a,b,c\n1,2,3\n", ["not the model's: c"]),
        ("[[1, 2, 3]]", ["takes 2 columns", "has 3"]),
        ("a,b\n1,x\n", ["b", "number"]),
        ('{"a": [1, 2], "b": [1]}', ["length"]),
    ],
)
def test_what_does_not_fit_is_named(text, words):
    found = refusal(fit, read(text), MATRIX)
    assert found.code is Reason.SAMPLE_MISMATCH
    assert all(word in found.detail for word in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a,b\n", "no rows"),
        ("1,2\n3,4\n", "name the columns"),
        ("a,b\n1\n", "Line 2 has 1"),
        ("a,a\n1,2\n", "a more than once"),
        (",a\n0,1\n", "index=False"),
        (b"\xff\xfea", "UTF-8"),
        ('a,b\n"1,2\n', "CSV"),
        ("{oops", "JSON"),
        ("[]", "no rows"),
        ('{"inputs": {}}', "no rows"),
    ],
)
def test_what_cannot_be_read_is_explained(text, words):
    found = refusal(read, text)
    assert found.code is Reason.SAMPLE_UNREADABLE
    assert words in found.detail


def test_only_the_first_rows_of_a_long_sample_are_read():
    assert len(read("a,b\n" + "1,2\n" * (MOST_ROWS + 50)).rows) == MOST_ROWS
    assert len(read("[" + ",".join(["[1, 2]"] * (MOST_ROWS + 50)) + "]").rows) == MOST_ROWS


def test_a_picture_is_taken_as_it_is():
    data = artifacts.picture()
    image = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True)
    assert fit(read_sample(data, "photo.png", picture=True), image)["image"].tolist() == [data]


@given(st.binary(max_size=200))
def test_no_sample_makes_reading_raise_anything_but_a_refusal(data):
    try:
        sample = read_sample(data, "sample", picture=False)
        fit(sample, MATRIX)
    except RefusedError:
        return


@pytest.mark.parametrize("dtype", Dtype)
def test_made_up_rows_fit_every_datatype(dtype):
    spec = TensorSpec("x", dtype, (-1, 3, -1))
    arrays = make_up(Signature((spec,)), 4, 8)
    assert arrays["x"].shape == (4, 3, 8)
    assert arrays["x"].dtype.name == dtype.numpy


def test_made_up_rows_are_always_the_same():
    spec = TensorSpec("x", Dtype.FP64, (-1, 3))
    assert (make_up(Signature((spec,)), 4, 8)["x"] == make_up(Signature((spec,)), 4, 8)["x"]).all()


def test_a_made_up_picture_is_a_picture():
    (data,) = make_up(Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True), 1, 8)["image"]
    assert Image.open(io.BytesIO(data)).size == (320, 240)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("[[[1, 2], [3, 4]]]", (Column("", Dtype.INT64, shape=(2, 2)),)),
        ('{"x": [[1.5, 2], [3, 4]], "y": [1, 2]}', (Column("x", Dtype.FP64, shape=(2,)), Column("y", Dtype.INT64))),
        ('[{"x": [1, 2], "y": true}]', (Column("x", Dtype.INT64, shape=(2,)), Column("y", Dtype.BOOL))),
        (
            '{"inputs": {"x": [[[1], [null]]], "y": [2]}}',
            (Column("x", Dtype.INT64, nullable=True, shape=(2, 1)), Column("y", Dtype.INT64)),
        ),
        ("[[[1, 2], [3]]]", ()),
        ('[[["a", "b"]]]', (Column("", Dtype.BYTES, shape=(1, 2)),)),
        ('[{"tags": ["a", null], "y": 1}]', (Column("tags", Dtype.BYTES, nullable=True, shape=(2,)), Column("y", Dtype.INT64))),
        ('[[[{"a": 1}]]]', ()),
        ('[{"x": [1]}, {"y": [1]}]', ()),
    ],
)
def test_nested_lists_tell_their_shapes(text, columns):
    assert read(text, "s.json").columns == columns


def test_rows_fit_a_matrix_of_any_width():
    open_width = Signature((TensorSpec("tokens", Dtype.INT64, (-1, -1)),))
    assert fit(read("[[1, 2, 3], [4, 5, 6]]", "s.json"), open_width)["tokens"].tolist() == [[1, 2, 3], [4, 5, 6]]
