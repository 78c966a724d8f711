"""The one table of values says what the code does, and a row is the same arrays by every way in."""

import io
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.client.inputs import encode, rows_in
from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import BOOLEAN, DATETIME, Dtype, Signature, TensorSpec
from modelkeep.serving.codec import Tensors, tensors_from_json, values_of
from modelkeep.serving.coercion import TABLE, Taken, is_date
from modelkeep.serving.csv_rows import tensors_from_csv
from modelkeep.serving.dialects.open_inference.body import tensors_of
from modelkeep.serving.matrix import plain_rows
from modelkeep.serving.npy import tensors_from_npy
from modelkeep.worker.samples import fit, read_sample

KINDS = [(one, dtype) for one in TABLE for dtype in one.dtypes]
NAMES = [f"{one.name} {dtype}" for one, dtype in KINDS]


def signature(taken: Taken, dtype: Dtype) -> Signature:
    nullable = taken.missing.startswith("`null`")
    return Signature((TensorSpec("a", dtype, (-1,), nullable=nullable, kind=taken.kind), TensorSpec("b", Dtype.BYTES, (-1,))))


def by_protocol(spec: Signature, body: dict[str, Any]) -> Tensors:
    """What the Open Inference door makes of a request."""
    return tensors_of(spec, "application/json", json.dumps(body).encode())


def tensor(name: str, dtype: Dtype, values: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": dtype.value, "shape": [len(values)], "data": values}


@pytest.mark.parametrize(("taken", "dtype"), KINDS, ids=NAMES)
def test_the_table_s_examples_are_taken_or_refused_as_it_says(taken: Taken, dtype: Dtype) -> None:
    spec = signature(taken, dtype)
    for text in taken.good:
        assert len(tensors_from_json(spec, f'[{{"a": {text}, "b": "x"}}]'.encode())["a"]) == 1, text
    for text in taken.bad:
        with pytest.raises(InvalidInput) as refused:
            tensors_from_json(spec, f'[{{"a": {text}, "b": "x"}}]'.encode())
        assert refused.value.fields[0].path in {"inputs[0].a", "inputs"}, text  # a number that JSON's reader has no place for
    for cell in taken.good_cells:
        assert len(fit(read_sample(f"a,b\n{cell},x\n".encode(), "s.csv", picture=False), spec)["a"]) == 1, cell
    for cell in taken.bad_cells:
        with pytest.raises(Exception, match="inputs"):
            fit(read_sample(f'a,b\n"{cell}",x\n'.encode(), "s.csv", picture=False), spec)


def test_every_datatype_is_in_the_table() -> None:
    assert {dtype for _taken, dtype in KINDS} == set(Dtype)


WHOLE = 2**53 + 1
FLOATS = Signature((TensorSpec("a", Dtype.FP64, (-1,)), TensorSpec("b", Dtype.BYTES, (-1,))))
MATRIX = Signature((TensorSpec("input", Dtype.FP64, (-1, 2), columns=("a", "b")),))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_number_that_no_float_is_is_refused_by_every_way_in(sign: int) -> None:
    raw = io.BytesIO()
    np.save(raw, np.array([[sign * WHOLE, 1]]))
    asked = {
        "rows": lambda: tensors_from_json(FLOATS, f'[[{sign * WHOLE}, "x"]]'.encode()),
        "a matrix": lambda: tensors_from_json(MATRIX, f"[[{sign * WHOLE}, 1]]".encode()),
        "CSV": lambda: tensors_from_csv(MATRIX, f"a,b\n{sign * WHOLE},1\n".encode()),
        "npy": lambda: tensors_from_npy(MATRIX, raw.getvalue()),
        "the protocol": lambda: by_protocol(
            MATRIX, {"inputs": [{"name": "input", "datatype": "INT64", "shape": [1, 2], "data": [sign * WHOLE, 1]}]}
        ),
    }
    for way, ask in asked.items():
        with pytest.raises(InvalidInput) as refused:
            ask()
        assert refused.value.fields[0].code == "not_exact", way
    assert plain_rows(MATRIX.inputs[0], f"[[{sign * WHOLE}, 1]]".encode()) is None
    assert tensors_from_json(MATRIX, f"[[{sign * 2**60}, {sign}e300]]".encode())["input"].tolist() == [
        [sign * 2.0**60, sign * 1e300]
    ]


TEXTS = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)


def values(dtype: Dtype, kind: str) -> st.SearchStrategy[Any]:
    if kind == DATETIME:
        days = st.integers(-98_000, 98_000).map(lambda day: str(np.datetime64("1970-01-01") + day))
        clock = st.sampled_from(
            ["", "T08:30", " 23:59:59", "T00:00:00.123456789", "T12:00:00Z", " 01:02:03.5+05:45", "T00:00:00-11:00"]
        )
        return st.tuples(days, clock).map("".join)
    if dtype is Dtype.BYTES:
        return TEXTS
    if dtype is Dtype.BOOL or kind == BOOLEAN:
        return st.booleans()
    if dtype in {Dtype.FP16, Dtype.FP32, Dtype.FP64}:
        width = {Dtype.FP16: 16, Dtype.FP32: 32, Dtype.FP64: 64}[dtype]
        return st.floats(width=width, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    limits = np.iinfo(dtype.numpy)
    return st.integers(int(limits.min), int(limits.max)) | st.sampled_from([int(limits.min), int(limits.max)])


@st.composite
def rows(draw: st.DrawFn) -> tuple[Signature, dict[str, list[Any]]]:
    several = draw(st.lists(st.sampled_from(KINDS), min_size=2, max_size=4))
    specs = tuple(TensorSpec(f"c{at}", dtype, (-1,), kind=one.kind) for at, (one, dtype) in enumerate(several))
    count = draw(st.integers(1, 4))
    columns = {one.name: draw(st.lists(values(one.dtype, one.kind), min_size=count, max_size=count)) for one in specs}
    return Signature(specs), columns


@given(rows())
def test_a_row_is_the_same_arrays_by_every_way_in_and_out(case: tuple[Signature, dict[str, list[Any]]]) -> None:
    spec, columns = case
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    expected = tensors_from_json(spec, json.dumps(records).encode())
    cells = "\n".join(",".join(_quoted(value) for value in row.values()) for row in records)
    ways = {
        "columns": tensors_from_json(spec, json.dumps(columns).encode()),
        "the client": tensors_from_json(
            spec, encode(rows_in({one.name: _array(one, columns[one.name]) for one in spec.inputs}))
        ),
        "the protocol": by_protocol(
            spec, {"inputs": [tensor(one.name, one.dtype, _told(one, columns)) for one in spec.inputs]}
        ),
        "a sample of JSON": fit(read_sample(json.dumps(records).encode(), "s.json", picture=False), spec),
        "a sample of CSV": fit(read_sample(f"{','.join(columns)}\n{cells}\n".encode(), "s.csv", picture=False), spec),
    }
    for way, tensors in ways.items():
        for name, array in expected.items():
            assert tensors[name].dtype == array.dtype, (way, name)
            assert tensors[name].tobytes() == array.tobytes() or tensors[name].tolist() == array.tolist(), (way, name)
    for name, array in expected.items():
        assert json.loads(msgspec.json.encode(values_of(array))) == columns[name]


def _told(spec: TensorSpec, columns: dict[str, list[Any]]) -> list[Any]:
    """As the protocol has it: booleans with gaps are numbers there."""
    return [int(one) for one in columns[spec.name]] if spec.kind == BOOLEAN else columns[spec.name]


def _quoted(value: object) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"'


def _array(spec: TensorSpec, values: list[Any]) -> Any:
    """As a numpy array where it has a type for them, else as it is."""
    return values if spec.dtype is Dtype.BYTES else np.array(values, dtype=spec.dtype.numpy)


@given(st.text(max_size=30) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", fullmatch=True))
def test_what_counts_as_a_date_is_one_for_numpy_too(text: str) -> None:
    if is_date(text):
        assert not np.isnat(np.datetime64(text.upper().replace(" ", "T").rstrip("Z")[:10], "ns"))
