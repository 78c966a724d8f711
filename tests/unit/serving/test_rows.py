"""Rows as TensorFlow Serving writes them: every form gives the arrays that native rows give, and anything else is refused."""

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.calling import make_request, make_route
from fixtures.signatures import ANYTHING, SIGNATURES, fits, matrices, same, tables
from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.serving.calls import Call, Run, Share
from modelkeep.serving.codec import AnswerNotFinite, tensors_from
from modelkeep.serving.dialects import rows as dialect

SCALAR = Signature((TensorSpec("x", Dtype.FP32, (-1,)),))
COLUMN = Signature((TensorSpec("x", Dtype.FP32, (-1, 1)),))
TEXT = Signature((TensorSpec("tag", Dtype.BYTES, (-1,)),))
PICTURE = Signature((TensorSpec("image", Dtype.BYTES, (-1,)),), image=True)
TOKENS = Signature((TensorSpec("ids", Dtype.INT64, (-1, -1)), TensorSpec("words", Dtype.BYTES, (-1, 2, 1))))


def b64(raw: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(raw).decode()}


def as_bytes(value: Any, spec: TensorSpec) -> Any:
    """A text as the byte string it is encoded as."""
    return b64(value.encode()) if spec.dtype is Dtype.BYTES and value is not None else value


def texts(array: np.ndarray) -> list[Any]:
    return [one.decode() if isinstance(one, bytes) else one for one in array.reshape(-1).tolist()]


@given(matrices())
def test_all_forms_of_a_matrix_give_the_arrays_of_native_rows(case: tuple[Signature, list[list[Any]]]) -> None:
    signature, rows = case
    spec = signature.inputs[0]
    expected = tensors_from(signature, rows)
    named = [{"input": row} for row in rows]
    records = [dict(zip(spec.columns, row, strict=True)) for row in rows]
    for form in (rows, named, *([records] if spec.columns != ("b64",) else [])):
        same(dialect.instances_of(signature, json.dumps(form).encode()), expected)
    for form in (rows, {"input": rows}, {name: [row[at] for row in rows] for at, name in enumerate(spec.columns)}):
        if not dialect.is_b64(form):
            same(dialect.inputs_of(signature, json.dumps(form).encode()), expected)


@given(tables())
def test_all_forms_of_a_table_give_the_arrays_of_native_rows(case: tuple[Signature, list[list[Any]]]) -> None:
    signature, rows = case
    names = [spec.name for spec in signature.inputs]
    expected = tensors_from(signature, rows)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    for form in (rows, records, [{name: [value] for name, value in record.items()} for record in records]):
        same(dialect.instances_of(signature, json.dumps(form).encode()), expected)
    for form in (columns, {name: [[value] for value in column] for name, column in columns.items()}):
        same(dialect.inputs_of(signature, json.dumps(form).encode()), expected)


@given(tables())
def test_texts_may_come_as_bytes_wherever_they_stand(case: tuple[Signature, list[list[Any]]]) -> None:
    signature, rows = case
    specs = signature.inputs
    encoded = [[as_bytes(value, spec) for value, spec in zip(row, specs, strict=True)] for row in rows]
    expected = tensors_from(signature, rows)
    records = [{spec.name: value for spec, value in zip(specs, row, strict=True)} for row in encoded]
    columns = {spec.name: [row[at] for row in encoded] for at, spec in enumerate(specs)}
    for tensors in (
        dialect.instances_from(signature, encoded),
        dialect.instances_from(signature, records),
        dialect.inputs_from(signature, columns),
    ):
        for spec in specs:
            if spec.dtype is Dtype.BYTES:
                assert not any(isinstance(one, str) for one in tensors[spec.name].reshape(-1).tolist())
                assert texts(tensors[spec.name]) == texts(expected[spec.name])


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=2, max_size=2), st.binary(max_size=3)), min_size=1, max_size=4))
def test_nested_lists_of_several_inputs_come_by_row_or_by_input(case: list[tuple[list[int], bytes]]) -> None:
    words = [[[b64(word)], ["a"]] for _ids, word in case]
    by_row = [{"ids": ids, "words": row} for (ids, _word), row in zip(case, words, strict=True)]
    by_input = {"ids": [ids for ids, _word in case], "words": words}
    wanted = {"ids": by_input["ids"], "words": [[[word], ["a"]] for _ids, word in case]}
    expected = tensors_from(TOKENS, wanted)
    same(dialect.instances_from(TOKENS, by_row), expected)
    same(dialect.inputs_from(TOKENS, by_input), expected)


@pytest.mark.parametrize("signature", [SCALAR, COLUMN])
@pytest.mark.parametrize("form", [[1.0, 2.0, 5.0], [[1.0], [2.0], [5.0]]])
def test_a_value_alone_is_a_row_where_that_is_all_a_row_has(signature: Signature, form: list[Any]) -> None:
    records = [{"x": one} for one in form]
    for tensors in (
        dialect.instances_from(signature, form),
        dialect.instances_from(signature, records),
        dialect.inputs_from(signature, form),
        dialect.inputs_from(signature, {"x": form}),
    ):
        assert tensors["x"].reshape(-1).tolist() == [1.0, 2.0, 5.0]
        assert tensors["x"].ndim == len(signature.inputs[0].shape)


def test_a_column_called_as_its_only_input_is_read_either_way() -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 1), columns=("x",)),))
    for form in ([1], [[1]], [{"x": 1}], [{"x": [1]}]):
        assert dialect.instances_from(signature, form)["x"].tolist() == [[1.0]]
    for column in ([1], [[1]]):
        assert dialect.inputs_from(signature, {"x": column})["x"].tolist() == [[1.0]]


def test_a_record_is_no_row_by_the_inputs_name_where_a_column_is_called_so() -> None:
    signature = Signature((TensorSpec("x", Dtype.FP32, (-1, 2), columns=("x", "y")),))
    assert dialect.instances_from(signature, [{"x": 1, "y": 2}])["x"].tolist() == [[1.0, 2.0]]
    assert ("instances[0].y", "missing_column") in refused(signature, instances=[{"x": [1, 2]}])


def test_pictures_are_byte_strings() -> None:
    for form in ([b64(b"\x89PNG")], [{"image": b64(b"\x89PNG")}], [{"image": b64(b"\x89PNG")["b64"]}]):
        assert dialect.instances_from(PICTURE, form)["image"].tolist() == [b"\x89PNG"]
    assert dialect.inputs_from(PICTURE, {"image": [b64(b"\x89PNG")]})["image"].tolist() == [b"\x89PNG"]


def refused(signature: Signature, *, instances: object = None, inputs: object = None) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as error:
        if inputs is None:
            dialect.instances_from(signature, instances)
        else:
            dialect.inputs_from(signature, inputs)
    first = error.value.fields[0]
    assert error.value.message == f"{first.path}: {first.message}"
    return [(one.path, one.code) for one in error.value.fields]


def test_refusals_name_the_place_as_it_was_written() -> None:
    assert refused(SCALAR, instances=[1.0, "x"]) == [("instances[1][0]", "not_a_number")]
    assert refused(SCALAR, instances=[]) == [("instances", "no_rows")]
    assert refused(SCALAR, instances={"x": [1]}) == [("instances", "not_a_list")]
    assert refused(SCALAR, inputs=1.0) == [("inputs", "not_a_list")]
    assert refused(SCALAR, inputs={"y": [1.0]})[0] == ("inputs.y", "unknown_column")
    assert refused(TEXT, instances=["a", b64(b"b"), {"b64": "no base64!"}]) == [("instances[2]", "invalid_base64")]
    assert refused(TEXT, inputs={"tag": [{"b64": "ż"}]}) == [("inputs.tag[0]", "invalid_base64")]
    assert refused(TOKENS, instances=[{"ids": [1], "words": [["a"], ["b"]]}, {"ids": [1, 2], "words": [["a"], ["b"]]}]) == [
        ("instances.ids", "ragged")
    ]


def test_b64_means_bytes_only_where_bytes_may_stand() -> None:
    assert refused(SCALAR, instances=[b64(b"1")]) == [("instances[0][0]", "not_a_number")]
    assert refused(TEXT, instances=[{"b64": 1}])[0][0].startswith("instances[0]")
    assert refused(TEXT, instances=[{"b64": "YQ==", "more": 1}])[0][0].startswith("instances[0]")
    column = Signature((TensorSpec("b64", Dtype.FP32, (-1, 1), columns=("b64",)),))
    assert dialect.instances_from(column, [{"b64": 1.5}])["b64"].tolist() == [[1.5]]


def named(error: InvalidInput, field: str) -> None:
    assert error.fields
    assert all(one.path.startswith(field) and one.code for one in error.fields)
    assert len(error.message) < 1000


@given(st.sampled_from([*SIGNATURES, TEXT, SCALAR, COLUMN, TOKENS]), ANYTHING)
@example(TEXT, [{"tag": {"b64": "YQ=="}}])
@example(TOKENS, [{"ids": [1], "words": [[{"b64": "YQ=="}], ["b"]]}])
@example(TOKENS, [{"ids": [[[[]]]], "words": {}}])
def test_any_json_at_all_gives_arrays_that_fit_or_is_refused(signature: Signature, given_json: object) -> None:
    for field, read in (("instances", dialect.instances_of), ("inputs", dialect.inputs_of)):
        try:
            tensors = read(signature, json.dumps(given_json).encode())
        except InvalidInput as error:
            named(error, field)
        else:
            strings = {
                name: np.array(texts(one), dtype=object).reshape(one.shape) if one.dtype == object else one
                for name, one in tensors.items()
            }
            fits(signature, tensors if signature.image else strings)


@pytest.mark.parametrize("raw", [b"[" * 1_000_000, b"[NaN]", b"", b"[1", b"\xff", b'[{"b64": "' + b"A" * 1_000_003 + b'"}]'])
def test_hostile_json_is_refused(raw: bytes) -> None:
    for read in (dialect.instances_of, dialect.inputs_of):
        for signature in (TEXT, SCALAR, PICTURE):
            with pytest.raises(InvalidInput):
                read(signature, raw)


# ---- writing


def share_of(outputs: dict[str, np.ndarray], not_finite: str = "null") -> tuple[Call, Share]:
    route = make_route()
    route.settings = msgspec.structs.replace(route.settings, not_finite=not_finite)
    call = Call(route, make_request(), "tf", b"{}", 0.0)
    rows = len(next(iter(outputs.values())))
    return call, Share(Run(outputs, 0.0), 0, rows)


def objects(*values: object) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_one_output_is_told_bare_and_several_by_name() -> None:
    one = share_of({"y": np.array([[1.0, 2.0], [3.0, 4.0]])})
    assert dialect.in_rows(*one) == dialect.in_columns(*one) == [[1.0, 2.0], [3.0, 4.0]]
    several = share_of({"y": np.array([1, 2]), "z": objects("a", None)})
    assert dialect.in_rows(*several) == [{"y": 1, "z": "a"}, {"y": 2, "z": None}]
    assert dialect.in_columns(*several) == {"y": [1, 2], "z": ["a", None]}
    assert dialect.in_rows(*several, ["z"]) == ["a", None]


def test_byte_strings_and_outputs_called_bytes_are_told_in_base64() -> None:
    call, share = share_of({"label": objects(b"text", b"\xff"), "thumb_bytes": objects("text", b"\xff")})
    assert dialect.in_rows(call, share) == [
        {"label": "text", "thumb_bytes": b64(b"text")},
        {"label": b64(b"\xff"), "thumb_bytes": b64(b"\xff")},
    ]
    call, share = share_of({"size_bytes": np.array([7])})
    assert dialect.in_rows(call, share) == [7]


def test_what_is_not_finite_is_told_as_the_deployment_says() -> None:
    odd = {"y": np.array([np.nan, np.inf, 1.0])}
    assert msgspec.json.encode(dialect.in_rows(*share_of(odd))) == b"[null,null,1.0]"
    assert dialect.in_rows(*share_of(odd, "text")) == ["NaN", "Infinity", 1.0]
    with pytest.raises(AnswerNotFinite):
        dialect.in_columns(*share_of(odd, "refuse"))


@given(
    st.lists(
        st.tuples(st.binary(max_size=4), st.integers(-9, 9), st.text(st.characters(exclude_categories=["Cs"]), max_size=3)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_an_answer_is_read_again_as_the_history_tells_values(rows: list[tuple[bytes, int, str]], count: int) -> None:
    columns = [objects(*(row[0] for row in rows)), np.array([row[1] for row in rows]), objects(*(row[2] for row in rows))]
    outputs = dict(zip(["raw", "n", "said_bytes"], columns, strict=True))
    outputs = dict(list(outputs.items())[:count])
    signature = Signature((), tuple(TensorSpec(name, Dtype.INT64, (-1,)) for name in outputs))
    call, share = share_of(outputs)
    told = {name: share.values(name) for name in outputs}
    assert dialect.outputs_in_rows(signature, json.loads(msgspec.json.encode(dialect.in_rows(call, share)))) == told
    assert dialect.outputs_in_columns(signature, json.loads(msgspec.json.encode(dialect.in_columns(call, share)))) == told
