"""What people predict on, and the JSON that becomes of it."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from modelkeep.client import Invalid
from modelkeep.client.inputs import encode, first_rows, pictures_in, rows_in, sliced


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


ZONED = pd.Timestamp("2026-03-29T01:30:00.123456789", tz="Europe/Berlin")
NAIVE = pd.Timestamp("2026-01-02T03:04:05.000000006")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            pl.DataFrame({"a": [1, None], "b": ["x", None], "c": [1.5, float("nan")]}),
            {"a": [1, None], "b": ["x", None], "c": [1.5, None]},
        ),
        (pl.DataFrame({"a": pl.Series(["x", "y"], dtype=pl.Categorical)}), {"a": ["x", "y"]}),
        (pl.DataFrame({"a": pl.Series([0, 2**64 - 1], dtype=pl.UInt64)}), {"a": [0, 2**64 - 1]}),
        (pl.Series([1, None]), [1, None]),
        (pl.DataFrame({"a": [[1, 2], [3, 4]]}), {"a": [[1, 2], [3, 4]]}),
        (pa.table({"a": [1, None], "b": ["x", None]}), {"a": [1, None], "b": ["x", None]}),
        (pa.record_batch({"a": pa.array([0, 2**64 - 1], pa.uint64())}), {"a": [0, 2**64 - 1]}),
        (pa.table({"a": pa.array(["x", "y", None]).dictionary_encode()}), {"a": ["x", "y", None]}),
        (pa.array([1.5, None]), [1.5, None]),
        (pd.DataFrame({"a": pd.Categorical(["x", None])}), {"a": ["x", None]}),
        (pd.DataFrame({"a": pd.array([0, 2**64 - 1, None], dtype="UInt64")}), {"a": [0, 2**64 - 1, None]}),
        (pd.DataFrame({"a": pd.array([True, None], dtype="boolean")}), {"a": [True, None]}),
        ({"a": pd.Series(["2026-01-02"], dtype="datetime64[ns]")}, {"a": ["2026-01-02T00:00:00"]}),
        ({"a": pd.Categorical(["x"])}, {"a": ["x"]}),
        (np.array([(1, "x")], dtype=[("a", "i8"), ("b", "U1")]), {"a": [1], "b": ["x"]}),
        ([2**64 - 1, 2**70], [2**64 - 1, 2**70]),
        (np.longdouble("0.5"), 0.5),
        ([np.datetime64("2026-01-02")], ["2026-01-02"]),
        (np.array(["NaT", "2026-01-02T03:04:05"], "datetime64[s]"), [None, "2026-01-02T03:04:05"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_library_s_values_arrive_unchanged(given, expected):
    assert sent(given) == expected


@pytest.mark.parametrize(
    "when", [NAIVE, ZONED, NAIVE.floor("us"), ZONED.floor("s"), pd.Timestamp("1900-01-01", tz="UTC")], ids=str
)
def test_a_point_in_time_keeps_its_zone_and_its_nanoseconds_in_every_library(when):
    expected = [when.isoformat(), None]
    zone = None if when.tz is None else str(when.tz)
    frame = pd.DataFrame({"t": pd.Series([when, None], dtype="datetime64[ns]" if zone is None else f"datetime64[ns, {zone}]")})
    arrow = pa.table({"t": pa.array([when.value, None], pa.int64()).cast(pa.timestamp("ns", zone))})
    assert sent(frame) == {"t": expected}
    assert sent(arrow) == {"t": expected}
    assert sent(pl.from_arrow(arrow)) == {"t": expected}
    assert sent([when, None]) == expected
    if zone is None:
        assert sent(np.array([when.to_datetime64(), "NaT"], "datetime64[ns]")) == expected


@given(st.integers(-(2**62), 2**62), st.sampled_from([None, "UTC", "Europe/Berlin", "America/St_Johns", "+05:30"]))
def test_any_nanosecond_is_told_alike_by_all_libraries(nanoseconds, zone):
    arrow = pa.table({"t": pa.array([nanoseconds], pa.int64()).cast(pa.timestamp("ns", zone))})
    expected = pd.Timestamp(nanoseconds, tz="UTC" if zone else None)
    assert sent(arrow) == {"t": [(expected.tz_convert(zone) if zone else expected).isoformat()]}
    if zone is None:
        assert sent(np.array([nanoseconds], "datetime64[ns]")) == sent(arrow)["t"]


@given(st.integers(0, 86_400 * 10**9 - 1))
def test_a_time_of_day_keeps_its_nanoseconds(nanoseconds):
    text = sent(pl.Series([nanoseconds], dtype=pl.Time))[0]
    assert text == sent(pa.array([nanoseconds], pa.time64("ns")))[0]
    whole, _dot, fraction = text.partition(".")
    hours, minutes, seconds = map(int, whole.split(":"))
    assert (hours * 3600 + minutes * 60 + seconds) * 10**9 + int(f"{fraction:0<9}") == nanoseconds


@pytest.mark.parametrize(
    "given",
    [
        np.array([1], "timedelta64[ns]"),
        np.timedelta64(1, "s"),
        pd.DataFrame({"a": pd.to_timedelta([1])}),
        pl.Series([dt.timedelta(1)]),
        pa.array([1], pa.duration("ns")),
        pa.array([b"x"]),
        np.array([b"x"]),
        np.array([np.longdouble(1) / 3]),
        [__import__("decimal").Decimal("0.1")],
        pl.DataFrame({"a": [float("inf")]}),
        pa.table([[1], [2]], names=["a", "a"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_have_to_be_changed_is_refused(given):
    with pytest.raises(Invalid) as caught:
        sent(given)
    assert caught.value.code == "invalid_input"


@given(st.lists(st.integers(), min_size=1))
def test_any_whole_numbers_are_sent_with_every_digit(values):
    assert sent(values) == values
    assert sent(np.array(values, dtype=object)) == values
    assert sent(pd.DataFrame({"a": pd.Series(values, dtype=object)})) == {"a": values}


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"a": range(7)}),
        pl.DataFrame({"a": range(7)}),
        pa.table({"a": list(range(7))}),
        {"a": list(range(7))},
        {"a": np.arange(7)},
        {"a": pd.Series(range(7))},
        np.arange(7),
        scipy.sparse.csr_array(np.arange(7)[:, None]),
    ],
    ids=lambda value: type(value).__module__.partition(".")[0] + type(value).__name__,
)
def test_rows_are_cut_into_pieces_that_make_up_the_whole(rows):
    count, take = sliced(rows)
    pieces = [sent(take(start, min(start + 3, count))) for start in range(0, count, 3)]
    flat = [value for piece in pieces for value in (piece["a"] if isinstance(piece, dict) else piece)]
    assert [value[0] if isinstance(value, list) else value for value in flat] == list(range(7))
    few = first_rows(rows, 2)
    assert len(few["a"] if isinstance(few, dict) else few) == 2


def test_columns_of_different_length_are_no_rows():
    with pytest.raises(Invalid, match="differ in length"):
        sliced({"a": [1], "b": [1, 2]})
