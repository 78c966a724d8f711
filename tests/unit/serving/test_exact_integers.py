"""A float is taken for a whole number where it can stand for no other, in whatever form it comes; else it is refused."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelkeep.contracts.errors import InvalidInput
from modelkeep.contracts.signature import Dtype, Signature, TensorSpec
from modelkeep.serving.codec import Tensors, tensors_from_json
from modelkeep.serving.csv_rows import tensors_from_csv
from modelkeep.serving.dialects.open_inference import tensors
from modelkeep.serving.dialects.rows import inputs_of, instances_of
from modelkeep.serving.npy import tensors_from_npy

WHOLE = Signature((TensorSpec("x", Dtype.INT64, (-1, 1)),))
BELOW = {"FP16": 2**11, "FP32": 2**24, "FP64": 2**53}
BESIDE = sorted({sign * (edge + step) for edge in (2**11, 2**24, 2**53, 2**62) for step in range(-3, 4) for sign in (1, -1)})
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(BESIDE) | st.integers(-5000, 5000)


def as_array(number: int, datatype: str) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]]:
    with np.errstate(over="ignore"):
        return np.array([[number]], dtype=np.float64).astype(Dtype(datatype).numpy)


def npy(number: int, datatype: str) -> Tensors:
    stream = io.BytesIO()
    np.save(stream, as_array(number, datatype))
    return tensors_from_npy(WHOLE, stream.getvalue())


def v2(array: Callable[[int, str], np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> Callable[[int, str], Tensors]:
    return lambda number, datatype: tensors.payload(WHOLE, {"x": array(number, datatype)})


FORMS: dict[str, Callable[[int, str], Tensors]] = {
    "native": lambda number, _: tensors_from_json(WHOLE, b"[[%d.0]]" % number),
    "instances": lambda number, _: instances_of(WHOLE, b"[[%d.0]]" % number),
    "inputs": lambda number, _: inputs_of(WHOLE, b'{"x": [[%d.0]]}' % number),
    "csv": lambda number, _: tensors_from_csv(WHOLE, b"%d.0\n" % number, header=False),
    "npy": npy,
    "V2 in JSON": v2(lambda number, datatype: tensors.from_values("x", datatype, [1, 1], [float(number)])),
    "V2 in JSON, a whole number": v2(lambda number, datatype: tensors.from_values("x", datatype, [1, 1], [number])),
    "V2 in bytes": v2(lambda number, datatype: tensors.from_raw("x", datatype, [1, 1], as_array(number, datatype).tobytes())),
    "V2 over gRPC": v2(lambda number, datatype: tensors.from_array("x", datatype, [1, 1], as_array(number, datatype))),
}
TYPED = {form for form in FORMS if form.startswith("V2") or form == "npy"}


@pytest.mark.parametrize("form", FORMS)
@example(2**53, "FP64")
@example(2**53 + 1, "FP64")
@example(2**24 + 1, "FP32")
@example(2**11 + 1, "FP16")
@given(NUMBERS, st.sampled_from(sorted(BELOW)))
def test_a_float_is_the_whole_number_that_it_was_or_is_refused(form: str, number: int, datatype: str) -> None:
    below = BELOW[datatype if form in TYPED else "FP64"]
    if abs(number) < below:
        assert FORMS[form](number, datatype)["x"].tolist() == [[number]]
        return
    with pytest.raises(InvalidInput) as refused:
        FORMS[form](number, datatype)
    assert {field.code for field in refused.value.fields} <= {"not_exact", "out_of_range", "not_an_integer"}
