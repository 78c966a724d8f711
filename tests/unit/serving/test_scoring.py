"""The same rows are the same tensors in every form that MLflow and SageMaker write them in; what does not fit is refused."""

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.signatures import ANYTHING, SIGNATURES, fits, matrices, same, tables
from modelkeep.contracts.errors import Invalid
from modelkeep.contracts.signature import DATETIME, Dtype, Layout, Signature, TensorSpec
from modelkeep.serving.codec import tensors_from
from modelkeep.serving.dialects.scoring import FORMS, Reading, _fields, tensors_of

JSON = "application/json"
NUMBERS = Signature((TensorSpec("input", Dtype.FP64, (-1, 2), nullable=True, columns=("a", "b")),))
WHOLE = Signature((TensorSpec("input", Dtype.INT64, (-1, 2), columns=("a", "b")),))
NAMELESS = Signature((TensorSpec("input", Dtype.FP64, (-1, 3)),))
PICTURES = SIGNATURES[-1]
MIXED = Signature(
    (
        TensorSpec("age", Dtype.INT64, (-1,)),
        TensorSpec("city", Dtype.BYTES, (-1,), nullable=True),
        TensorSpec("since", Dtype.BYTES, (-1,), nullable=True, kind=DATETIME),
    )
)
TEXTS = Signature((TensorSpec("first", Dtype.BYTES, (-1,)), TensorSpec("last", Dtype.BYTES, (-1,))))


def read(signature: Signature, body: object, content_type: str = JSON, **how: Any) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return {name: array.tolist() for name, array in tensors_of(signature, content_type, data, Reading(**how)).items()}


def refused(signature: Signature, body: object, content_type: str = JSON, **how: Any) -> tuple[str, str]:
    """The first field at fault, or the error's own code."""
    with pytest.raises(Invalid) as raised:
        read(signature, body, content_type, **how)
    fields = raised.value.fields
    return (fields[0].path, fields[0].code) if fields else ("", raised.value.code)


def columns(signature: Signature) -> list[str]:
    if signature.layout is Layout.MATRIX:
        return list(signature.inputs[0].columns)
    return [spec.name for spec in signature.inputs]


@given(matrices() | tables(), st.randoms())
def test_the_same_rows_are_the_same_tensors_in_every_form_of_json(
    drawn: tuple[Signature, list[list[Any]]], random: Any
) -> None:
    signature, rows = drawn
    names = columns(signature)
    order = random.sample(range(len(names)), len(names))
    records = [dict(zip(names, row, strict=True)) for row in rows]
    forms = [
        {"dataframe_split": {"columns": names, "data": rows}},
        {"dataframe_split": {"index": [7] * len(rows), "data": rows}},
        {"dataframe_split": {"columns": [names[at] for at in order], "data": [[row[at] for at in order] for row in rows]}},
        {"dataframe_records": records},
        {"instances": rows},
        {"instances": records},
        {"inputs": rows, "params": {}},
        {"inputs": dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), "params": None},
    ]
    wanted = tensors_from(signature, rows)
    for form in forms:
        same(tensors_of(signature, JSON, json.dumps(form).encode(), Reading()), wanted)


def written(rows: list[list[Any]], header: list[str], **options: Any) -> bytes:
    text = io.StringIO()
    cells = [["" if cell is None else str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in rows]
    csv.writer(text, **options).writerows([header, *cells] if header else cells)
    return text.getvalue().encode()


@given(matrices() | tables(), st.randoms(), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_the_same_rows_are_the_same_tensors_as_csv(
    drawn: tuple[Signature, list[list[Any]]], random: Any, end: str, mark: bytes
) -> None:
    signature, rows = drawn
    names = [name.strip() for name in columns(signature)]
    if names != columns(signature) or "" in names:
        return  # blanks around a name, and empty cells, say nothing in a CSV
    rows = [[(cell or "x") if isinstance(cell, str) else cell for cell in row] for row in rows]
    order = random.sample(range(len(names)), len(names))
    ordered = [[row[at] for at in order] for row in rows]
    wanted = tensors_from(signature, rows)
    ends = any(isinstance(cell, str) and not {"\r", "\n"}.isdisjoint(cell) for row in [names, *rows] for cell in row)
    for quoting in (csv.QUOTE_NONNUMERIC if ends else csv.QUOTE_MINIMAL, csv.QUOTE_ALL):  # Python 3.11 quotes only its own end
        body = mark + written(ordered, [names[at] for at in order], lineterminator=end, quoting=quoting)
        same(tensors_of(signature, "text/csv", body, Reading()), wanted)
        same(tensors_of(signature, "text/csv; charset=UTF-8; header=present", body, Reading(headless=True)), wanted)
        plain = mark + written(rows, [], lineterminator=end, quoting=quoting)
        same(tensors_of(signature, "text/csv; header=absent", plain, Reading()), wanted)


@given(matrices())
def test_an_array_is_the_same_tensors_as_its_rows(drawn: tuple[Signature, list[list[Any]]]) -> None:
    signature, rows = drawn
    wanted = tensors_from(signature, rows)
    array = wanted["input"]
    if array.dtype == object:
        assert refused(signature, saved(np.zeros(array.shape)), "application/x-npy")
        return
    for given_array in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        same(tensors_of(signature, "application/x-npy", saved(given_array), Reading()), wanted)


def saved(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def test_whole_numbers_keep_their_digits_and_dates_their_zone() -> None:
    row = [2**53 + 1, "Żółw", "2026-05-17T08:30:00+02:00"]
    wanted = {"age": [row[0]], "city": [row[1]], "since": [row[2]]}
    assert read(MIXED, {"dataframe_split": {"columns": ["since", "age", "city"], "data": [[row[2], row[0], row[1]]]}}) == wanted
    assert read(MIXED, {"dataframe_records": [dict(zip(columns(MIXED), row, strict=True))]}) == wanted
    assert read(MIXED, f"age,city,since\n{row[0]},{row[1]},{row[2]}\n", "text/csv") == wanted


def test_what_python_writes_for_a_gap_is_a_missing_value() -> None:
    for form in ('{"instances": [[NaN, 1]]}', '{"dataframe_split": {"columns": ["b", "a"], "data": [[1, NaN]]}}'):
        (array,) = tensors_of(NUMBERS, JSON, form.encode(), Reading()).values()
        assert np.isnan(array[0, 0])
        assert array[0, 1] == 1
    assert refused(WHOLE, '{"instances": [[NaN, 1]]}') == ("instances[0][0]", "missing_value")
    assert refused(NUMBERS, '{"instances": [[Infinity, 1]], "NaN": 0}') == ("", "invalid_json")


@example([float("nan"), 'NaN, "NaN"', "\\", {"NaN": -0.5}])
@given(
    st.recursive(
        st.none() | st.floats(allow_infinity=False) | st.text('NaN"\\,[ Infity-') | st.text(),
        lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text('NaN"\\'), one, max_size=2),
        max_leaves=10,
    )
)
def test_only_gaps_become_null_and_no_text_is_touched(value: object) -> None:
    body = json.dumps({"inputs": value, "gap": float("nan")})
    found = {name: json.loads(bytes(raw)) for name, raw in _fields(body.encode()).items()}
    assert found == json.loads(body, parse_constant=lambda _name: None)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, ("body", "one_form")),
        ({"params": {}}, ("body", "one_form")),
        ([[1, 2]], ("body", "not_an_object")),
        (None, ("body", "not_an_object")),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, ("inputs", "one_form")),
        ({"instances": [[1, 2]], "signature_name": "x"}, ("signature_name", "unknown_field")),
        ({"instances": [[1, 2]], "client_request_id": "x"}, ("client_request_id", "unknown_field")),
        ({"messages": []}, ("messages", "unknown_field")),
        ({"dataframe_split": [[1, 2]]}, ("dataframe_split", "not_an_object")),
        ({"dataframe_split": {"columns": ["a", "b"]}}, ("dataframe_split.data", "missing_field")),
        ({"dataframe_split": {"data": [[1, 2]], "dtypes": []}}, ("dataframe_split.dtypes", "unknown_field")),
        ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, ("dataframe_split.b", "missing_column")),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, ("dataframe_split.columns.a", "duplicate_column")),
        ({"dataframe_split": {"columns": ["a", "c"], "data": [[1, 2]]}}, ("dataframe_split.c", "unknown_column")),
        ({"dataframe_split": {"columns": ["a", ["b"]], "data": [[1, 2]]}}, ("dataframe_split.columns", "not_names")),
        ({"dataframe_split": {"columns": "ab", "data": [[1, 2]]}}, ("dataframe_split.columns", "not_names")),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3]]}}, ("dataframe_split.data[1]", "column_count")),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], 3]}}, ("dataframe_split.data[1]", "not_a_row")),
        ({"dataframe_split": {"columns": ["a", "b"], "data": {"a": 1}}}, ("dataframe_split.data", "not_a_list")),
        ({"dataframe_split": {"index": [0], "data": [[1, 2], [3, 4]]}}, ("dataframe_split.index", "row_count")),
        ({"dataframe_split": {"index": 2, "data": [[1, 2], [3, 4]]}}, ("dataframe_split.index", "row_count")),
        ({"dataframe_split": {"columns": ["b", "a"], "data": [[1, "x"]]}}, ("dataframe_split.a[0]", "not_a_number")),
        ({"dataframe_split": {"data": [[1, "x"]]}}, ("dataframe_split.data[0][1]", "not_a_number")),
        ({"dataframe_split": {"columns": ["a", "b"], "data": []}}, ("dataframe_split", "no_rows")),
        ({"dataframe_records": {"a": [1], "b": [2]}}, ("dataframe_records", "not_a_list")),
        ({"dataframe_records": []}, ("dataframe_records", "no_rows")),
        ({"dataframe_records": [[1, 2]]}, ("dataframe_records[0]", "not_a_record")),
        ({"dataframe_records": [{"a": 1, "b": 2}, 3]}, ("dataframe_records[1]", "not_a_record")),
        ({"dataframe_records": [{"a": 1, "b": True}]}, ("dataframe_records[0].b", "not_a_number")),
        ({"dataframe_records": [{"a": 1}]}, ("dataframe_records[0].b", "missing_column")),
        ({"dataframe_records": [{"a": 1, "b": 2, "c": 3}]}, ("dataframe_records[0].c", "unknown_column")),
        ({"instances": {"a": [1]}}, ("instances", "not_a_list")),
        ({"instances": [[1, 2], [3]]}, ("instances[1]", "column_count")),
        ({"inputs": {"a": [1, 2], "b": [3]}}, ("inputs", "row_count")),
        ({"inputs": [[1, 2]], "params": {"k": 1}}, ("params", "invalid_params")),
        ({"inputs": [[1, 2]], "params": {"top_k": 0}}, ("params", "invalid_params")),
        ({"inputs": [[1, 2]], "params": {"top_k": True}}, ("params", "invalid_params")),
        ({"inputs": [[1, 2]], "params": []}, ("params", "invalid_params")),
    ],
)
def test_json_that_does_not_fit_is_refused_with_its_place(body: object, fault: tuple[str, str]) -> None:
    assert refused(NUMBERS, body) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ("", "invalid_csv")),
        ("\n1,2\n", ("", "invalid_csv")),
        ("a,b\n", ("csv", "no_rows")),
        ("a,b\n1\n", ("csv[0]", "column_count")),
        ("a,b\n1,2\n\n3,4\n", ("csv[1]", "column_count")),
        ("a,b\n1,2,3\n", ("csv[0]", "column_count")),
        ("a,b\n1,x\n", ("csv.b[0]", "not_a_number")),
        ("a,b\n1,inf\n", ("csv.b[0]", "out_of_range")),
        ("a,b\n1,1_0\n", ("csv.b[0]", "not_a_number")),
        ("a,b\n1,\u0661\n", ("csv.b[0]", "not_a_number")),
        ("a,c\n1,2\n", ("csv.c", "unknown_column")),
        ("x,y\n1,2\n", ("csv.x", "unknown_column")),
        ("a\n1\n", ("csv.b", "missing_column")),
        ("a,b,a\n1,2,3\n", ("csv.a", "duplicate_column")),
        (",a,b\n0,1,2\n", ("csv.", "unknown_column")),
        ('a,b\n"1,2\n', ("", "invalid_csv")),
        ('a,b\n"1"x,2\n', ("", "invalid_csv")),
        (b"a,b\n\xff,2\n", ("", "invalid_csv")),
        ("a;b\n1;2\n", ("csv.a;b", "unknown_column")),
        ("a,b\n" + "1" * 200_000 + ",2", ("", "invalid_csv")),
    ],
)
def test_csv_that_does_not_fit_is_refused_with_its_place(text: str | bytes, fault: tuple[str, str]) -> None:
    assert refused(NUMBERS, text, "text/csv") == fault


def test_whether_the_first_line_is_a_header_is_never_guessed_wrong() -> None:
    doubtful = ("", "doubtful_header")
    assert read(NUMBERS, "1,2\n3,4\n", "text/csv") == read(NUMBERS, "b,a\n2,1\n4,3\n", "text/csv")
    assert refused(NUMBERS, "x,y\n1,2\n", "text/csv", headless=True) == ("csv.x", "unknown_column")
    assert read(NAMELESS, "0,1,3\n", "text/csv") == {"input": [[0, 1, 3]]}
    assert refused(NAMELESS, "0,1,2\n5,6,7\n", "text/csv") == doubtful
    assert read(NAMELESS, "0,1,2\n5,6,7\n", "text/csv", headless=True) == {"input": [[0, 1, 2], [5, 6, 7]]}
    assert read(NAMELESS, "0,1,2\n5,6,7\n", "text/csv; header=present") == {"input": [[5, 6, 7]]}
    assert refused(NAMELESS, "x,y,z\n5,6,7\n", "text/csv", headless=True) == doubtful
    assert read(TEXTS, "last,first\nB,A\n", "text/csv") == {"first": ["A"], "last": ["B"]}
    assert refused(TEXTS, "A,B\n", "text/csv") == doubtful
    assert read(TEXTS, "A,B\n", "text/csv", headless=True) == {"first": ["A"], "last": ["B"]}
    assert refused(TEXTS, "first,B\nC,D\n", "text/csv", headless=True) == ("csv.B", "unknown_column")
    assert read(MIXED, "5,,2026-01-01\n", "text/csv") == {"age": [5], "city": [None], "since": ["2026-01-01"]}


def test_columns_without_names_are_numbered_as_pandas_does() -> None:
    wanted = {"input": [[1, 2, 3]]}
    assert read(NAMELESS, {"dataframe_split": {"columns": [0, 1, 2], "index": [0], "data": [[1, 2, 3]]}}) == wanted
    assert read(NAMELESS, {"dataframe_records": [{"2": 3, "1": 2, "0": 1}]}) == wanted
    assert refused(NAMELESS, {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}})[1] == "no_column_names"
    assert refused(NAMELESS, {"dataframe_records": [{"a": 1, "b": 2, "c": 3}]})[1] == "no_column_names"
    assert refused(NAMELESS, {"dataframe_split": {"columns": [0, 2, 1], "data": [[1, 2, 3]]}})[1] == "no_column_names"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/vnd.apache.parquet",
        "image/png",
        "application/json; charset=latin-1",
        "application/json; header=present",
        "text/csv; header=maybe",
        "text/csv; delimiter=;",
    ],
)
def test_other_content_types_are_not_spoken(content_type: str) -> None:
    assert refused(NUMBERS, {"instances": [[1, 2]]}, content_type) == ("", "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/JPEG", "application/x-image", "application/octet-stream"])
def test_a_picture_comes_as_it_is_or_as_base64(content_type: str) -> None:
    wanted = {"image": [b"picture"]}
    text = "cGljdHVyZQ=="
    assert read(PICTURES, b"picture", content_type) == wanted
    for form in (
        {"instances": [{"b64": text}]},
        {"instances": [{"image": {"b64": text}}]},
        {"inputs": {"image": [text]}},
        {"dataframe_split": {"columns": ["image"], "data": [[text]]}},
        {"dataframe_records": [{"image": text}]},
    ):
        assert read(PICTURES, form) == wanted
    assert refused(PICTURES, "image\nx\n", "text/csv") == ("csv", "no_table")
    assert refused(PICTURES, saved(np.zeros((1, 2))), "application/x-npy") == ("inputs", "not_a_picture")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535,
        b"\x93NUMPY\x01\x00\x10\x00" + b"[" * 16,
        b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
        saved(np.zeros((2, 2))) + b"\0",
        saved(np.zeros((2, 2)))[:-1],
        saved(np.zeros((0, 2))),
        saved(np.zeros(())),
        saved(np.zeros((2, 2), dtype=complex)),
        saved(np.zeros((2, 2), dtype="S3")),
        saved(np.zeros((2, 2), dtype="M8[s]")),
        saved(np.zeros(2, dtype=[("a", "f8"), ("b", "f8")])),
        saved(np.array([[{}, 1]], dtype=object), allow_pickle=True),
        saved(np.zeros((2, 2))).replace(b"(2, 2)", b"(2**9,"),
        saved(np.zeros((2, 2))).replace(b"(2, 2), }", b"(9223372036854775807, 0), }"),
        b"PK\x03\x04" + b"\0" * 40,
    ],
)
def test_what_is_no_array_of_numbers_is_refused(body: bytes) -> None:
    assert refused(NUMBERS, body, "application/x-npy") == ("", "invalid_npy")


def test_an_array_must_fit_the_model() -> None:
    npy = "application/x-npy"
    assert refused(NUMBERS, saved(np.zeros((2, 3))), npy)[1] in {"shape_mismatch", "column_count"}
    assert refused(NUMBERS, saved(np.zeros(2)), npy)[1] in {"shape_mismatch", "not_a_row"}
    assert refused(NUMBERS, saved(np.full((1, 2), np.inf)), npy)[1] == "out_of_range"
    assert refused(NUMBERS, saved(np.zeros((1, 2), dtype=bool)), npy)[1] == "not_a_number"
    assert refused(WHOLE, saved(np.array([[1.5, 1]])), npy)[1] == "not_an_integer"
    assert refused(WHOLE, saved(np.array([[np.nan, 1]])), npy)[1] == "missing_value"
    assert np.isnan(tensors_of(NUMBERS, npy, saved(np.full((1, 2), np.nan)), Reading())["input"]).all()


FIELDS = st.sampled_from([*FORMS, "params", "columns", "data", "index", "client_request_id"])
NESTED = ANYTHING | st.dictionaries(FIELDS, ANYTHING, max_size=3)
BODIES = (
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
    | NESTED.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(FIELDS, NESTED, min_size=1, max_size=2).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=80).map(lambda tail: saved(np.zeros((1, 2)))[:9] + tail)
)
TYPES = st.sampled_from(
    [JSON, "text/csv", "text/csv; header=absent", "text/csv; header=present", "application/x-npy", "image/x"]
)


@given(st.sampled_from(SIGNATURES), BODIES, TYPES, st.booleans())
def test_whatever_comes_becomes_tensors_that_fit_or_is_refused(
    signature: Signature, body: bytes, content_type: str, headless: bool
) -> None:
    try:
        tensors = tensors_of(signature, content_type, body, Reading(headless, ("client_request_id",)))
    except Invalid:
        return
    fits(signature, tensors)
