"""What people predict on, and the JSON that becomes of it."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from modelkeep.client import Invalid
from modelkeep.client.inputs import encode, pictures_in, rows_in


def sent(value):
    return json.loads(encode(rows_in(value)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([[1, 2.5], [3, None]], [[1, 2.5], [3, None]]),
        ([(1, 2)], [[1, 2]]),
        (np.array([[1, 2]], dtype="int8"), [[1, 2]]),
        (np.array([[1.5, np.nan]], dtype="float32"), [[1.5, None]]),
        ([np.float64(2), np.int64(3), np.bool_(True)], [2.0, 3, True]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([np.array([1.0]), np.array([2.0])], [[1.0], [2.0]]),
        ({"age": 41, "plan": "pro"}, [{"age": 41, "plan": "pro"}]),
        ({"age": [41, 42]}, {"age": [41, 42]}),
        ({"ids": np.array([[1, 2]])}, {"ids": [[1, 2]]}),
        ({}, {}),
        ([{"age": float("nan")}], [{"age": None}]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), {"a": [1, 2], "b": ["x", None]}),
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), {"a": [1, None]}),
        (pd.DataFrame({"t": pd.to_datetime(["2026-01-02", None])}), {"t": ["2026-01-02T00:00:00", None]}),
        (pd.DataFrame({0: [1], 1: [2]}), {"0": [1], "1": [2]}),
        (pd.DataFrame({"a": [1.0], "b": [2.0]}).iloc[0], [{"a": 1.0, "b": 2.0}]),
        (pd.Series([1.0, 2.0]), [1.0, 2.0]),
        (scipy.sparse.csr_array(np.array([[0, 1]])), [[0, 1]]),
        ([dt.date(2026, 1, 2)], ["2026-01-02"]),
        ((value for value in [1, 2]), [1, 2]),
        (["größe", "\u2028"], ["größe", "\u2028"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_of_every_form_become_json(given, expected):
    assert sent(given) == expected


@pytest.mark.parametrize(
    "given",
    [[float("inf")], np.array([[-np.inf]]), [object()], [b"bytes", 1], {"a": complex(1, 2)}, ["\ud800"]],
    ids=["inf", "array", "object", "bytes", "complex", "surrogate"],
)
def test_what_json_cannot_say_is_refused_in_words(given):
    with pytest.raises(Invalid) as caught:
        sent(given)
    assert caught.value.code == "invalid_input"


def test_a_frame_with_two_columns_of_one_name_is_refused():
    with pytest.raises(Invalid, match="several columns named a"):
        sent(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_list_that_holds_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(Invalid):
        sent(endless)


@given(
    hnp.arrays(st.sampled_from(["f4", "f8", "i2", "i8", "?"]), hnp.array_shapes(max_dims=3), elements={"allow_infinity": False})
)
def test_an_array_arrives_as_it_was(array):
    back = np.array(sent(array), dtype=array.dtype)
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


def test_pictures_are_bytes_paths_and_pil_images_alone_or_in_a_list(tmp_path):
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"\xff\xd8\xff")
    image = Image.new("RGB", (4, 4))
    for picture in (file, str(file), b"\xff\xd8\xff", image, [file, b"\xff\xd8\xff", image], (file,)):
        pictures = pictures_in(picture)
        assert pictures
        assert all(one.data for one in pictures)
    assert pictures_in(file)[0].name == "cat.jpg"
    assert pictures_in(image)[0].data.startswith(b"\x89PNG")


@pytest.mark.parametrize("given", [[], [[1]], ["text", "text"], {"a": 1}, np.zeros(3), [b"x", "y"]], ids=str)
def test_rows_are_no_pictures(given):
    assert pictures_in(given) == []


def test_a_picture_that_is_not_there_is_named():
    with pytest.raises(Invalid, match=r"nowhere\.jpg"):
        pictures_in(Path("nowhere.jpg"))
