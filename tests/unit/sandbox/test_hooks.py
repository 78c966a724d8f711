"""Hooks: what they may hand to a model and what is refused, in an ordinary process."""

from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.contracts.hooks import Hooks
from modelkeep.contracts.rejections import Reason
from modelkeep.contracts.runner import CannotLoad, Column, ModelFacts
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.contracts.snapshot import RunnerSpec
from modelkeep.sandbox.hooks import HookFaultError, Wrapping, fitted

MATRIX = Signature((TensorSpec("x", Dtype.FP32, (-1, 2), columns=("a", "b")),), (TensorSpec("y", Dtype.FP32, (-1, 2)),))
WIDE_MATRIX = Signature((TensorSpec("x", Dtype.FP64, (-1, 2)),))
TABLE = Signature((TensorSpec("age", Dtype.INT64, (-1,)), TensorSpec("city", Dtype.BYTES, (-1,))))
SPEC = RunnerSpec("ver_1", "ab", 1, "onnx", "onnx", hooks=Hooks("cd", 1))


def around(source: str, inner: Signature = MATRIX, sample: tuple[Column, ...] = (Column("n", Dtype.FP64),)) -> Wrapping:
    found = Wrapping(dedent(source).encode())
    found.around(ModelFacts(inner, "onnx", "1", example=b"[]", batch=3), SPEC, sample)
    return found


def array(*values: object) -> np.ndarray:
    return np.array(values, dtype=object)


RETURNS = "def preprocess(inputs):\n    return inputs['answer'][0]\n"


def test_a_model_gets_what_preprocess_returns_and_callers_what_postprocess_does():
    hooks = around("""
        import numpy as np

        def preprocess(inputs):
            return np.stack([inputs["n"], inputs["n"] + 1], axis=1)

        def postprocess(outputs):
            return {"label": np.where(outputs["y"][:, 0] > 1, "big", "small")}
    """)
    given_to_it = hooks.before({"n": np.array([1.0, 2.0])})
    assert given_to_it["x"].dtype == np.float32
    assert given_to_it["x"].tolist() == [[1, 2], [2, 3]]
    assert hooks.after({"y": given_to_it["x"]})["label"].tolist() == ["small", "big"]
    assert hooks.facts.signature == Signature((TensorSpec("n", Dtype.FP64, (-1,)),))
    assert (hooks.facts.details, hooks.facts.batch, hooks.facts.example) == ({"hooks": "preprocess, postprocess"}, 0, b"")


def test_without_a_preprocess_callers_send_what_the_model_takes():
    hooks = around("def postprocess(outputs):\n    return outputs['y'].sum(axis=1)\n", sample=())
    assert hooks.facts.signature == Signature(MATRIX.inputs)
    assert hooks.facts.example == b"[]"
    rows = {"x": np.ones((2, 2), np.float32)}
    assert hooks.before(rows) is rows
    assert hooks.after({"y": rows["x"]})["output"].tolist() == [2, 2]


def test_without_a_postprocess_callers_get_what_the_model_answers():
    hooks = around("def preprocess(inputs):\n    return inputs\n")
    assert hooks.facts.signature.outputs == MATRIX.outputs
    outputs = {"y": np.ones((2, 2), np.float32)}
    assert hooks.after(outputs)["y"] is outputs["y"]


def test_the_files_own_signature_goes_before_the_samples_columns():
    hooks = around('signature = [{"name": "text", "datatype": "BYTES"}]\ndef preprocess(inputs):\n    return inputs\n')
    assert hooks.facts.signature.inputs == (TensorSpec("text", Dtype.BYTES, (-1,)),)


def test_texts_are_texts_and_bytes_keep_their_zeros():
    hooks = around(
        "def preprocess(inputs):\n    return {'age': [len(one) for one in inputs['t']], 'city': [b'a\\0'] * len(inputs['t'])}",
        TABLE,
        (Column("t", Dtype.BYTES),),
    )
    found = hooks.before({"t": array("é".encode(), "ab")})
    assert found["age"].tolist() == [1, 2]
    assert found["city"].tolist() == [b"a\0", b"a\0"]


@given(asked=st.integers(1, 20), returned=st.integers(0, 20), named=st.booleans())
def test_rows_are_kept_whatever_their_number(asked: int, returned: int, named: bool):
    hooks = around(
        "import numpy as np\nCOUNT, NAMED = 0, False\n"
        "def preprocess(inputs):\n    rows = np.zeros((COUNT, 2))\n    return {'x': rows} if NAMED else rows\n"
    )
    hooks._before.__globals__.update(COUNT=returned, NAMED=named)
    inputs = {"n": np.arange(float(asked))}
    if asked == returned:
        assert hooks.before(inputs)["x"].shape == (asked, 2)
    else:
        with pytest.raises(HookFaultError, match=rf"for {asked} rows: the rows are to be kept"):
            hooks.before(inputs)


def test_columns_by_name_become_the_models_matrix_in_its_order():
    found = fitted({"b": np.array([1, 2]), "a": np.array([3.0, 4.0])}, MATRIX)
    assert found["x"].tolist() == [[3, 1], [4, 2]]
    assert found["x"].dtype == np.float32


def test_floats_that_callers_may_send_go_on_to_the_model():
    gaps = Signature((TensorSpec("x", Dtype.FP32, (-1, 2), nullable=True),))
    assert np.isnan(fitted({"x": np.array([[np.nan, 1.0]])}, gaps)["x"]).tolist() == [[True, False]]
    named = Signature((TensorSpec("x", Dtype.FP32, (-1, 2), nullable=True, columns=("a", "b")),))
    columns = {"b": np.array([1, 2]), "a": np.array([np.nan, 4.0])}
    assert np.isnan(fitted(columns, named)["x"]).tolist() == [[True, False], [False, False]]
    assert fitted({"x": np.array([[2**60, -(2**53)]])}, WIDE_MATRIX)["x"].tolist() == [[2.0**60, -(2.0**53)]]
    assert fitted({"x": np.array([[3.4e38, -3.4e38]])}, MATRIX)["x"].dtype == np.float32


def test_a_value_a_row_fits_an_input_of_one_column():
    assert fitted({"output": np.arange(3.0)}, Signature((TensorSpec("x", Dtype.FP64, (-1, 1)),)))["x"].shape == (3, 1)


@pytest.mark.parametrize(
    ("answer", "inner", "says"),
    [
        ({"z": np.zeros((2, 2))}, MATRIX, "returned z; the model takes x"),
        ({"x": np.zeros((2, 3))}, MATRIX, r"of shape \[2, 3\]; the model takes \[-1, 2\]"),
        ({"x": np.zeros(2)}, MATRIX, r"of shape \[2\]; the model takes"),
        ({"x": array("a", "b").reshape(2, 1).repeat(2, axis=1)}, MATRIX, "of object; the model takes float32"),
        ({"age": np.array([1]), "city": array("a"), "more": np.array([1])}, TABLE, "returned age, city, more; the model takes"),
        ({"age": np.array([1.5]), "city": array("a")}, TABLE, "'age' of float64; the model takes int64"),
        ({"age": np.array([2**63], np.uint64), "city": array("a")}, TABLE, "'age' of uint64; the model takes int64"),
        ({"age": np.array([1]), "city": np.array([1])}, TABLE, "'city' of int64; the model takes texts"),
        ({"x": np.array([[1.0, 1e300]])}, MATRIX, "'x' with a number that is infinite, or too large for FP32"),
        ({"x": np.array([[1.0, -np.inf]])}, MATRIX, "'x' with a number that is infinite"),
        ({"x": np.array([[1.0, np.nan]])}, MATRIX, "'x' with a missing value, and the model takes none there"),
        ({"x": np.array([[1, 2**53 + 1]])}, MATRIX, "'x' with a whole number that no float is exactly"),
        ({"x": np.array([[1, -(2**62) - 1]])}, WIDE_MATRIX, "'x' with a whole number that no float is exactly"),
    ],
)
def test_what_the_model_would_not_take_is_the_hooks_fault(answer: dict[str, np.ndarray], inner: Signature, says: str):
    with pytest.raises(HookFaultError, match=says):
        fitted(answer, inner)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"x = 1", "defines neither preprocess nor postprocess"),
        (b"def preprocess(inputs:\n", "hooks.py, line 1: "),
        (b"\nimport nonesuch", r"nonesuch is not installed here \(hooks.py, line 2\)"),
        (b"1 / 0", r"ZeroDivisionError: division by zero \(hooks.py, line 1\)"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"preprocess = 3", "preprocess in hooks.py is no function"),
        (b"async def postprocess(outputs): pass", "postprocess in hooks.py is async"),
        (b"def postprocess(outputs): yield outputs", "postprocess in hooks.py is a generator"),
        (b"def preprocess(inputs): pass\n\0", "null bytes"),
    ],
)
def test_a_file_that_cannot_be_hooks_is_refused_in_its_authors_terms(source: bytes, says: str):
    with pytest.raises(CannotLoad, match=says) as refused:
        Wrapping(source)
    assert refused.value.reason is Reason.HOOKS_UNUSABLE


def test_a_preprocess_without_a_sample_says_that_one_is_needed():
    with pytest.raises(CannotLoad, match=r"hooks.py, which has a preprocess, has no `signature`, and no sample") as refused:
        around("def preprocess(inputs):\n    return inputs\n", sample=())
    assert refused.value.reason is Reason.SAMPLE_NEEDED
