"""Every node test of the `onnx` wheel: it is answered with the values of its data set, or refused by a rule.

The rules look at the graph and at a plain session of ONNX Runtime, never at a test's name. An answer that is neither equal nor
refused fails the test. Rows are tried together, one at a time, and in another number and order: where a row's answer then
changes, the inspection of a version refuses it (`worker/inspection.py`, tried in `sandbox/test_inspection_onnx.py`).
"""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.backend.test.case.node import collect_testcases

from modelkeep.contracts.runner import Artifact, CannotLoad, LoadOptions
from modelkeep.contracts.signature import Dtype
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.sandbox import frames
from modelkeep.sandbox.child import Served
from modelkeep.worker.inspection import close_rows

EQUAL = "equal"
TYPES = "a type that is not served: a sequence, map or optional, or numbers that no datatype has"
NOT_LOADED = "ONNX Runtime does not load it"
NOT_RUN = "ONNX Runtime does not run it"
OTHERWISE = "ONNX Runtime itself answers otherwise"
NO_INPUTS = "no inputs, or one without axes"
DIFFERENT_ROWS = "the first axes of the inputs differ"
NO_ROWS = "no rows"
NO_ANSWER_A_ROW = "an output has not one answer a row"
ROWS_DEPEND = "a row's answer depends on the others"

COUNTS = {
    EQUAL: 629,
    DIFFERENT_ROWS: 489,
    NOT_LOADED: 264,
    TYPES: 220,
    NO_ANSWER_A_ROW: 123,
    NO_INPUTS: 105,
    ROWS_DEPEND: 44,
    OTHERWISE: 8,
    NOT_RUN: 1,
    NO_ROWS: 1,
}
"""Of onnx 1.23.2 with ONNX Runtime 1.31.1. A newer one has more cases; a case that was equal must stay so."""

SERVED = {
    *(TensorProto.BOOL, TensorProto.STRING, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE),
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
}

pytestmark = pytest.mark.filterwarnings("ignore")


def served_types(graph):
    kinds = [value.type for value in (*graph.input, *graph.output)]
    return all(kind.HasField("tensor_type") and kind.tensor_type.elem_type in SERVED for kind in kinds)


def session(data):
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    except Exception:
        return None


def same(expected, found, case):
    """Whether all outputs are those of the data set, within the case's tolerances."""
    for want, got in zip(expected, found, strict=True):
        if want.shape != got.shape:
            return False
        if want.dtype.kind == "f":
            if want.dtype != got.dtype or not np.allclose(got, want, case.rtol, case.atol, equal_nan=True):
                return False
        elif not np.array_equal(want.astype(object), got.astype(object)):
            return False
    return True


def reason(case, data, inputs, expected):
    """Why the case cannot be answered, by rule; or that it can."""
    if not served_types(case.model.graph):
        return TYPES
    plain = session(data)
    if plain is None:
        return NOT_LOADED
    if not inputs or any(array.ndim == 0 for array in inputs.values()):
        return NO_INPUTS
    rows = {len(array) for array in inputs.values()}
    if len(rows) > 1:
        return DIFFERENT_ROWS
    if rows == {0}:
        return NO_ROWS
    try:
        answers = plain.run(None, inputs)
    except Exception:
        return NOT_RUN
    if any(array.ndim == 0 or {len(array)} != rows for array in answers):
        return NO_ANSWER_A_ROW
    return EQUAL if same(expected, answers, case) else OTHERWISE


def as_texts(array):
    array = np.asarray(array)
    return array.astype(object) if array.dtype.kind in "OUS" else array


def load(data):
    words = ""
    try:
        return Served(OnnxRunner().load(Artifact(data, "onnx"), LoadOptions()), None)
    except CannotLoad as refused:
        words = refused.detail
    assert words
    return None


def answer(served, inputs):
    """The outputs, or None where the run is refused; what goes in is what the codec would have let through."""
    message, outputs = served.answer(frames.Run(1), inputs)
    if isinstance(message, frames.RunFailed):
        assert message.detail
        return None
    return outputs


def rows_depend(served, inputs, outputs):
    """Whether a row alone, or among others in another order, is answered otherwise."""
    count = len(next(iter(inputs.values())))
    for at in range(count):
        alone = answer(served, {name: array[at : at + 1] for name, array in inputs.items()})
        if alone is None or not close_rows(outputs, alone, at):
            return True
    order = np.random.default_rng(count).permutation(np.arange(2 * count + 1) % count)
    mixed = answer(served, {name: array[order] for name, array in inputs.items()})
    if mixed is None:
        return True
    return any(
        not close_rows({name: array[order] for name, array in outputs.items()}, {n: a[p : p + 1] for n, a in mixed.items()}, p)
        for p in range(len(order))
    )


def outcome(case):
    """What becomes of one case; fails where it is neither what its rule says nor refused."""
    data = case.model.SerializeToString()
    given, expected = case.data_sets[0]
    served, names = load(data), [value.name for value in case.model.graph.input]
    if not served_types(case.model.graph):
        assert served is None, f"{case.name} is of types that are not served, and was loaded"
        return TYPES
    inputs = {name: as_texts(array) for name, array in zip(names, given, strict=True)}
    wanted = reason(case, data, inputs, [as_texts(array) for array in expected])
    rows = {len(array) if array.ndim else 0 for array in inputs.values()}
    if served is None or len(rows) != 1 or rows == {0}:  # the codec lets neither through
        assert wanted not in {EQUAL, OTHERWISE}, f"{case.name} was refused, and could be answered"
        return wanted
    assert [one.dtype for one in served.facts.signature.inputs] == [
        Dtype.BYTES if array.dtype == object else frames.datatype(array) for array in inputs.values()
    ]
    outputs = answer(served, inputs)
    if outputs is None:
        assert wanted not in {EQUAL, OTHERWISE}, f"{case.name} was refused, and could be answered"
        return wanted
    assert wanted in {EQUAL, OTHERWISE}, f"{case.name} was answered: {wanted}"
    if wanted is OTHERWISE:
        assert same(session(data).run(None, inputs), list(outputs.values()), case), case.name
        return OTHERWISE
    assert same([as_texts(array) for array in expected], list(outputs.values()), case), f"{case.name} was answered wrongly"
    return ROWS_DEPEND if rows_depend(served, inputs, outputs) else EQUAL


def test_every_node_test_is_answered_equally_or_refused_for_a_known_reason():
    found = Counter(outcome(case) for case in collect_testcases())
    assert dict(found) == COUNTS
