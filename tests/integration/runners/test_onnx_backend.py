"""Every node test of the `onnx` wheel: it is answered with the values of its data set, or refused by a rule.

The rules look at the graph and at a plain session of ONNX Runtime, never at a test's name. An answer that is neither equal nor
refused fails the test. Rows are tried together, one at a time, and in another number and order: where a row's answer then
changes, the inspection of a version refuses it (`worker/inspection.py`, tried in `sandbox/test_inspection_onnx.py`).
"""

from collections import Counter

import numpy as np
import pytest
from onnx.backend.test.case.node import collect_testcases

from fixtures.onnx_cases import (
    DIFFERENT_ROWS,
    EQUAL,
    NO_ANSWER_A_ROW,
    NO_INPUTS,
    NO_ROWS,
    NOT_LOADED,
    NOT_RUN,
    OTHERWISE,
    ROWS_DEPEND,
    TYPES,
    as_texts,
    reason,
    same,
    served_types,
    session,
    with_rows,
)
from modelkeep.contracts.runner import Artifact, CannotLoad, LoadOptions
from modelkeep.contracts.signature import Dtype
from modelkeep.plugins.runners.onnx import OnnxRunner
from modelkeep.sandbox import frames
from modelkeep.sandbox.answering import Served
from modelkeep.worker.inspection import close_rows

COUNTS = {
    EQUAL: 641,
    DIFFERENT_ROWS: 489,
    NOT_LOADED: 264,
    TYPES: 220,
    NO_ANSWER_A_ROW: 105,
    NO_INPUTS: 105,
    ROWS_DEPEND: 50,
    OTHERWISE: 8,
    NOT_RUN: 1,
    NO_ROWS: 1,
}
"""Of onnx 1.23.2 with ONNX Runtime 1.31.1. A newer one has more cases; a case that was equal must stay so."""

pytestmark = pytest.mark.filterwarnings("ignore")


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
        assert same(with_rows(session(data).run(None, inputs)), list(outputs.values()), case), case.name
        return OTHERWISE
    told = with_rows([as_texts(array) for array in expected])
    assert same(told, list(outputs.values()), case), f"{case.name} was answered wrongly"
    return ROWS_DEPEND if rows_depend(served, inputs, outputs) else EQUAL


def test_every_node_test_is_answered_equally_or_refused_for_a_known_reason():
    found = Counter(outcome(case) for case in collect_testcases())
    assert dict(found) == COUNTS
